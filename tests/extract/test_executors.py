"""What every executor promises, over worker processes and over one in this process; what the driver makes of it."""

from __future__ import annotations

import pickle
import subprocess
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from multiprocessing import Pipe
from pathlib import Path

import pytest

from aupipe.config import Config, EncoderConfig, FacesConfig
from aupipe.errors import AupipeError, UsageError
from aupipe.extract.engine.events import FramesDecoded, ItemPublished
from aupipe.extract.engine.options import ExecutionOptions
from aupipe.extract.engine.results import JobResult
from aupipe.extract.executors import (
    Attempt,
    Executor,
    ExecutorEvent,
    JobEnded,
    JobHangs,
    JobReturned,
    StagesMeasured,
    WorkerDied,
)
from aupipe.extract.executors.cluster.checks import work_content
from aupipe.extract.executors.cluster.connection import (
    Connection,
    SchedulerOptions,
    connected,
    dask_executor,
    work_order,
)
from aupipe.extract.executors.driver import extract
from aupipe.extract.executors.local import local_executor
from aupipe.extract.executors.work import Died, run_work
from aupipe.extract.executors.worker_process import WorkerProcess
from aupipe.extract.faces.tracking import TrackParams
from aupipe.extract.planning.features import FeatureSet, build_feature_set
from aupipe.extract.planning.plan import Plan, make_plan
from aupipe.store import Store, create_store
from aupipe.store.maintenance.verify import check
from aupipe.types import Recording
from tests.conftest import write_video
from tests.extract.dask_cluster import dask_cluster
from tests.extract.running import run_jobs
from tests.extract.test_work import Work

CONFIG = Config(
    faces=FacesConfig(detector="none"),
    encoders=(EncoderConfig("hog", "hog", "visual"), EncoderConfig("level", "level", "audio")),
)
FRAMES = {f"{number}.mp4": 4 + number for number in range(5)}


@dataclass
class InProcess:
    """Jobs one after the other in this process. ``accidents``: what happens instead, by video, oldest first."""

    store: Store
    parts: FeatureSet
    accidents: dict[str, list[str]] = field(default_factory=dict)
    at_once: int = 2
    held: deque[Attempt] = field(default_factory=deque)
    assigned: list[Attempt] = field(default_factory=list)
    ended: int = 0

    @property
    def busy(self) -> bool:
        return bool(self.held)

    def has_slot(self, size_bytes: int = 0, alone: bool = False) -> bool:
        limit = 1 if alone or any(attempt.alone for attempt in self.held) else self.at_once
        return len(self.held) < limit

    def assign(self, attempt: Attempt) -> None:
        assert self.has_slot(alone=attempt.alone)
        self.assigned.append(attempt)
        self.held.append(attempt)

    def poll(self) -> Iterator[ExecutorEvent]:
        attempt = self.held[0]
        accidents = self.accidents.get(attempt.job.video_id, [])
        kind = accidents.pop(0) if accidents else ""
        if kind == "dies":
            held, self.held = tuple(self.held), deque()
            yield WorkerDied(held, "died")
        elif kind.startswith("dies on "):
            accidents.insert(0, kind)
            if any(item.spec.modality == kind.removeprefix("dies on ") for item in attempt.job.items):
                held, self.held = tuple(self.held), deque()
                yield WorkerDied(held, "died")
            else:
                yield from self._run(attempt)
        elif kind == "hangs":
            self.held.popleft()
            yield JobHangs(attempt, "no progress")
        elif kind == "returned":
            self.held.popleft()
            yield JobReturned(attempt)
        else:
            yield from self._run(attempt)

    def _run(self, attempt: Attempt) -> Iterator[ExecutorEvent]:
        self.held.popleft()
        (outcome,) = run_jobs([attempt.job], self.store, self.parts)
        yield FramesDecoded(outcome.frames)
        yield from map(ItemPublished, outcome.published)
        yield JobEnded(attempt, replace(outcome, published=[]))

    def shutdown(self) -> Iterator[ExecutorEvent]:
        self.ended += 1
        yield from ()

    def kill_all(self) -> None:
        self.held.clear()


Make = Callable[[Plan, Store], Executor]


def in_process(plan: Plan, store: Store) -> Executor:
    return InProcess(store, plan.parts)


def worker_processes(plan: Plan, store: Store) -> Executor:
    executor = local_executor(plan.parts, store.path, ["cpu"], ExecutionOptions(workers=2))
    return replace(executor, slots=[*executor.slots, replace(executor.slots[0])])


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Connection]:
    """A scheduler with two Dask workers."""
    with (
        dask_cluster(tmp_path_factory.mktemp("dask")) as cluster,
        connected(SchedulerOptions(str(cluster.file)), lambda line: None) as connection,
    ):
        yield connection


@pytest.fixture(scope="module")
def many_machines(client: Connection) -> Iterator[Make]:
    """Two Dask workers, each with worker processes of its own."""
    with ExitStack() as stack:

        def make(plan: Plan, store: Store) -> Executor:
            options = ExecutionOptions(workers=1)
            return stack.enter_context(dask_executor(client, plan.parts, store.path, None, True, options))

        yield make


