"""What a collector removes and what it keeps, at every step of other processes."""

import os
import time

import pytest

from aupipe.store import STORES, create_store, fs, open_store
from aupipe.store.log import index as index_module
from aupipe.store.log.index_file import index_paths
from aupipe.store.maintenance.gc import collect
from aupipe.store.maintenance.repair import rebuild
from aupipe.store.maintenance.verify import check

from .contract import SPEC, random_rows, same
from .disks import WatchedDisk
from .test_faults import end_of, in_children

BACKENDS = STORES.names()


@pytest.fixture(params=BACKENDS)
def store(request, tmp_path):
    return create_store(tmp_path / "s", request.param)


def revisions_of(store, recording="a"):
    return store.revision_paths(recording, SPEC.id)


def age(*paths, seconds):
    for path in paths:
        then = time.time() - seconds
        os.utime(path, (then, then))


def journals_of(store):
    return [os.path.join(store.folder.journals, name) for name in sorted(os.listdir(store.folder.journals))]


def test_a_replaced_revision_is_kept_for_the_grace_period(store):
    for seed in range(3):
        store.publish("a", SPEC, random_rows(300, 3, seed=seed))
    assert len(revisions_of(store)) == 3
    assert collect(store, 100).items == 0  # the line that replaced it is new
    age(*journals_of(store), *index_paths(store.folder.indexes), seconds=50)
    assert collect(open_store(store.path), 100).items == 0
    found = collect(open_store(store.path), 0)
    assert found.items == 2
    assert found.nbytes > 2 * 300 * 3 * 2
    assert same(store.read("a", SPEC.id), random_rows(300, 3, seed=2))
    assert len(revisions_of(store)) == 1


def test_what_was_replaced_long_ago_is_removed_at_once(store):
    for seed in range(2):
        store.publish("a", SPEC, random_rows(300, 3, seed=seed))
    store.close()
    age(*journals_of(store), seconds=200)
    assert collect(open_store(store.path), 100).items == 1


def test_publications_have_names_of_their_own_even_with_the_same_number(store):
    """Two writers that do not see each other: both files stay, and all readers agree on one."""
    other = open_store(store.path)
    other.refresh = lambda: None
    records = [
        store.publish("a", SPEC, random_rows(300, 3, seed=1)),
        other.publish("a", SPEC, random_rows(300, 3, seed=2)),
    ]
    assert {record.revision.partition("-")[0] for record in records} == {"1"}
    assert len(revisions_of(store)) == 2
    rows = [open_store(store.path).read("a", SPEC.id) for _ in range(2)]
    assert same(*rows)
    collect(open_store(store.path), 0)
    assert same(open_store(store.path).read("a", SPEC.id), rows[0])
    assert len(revisions_of(store)) == 1


def test_journals_are_removed_when_two_index_files_hold_them(store):
    store.publish("a", SPEC, random_rows(3, 3))
    store.close()
    first = collect(store, 0)
    assert (first.journals, len(journals_of(store)), len(index_paths(store.folder.indexes))) == (0, 1, 1)
    second = collect(store, 0)
    assert (second.journals, len(journals_of(store)), len(index_paths(store.folder.indexes))) == (1, 0, 2)
    third = collect(store, 0)
    assert (third.journals, third.index) == (0, "")
    assert check(open_store(store.path)).damage == []
    assert same(open_store(store.path).read("a", SPEC.id), random_rows(3, 3))


def test_a_journal_is_kept_until_every_process_has_seen_an_index_file_with_it(store):
    store.publish("a", SPEC, random_rows(3, 3))
    store.close()
    for _ in range(3):
        collect(store, 100)
        store.publish("b", SPEC, random_rows(3, 3))
    assert len(index_paths(store.folder.indexes)) == 3
    assert len(journals_of(store)) == 2
    age(*index_paths(store.folder.indexes), seconds=200)
    assert collect(store, 100).journals == 1


def test_an_open_journal_is_merged_and_stays(store):
    store.publish("a", SPEC, random_rows(3, 3))
    (own,) = journals_of(store)
    for number in range(4):
        assert collect(open_store(store.path), 0).journals == 0
        store.publish(f"{number}", SPEC, random_rows(3, 3))
    assert journals_of(store) == [own]
    assert len(list(open_store(store.path).records())) == 5
    for number in range(4):  # others write, so that two index files hold all of it
        with open_store(store.path) as other:
            other.publish(f"other {number}", SPEC, random_rows(3, 3))
        collect(open_store(store.path), 0)
    assert own in journals_of(store)
    store.publish("last", SPEC, random_rows(3, 3))
    assert len(list(open_store(store.path).records())) == 10


def test_a_journal_with_a_damaged_line_stays_for_verify(store):
    for name in ("a", "b"):
        store.publish(name, SPEC, random_rows(3, 3))
    store.close()
    (journal,) = journals_of(store)
    with open(journal, "r+b") as file:
        file.seek(40)
        file.write(b"#")
    for _ in range(3):
        assert collect(open_store(store.path), 0).journals == 0
    assert [damage.kind for damage in check(open_store(store.path)).damage] == ["journal"]


