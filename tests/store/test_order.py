"""The order of the operations on the disk is the one that `docs/store.md` states."""

import os
import re
from dataclasses import replace
from pathlib import Path

import pytest

from aupipe.store import STORES, create_store, fs, open_store
from aupipe.store.maintenance.gc import collect
from aupipe.store.maintenance.purge import purge
from aupipe.store.maintenance.verify import check

from .contract import SPEC, random_rows, same
from .disks import RecordingDisk

BACKENDS = STORES.names()
PAGE = Path(__file__).parents[2] / "docs" / "store.md"


def stated(title):
    """The operations in the block of the page after a line that ends with a title."""
    block = re.search(rf"{re.escape(title)}:\n\n```text\n(.*?)```", PAGE.read_text(), re.DOTALL)[1]
    return [tuple(re.split(r" {2,}", line.strip())[:2]) for line in block.splitlines()]


def place(store, path):
    """What a path of the store is, in the words of the page."""
    relative = os.path.relpath(path, store.root)
    first, *rest = relative.split(os.sep)
    kinds = {"tmp": "staged item" if rest else "tmp", "journal": "journal" if rest else "folder of journals"}
    kinds |= {"index": "index file" if rest else "folder of index files", "gc.lease": "lease", ".": "store"}
    if first in kinds:
        return kinds[first]
    return "item" if len(rest) == 3 else "folder of items" if len(rest) == 2 else "folder of features"


def operations(store, seen):
    """The recorded operations in the words of the page; those that follow each other on one place are one."""
    found = []
    for call, *paths in seen:
        name = {"create": "write", "overwrite": "write", "unlink": "remove", "rmdir": "remove", "mkdir": "write"}
        step = (name.get(call, call), " -> ".join(place(store, path) for path in paths))
        if step not in found[-1:]:
            found.append(step)
    return found


@pytest.fixture(params=BACKENDS)
def store(request, tmp_path):
    """A store in which everything but the item is there: the feature, its folders, the journal."""
    made = create_store(tmp_path / "s", request.param)
    made.publish("a", SPEC, random_rows(600, 3))
    return made


@pytest.fixture
def recorded(monkeypatch):
    disk = RecordingDisk()
    monkeypatch.setattr(fs, "disk", disk)
    return disk.seen


def test_an_item_is_published_in_the_stated_order(store, recorded):
    store.publish("a", SPEC, random_rows(600, 3, seed=1))
    steps = operations(store, recorded)
    written = [step for step in steps if step[1] == "staged item"]
    assert {name for name, _ in written} == {"write", "fsync"}
    assert written[-1][0] == "fsync"
    last = max(number for number, step in enumerate(steps) if step[1] == "staged item")
    assert [("write", "staged item"), ("fsync", "staged item"), *steps[last + 1 :]] == stated("publishes an item")


def test_every_file_of_an_item_and_its_folder_is_on_the_disk_before_it_is_placed(store, recorded):
    store.publish("a", SPEC, random_rows(600, 3, seed=1))
    calls = [(call, paths) for call, *paths in recorded]
    placed = next(number for number, (call, _) in enumerate(calls) if call == "rename")
    dirty = set()
    for call, paths in calls[:placed]:
        if call == "fsync":
            dirty.discard(paths[-1])
        else:
            dirty.add(paths[-1])
            if store.backend == "zarr" and call == "create":
                dirty.add(os.path.dirname(paths[-1]))
    assert dirty == set()


def test_the_first_item_of_a_feature_is_on_the_disk_with_all_folders_above_it(tmp_path, recorded):
    for backend in BACKENDS:
        store = create_store(tmp_path / backend, backend)
        del recorded[:]
        record = store.publish("a", SPEC, random_rows(60, 3))
        item = store.item_path(record)
        line = max(n for n, (call, path, *_) in enumerate(recorded) if call == "write" and "/journal/" in path)
        synced = {path for call, path, *_ in recorded[:line] if call == "fsync"}
        folders = {os.path.dirname(item), os.path.dirname(os.path.dirname(item)), store.root, store.folder.journals}
        assert folders <= synced
        assert [call for call, *_ in recorded[line:]] == ["write", "fsync"]


