"""What `extract` and `train` leave as their logs, and what `status` makes of them, through the command line."""

from __future__ import annotations

import json
import re
import signal
import time
from pathlib import Path

import pytest

from aupipe.cli.watch import describe_runs, extractions, watch
from aupipe.config import Config
from aupipe.extract.engine.events import FramesDecoded
from aupipe.extract.engine.results import JobResult
from aupipe.extract.executors import MachineChanged
from aupipe.extract.executors.extraction_log import ExtractionLog, open_extraction_log
from aupipe.extract.executors.media_progress import JobMedia
from aupipe.extract.executors.totals import RunTotals
from aupipe.extract.planning.features import build_feature_set
from aupipe.extract.planning.plan import Plan
from aupipe.store import ItemRecord, create_store, run_log
from aupipe.store.run_log import RunLog, accounts, read_account, read_lines, run_logs
from tests.cli.conftest import HOG, NO_FACES, Project
from tests.cli.test_json import check_shapes
from tests.conftest import write_video

CONFIG = '[dataset]\nvideos = "videos"\n' + NO_FACES + HOG


def test_an_extraction_leaves_an_account_that_status_reads(project: Project) -> None:
    write_video(project.folder / "videos" / "good.mp4", 20)
    (project.folder / "videos" / "bad.mp4").write_text("no video")
    project.configure(CONFIG)
    answer = project.run("extract", "--cpu")
    assert answer.code == 3, answer.err
    (path,) = run_logs(project.folder / "features")
    lines = list(read_lines(path))
    assert [line["kind"] for line in lines if line["kind"] != "progress"] == ["run", "video", "end"]
    about, end = lines[0], lines[-1]
    assert about["command"] == "extract"
    assert about["where"] == "cpu"
    assert about["videos"] == 2
    assert {"aupipe", "torch", "av"} <= set(about["versions"])
    assert len(about["configuration"]) == 12
    (failed,) = [line for line in lines if line["kind"] == "video"]
    assert failed["failed"][0]["recording"] == "bad.mp4"
    assert end["state"] == "done"
    assert end["videos_ended"] == 2
    assert end["frames"] == 20
    assert end["stages"]["decode"]["frames"] == 20
    said = project.run("status").out
    assert "last run: extract on " in said
    assert "done, 2 of 2 videos, 1 failed" in said
    assert json.loads(project.run("status", "--json").out)["runs"][0]["end"]["videos_failed"] == 1
    watched = project.run("status", "--watch")
    assert (watched.code, watched.out) == (3, f"no extraction is running\n{said}"), "then what the store holds"
    watched = project.run("status", "--watch", "--json")
    assert check_shapes("status", watched.out)[-1]["message_type"] == "status"
    assert watched.out.count("\n") == 1, "an object a line, as of every command that prints several"
    assert project.run("store", "purge", "bad.mp4", "--yes").code == 0
    assert not any(b"bad.mp4" in file.read_bytes() for file in Path(path).parent.iterdir())


def test_status_follows_a_run_in_another_process_and_says_when_it_was_killed(project: Project) -> None:
    write_video(project.folder / "videos" / "long.mp4", 3000, (160, 120))
    project.configure(CONFIG)
    run = project.start("extract", "--cpu", "--workers", "1")
    store = project.folder / "features"
    try:
        deadline = time.monotonic() + 60
        while not any(account.progress for account in accounts(store)):
            assert time.monotonic() < deadline
            assert run.poll() is None
            time.sleep(0.05)
        said = project.run("status").out
        assert f"(pid {run.pid}, cpu): 0 of 1 video, " in said
        assert "next: " not in said
        second = project.start("extract", "--cpu", "--workers", "1")
        assert any(b"another extraction is running in this store" in line for line in second.stderr)
        while not any(account.about["pid"] == second.pid for account in accounts(store)):
            time.sleep(0.05)
        second.terminate()
        second.communicate()
        (stopped,) = (account for account in accounts(store) if account.about["pid"] == second.pid)
        assert (stopped.state, stopped.end["videos_ended"]) == ("stopped", 0)
    finally:
        run.send_signal(signal.SIGKILL)
        run.communicate()
    (killed,) = (account for account in accounts(store) if account.about["pid"] == run.pid)
    assert "ended without a word" in describe_runs([killed])[0]


def test_status_names_the_machines_and_the_last_failure_of_a_run(tmp_path: Path) -> None:
    store = create_store(tmp_path / "s")
    plan = Plan(build_feature_set(Config()), (), ())
    with open_extraction_log(plan, store, "Dask at tcp://a:1") as file:
        log = ExtractionLog(file, RunTotals({"a.mp4": JobMedia(10), "b.mp4": JobMedia(30)}))
        for event in (
            MachineChanged("one", "joined", slots=2),
            MachineChanged("two", "refused", "has torch 1.0"),
            FramesDecoded(50),
        ):
            log.totals.add_event(event)
            log.on_event(event)
        record = ItemRecord("a.mp4", "hog@0", "failed", reason="no frame could be decoded")
        result = JobResult("a.mp4", frames=50, failed=[record])
        log.totals.add_result(result)
        log.on_result(result)
        log._next_s = 0.0
        log.on_event(FramesDecoded(0))
        lines = describe_runs(extractions(store))
    assert re.search(r"running: extract on .*1 of 0 videos, 1 failed.*, machines 1 joined, 1 refused", lines[0])
    assert lines[1:] == [
        "    last failure: a.mp4: no frame could be decoded",
        "    machine refused: two: has torch 1.0",
    ]
    assert describe_runs(extractions(store))[0].startswith("last run: ")


def test_a_look_reads_each_log_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, read = create_store(tmp_path / "s"), list[str]()
    with RunLog.in_store(store.path, command="extract", where="cpu"):
        pass
    monkeypatch.setattr(run_log, "read_account", lambda path: read.append(path) or read_account(path))
    watch(store, as_json=False)
    assert len(read) == 1