def test_a_journal_that_grew_after_it_was_merged_stays(store):
    """It should not grow; if it does, its lines are not removed."""
    store.publish("a", SPEC, random_rows(3, 3))
    store.close()
    collect(store, 0)
    (journal,) = journals_of(store)
    with open(journal, "r+b") as file:
        line = file.readline()
        file.seek(0, os.SEEK_END)
        file.write(line)
    assert collect(open_store(store.path), 0).journals == 0
    assert os.path.exists(journal)


def place_without_line(store, recording, seed):
    """What a writer leaves that is killed before its line."""

    def work():
        writer = open_store(store.path)
        writer._append = lambda seq, record: os._exit(0)
        writer.publish(recording, SPEC, random_rows(300, 3, seed=seed))

    assert end_of(in_children(work)) == [0]


def test_an_orphan_is_removed_once_its_item_was_published_by_another(store):
    place_without_line(store, "a", 1)
    assert collect(store, 0).items == 0  # it may be all that is left of an item whose journal was lost
    assert len(check(store).orphans) == 1
    store.publish("a", SPEC, random_rows(300, 3, seed=2))
    assert collect(store, 100).items == 0
    assert collect(store, 0).items == 1
    assert check(store).orphans == []
    assert same(store.read("a", SPEC.id), random_rows(300, 3, seed=2))


def test_an_item_whose_writer_is_about_to_write_its_line_is_left_alone(store):
    """Another one published with the same number meanwhile, and may lose the tie."""
    slow, append = open_store(store.path), []
    slow._append = lambda seq, record: append.append((seq, record)) or record
    slow.publish("a", SPEC, random_rows(300, 3, seed=1))
    store.publish("a", SPEC, random_rows(300, 3, seed=2))
    for _ in range(2):
        assert collect(open_store(store.path), 0).items == 0
    del slow._append
    slow._append(*append[0])
    store.refresh()
    assert any(same(store.read("a", SPEC.id), random_rows(300, 3, seed=seed)) for seed in (1, 2))
    assert check(store).damage == []


def test_an_orphan_newer_than_its_item_is_left_alone(store):
    """Its writer may be about to write the line."""
    store.publish("a", SPEC, random_rows(300, 3))
    place_without_line(store, "a", 1)
    assert collect(store, 0).items == 0
    assert len(revisions_of(store)) == 2


def test_a_revision_that_was_acknowledged_again_is_not_removed(store):
    """As rebuilding does after journals were lost."""
    record = store.publish("a", SPEC, random_rows(300, 3))
    store.delete("a", SPEC.id)
    collect(store, 100)  # the index file lists it as deleted
    store.acknowledge(record)
    collect(store, 0)
    assert same(open_store(store.path).read("a", SPEC.id), random_rows(300, 3))


def test_rebuilding_takes_the_newest_of_several_revisions(store):
    for seed in range(12):
        store.publish("a", SPEC, random_rows(300, 3, seed=seed))
    for path in journals_of(store):
        os.remove(path)
    opened = open_store(store.path)
    assert rebuild(opened) == 1
    assert same(opened.read("a", SPEC.id), random_rows(300, 3, seed=11))


def test_journals_that_are_removed_while_a_store_is_opened_lose_nothing(store, monkeypatch):
    """Between the listing of index files and that of journals."""
    store.publish("a", SPEC, random_rows(3, 3))
    store.close()
    collector, read = open_store(store.path), index_module.Index._read_journals

    def late(index):
        monkeypatch.setattr(index_module.Index, "_read_journals", read)
        for _ in range(2):
            collect(collector, 0)
        return read(index)

    monkeypatch.setattr(index_module.Index, "_read_journals", late)
    opened = open_store(store.path)
    assert not journals_of(store)
    assert opened.record("a", SPEC.id).state == "done"


class CollectingDisk(WatchedDisk):
    """Lets another process collect before each operation of this one."""

    def __init__(self, path):
        self.path, self.busy = path, False

    def before(self, call, *arguments):
        if not self.busy:
            self.busy = True
            for _ in range(2):
                collect(open_store(self.path), 0, wait=False)
            self.busy = False


@pytest.mark.parametrize("change", ["publish", "replace", "delete", "fail", "close", "compact"])
def test_collecting_before_every_operation_of_another_process_loses_nothing(store, change, monkeypatch):
    store.publish("a", SPEC, random_rows(300, 3))
    steps = {
        "publish": lambda: store.publish("b", SPEC, random_rows(300, 3, seed=1)),
        "replace": lambda: store.publish("a", SPEC, random_rows(300, 3, seed=1)),
        "delete": lambda: store.delete("a", SPEC.id),
        "fail": lambda: store.fail("a", SPEC, "x"),
        "close": store.close,
        "compact": store.compact,
    }
    with monkeypatch.context() as patch:
        patch.setattr(fs, "disk", CollectingDisk(store.path))
        steps[change]()
    for opened in (store, open_store(store.path)):
        opened.refresh()
        found = {record.recording: record for record in opened.all_published()}
        expected = {"a": 0, "b": 1} if change == "publish" else {"a": 1} if change == "replace" else {"a": 0}
        expected = {} if change == "delete" else expected
        assert set(found) == set(expected)
        for name, seed in expected.items():
            assert same(opened.read(name, SPEC.id), random_rows(300, 3, seed=seed))
        assert check(opened).damage == []