EXECUTORS = ("in process", "worker processes", "many machines")


@pytest.fixture(params=EXECUTORS)
def make(request: pytest.FixtureRequest) -> Make:
    if request.param == "many machines":
        found: Make = request.getfixturevalue("many_machines")
        return found
    return {"in process": in_process, "worker processes": worker_processes}[request.param]


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> list[Recording]:
    folder = tmp_path_factory.mktemp("videos")
    return [Recording(name, video=write_video(folder / name, n, tone_hz=300)) for name, n in FRAMES.items()]


@pytest.fixture
def planned(tmp_path: Path, recordings: list[Recording]) -> tuple[Plan, Store]:
    store = create_store(tmp_path / "features")
    return make_plan(recordings, build_feature_set(CONFIG), store), store


def sums(store: Store) -> dict[tuple[str, str], int]:
    store.refresh()
    return {(record.recording, record.feature): record.crc32c for record in store.all_published()}


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory, recordings: list[Recording]) -> dict[tuple[str, str], int]:
    store = create_store(tmp_path_factory.mktemp("expected") / "features")
    parts = build_feature_set(CONFIG)
    run_jobs(make_plan(recordings, parts, store).jobs, store, parts)
    return sums(store)


# The contract ----------------------------------------------------------------------------------------------------


def test_every_job_comes_back_once_after_its_items_and_with_the_same_bytes(
    make: Make, planned: tuple[Plan, Store], expected: dict[tuple[str, str], int]
) -> None:
    plan, store = planned
    executor = make(plan, store)
    events: list[ExecutorEvent] = []
    outcomes = list(extract(plan, store, executor, on_event=events.append))
    assert sorted(outcome.video_id for outcome in outcomes) == sorted(FRAMES)
    assert sums(store) == expected
    told: set[tuple[str, str]] = set()
    for event in events:
        if isinstance(event, ItemPublished):
            told.add((event.record.recording, event.record.feature))
        if isinstance(event, JobEnded):
            assert not event.result.published  # a record travels once
            assert len([name for name, _ in told if name == event.result.video_id]) == 3
    assert told == set(expected)
    assert sum(event.count for event in events if isinstance(event, FramesDecoded)) >= sum(FRAMES.values())
    assert sum(isinstance(event, JobEnded) for event in events) == len(FRAMES)
    assert not executor.busy
    executor.kill_all()  # may be called at any time


def test_a_run_that_is_halted_ends_what_is_under_way_and_begins_nothing(
    make: Make, planned: tuple[Plan, Store]
) -> None:
    plan, store = planned
    asked = [False]

    def halted() -> bool:
        asked.append(len(asked) > 1)
        return asked[-1]

    outcomes = list(extract(plan, store, make(plan, store), halted=halted))
    assert all(not outcome.failed and len(outcome.published) == 3 for outcome in outcomes)
    assert len(sums(store)) == 3 * len(outcomes)


def test_a_caller_who_stops_listening_leaves_no_process_and_nothing_in_part(
    make: Make, planned: tuple[Plan, Store], expected: dict[tuple[str, str], int]
) -> None:
    plan, store = planned
    executor = make(plan, store)
    running = extract(plan, store, executor)
    next(running)
    running.close()
    assert not executor.busy
    assert sums(store).items() <= expected.items()
    assert check(store).damage == []  # type: ignore[arg-type]


def test_several_processes_share_the_videos(planned: tuple[Plan, Store]) -> None:
    plan, store = planned
    processes = set()

    def hear(event: ExecutorEvent) -> None:
        if isinstance(event, StagesMeasured) and "decode" in event.measured.stages:
            processes.add(event.process)

    list(extract(plan, store, worker_processes(plan, store), on_event=hear))
    assert processes == {0, 1}


def test_a_process_that_dies_without_a_job_is_replaced_and_no_video_is_to_blame(planned: tuple[Plan, Store]) -> None:
    plan, store = planned
    executor = local_executor(plan.parts, store.path, ["cpu"], ExecutionOptions())
    try:
        for _ in range(2):
            assert executor.has_slot(alone=True)
            executor.assign(Attempt(plan.jobs[0], alone=True))
            ended = None
            while executor.busy:
                ended = [*executor.poll()][-1:] or ended
            assert isinstance(ended[0], JobEnded)
            (worker,) = executor.workers
            worker.process.kill()
            worker.process.wait()
    finally:
        executor.kill_all()


def test_a_process_that_is_killed_while_it_starts_is_started_once_more(planned: tuple[Plan, Store]) -> None:
    """Its jobs are given back, and none is to blame."""
    plan, store = planned
    executor = local_executor(plan.parts, store.path, ["cpu"], ExecutionOptions())
    attempt = Attempt(plan.jobs[0])

    def begin_and_kill() -> list[ExecutorEvent]:
        near, far = Pipe()
        worker = WorkerProcess(0, subprocess.Popen(["sleep", "60"]), near, executor.slots[0], {"0.mp4": attempt})
        executor.workers.append(worker)
        worker.process.kill()
        far.close()
        return list(executor.poll())

    assert begin_and_kill() == [JobReturned(attempt)]
    assert not executor.busy
    with pytest.raises(AupipeError, match=r"could not start \(SIGKILL"):
        begin_and_kill()


