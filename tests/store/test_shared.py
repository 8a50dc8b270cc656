"""Several machines on one file system: caches, wrong clocks, files that appear late."""

import contextlib
import errno
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from aupipe.store import STORES, create_store, fs, local, open_store, processes
from aupipe.store.maintenance import gc, lease
from aupipe.store.maintenance.gc import collect
from aupipe.store.maintenance.verify import check

from .contract import SPEC, random_rows, same
from .disks import PausingDisk
from .test_faults import end_of, in_children

BACKENDS = STORES.names()
ROUNDS, AT_ONCE = 50, 10
CACHE_S = 3.0
# Two clients of one file server are two mounts with caches of their own.
NEEDED = (
    "two machines with caches of their own are two FUSE mounts of one folder, which the kernel has to allow; files "
    "that appear late and clocks that are wrong are simulated in this file, everywhere"
)


@pytest.fixture(params=BACKENDS)
def store(request, tmp_path):
    return create_store(tmp_path / "s", request.param)


@contextlib.contextmanager
def mounted(folder, mount):
    """``folder`` mounted at ``mount`` by `passthrough.py`."""
    mount.mkdir()
    command = [sys.executable, Path(__file__).parent / "passthrough.py", folder, mount]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        while not os.path.ismount(mount):
            if server.poll() is not None:
                said = server.stderr.read().strip()[-200:]
                assert re.search("not permitted|denied|fusermount", said), f"the file server of this test fails: {said}"
                pytest.skip(f"{NEEDED}. This machine refuses to mount ({said}): run as root, or install fuse3")
            time.sleep(0.05)
        yield mount
    finally:
        subprocess.run(["umount", "-l", mount], check=False)
        server.terminate()
        server.wait(30)


@pytest.fixture(scope="module")
def two_mounts(tmp_path_factory):
    """Two mounts of one folder, each with caches of its own."""
    pytest.importorskip(
        "mfusepy", exc_type=ImportError, reason=f"{NEEDED}; libfuse is not installed: apt-get install fuse3"
    )
    if not os.path.exists("/dev/fuse"):
        pytest.skip(f"{NEEDED}; there is no /dev/fuse: load the module fuse, or give the container the device")
    base = tmp_path_factory.mktemp("shared")
    (base / "served").mkdir()
    with mounted(base / "served", base / "one") as one, mounted(base / "served", base / "two") as two:
        yield one, two


# Two mounts ----------------------------------------------------------------------------------------------------------


def publish_and_tell(path, told, seed, pause_at):
    """Publish an item that others publish too, and one of one's own; then write down what was acknowledged."""
    store = open_store(path)
    fs.disk = PausingDisk(pause_at, CACHE_S + 1)
    shared = store.publish("shared", SPEC, random_rows(300, 3, seed=seed))
    own = store.publish(f"own {seed}", SPEC, random_rows(40, 3, seed=seed))
    store.close()
    Path(told).write_text(json.dumps([shared.crc32c, own.crc32c]))


def collect_meanwhile(path, pause_at):
    """Collect four times, the grace period a little longer than the caches."""
    store = open_store(path)
    fs.disk = PausingDisk(pause_at, CACHE_S + 1)
    for _ in range(4):
        collect(store, CACHE_S + 2, wait=False)
        time.sleep(1)


def start_round(one, two, number, backend, told):
    """Two writers, one on each mount, and a collector; each pauses before a random one of its operations."""
    random = np.random.default_rng(number)
    name = f"{backend}-{number}"
    create_store(one / name, backend).publish("shared", SPEC, random_rows(300, 3, seed=99))
    pauses = random.integers(1, 45, size=3)
    collecting = (one, two)[int(random.integers(2))]
    return in_children(
        lambda: publish_and_tell(one / name, told / f"{name}-1", 1, pauses[0]),
        lambda: publish_and_tell(two / name, told / f"{name}-2", 2, pauses[1]),
        lambda: collect_meanwhile(collecting / name, pauses[2]),
    )


