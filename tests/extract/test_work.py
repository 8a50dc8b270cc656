"""Tasks in worker processes: results, errors, deaths and the end of the run, with real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from multiprocessing import Pipe
from pathlib import Path

import psutil
import pytest

from aupipe.errors import AupipeError, UsageError
from aupipe.extract.executors import Attempt, JobEnded, WorkerDied
from aupipe.extract.executors.work import Died, WorkItem, WorkProcesses, _Process, run_tasks

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Work:
    """Does what a task says; ``folder`` counts the tries."""

    folder: Path

    def __call__(self, task: str) -> tuple[str, str]:
        what, _, name = task.partition(" ")
        tried = self.folder / name.replace(" ", "-")
        first = not tried.exists()
        tried.touch()
        if what == "die" or (what == "stumble" and first):
            os.kill(os.getpid(), signal.SIGKILL)
        if what == "freeze" and first:
            os.kill(os.getpid(), signal.SIGSTOP)
        if what == "refuse":
            raise UsageError(f"{name}: refused")
        if what == "fail":
            raise ZeroDivisionError(f"{name}: zero")
        return task, os.environ.get("PLACE", "")


def run(folder: Path, tasks: list[str], places: int = 2) -> tuple[dict[str, object], list[str]]:
    said: list[str] = []
    environments = [{"PLACE": str(number), "PYTHONPATH": str(ROOT)} for number in range(places)]
    return dict(run_tasks(Work(folder), tasks, environments, said.append)), said


def test_a_killed_process_is_replaced_its_task_tried_once_more_and_then_named(tmp_path: Path) -> None:
    found, said = run(tmp_path, ["do a", "die b", "stumble c", "do d", "do e"])
    assert set(found) == {"do a", "die b", "stumble c", "do d", "do e"}
    assert found["die b"] == Died("its process was killed by signal 9")
    assert {task: result[0] for task, result in found.items() if task != "die b"} == {
        task: task for task in ("do a", "stumble c", "do d", "do e")
    }
    assert {result[1] for task, result in found.items() if task != "die b"} <= {"0", "1"}
    killed = "its process was killed by signal 9; tried again"
    assert sorted(said) == [f"die b: {killed}", f"stumble c: {killed}"]


@pytest.mark.slow
def test_a_process_that_stands_still_is_ended_and_its_task_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aupipe.extract.executors.work.SILENCE_S", 25.0)
    found, said = run(tmp_path, ["freeze a", "do b"])
    assert {task: result[0] for task, result in found.items()} == {"freeze a": "freeze a", "do b": "do b"}
    assert said == ["freeze a: its process stood still for 25 s; tried again"]
    assert not processes_under(os.getpid())


def test_a_process_is_not_silent_while_its_signs_of_life_are_in_the_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever takes the results may pause for minutes between two of them."""
    monkeypatch.setattr("aupipe.extract.executors.work.SILENCE_S", 0.05)
    executor = WorkProcesses(b"", [{}, {}])
    far = []
    for number in range(2):
        near, end = Pipe()
        far.append(end)
        attempt = Attempt(WorkItem(str(number), []))
        executor._processes[number] = _Process(subprocess.Popen(["sleep", "60"]), near, attempt)
    far[0].send((None, b""))
    events = executor.poll()
    assert isinstance(next(events), JobEnded)
    far[1].send(None)
    time.sleep(0.1)
    assert list(events) == []
    assert list(executor.poll()) == []
    time.sleep(0.1)
    assert [event.reason for event in executor.poll() if isinstance(event, WorkerDied)] == [
        "its process stood still for 0 s"
    ]
    executor.kill_all()


@pytest.mark.parametrize(
    ("task", "kind", "said"),
    [("refuse a", UsageError, "a: refused"), ("fail a", AupipeError, "ZeroDivisionError: a: zero")],
)
def test_an_error_in_a_process_is_raised_here_as_it_is_and_ends_the_others(
    tmp_path: Path, task: str, kind: type[Exception], said: str
) -> None:
    with pytest.raises(kind, match=said):
        run(tmp_path, [task, *(f"do {number}" for number in range(50))])
    assert not processes_under(os.getpid())


def test_worker_processes_end_with_the_process_that_started_them(tmp_path: Path) -> None:
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom tests.extract.test_work import Work, run\n"
        "from aupipe.extract.executors.work import run_tasks\n"
        f"tasks = iter(run_tasks(Work(Path({str(tmp_path)!r})), ['do a'] * 3, [{{'PYTHONPATH': {str(ROOT)!r}}}]))\n"
        "next(tasks)\nprint('one', flush=True)\ntime.sleep(60)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "one\n"
    workers = processes_under(process.pid)
    assert workers
    process.kill()
    process.wait()
    process.stdout.close()
    _, alive = psutil.wait_procs(workers, timeout=10)
    assert not alive


def processes_under(pid: int) -> list[psutil.Process]:
    found = psutil.Process(pid).children()
    time.sleep(0)
    return [child for child in found if "aupipe.extract.executors.work_process" in child.cmdline()]
