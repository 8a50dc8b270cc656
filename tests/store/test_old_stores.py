"""Stores of format version 1 are read, and converted by the first collection."""

import dataclasses
import hashlib
import json
import os
import time

import pytest

from aupipe.store import STORES, create_store, open_store
from aupipe.store.documents import store_document
from aupipe.store.log.line import encode_line
from aupipe.store.maintenance.gc import collect
from aupipe.store.maintenance.purge import purge
from aupipe.store.maintenance.repair import rebuild
from aupipe.store.maintenance.verify import check

from .contract import CLOCK, SOURCE, SPEC, random_rows, same

BACKENDS = STORES.names()


@pytest.fixture(params=BACKENDS)
def old(request, tmp_path):
    """What version 1 wrote: 8 hex of the metadata's hash in a path, wall clock times in lines, snapshots, markers."""
    path = tmp_path / "old"
    with create_store(path, request.param) as store:
        for number, name in enumerate(["a", "b", "moved"]):
            store.publish(name, SPEC, random_rows(300, 3, seed=number), source=SOURCE)
        store.publish("a", CLOCK, random_rows(300, dtype="float64"))
        records = list(store.all_published())
        lines = []
        for record in records:
            place = store.item_path(record)
            revision = hashlib.sha256(store.format.read_metadata(place).encode()).hexdigest()[:8]
            old = dataclasses.replace(record, revision=revision)
            os.rename(place, store.item_path(old))
            lines.append(encode_line(time.time_ns(), old))
        first = dataclasses.replace(old, recording="b", feature=SPEC.id, revision="01234567")  # replaced later
        lines.insert(0, encode_line(5, first))
        moved = next(record for record in records if record.recording == "moved")
        gone = max(name for name in os.listdir(os.path.dirname(store.item_path(moved))) if name.startswith("moved"))
        ended = store.folder.staging_path().replace(f"-{os.getpid()}-", f"-{_ended_process()}-")
        os.rename(os.path.join(os.path.dirname(store.item_path(moved)), gone), ended + store.format.suffix)
    for file in (path / "journal").iterdir():
        file.unlink()
    (path / "journal" / "00000000-1-00000000.jsonl").write_bytes(b"".join(lines))
    (path / "catalogue").mkdir()
    (path / "catalogue" / "base-00000001-00000000.npz").write_bytes(b"zip")
    (path / "tmp").mkdir(exist_ok=True)
    (path / "store.json").write_bytes(store_document(request.param, 1))
    return path


def _ended_process():
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    return child


def test_a_store_of_version_1_is_read_and_left_as_it_is(old):
    before = {file: file.read_bytes() for file in old.rglob("*") if file.is_file()}
    store = open_store(old)
    assert same(store.read("a", SPEC.id), random_rows(300, 3))
    assert same(store.read("b", SPEC.id), random_rows(300, 3, seed=1))
    assert [damage.recording for damage in check(store).damage] == ["moved"]
    assert {file: file.read_bytes() for file in old.rglob("*") if file.is_file()} == before


def test_the_first_collection_converts_a_store_of_version_1(old):
    """The item that an old process was moving when it was killed is put back, too."""
    store = open_store(old)
    collect(store, 0)
    report = check(store)
    assert (report.damage, report.orphans, report.superseded, report.unfinished) == ([], [], 0, 0)
    for opened in (store, open_store(old)):
        for number, name in enumerate(["a", "b", "moved"]):
            assert same(opened.read(name, SPEC.id), random_rows(300, 3, seed=number))
    assert not (old / "catalogue").exists()
    assert len(list((old / "index").iterdir())) == 1
    assert json.loads((old / "store.json").read_text())["version"] == 2


def test_a_new_publication_replaces_an_old_one_whatever_the_clock_says(old, monkeypatch):
    monkeypatch.setattr(time, "time_ns", lambda: 1)
    monkeypatch.setattr(time, "time", lambda: 0.0)
    with open_store(old) as store:
        store.publish("a", SPEC, random_rows(5, 3, seed=7))
    assert json.loads((old / "store.json").read_text())["version"] == 2  # before an older aupipe misreads the line
    assert same(open_store(old).read("a", SPEC.id), random_rows(5, 3, seed=7))


def test_old_items_whose_journal_is_lost_are_won_back(old):
    (old / "journal" / "00000000-1-00000000.jsonl").unlink()
    assert rebuild(open_store(old)) == 3
    assert same(open_store(old).read("a", SPEC.id), random_rows(300, 3))


def test_a_purge_leaves_nothing_in_the_snapshots_of_an_old_store(old):
    (old / "catalogue" / "base-00000002-00000000.npz").write_bytes(b"zip of the name moved")
    store = open_store(old)
    assert purge(store, "moved")
    assert not [path for path in old.rglob("*") if path.is_file() and b"moved" in path.read_bytes()]
    assert same(store.read("a", SPEC.id), random_rows(300, 3, seed=0))
