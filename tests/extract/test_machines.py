"""Which machine gets a job, how many a machine holds, and when a run without machines ends."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest

from aupipe.errors import AupipeError
from aupipe.extract.executors import Attempt, JobReturned, MachineChanged
from aupipe.extract.executors.cluster import executor as executors
from aupipe.extract.executors.cluster import machines as module
from aupipe.extract.executors.cluster.machines import AHEAD_S, REFUSERS_S, Machine, Machines
from aupipe.extract.executors.cluster.messages import Hello, Refusal, opened
from aupipe.extract.planning.plan import Job

LEAST, MOST = 4, 10
PATIENCE_S = 600.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    found = SimpleNamespace(now_s=1000.0)
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: found.now_s))
    return found


def hello(name: str, *gpus: str) -> Hello:
    return Hello(f"tcp://{name}", name, gpus, 2, LEAST, MOST)


def attempt(name: str = "a.mp4", size_bytes: int = 100, alone: bool = False) -> Attempt:
    return Attempt(Job(name, []), alone, size_bytes)


def joined(*names: str) -> tuple[Machines, list[Machine]]:
    found = Machines(PATIENCE_S)
    for name in names:
        found.join(hello(name))
    return found, list(found)


def full(machine: Machine, clock: SimpleNamespace, ends_after_s: float) -> None:
    """Give a machine jobs of 100 bytes until it takes no more, one having ended after some seconds."""
    for number in range(LEAST):
        assert machine.has_slot(100, alone=False)
        machine.give(number, attempt())
    assert not machine.has_slot(100, alone=False), "nobody knows yet how fast it is"
    clock.now_s += ends_after_s
    machine.take(0, ended=True)
    number = LEAST
    while machine.has_slot(100, alone=False):
        machine.give(number, attempt())
        number += 1


def test_a_machine_holds_what_its_processes_need_and_more_only_while_that_is_little_work(
    clock: SimpleNamespace,
) -> None:
    _, (slow, fast, middling) = joined("slow", "fast", "middling")
    full(slow, clock, ends_after_s=100)
    assert len(slow.held) == LEAST
    full(fast, clock, ends_after_s=0.1)
    assert len(fast.held) == MOST
    full(middling, clock, ends_after_s=5)  # 20 bytes a second
    assert middling.held_bytes == AHEAD_S * 20


def test_a_job_goes_to_the_emptiest_machine() -> None:
    machines, (one, two) = joined("one", "two")
    one.give(0, attempt())
    assert machines.choose(attempt(), set()) is two


def test_a_job_that_killed_is_tried_where_it_has_not_and_where_jobs_have_ended() -> None:
    machines, (one, two, three) = joined("one", "two", "three")
    three.deaths = 1
    assert machines.choose(attempt(alone=True), {one.address}) is two
    two.deaths = 2
    assert machines.choose(attempt(alone=True), set()) is one
    two.give(0, attempt())
    two.take(0, ended=True)
    assert not two.is_doubtful
    assert three.is_doubtful


def test_where_it_has_killed_everywhere_it_is_tried_all_the_same() -> None:
    machines, (one,) = joined("one")
    assert machines.choose(attempt(alone=True), {one.address}) is one


def test_two_dask_workers_that_would_share_a_gpu_are_not_both_taken(caplog: pytest.LogCaptureFixture) -> None:
    machines = Machines(PATIENCE_S)
    machines.join(hello("one", "GPU-1"))
    machines.join(hello("two", "GPU-2"))
    machines.join(hello("three", "GPU-1"))
    assert [machine.hello.host for machine in machines] == ["one", "two"]
    assert "GPU GPU-1 is that of another Dask worker" in caplog.text


def test_a_dask_worker_takes_part_when_the_one_with_its_gpu_is_gone() -> None:
    machines = Machines(PATIENCE_S)
    machines.join(hello("one", "GPU-1"))
    changed = [machines.join(hello("two", "GPU-1")) for _ in range(2)]
    assert [change and change.state for change in changed] == ["refused", None], "it is named once"
    machines.remove("tcp://one")
    changed = [machines.join(hello("two", "GPU-1")) for _ in range(2)]
    assert [change and change.state for change in changed] == ["joined", None]
    assert machines.has_slot(100)


def test_a_machine_gets_short_jobs_several_at_a_time(clock: SimpleNamespace) -> None:
    machines, (one,) = joined("one")
    full(one, clock, ends_after_s=0.1)
    assert len(one.held) == MOST
    assert not machines.has_slot(100)
    given = []
    for number in list(one.held)[:8]:
        machines.take(one.address, number, ended=True)
        if machines.has_slot(100):
            before = len(one.held)
            while machines.has_slot(100):
                machines.choose(attempt(), set()).give(1000 + number * MOST + len(one.held), attempt())
            given.append(len(one.held) - before)
    assert given == [2, 2, 2, 2]


def test_a_machine_that_was_full_is_looked_at_again_when_one_of_its_jobs_is_over() -> None:
    machines, (one,) = joined("one")
    for number in range(LEAST):
        machines.choose(attempt(), set()).give(number, attempt())
    assert not machines.has_slot(100)
    assert machines.take(one.address, 0, ended=True) == attempt()
    assert machines.take(one.address, 0) is None
    assert machines.has_slot(100)
    assert machines.choose(attempt(), set()) is one
    machines.remove(one.address)
    assert not machines.has_slot(100)


@pytest.mark.parametrize("speeds", [[1.0] * 16, [0.5, 0.5, *[1.0] * 14]], ids=["equal", "two at half speed"])
def test_machines_are_used_to_the_end(speeds: list[float]) -> None:
    from benchmarks.cluster import WANTED, lengths, simulate, static

    work_s = lengths(4000).tolist()
    used, allowed = simulate(work_s, speeds)
    assert used > WANTED * allowed
    assert used > static(work_s, speeds)


def test_a_machine_that_says_hello_again_keeps_its_jobs_and_one_that_refused_stays_out() -> None:
    machines, (one,) = joined("one")
    one.give(0, attempt())
    machines.join(hello("one"))
    assert list(machines) == [one]
    changed = [machines.refuse(Refusal("tcp://two", "two", "no store there")) for _ in range(2)]
    assert [change and change.state for change in changed] == ["refused", None], "agents say it every two seconds"
    machines.join(hello("two"))
    assert list(machines) == [one]


def test_a_run_that_all_machines_refuse_ends_with_the_first_reason_and_its_code(clock: SimpleNamespace) -> None:
    machines = Machines(PATIENCE_S)
    machines.refuse(Refusal("tcp://one", "one", "--gpu 0: torch sees no GPU", 2))
    machines.raise_if_none({"tcp://one"})
    clock.now_s += REFUSERS_S + 1
    machines.raise_if_none({"tcp://one", "tcp://two"})  # another one has not answered yet
    with pytest.raises(AupipeError, match="no machine takes part: one: --gpu 0: torch sees no GPU") as found:
        machines.raise_if_none({"tcp://one"})
    assert found.value.exit_code == 2


def test_the_reason_of_machines_that_refuse_is_told_however_short_a_run_waits(clock: SimpleNamespace) -> None:
    machines = Machines(5.0)
    machines.refuse(Refusal("tcp://one", "one", "--gpu 0: torch sees no GPU", 2))
    clock.now_s += 6
    with pytest.raises(AupipeError, match="torch sees no GPU"):
        machines.raise_if_none({"tcp://one"})


def executor_with(**more: object) -> executors.DaskExecutor:
    """An executor whose client does nothing but what is given."""
    client = SimpleNamespace(
        status="running",
        scheduler=SimpleNamespace(ncores=0),
        subscribe_topic=lambda *a: None,
        register_plugin=lambda *a, **k: None,
        **more,
    )
    order = SimpleNamespace(run="run", mark="mark")
    return executors.DaskExecutor(client, "tcp://there", order, Machines(PATIENCE_S))  # type: ignore[arg-type]


def test_what_a_dask_worker_had_goes_back_when_another_starts_at_its_address() -> None:
    cancelled = []
    future = SimpleNamespace(add_done_callback=lambda call: None, release=lambda: cancelled.append(1))
    executor = executor_with(submit=lambda *a, **k: future)
    first, second = (replace(hello("one"), agent=agent) for agent in ("first", "second"))
    executor._arrived.put(first)
    list(executor.poll())
    executor.assign(attempt("sent.mp4"))
    executor._arrived.put(first)  # it says so twice
    assert list(executor.poll()) == []
    executor.assign(attempt("assigned.mp4"))
    executor._arrived.put(second)
    changed = list(executor.poll())
    states = [event.state for event in changed if isinstance(event, MachineChanged)]
    returned = [event.attempt.job.video_id for event in changed if isinstance(event, JobReturned)]
    assert (states, sorted(returned)) == (["lost", "joined"], ["assigned.mp4", "sent.mp4"])
    assert not executor.busy
    assert len(cancelled) == 2


def test_the_jobs_that_a_machine_is_given_at_a_time_are_one_task() -> None:
    future = SimpleNamespace(add_done_callback=lambda call: None, release=lambda: None)
    sent = []
    executor = executor_with(submit=lambda run, content, **more: sent.append((more["workers"], content)) or future)
    for name in ("one", "two"):
        executor._arrived.put(hello(name))
    list(executor.poll())
    for number in range(5):
        executor.assign(attempt(f"{number}.mp4"))
    list(executor.poll())
    given = {workers[0]: [one.job.video_id for one in opened(content)[1].values()] for workers, content in sent}
    assert len(sent) == 2
    assert given == {"tcp://one": ["0.mp4", "2.mp4", "4.mp4"], "tcp://two": ["1.mp4", "3.mp4"]}


def test_a_machine_that_grows_slower_while_it_is_chosen_gets_the_job_all_the_same(clock: SimpleNamespace) -> None:
    machines, (one,) = joined("one")
    full(one, clock, ends_after_s=5)
    machines.take(one.address, LEAST, ended=True)
    while machines.has_slot(100):
        one.give(99 + len(one.held), attempt())
    machines.take(one.address, LEAST + 1, ended=True)
    machines._open[one.address] = one
    clock.now_s += 1000
    assert not one.has_slot(100)
    assert machines.choose(attempt(), set()) is one


def test_a_scheduler_that_is_slow_to_answer_is_waited_for_and_one_that_is_silent_is_not(
    clock: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executors, "time", SimpleNamespace(monotonic=lambda: clock.now_s))
    monkeypatch.setattr(executors, "POLL_S", 0.01)
    answers: list[Exception | dict[str, int]] = [TimeoutError("10 s"), {}, TimeoutError("10 s"), TimeoutError("10 s")]

    def sync(*arguments: object, **more: object) -> dict[str, int]:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    executor = executor_with(sync=sync)
    executor._looked_s = executor._answered_s = clock.now_s
    for _ in range(3):
        clock.now_s += executors.SILENT_S - 1
        assert list(executor.poll()) == []
    clock.now_s += 3
    with pytest.raises(AupipeError, match="the Dask scheduler at tcp://there is gone"):
        list(executor.poll())
    answers.append(OSError("closed"))
    executor._answered_s = clock.now_s
    clock.now_s += 3
    with pytest.raises(AupipeError, match="is gone"):
        list(executor.poll())


def test_a_run_without_any_machine_waits_and_then_ends(clock: SimpleNamespace) -> None:
    machines, (one,) = joined("one")
    clock.now_s += PATIENCE_S + 1
    machines.raise_if_none(set())
    machines.remove(one.address)
    machines.raise_if_none(set())
    clock.now_s += PATIENCE_S + 1
    with pytest.raises(AupipeError, match="no Dask worker has taken part for 600 s"):
        machines.raise_if_none(set())
