"""A fault in any operation: no wrong data is ever read, and the next run ends like a run without faults.

A `FaultyDisk` makes the n-th operation of a small extraction fail; n is increased until none does.
"""

import os
import shutil
import signal
import time

import numpy as np
import pytest

from aupipe.store import STORES, create_store, fs, open_store
from aupipe.store.maintenance.gc import collect
from aupipe.store.maintenance.migrate import migrate
from aupipe.store.maintenance.purge import purge
from aupipe.store.maintenance.verify import check

from . import crash
from .contract import SPEC, check_and_repair, random_rows, same, without_revisions
from .disks import POINTS, FaultyDisk

BACKENDS = STORES.names()


def run(path, backend, fault=""):
    """The extraction in a child process. Returns its wait status, 0 only when there was no fault."""
    return in_child(lambda: crash.extract(path, backend), fault)


def in_child(work, fault=""):
    """Some work in a child process. Returns its wait status, 0 only when there was no fault."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            if fault:
                fs.disk = FaultyDisk(fault)
            work()
            failed = bool(fault) and fs.disk.count >= fs.disk.number  # what cannot be cleaned up is no error
            code = 4 if failed else 0
        except OSError:
            code = 3
        finally:
            os._exit(code)
    return os.waitpid(child, 0)[1]


def in_children(*work):
    """Some functions, each in a child process at the same time; all must return."""
    children = []
    for function in work:
        child = os.fork()
        if child == 0:
            code = 1
            try:
                function()
                code = 0
            finally:
                os._exit(code)
        children.append(child)
    return children


def end_of(children):
    """Wait statuses of some children."""
    return [os.waitpid(child, 0)[1] for child in children]


def tree(path):
    """The store once all that is no longer needed has been removed: see `without_revisions`."""
    with open_store(path) as store:
        collect(store, 0)
    return without_revisions(path)


@pytest.fixture(scope="module", params=BACKENDS)
def undisturbed(request, tmp_path_factory):
    """A backend, what its store holds after an undisturbed run, and how many operations that took."""
    path = tmp_path_factory.mktemp("undisturbed") / "s"
    assert run(path, request.param) == 0
    assert check(open_store(path)).damage == []
    return request.param, tree(path)


def run_with_fault_and_again(path, backend, expected, fault):
    """Returns False when the run ended before the fault."""
    status = run(path, backend, fault)
    if fault.endswith("kill"):
        assert status in (0, signal.SIGKILL)
    if path.exists() and (path / "store.json").exists():
        with open_store(path) as store:
            assert check(store).damage == [], fault
            for record in store.records():
                if record.recording in crash.RECORDINGS:
                    assert len(store.read(record.recording, record.feature)) == record.frames
    assert run(path, backend) == 0, fault
    with open_store(path) as store:
        collect(store, 0)
        report = check(store)
        assert (report.damage, report.orphans) == ([], []), fault
        assert {record.state for record in store.records()} == {"done"}
    assert tree(path) == expected, fault
    return status != 0


@pytest.fixture
def loop(tmp_path, undisturbed, record_property):
    """Runs with a fault in every ``step``-th operation; the number of faults is in the JUnit report."""

    def inject(point, kind, first, step):
        backend, expected = undisturbed
        number, faults = first, 0
        while run_with_fault_and_again(tmp_path / f"{number}", backend, expected, f"{point}:{number}:{kind}"):
            number, faults = number + step, faults + 1
        record_property("faults", faults)
        return faults

    return inject


@pytest.mark.parametrize(("kind", "first"), [("kill", 1), ("eio", 4), ("enospc", 8)])
def test_a_fault_here_and_there_leaves_no_trace_after_the_next_run(loop, kind, first):
    assert loop("any", kind, first, step=23) > 3


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["kill", "eio", "enospc"])
def test_a_fault_at_any_operation_leaves_no_trace_after_the_next_run(loop, kind):
    assert loop("any", kind, 1, step=1) > 80


@pytest.mark.slow
@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("kind", ["kill", "eio", "enospc"])
def test_each_kind_of_operation_really_fails(loop, point, kind):
    assert loop(point, kind, 1, step=1) >= 1


@pytest.mark.slow
def test_twenty_runs_killed_at_random_times_end_like_undisturbed_ones(tmp_path, undisturbed):
    """Each is killed up to ten times, with SIGKILL, then left to end."""
    backend, expected = undisturbed
    random, killed = np.random.default_rng(0), 0
    for number in range(20):
        path = tmp_path / f"{number}"
        for _ in range(10):
            (child,) = in_children(lambda path=path: crash.extract(path, backend))
            time.sleep(random.uniform(0, 0.15))
            os.kill(child, signal.SIGKILL)
            killed += end_of([child]) == [signal.SIGKILL]
            if (path / "store.json").exists():
                with open_store(path) as store:
                    assert check(store).damage == []
        assert run(path, backend) == 0
        assert tree(path) == expected, number
        with open_store(path) as store:
            report = check(store)
            assert (report.damage, report.orphans, report.unfinished) == ([], [], 0), number
    assert killed > 40


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_killed_writer_leaves_nothing_to_read_and_its_staging_is_swept(tmp_path, backend):
    path = tmp_path / "s"
    store = create_store(path, backend)
    child = os.fork()
    if child == 0:
        item = store.writer("a", SPEC, frames=1000, row_shape=(50,))
        item.append(random_rows(900, 50))
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    store = open_store(path)
    assert store.record("a", SPEC.id) is None
    with store.writer("live", SPEC, frames=2, row_shape=(3,)) as item:
        item.append(random_rows(2, 3))
        assert len(list((path / "tmp").iterdir())) == 2
        assert check(store).unfinished == 1
        assert collect(store, 0).unfinished == 1
        item.commit()
    assert same(store.read("live", SPEC.id), random_rows(2, 3))
    assert not list((path / "tmp").iterdir())


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_failed_write_is_an_error_and_the_writer_goes_on_with_the_next_item(tmp_path, backend, monkeypatch):
    store = create_store(tmp_path / "s", backend)
    store.publish("before", SPEC, random_rows(400, 3))
    with monkeypatch.context() as patch:
        patch.setattr(fs, "disk", FaultyDisk("write:2:enospc"))
        with pytest.raises(OSError, match="No space left"):
            store.publish("a", SPEC, random_rows(400, 3))
    assert store.record("a", SPEC.id) is None
    assert not list((tmp_path / "s" / "tmp").iterdir())
    store.publish("b", SPEC, random_rows(400, 3))
    assert check(store).damage == []


@pytest.mark.parametrize("backend", BACKENDS)
def test_eight_writers_with_overlapping_work_lose_nothing_and_double_nothing(tmp_path, backend):
    path = tmp_path / "s"
    create_store(path, backend)
    names = [f"clip{number}" for number in range(24)]
    acknowledged = tmp_path / "acknowledged"
    acknowledged.mkdir()
    children = []
    for worker in range(8):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                if worker < 3:
                    fs.disk = FaultyDisk(f"any:{20 + 35 * worker}:kill")
                store = open_store(path)
                order = np.random.default_rng(worker).permutation(len(names))[:12]
                for number in order:
                    store.publish(names[number], SPEC, random_rows(300, 5, seed=int(number)))
                    (acknowledged / f"{worker}-{number}").touch()
                code = 0
            finally:
                os._exit(code)
        children.append(child)
    statuses = [os.waitpid(child, 0)[1] for child in children]
    assert statuses == [signal.SIGKILL] * 3 + [0] * 5
    store = open_store(path)
    report = check(store)
    assert report.damage == []
    published = {record.recording for record in store.records()}
    assert published >= {names[int(file.name.split("-")[1])] for file in acknowledged.iterdir()}
    for name in published:
        assert same(store.read(name, SPEC.id), random_rows(300, 5, seed=names.index(name)))
    assert len(report.orphans) <= 3  # placed by a killed writer, not acknowledged by anyone
    for name in names:
        store.publish(name, SPEC, random_rows(300, 5, seed=names.index(name)))
    collect(store, 0)
    report = check(store)
    assert (report.orphans, report.superseded, report.items) == ([], 0, len(names))


def _repair(path):
    with open_store(path) as store:
        check_and_repair(store)


def _purge(path):
    with open_store(path) as store:
        purge(store, crash.RECORDINGS[1])


def _compact(path):
    with open_store(path) as store:
        store.compact()


def _collect(path):
    with open_store(path) as store:
        collect(store, 0)


def _migrate(path):
    with open_store(path) as store:
        list(migrate(store, path / ".." / f"{path.name}-there", {"zarr": "hdf5", "hdf5": "zarr"}[store.backend]))


def _state(path):
    """The records of a store, and its files of items."""
    with open_store(path) as store:
        collect(store, 0)
        records = [(r.recording, r.feature, r.state, r.crc32c) for r in store.records()]
        return records, {name: data for name, data in without_revisions(path).items() if "@" in name.split("/")[0]}


@pytest.mark.parametrize(
    "operate", [_repair, _purge, _compact, _collect, _migrate], ids=lambda operate: operate.__name__[1:]
)
@pytest.mark.parametrize("kind", ["kill", "eio", "enospc"])
@pytest.mark.parametrize("step", [14, pytest.param(1, marks=pytest.mark.slow)])
def test_an_operation_broken_off_anywhere_can_simply_be_run_again(
    tmp_path, undisturbed, operate, kind, step, record_property
):
    backend, _ = undisturbed
    template = tmp_path / "template"
    assert run(template, backend) == 0
    with open_store(template) as store:
        store.compact()
        if operate is _repair:
            record = store.published(crash.RECORDINGS[0], crash.SPECS[1].id)
            with open(store.format.data_file(store.item_path(record), record), "r+b") as file:
                file.seek(record.offset + 80)
                file.write(b"\xff\xff")
    shutil.copytree(template, tmp_path / "straight")
    operate(tmp_path / "straight")
    expected = _state(tmp_path / "straight")
    expected_there = _state(tmp_path / "straight-there") if operate is _migrate else None
    damaged = 1 if operate is _repair else 0
    number = 1
    while True:
        path = tmp_path / f"{number}"
        shutil.copytree(template, path)
        if in_child(lambda path=path: operate(path), f"any:{number}:{kind}") == 0:
            break
        with open_store(path) as store:
            found = {(damage.recording, damage.feature) for damage in check(store).damage}
            assert found <= ({(crash.RECORDINGS[0], crash.SPECS[1].id)} if damaged else set())
        operate(path)
        assert _state(path) == expected, number
        if operate is _migrate:
            assert _state(tmp_path / f"{number}-there") == expected_there, number
        number += step
    record_property("faults", (number - 1) // step)
    assert number > 1


@pytest.mark.parametrize("backend", BACKENDS)
def test_writers_that_replace_each_others_revisions_never_lose_the_item(tmp_path, backend):
    """Also while a collector removes at once what was replaced, and a reader maps it again and again."""
    path = tmp_path / "s"
    revisions = [random_rows(300, 3, seed=0), random_rows(280, 3, seed=1)]
    create_store(path, backend).publish("a", SPEC, revisions[0])

    def write(seed):
        store = open_store(path)
        for choice in np.random.default_rng(seed).integers(2, size=25):
            store.publish("a", SPEC, revisions[choice])

    children = in_children(*(lambda seed=seed: write(seed) for seed in range(3)))
    store, statuses, reads = open_store(path), [], 0
    while children:
        ended, status = os.waitpid(children[0], os.WNOHANG)
        if ended:
            statuses.append(status)
            children.pop(0)
        collect(store, 0)
        store.close()  # drops the maps, so that every read maps the file again
        rows = store.read("a", SPEC.id)
        assert any(same(rows, revision) for revision in revisions)
        reads += 1
    assert statuses == [0, 0, 0]
    assert reads > 3
    collect(store, 0)
    report = check(open_store(path))
    assert (report.damage, report.orphans, report.superseded) == ([], [], 0)
    assert open_store(path).index.last_seq("a", SPEC.id) > 25  # each saw what the others wrote


def test_compacting_and_collecting_beside_writers_loses_no_line(tmp_path):
    path = tmp_path / "s"
    create_store(path).close()

    def work(seed):
        store = open_store(path)
        for number in range(20):
            if seed < 3:
                store.publish(f"{seed}-{number}", SPEC, random_rows(2, 3, seed=number))
                if number % 7 == 6:
                    store.close()  # goes on in another journal
            elif seed == 3:
                store.compact()
            else:
                collect(store, 0, wait=False)

    assert end_of(in_children(*(lambda seed=seed: work(seed) for seed in range(5)))) == [0] * 5
    for opened in (open_store(path), open_store(path)):
        names = {record.recording for record in opened.records()}
        assert names == {f"{seed}-{number}" for seed in range(3) for number in range(20)}
        assert check(opened).damage == []
        collect(opened, 0)


@pytest.mark.parametrize("backend", BACKENDS)
def test_verifying_beside_writers_finds_nothing_and_changes_nothing(tmp_path, backend):
    path = tmp_path / "s"
    create_store(path, backend).close()

    def work(seed):
        store = open_store(path)
        for number in range(25):
            store.publish("shared", SPEC, random_rows(300, 3, seed=(seed + number) % 3))
            store.publish(f"{seed}", SPEC, random_rows(300, 3, seed=number))
            if number % 5 == 4:
                store.delete(f"{seed}", SPEC.id)

    children = in_children(lambda: work(0), lambda: work(1))
    statuses = []
    with open_store(path) as store:
        while children:
            assert check(store).damage == []
            ended, status = os.waitpid(children[0], os.WNOHANG)
            if ended:
                statuses.append(status)
                children.pop(0)
    assert statuses == [0, 0]
    store = open_store(path)
    report = check(store)
    assert (report.damage, report.orphans, report.superseded) == ([], [], 99)
    assert [record.recording for record in store.records()] == ["shared"]