def test_names_of_columns_are_on_the_disk_before_the_line_and_are_written_once(store, recorded):
    spec = os.path.join(store.root, SPEC.id, "spec.json")
    store.publish("a", replace(SPEC, columns=("x", "y", "z")), random_rows(600, 3, seed=1))
    calls = [tuple(call) for call in recorded]
    (at,) = [number for number, call in enumerate(calls) if call[-1] == spec]
    staged = calls[at][1]
    assert calls[at - 1 : at + 2] == [("fsync", staged), ("rename", staged, spec), ("fsync", os.path.dirname(spec))]
    assert any(call[0] == "write" and "/journal/" in call[-1] for call in calls[at:])
    del recorded[:]
    store.publish("b", replace(SPEC, columns=("x", "y", "z")), random_rows(600, 3, seed=1))
    assert spec not in [path for call in recorded for path in call]


def test_a_failure_and_a_deletion_are_one_durable_line(store, recorded):
    for change in (lambda: store.fail("a", SPEC, "x"), lambda: store.delete("a", SPEC.id)):
        del recorded[:]
        change()
        assert operations(store, recorded) == [("write", "journal"), ("fsync", "journal")]


def test_the_index_is_replaced_in_the_stated_order(store, recorded):
    store.compact()
    del recorded[:]
    store.publish("b", SPEC, random_rows(2, 3))
    del recorded[:]
    store.compact()
    steps = operations(store, recorded)
    start = next(number for number, step in enumerate(steps) if step[0] == "rename") - 2
    assert steps[start:] == stated("replaces the index")


def test_publishing_removes_nothing_that_was_published(store, recorded):
    for seed in range(3):
        store.publish("a", SPEC, random_rows(600, 3, seed=seed))
    store.delete("a", SPEC.id)
    store.close()
    touched = [paths for call, *paths in recorded if call in ("unlink", "rmdir", "rename")]
    for source, *_ in touched:
        assert place(store, source) == "staged item"


def test_a_collector_removes_an_item_by_moving_it_first(store, recorded):
    store.publish("a", SPEC, random_rows(600, 3, seed=1))
    del recorded[:]
    collect(open_store(store.path), 0)
    steps = operations(store, recorded)
    assert ("rename", "item -> staged item") in steps
    assert ("remove", "item") not in steps


def test_folders_that_another_process_has_just_made_are_on_the_disk_before_the_line(store, recorded):
    """That process may not have waited for them yet."""
    other = open_store(store.path)
    record = other.publish("a", SPEC, random_rows(60, 3))
    line = max(n for n, (call, path, *_) in enumerate(recorded) if call == "write" and "/journal/" in path)
    synced = {path for call, path, *_ in recorded[:line] if call == "fsync"}
    assert {store.root, os.path.dirname(os.path.dirname(store.item_path(record)))} <= synced


def test_every_new_folder_is_on_the_disk_at_once(tmp_path, recorded):
    fs.make_folders(str(tmp_path / "a" / "b"))
    assert recorded == [
        ("mkdir", str(tmp_path / "a")),
        ("fsync", str(tmp_path)),
        ("mkdir", str(tmp_path / "a" / "b")),
        ("fsync", str(tmp_path / "a")),
    ]


class ShortDisk(fs.Disk):
    """Writes a few bytes at a time, as the operating system may."""

    def write(self, fd, parts, path):
        return os.write(fd, parts[0][:1000])

    def overwrite(self, fd, content, offset, path):
        return os.pwrite(fd, content[:7], offset)


def test_a_short_write_is_continued(store, monkeypatch):
    monkeypatch.setattr(fs, "disk", ShortDisk())
    store.publish("a", SPEC, random_rows(600, 3, seed=1))
    assert purge(store, "a") == 2
    store.publish("b", SPEC, random_rows(600, 3, seed=2))
    assert same(open_store(store.path).read("b", SPEC.id), random_rows(600, 3, seed=2))
    assert check(open_store(store.path)).damage == []