def what_is_read(path, told):
    """The seed of the shared rows, after every acknowledged row was found."""
    store = open_store(path)
    acknowledged = [json.loads(Path(f"{told}-{seed}").read_text()) for seed in (1, 2)]
    for seed, (_, own) in zip((1, 2), acknowledged, strict=True):
        assert same(store.read(f"own {seed}", SPEC.id), random_rows(40, 3, seed=seed))
        assert store.published(f"own {seed}", SPEC.id).crc32c == own
    rows = store.read("shared", SPEC.id)
    (winner,) = [seed for seed in (1, 2) if same(rows, random_rows(300, 3, seed=seed))]
    assert store.published("shared", SPEC.id).crc32c == acknowledged[winner - 1][0]
    assert check(store).damage == []
    return winner


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("backend", BACKENDS)
def test_nothing_acknowledged_is_lost_on_two_mounts_with_caches(two_mounts, backend, tmp_path):
    one, two = two_mounts
    winners = []
    for first in range(0, ROUNDS, AT_ONCE):
        numbers = range(first, first + AT_ONCE)
        children = [child for number in numbers for child in start_round(one, two, number, backend, tmp_path)]
        assert end_of(children) == [0] * len(children)
        time.sleep(CACHE_S + 0.5)
        for number in numbers:
            name = f"{backend}-{number}"
            seen = [what_is_read(mount / name, tmp_path / name) for mount in (one, two)]
            assert seen[0] == seen[1], name  # both machines agree
            collect(open_store(one / name), 0)
            time.sleep(0.2)
            winners += [what_is_read(one / name, tmp_path / name)]
            assert winners[-1] == seen[0]
        time.sleep(CACHE_S + 0.5)
        for number in numbers:
            name = f"{backend}-{number}"
            assert what_is_read(two / name, tmp_path / name) == winners[number], name
    assert {1, 2} == set(winners)


# A layer of faults, where there is no FUSE ---------------------------------------------------------------------------


@pytest.mark.parametrize("number", [errno.ENOENT, errno.ESTALE])
def test_an_item_that_appears_late_is_waited_for(store, number, monkeypatch):
    store.publish("a", SPEC, random_rows(300, 3))
    left, map_rows = [1, 2], store.format.map_rows

    def late(path, record):
        if left:
            left.pop()
            raise OSError(number, os.strerror(number), path)
        return map_rows(path, record)

    monkeypatch.setattr(type(store.format), "map_rows", staticmethod(late))
    reader = open_store(store.path)
    assert same(reader.read("a", SPEC.id), random_rows(300, 3))
    assert not left
    assert sum(local.RETRY_WAITS_S) < 1  # here; see `test_the_waits_are_longer_than_caches`


