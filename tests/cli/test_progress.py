"""What `extract` shows while it runs: a block of lines on a terminal, a line a minute elsewhere."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import shutil
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from tqdm.utils import disp_len

from aupipe.cli import progress
from aupipe.cli.live import LiveLines
from aupipe.extract.engine.results import JobResult
from aupipe.extract.executors import StagesMeasured
from aupipe.extract.executors.machine_usage import MachineUsage
from aupipe.extract.executors.media_progress import JobMedia
from aupipe.extract.executors.totals import RunTotals
from aupipe.extract.meter import Measured, PhasePosition, PhaseTotals, StageTotals
from aupipe.store import ItemRecord
from tests.cli.conftest import HOG, NO_FACES, Project
from tests.conftest import write_video

CONFIG = '[dataset]\nvideos = "videos"\n' + NO_FACES + HOG
CONTROL = re.compile(r"\x1b\[\d*[A-Z]|\r")
OFTEN = "import aupipe.cli.progress as p; p.LINE_EVERY_S = p.DRAW_EVERY_S = 0.3; from aupipe.cli import main; main()"


def example_run(hosts: int = 1) -> RunTotals:
    """A run in the middle of an hour-long video, with a failure behind it."""
    totals = RunTotals({"lang/片段.mp4": JobMedia(10**9), "b.mp4": JobMedia(10**6), "c.mp4": JobMedia(10**6)})
    totals._began_s -= 700
    stages = {
        "load": StageTotals(0, 3.0, 3.0, 1),
        "decode": StageTotals(45000, 80.0, 70.0, 2),
        "detect": StageTotals(45000, 1190.0, 1100.0, 2),
        "align": StageTotals(45000, 20.0, 20.0, 2),
        "encode": StageTotals(900, 5.0, 5.0, 2),
        "write": StageTotals(0, 1.0, 1.0, 1),
    }
    position = PhasePosition("lang/片段.mp4", "scan", 1800.0, 3600.0)
    measured = Measured(stages, {}, 1300.0, (), (), {"scan": PhaseTotals(1800.0, 690.0)}, (position,))
    totals.add_event(StagesMeasured(0, measured))
    totals._first_s = 10.0
    for number in range(hosts):
        totals.add_event(MachineUsage(f"node{number}", "cuda:0", 0.97, 0.41, 0.61, 312 * 10**9, 0.88, 0.35))
    record = ItemRecord("b.mp4", "hog@0", "failed", reason="b.mp4: no frame could be decoded, and a long reason")
    totals.add_result(JobResult("b.mp4", failed=[record]))
    return totals


@pytest.mark.parametrize("columns", [20, 40, 80, 200])
def test_no_line_is_wider_than_the_terminal(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[str] = []
    monkeypatch.setattr("aupipe.cli.live.control", lambda text, err: sent.append(text))
    monkeypatch.setattr(LiveLines, "size", lambda self: (columns, 24))
    for hosts in (1, 3):
        LiveLines(err=True).draw(progress.block(example_run(hosts), columns))
    lines = CONTROL.sub("", "".join(sent)).split("\n")
    assert max(map(disp_len, lines)) <= columns
    assert len([line for line in lines if line]) >= 10


def test_a_block_says_how_far_how_long_what_limits_what_is_in_use_and_what_failed() -> None:
    bar, counts, stages, usage, now, failure = progress.block(example_run(), 120)
    assert re.search(r"^ 50% \|#+-* *\| 30 min of 1 h 0 min of media, more than 1[12] min left$", bar), bar
    assert counts == "1 of 3 videos, 1 failed, 2.6x real time, 12 min so far"
    assert "[detect 85% (76/s)]" in stages
    assert "  align " in stages
    assert usage == "cpu 97%, memory 41%, gpu 88%, gpu memory 35%, disk 61% full, 312.0 GB free"
    assert now.startswith("now: lang/片段.mp4 ")
    assert failure.startswith("last failure: b.mp4: b.mp4: no frame could be decoded")
    assert progress.block(example_run(3), 120)[3].startswith("cpu 97% of 3 machines, memory 41%")
    assert "busy: [detect 85% (76/s)]" in progress.block(example_run(), 40)


def test_as_many_videos_are_named_as_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"{number}.mp4" for number in range(20_000)]
    texts = [progress._fitting(names, columns, "now: ", ", and {} more") for columns in range(2, 90)]
    assert texts[0] == "now: 0.mp4, and 19999 more"
    assert texts[-2] == "now: " + ", ".join(names[:9]) + ", and 19991 more"
    assert all(len(text) <= columns for columns, text in enumerate(texts, 2) if ", 1.mp4" in text)
    assert progress._fitting(names[:2], 18, "now: ", ", and {} more") == "now: 0.mp4, 1.mp4"
    assert progress._fitting([], 18) == ""


def test_a_run_on_many_machines_is_not_held_up_by_what_a_terminal_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    """200 machines with 16 videos each: 2,000 results take a moment, and the lines are there after each of them."""
    names = [f"{number}.mp4" for number in range(3200)]
    totals = RunTotals({name: JobMedia(10**6) for name in names})
    for machine in range(200):
        under_way = tuple(PhasePosition(name, "scan", 5.0, 60.0) for name in names[machine * 16 : machine * 16 + 16])
        phases = {"scan": PhaseTotals(80.0, 80.0)}
        totals.measured[machine] = Measured({"decode": StageTotals(9, 1.0, 1.0, 1)}, {}, 1.0, (), (), phases, under_way)
    drawn: list[Sequence[str]] = []
    monkeypatch.setattr(progress, "is_terminal", lambda err: True)
    monkeypatch.setattr(LiveLines, "print", lambda self, text: None)
    monkeypatch.setattr(LiveLines, "draw", lambda self, lines: drawn.append(lines))
    began_s = time.process_time()
    with progress.Progress(totals) as shown:
        for name in names[:2000]:
            totals.add_result(JobResult(name))
            shown.on_result(JobResult(name))
    assert time.process_time() - began_s < 1.0
    assert len(drawn) == 2001
    assert len({id(lines) for lines in drawn}) <= 3
    assert any(line.startswith("now: 0.mp4 8%") for line in drawn[0])


def test_the_limit_is_that_of_the_last_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks load for a minute; after that another stage is the limit, long before it is busy for longer in all."""
    totals = RunTotals({"a": JobMedia()})
    for second, load_s, detect_s in ((60, 60.0, 0.0), (63, 60.0, 3.0), (66, 60.0, 6.0), (85, 60.0, 25.0)):
        totals._began_s = time.monotonic() - second
        stages = {"load": StageTotals(0, load_s, 0.0, 1), "detect": StageTotals(10, detect_s, 0.0, 1)}
        totals.add_event(StagesMeasured(0, Measured(stages, {}, 0.0)))
    assert totals.recent_stages()["detect"]["busy"] == pytest.approx(1.0, abs=0.05)
    assert totals.recent_stages()["load"]["busy"] == 0
    assert totals.stages()["load"]["busy"] > 0.5


