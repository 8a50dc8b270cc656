"""Runs that share a store: who makes which video, whatever run begins, ends or dies meanwhile."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from aupipe.extract.executors import Attempt
from aupipe.extract.executors.claims import EXPIRY_S, LEASE_S, FileClaims, remove_ended
from aupipe.extract.planning.plan import Job

Make = Callable[[], FileClaims]


@pytest.fixture
def claims(tmp_path: Path) -> Make:
    return lambda: FileClaims(tmp_path / "runs", list)


def attempts(*names: str) -> list[Attempt]:
    return [Attempt(Job(name, [])) for name in names]


def names_of(found: list[Attempt]) -> list[str]:
    return [attempt.job.video_id for attempt in found]


def test_a_video_is_taken_by_one_run_only(claims: Make) -> None:
    with claims() as one, claims() as other:
        assert one.take("a.mp4")
        assert one.take("a.mp4"), "it is its own"
        assert not other.take("a.mp4")
        assert other.take("b.mp4")
        assert one.inherit(attempts("b.mp4")) == ([], attempts("b.mp4"))


def test_what_a_run_did_not_end_is_free_when_it_ends(claims: Make) -> None:
    with claims() as other:
        with claims() as one:
            assert one.take("ended.mp4")
            assert one.take("begun.mp4")
            one.note_ended("ended.mp4")
        assert other.take("begun.mp4")
        assert not other.take("ended.mp4"), "its claim stays while any run works: no plan of before makes it again"


def killed_run(folder: Path) -> subprocess.Popen[bytes]:
    """A run that has claimed a.mp4 and was killed; its parent has not asked yet what became of it."""
    code = (
        "import os, signal\nfrom pathlib import Path\nfrom aupipe.extract.executors.claims import FileClaims\n"
        f"claims = FileClaims(Path({str(folder)!r}), list).__enter__()\n"
        "claims.take('a.mp4')\nos.kill(os.getpid(), signal.SIGKILL)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code])
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    return process


def test_the_videos_of_a_run_that_was_killed_are_inherited_once(claims: Make, tmp_path: Path) -> None:
    with claims() as one, claims() as other, killed_run(tmp_path / "runs") as process:
        assert not one.take("a.mp4")
        assert names_of(one.inherit(attempts("a.mp4"))[0]) == ["a.mp4"]
        assert other.inherit(attempts("a.mp4")) == ([], attempts("a.mp4"))
    assert process.returncode == -signal.SIGKILL


def test_what_killed_runs_leave_is_removed_by_the_next_run_whatever_it_is(claims: Make, tmp_path: Path) -> None:
    folder = tmp_path / "runs"
    with claims() as one, killed_run(folder):
        remove_ended(folder)
        assert [path.stem for path in folder.glob("*.alive")] == [one.name]
        assert len(list((folder / "claims").iterdir())) == 1, "no plan of a run that is alive makes the video again"
    assert sorted(path.name for path in folder.rglob("*")) == ["claims"]
    with killed_run(folder):
        remove_ended(folder)
    assert sorted(path.name for path in folder.rglob("*")) == ["claims"]


@pytest.mark.parametrize("suffix", EXPIRY_S)
def test_what_a_run_of_another_machine_left_is_removed_when_it_has_expired(tmp_path: Path, suffix: str) -> None:
    sign = tmp_path / f"00000000-1-aaaaaaaa{suffix}"
    sign.touch()
    remove_ended(tmp_path)
    assert sign.exists()
    old_s = sign.stat().st_mtime - EXPIRY_S[suffix] - 1
    os.utime(sign, (old_s, old_s))
    remove_ended(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_removed_behind_a_link(claims: Make, tmp_path: Path) -> None:
    with killed_run(tmp_path / "runs"):
        (tmp_path / "link").symlink_to(tmp_path / "runs")
        remove_ended(tmp_path / "link")
    assert len(list((tmp_path / "runs").rglob("*"))) == 3


def test_a_run_of_another_machine_is_alive_while_its_file_is_touched(claims: Make, tmp_path: Path) -> None:
    with claims() as one:
        name = "00000000-1-aaaaaaaa"  # of a machine that cannot be seen from here
        alive = tmp_path / "runs" / f"{name}.alive"
        alive.touch()
        assert one.is_alive(name)
        old_s = alive.stat().st_mtime - LEASE_S - 1
        os.utime(alive, (old_s, old_s))
        assert not one.is_alive(name)


def test_a_run_that_begins_or_ends_leaves_live_runs_their_claims(claims: Make) -> None:
    with claims() as one:
        assert one.take("a.mp4")
        with claims() as other:
            assert other.take("b.mp4")
        with claims() as third:
            assert not third.take("a.mp4")
            assert third.is_alive(one.name)


def test_a_claim_without_a_name_is_freed_with_its_run(claims: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    with claims() as one, monkeypatch.context() as patched:
        patched.setattr(os, "fdopen", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(OSError, match="No space"):
            one.take("a.mp4")
    with claims() as other:
        assert other.take("a.mp4")