def test_the_waits_are_longer_than_caches():
    program = (
        "from aupipe.store import fs, local\nfrom aupipe.store.maintenance import gc, verify\n"
        "assert min(sum(local.RETRY_WAITS_S), sum(verify.RETRY_WAITS_S), sum(fs.APPEAR_WAITS_S)) > 3\n"
        "assert gc.GRACE_S > 600\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_folder_that_another_machine_made_is_waited_for(tmp_path, monkeypatch):
    isdir, lexists, calls = os.path.isdir, os.path.lexists, []

    def hidden(path, real):
        calls.append(path)
        return len(calls) > 3 and real(path)

    (tmp_path / "made").mkdir()
    monkeypatch.setattr(fs, "APPEAR_WAITS_S", (0.0, 0.01, 0.01, 0.01))
    monkeypatch.setattr(os.path, "isdir", lambda path: isdir(path) if "made" not in str(path) else hidden(path, isdir))
    monkeypatch.setattr(os.path, "lexists", lambda path: hidden(path, lexists))
    fs.make_folders(str(tmp_path / "made"))
    assert len(calls) > 3


# Wrong clocks --------------------------------------------------------------------------------------------------------


def test_a_writer_whose_clock_is_ahead_does_not_win_over_later_ones(store, monkeypatch):
    other = open_store(store.path)
    with monkeypatch.context() as ahead:
        ahead.setattr(time, "time", lambda now=time.time: now() + 2e5)
        ahead.setattr(time, "time_ns", lambda now=time.time_ns: now() + 2 * 10**14)
        store.publish("a", SPEC, random_rows(5, 3, seed=1))
    other.publish("a", SPEC, random_rows(5, 3, seed=2))
    collect(other, 0)
    assert check(other).damage == []
    for opened in (other, open_store(store.path)):
        assert same(opened.read("a", SPEC.id), random_rows(5, 3, seed=2))


@pytest.fixture
def elsewhere(monkeypatch):
    """A function that makes this process one of another machine."""

    def move(name):
        monkeypatch.setattr(processes, "_machine", lambda: name)

    return move


def test_a_collector_whose_clock_is_days_ahead_leaves_live_writers_alone(store, elsewhere, monkeypatch):
    elsewhere("aaaaaaaa")
    for seed in range(2):
        store.publish("c", SPEC, random_rows(5, 3, seed=seed))
    item = store.writer("a", SPEC, frames=5, row_shape=(3,))
    item.append(random_rows(5, 3))
    store.fail("b", SPEC, "x")  # in a journal that is open
    elsewhere("bbbbbbbb")
    ahead = 10 * 86400
    monkeypatch.setattr(time, "time", lambda now=time.time: now() + ahead)
    monkeypatch.setattr(time, "time_ns", lambda now=time.time_ns: now() + ahead * 10**9)
    other = open_store(store.path)
    found = collect(other, 3600)
    assert (found.items, found.unfinished) == (0, 0)  # what was replaced just now is kept for an hour
    for _ in range(3):
        assert collect(other, 0).unfinished == 0
    elsewhere("aaaaaaaa")
    item.commit()
    assert same(open_store(store.path).read("a", SPEC.id), random_rows(5, 3))
    other.refresh()
    assert same(other.read("a", SPEC.id), random_rows(5, 3))


def test_what_another_machine_left_is_removed_after_a_day_by_the_clock_of_the_file_system(store, elsewhere):
    elsewhere("aaaaaaaa")
    item = store.writer("a", SPEC, frames=500, row_shape=(3,))
    item.append(random_rows(5, 3))
    store.fail("b", SPEC, "x")
    journal = store._journal.path
    elsewhere("bbbbbbbb")
    other = open_store(store.path)
    staged = [os.path.join(at, name) for at, dirs, files in os.walk(store.folder.staging) for name in (*dirs, *files)]
    for age_s, count in ((gc.ABANDONED_AFTER_S - 60, 0), (gc.ABANDONED_AFTER_S + 60, 1)):
        then = time.time() - age_s
        for path in (*staged, *(os.path.dirname(path) for path in staged), journal):
            if path != store.folder.staging:
                os.utime(path, (then, then))
        assert collect(other, 0).unfinished == count
    assert not os.listdir(store.folder.staging)
    collect(other, 0)
    assert not os.path.exists(journal)
    assert open_store(store.path).record("b", SPEC.id).state == "failed"


def test_a_live_writer_of_this_machine_is_left_alone_however_old_its_files_are(store):
    with store.writer("a", SPEC, frames=5, row_shape=(3,)) as item:
        item.append(random_rows(5, 3))
        for folder, _, names in os.walk(store.folder.staging):
            for path in (folder, *(os.path.join(folder, name) for name in names)):
                os.utime(path, (0, 0))
        assert collect(store, 0).unfinished == 0
        item.commit()


# The lease -----------------------------------------------------------------------------------------------------------


def test_one_collector_works_at_a_time_and_a_dead_one_is_replaced(store):
    store.publish("a", SPEC, random_rows(5, 3))
    store.publish("a", SPEC, random_rows(5, 3, seed=1))
    with lease.hold_lease(store) as held:
        assert held is not None
        assert collect(open_store(store.path), 0, wait=False).busy
    assert not os.path.exists(held.path)

    def die():
        holding = lease.hold_lease(store)
        holding.__enter__()
        os._exit(7)

    assert end_of(in_children(die)) == [7 << 8]
    assert os.path.exists(held.path)
    assert collect(store, 0).items == 1
    assert not os.path.exists(held.path)


def test_the_lease_of_another_machine_expires_by_what_is_seen_of_it(store, elsewhere, monkeypatch):
    """Never by a comparison of two clocks."""
    monkeypatch.setattr(lease, "EXPIRY_S", 1.0)
    monkeypatch.setattr(lease, "BEAT_S", 0.0)
    elsewhere("aaaaaaaa")
    with lease.hold_lease(store) as held:
        os.utime(held.path, (0, 0))
        elsewhere("bbbbbbbb")

        def other():
            assert collect(open_store(store.path), 0).busy

        children = in_children(other)
        while (ended := os.waitpid(children[0], os.WNOHANG))[0] == 0:
            held.beat()
            time.sleep(0.05)
        assert ended[1] == 0
        assert not collect(open_store(store.path), 0).busy  # no beat for a second: expired
        with pytest.raises(Exception, match="taken over"):
            held.beat()


def test_creating_a_store_many_times_at_once_always_works(tmp_path):
    def create(number):
        for turn in range(20):
            store = create_store(tmp_path / f"{turn}")
            store.fail(f"{number}", SPEC, "x")
            store.close()

    assert end_of(in_children(*(lambda number=number: create(number) for number in range(6)))) == [0] * 6
    for turn in range(20):
        assert len(list(open_store(tmp_path / f"{turn}").records())) == 6


def test_a_folder_that_becomes_a_store_while_it_is_looked_at_is_not_refused(tmp_path, monkeypatch):
    """What another process created between the first look and the second."""
    listdir, path = os.listdir, tmp_path / "s"

    def late(folder):
        if str(folder) == str(path) and not (path / "store.json").exists():
            monkeypatch.setattr(os, "listdir", listdir)
            create_store(path).fail("a", SPEC, "x")
        return listdir(folder)

    path.mkdir()
    monkeypatch.setattr(os, "listdir", late)
    assert create_store(path).record("a", SPEC.id).state == "failed"