# What the driver makes of accidents ------------------------------------------------------------------------------


def run_with(planned: tuple[Plan, Store], **accidents: list[str]) -> tuple[InProcess, dict[str, JobResult]]:
    plan, store = planned
    executor = InProcess(store, plan.parts, {f"{name.removeprefix('v')}.mp4": list(a) for name, a in accidents.items()})
    return executor, {outcome.video_id: outcome for outcome in extract(plan, store, executor)}


def failed(outcomes: dict[str, JobResult]) -> list[tuple[str, str]]:
    records = [record for outcome in outcomes.values() for record in outcome.failed]
    return sorted((record.recording, record.feature.partition("@")[0]) for record in records)


def test_a_death_costs_nobody_when_the_second_try_succeeds(
    planned: tuple[Plan, Store], expected: dict[tuple[str, str], int]
) -> None:
    executor, outcomes = run_with(planned, v3=["dies"])
    assert failed(outcomes) == []
    assert sums(planned[1]) == expected
    assert [attempt.alone for attempt in executor.assigned].count(True) == 2  # it, and the one beside it


@pytest.mark.parametrize(
    ("accident", "made"),
    [("dies on audio", {"clock", "hog"}), ("dies on visual", {"clock", "level"})],
)
def test_what_one_modality_kills_is_made_without_it(planned: tuple[Plan, Store], accident: str, made: set[str]) -> None:
    _, outcomes = run_with(planned, v3=[accident])
    lost = ({"hog", "level"} - made).pop()
    assert failed(outcomes) == [("3.mp4", lost)]
    assert {record.feature.partition("@")[0] for record in outcomes["3.mp4"].published} == made
    assert "died" in outcomes["3.mp4"].failed[0].reason


def test_a_video_that_hangs_in_every_part_fails_alone(planned: tuple[Plan, Store]) -> None:
    _, outcomes = run_with(planned, v1=["hangs"] * 3)
    assert failed(outcomes) == [("1.mp4", "hog"), ("1.mp4", "level")]
    assert set(outcomes) == set(FRAMES)


def test_a_job_that_is_given_back_is_simply_run_again(
    planned: tuple[Plan, Store], expected: dict[tuple[str, str], int]
) -> None:
    executor, outcomes = run_with(planned, v2=["returned", "returned"])
    assert failed(outcomes) == []
    assert sums(planned[1]) == expected
    assert not any(attempt.alone for attempt in executor.assigned)


def test_deaths_on_every_video_stop_the_run_and_mark_nothing_failed(planned: tuple[Plan, Store]) -> None:
    plan, store = planned
    executor = InProcess(store, plan.parts, {name: ["dies"] * 9 for name in FRAMES})
    with pytest.raises(AupipeError, match="none is marked failed"):
        list(extract(plan, store, executor))
    assert not executor.busy
    assert not [record for record in store.records() if record.state == "failed"]


# Work that makes no features


def on_machines(client: Connection, tasks: list[str], results: Path) -> tuple[dict[str, object], list[str]]:
    """What comes of tasks of `Work`, whose results go to a folder, and what is told meanwhile."""
    said: list[str] = []
    nothing = FeatureSet(None, TrackParams(), FacesConfig(), ())
    with (
        work_order(pickle.dumps(Work(results)), results, 1) as order,
        dask_executor(client, nothing, None, None, True, ExecutionOptions(), order) as executor,
    ):
        return dict(run_work(executor, tasks, said.append)), said


def test_work_on_machines_is_done_once_tried_again_where_it_killed_and_then_named(
    client: Connection, tmp_path: Path
) -> None:
    """As in processes of this machine (`test_work.py`): the same driver and the same processes."""
    tasks = ["do a", "die b", "stumble c", *(f"do {number}" for number in range(6))]
    found, said = on_machines(client, tasks, tmp_path)
    assert set(found) == set(tasks)
    assert isinstance(found["die b"], Died)
    assert found["die b"].reason.startswith("its process was killed by signal 9 on ")
    assert all(found[task] == (task, "") for task in tasks if task != "die b")
    assert any(line.startswith("die b: its process was killed") for line in said)
    with pytest.raises(UsageError, match="x: refused"):
        on_machines(client, ["do a", "refuse x"], tmp_path)
    assert not list(tmp_path.glob(".*.work"))


def test_a_machine_that_does_not_see_the_folder_of_the_results_says_so(tmp_path: Path) -> None:
    with pytest.raises(AupipeError, match=r"not what the run has written there"), work_order(b"", tmp_path, 1) as order:
        work_content(replace(order, sha256="0"))
    with pytest.raises(AupipeError, match="not the folder that the run writes"):
        work_content(order)  # the file is gone
