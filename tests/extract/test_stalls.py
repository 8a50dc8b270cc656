"""What stands still is told apart from what takes long, and keeps nobody else waiting."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aupipe.extract import meter as meter_module
from aupipe.extract.engine import batcher as batches_module
from aupipe.extract.engine.batcher import Batcher, BatchSlice
from aupipe.extract.engine.options import ExecutionOptions, ThreadCounts
from aupipe.extract.executors.local import LOAD_S, LocalExecutor
from aupipe.extract.executors.messages import WorkerConfig
from aupipe.extract.memory import oom_kills
from aupipe.extract.meter import Meter, QuietStep


def test_a_batch_that_is_not_full_does_not_wait_for_a_video_that_brings_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(batches_module, "LINGER_S", 0.2)
    batches: Batcher[str] = Batcher(lambda feature: 32)
    taken: list[Any] = []
    taker = threading.Thread(target=lambda: taken.append(batches.take()), daemon=True)
    with batches.producing(["hog"]):  # more may come, and never does
        taker.start()
        time.sleep(0.05)  # it waits for the first input already
        batches.put("hog", BatchSlice("a.mp4", 0, np.zeros((3, 2))))
        assert batches.take(wait=False) is None
        taker.join(timeout=60)
    ((feature, parts),) = taken
    assert (feature, [len(part.inputs) for part in parts]) == ("hog", [3])


def test_a_step_is_quiet_when_its_progress_stands_still_and_not_when_it_takes_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [1000.0]
    monkeypatch.setattr(meter_module.time, "monotonic", lambda: now[0])
    meter, decoded = Meter(), [0]
    with meter.video("a.mp4", media_s=5.0), meter.timed("decode", frames=7, progress=lambda: decoded[0]):
        for _ in range(10):
            now[0] += 60
            decoded[0] += 1
            assert meter.snapshot().quiet == ()
        now[0] += 60
        assert meter.snapshot().quiet == (QuietStep("decode", "a.mp4", 7, 5.0, 60.0),)
    assert meter.snapshot().quiet == ()
    with meter.timed("encode", 3):
        now[0] += 2
        assert meter.snapshot().quiet == (QuietStep("encode", "", 3, 0.0, 2.0),)


@pytest.mark.parametrize(
    ("step", "limit_s"),
    [
        (QuietStep("decode", "a", 32, 0.0, 0.0), 600.0),
        (QuietStep("detect", "a", 32, 0.0, 0.0), 600.0),
        (QuietStep("encode", "", 512, 0.0, 0.0), 4800.0),  # a large batch on a slow processor
        (QuietStep("sound", "a", 90000, 3600.0, 0.0), 72000.0),
        (QuietStep("sound", "a", 90, 3.6, 0.0), 600.0),
        (QuietStep("load", "a", 0, 0.0, 0.0), LOAD_S),
        (QuietStep("write", "", 0, 0.0, 0.0), 600.0),
    ],
)
def test_what_a_step_may_take_follows_from_its_work(step: QuietStep, limit_s: float) -> None:
    config: Any = WorkerConfig(None, "", "cpu", 1, 0, ThreadCounts(), ExecutionOptions())  # type: ignore[arg-type]
    assert LocalExecutor(config, [], 1).limit_s(step) == limit_s


def test_kills_for_want_of_memory_are_counted_by_the_control_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = Path.read_text
    for version, text in (("0::/job\n", "low 0\noom 5\noom_kill 3\n"), ("4:memory:/job\n", "oom_kill 3\n")):
        name = "memory.events" if version.startswith("0") else "memory.oom_control"
        file = f"/sys/fs/cgroup{'' if version.startswith('0') else '/memory'}/job/{name}"
        contents = {"/proc/self/cgroup": version, file: text}
        monkeypatch.setattr(Path, "read_text", lambda path, c=contents, **options: c.get(str(path)) or read(path))
        monkeypatch.setattr(Path, "is_file", lambda path, c=contents: str(path) in c)
        assert oom_kills() == 3
