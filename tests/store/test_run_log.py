"""The logs of runs: append-only, bounded, readable after a crash, and without a purged recording's name."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from aupipe.errors import DamageError
from aupipe.store import create_store
from aupipe.store import run_log as logs
from aupipe.store.processes import writer_name
from aupipe.store.run_log import RunLog, accounts, read_lines, remove_old, run_logs


@pytest.fixture
def root(tmp_path):
    return create_store(tmp_path / "s").path


def test_a_log_says_what_ran_and_how_it_ended(root):
    with RunLog.in_store(root, command="extract") as log:
        log.write("progress", frames=5)
        (running,) = accounts(root)
        assert running.state == "running"
        log.end |= {"frames": 7}
    (account,) = accounts(root)
    assert (account.state, account.progress["frames"], account.end["frames"]) == ("done", 5, 7)
    assert account.about["pid"] == os.getpid()


def test_two_runs_in_the_same_second_have_logs_of_their_own(root):
    for _ in range(2):
        with RunLog.in_store(root):
            pass
    assert len(run_logs(root)) == 2


@pytest.mark.parametrize(("error", "state"), [(KeyboardInterrupt, "stopped"), (ValueError("no"), "error")])
def test_how_a_run_was_stopped_is_its_state(root, error, state):
    with pytest.raises((KeyboardInterrupt, ValueError)), RunLog.in_store(root):
        raise error
    assert accounts(root)[0].state == state


def test_a_killed_run_is_lost_and_its_cut_line_is_left_out(root):
    code = (
        "import os, sys; from aupipe.store.run_log import RunLog; log = RunLog.in_store(sys.argv[1]);"
        "log.write('progress', frames=3); os.write(log._fd, b'{\"kind\":\"progr'); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code, str(root)], check=False)
    (account,) = accounts(root)
    assert (account.state, account.progress["frames"]) == ("lost", 3)


def test_a_log_is_bounded_and_says_what_it_left_out(root, monkeypatch):
    monkeypatch.setattr(logs, "MAX_BYTES", 2000)
    with RunLog.in_store(root) as log:
        for _ in range(100):
            log.write("video", video="x" * 50)
    assert os.path.getsize(log.path) < 2500
    assert list(read_lines(log.path))[-1]["lines_left_out"] > 50


def test_a_run_goes_on_where_its_log_cannot_be_written(root, caplog):
    (root / "runs").write_text("in the way")
    with RunLog.in_store(root) as log:
        log.write("progress", frames=1)
    assert "cannot be written" in caplog.text


def test_old_logs_are_removed_and_those_of_running_processes_are_kept(root):
    for number in range(4):
        with RunLog.in_store(root, number=number):
            pass
    running = RunLog(str(root / "runs" / f"20000101T000000-{writer_name()}.jsonl"))
    remove_old(root, kept=2)
    kept = [account.about.get("number") for account in accounts(root)]
    running.__exit__(None, None, None)
    assert kept == [None, 2, 3]


def test_logs_of_one_command_do_not_displace_those_of_another(root):
    for command in ("extract", *["check"] * (logs.KEPT + 1)):
        with RunLog.in_store(root, command=command):
            pass
    assert [account.state for account in accounts(root, "extract")] == ["done"]
    assert len(accounts(root, "check")) == logs.KEPT
    remove_old(root)
    assert len(accounts(root, "extract")) == 1
    assert len(run_logs(root)) == 1 + logs.KEPT


def test_no_log_is_written_through_a_link(root, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (root / "runs").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DamageError, match="is a symlink in the store"):
        RunLog.in_store(root)
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_why_a_machine_refused_is_erased_with_a_recording_because_it_may_name_its_file(root):
    with RunLog.in_store(root) as log:
        for reason in ("does not see what the run sees: /data/alice.mp4: no such file", ""):
            log.write("machine", host="n1", state="refused" if reason else "joined", reason=reason)
    logs.erase(log.path, "alice_left")  # the id of a track, which is not in the path
    assert b"alice" not in Path(log.path).read_bytes()
    assert [line["kind"] for line in read_lines(log.path)] == ["run", "machine", "end"]


def test_an_error_of_megabytes_is_shortened(root):
    with pytest.raises(ValueError, match="xxx"), RunLog.in_store(root) as log:
        raise ValueError("x" * 1_000_000)
    (error,) = [line for line in read_lines(log.path) if line["kind"] == "error"]
    assert error["text"].startswith("ValueError: xxx")
    assert os.path.getsize(log.path) < 3 * logs.MAX_TEXT


@pytest.mark.parametrize("full", [False, True])
def test_a_run_goes_on_where_closing_its_log_fails(root, monkeypatch, full):
    """As on a network file system, with or without a write that has failed before."""

    def fail(*_):
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    close, closed = os.close, []

    def close_and_fail(fd):
        close(fd)
        closed.append(fd)
        fail()

    with monkeypatch.context() as patched, RunLog.in_store(root) as log:
        fd = log._fd
        patched.setattr(os, "close", close_and_fail)
        if full:
            patched.setattr(logs.fs, "write", fail)
        log.write("progress", frames=1)
        log.__exit__(None, None, None)
    assert closed == [fd]