@pytest.fixture(scope="module")
def long_video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two minutes, which take a few seconds."""
    return write_video(tmp_path_factory.mktemp("long") / "long.mp4", 3000, (320, 240))


def run_in_terminal(folder: Path, columns: int, arguments: Sequence[str]) -> str:
    """What a command sends to a terminal of so many columns."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(folder)
        os.execv(sys.executable, [sys.executable, "-c", OFTEN, *arguments])
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 30, columns, 0, 0))
    sent = b""
    try:
        while chunk := os.read(terminal, 65536):
            sent += chunk
    except OSError:  # Linux: the other side is closed
        pass
    finally:
        os.close(terminal)
        os.waitpid(pid, 0)
    return sent.decode("utf-8", "replace")


def test_a_bar_moves_within_a_video_on_a_narrow_terminal_and_is_cleared(project: Project, long_video: Path) -> None:
    shutil.copy(long_video, project.folder / "videos" / "long.mp4")
    (project.folder / "videos" / "bad.mp4").write_text("no video")
    project.configure(CONFIG)
    sent = run_in_terminal(project.folder, 40, ["extract", "--cpu", "--workers", "2"])  # one fails while one goes on
    drawings = [CONTROL.sub("", part).split("\n") for part in sent.replace("\r\n", "\n").split("\x1b[J")]
    blocks = [[line for line in lines if line] for lines in drawings if any("% |" in line for line in lines)]
    assert max(len(line) for lines in blocks for line in lines) < 40
    shares = {int(match[1]) for lines in blocks if (match := re.match(r" *(\d+)% \|", lines[0]))}
    assert len(shares) >= 3, sent
    assert any("last failure: bad.mp4: " in line for lines in blocks for line in lines)
    assert any(line.startswith("now: long.mp4 ") for lines in blocks for line in lines)
    assert any(re.search(r"busy: .*\[(decode|align|load) \d+%", line) for lines in blocks for line in lines)
    assert any(line.startswith("cpu ") for lines in blocks for line in lines)
    after = drawings[-1]  # the block was cleared, the summary stands
    assert any(line.startswith("done 1 ") for line in after), after


@pytest.mark.slow
def test_elsewhere_lines_come_now_and_then_without_control_characters(project: Project, long_video: Path) -> None:
    shutil.copy(long_video, project.folder / "videos" / "long.mp4")
    project.configure(CONFIG)
    command = [sys.executable, "-c", OFTEN, "extract", "--cpu", "--workers", "1"]
    run = subprocess.run(command, cwd=project.folder, capture_output=True, text=True, env=project.environment)
    assert run.returncode == 0, run.stderr
    assert not set("\x1b\r") & set(run.stderr + run.stdout)
    lines = [line for line in run.stderr.splitlines() if re.match(r"\[0/1\] \d+% of 2 min of media", line)]
    assert len(lines) >= 2, run.stderr
    assert "busiest: " in lines[-1]
    assert ", cpu " in run.stderr
    assert re.search(r"^done 1 .* 3,000 frames decoded, 2 min of media in [\d.]+ s \(\d+ frames/s, ", run.stdout, re.M)
