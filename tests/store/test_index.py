"""The index is the same from a snapshot and from the journals, and no snapshot is needed."""

import io
import json
import os
import shutil
from pathlib import Path

import google_crc32c
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aupipe.store import STORES, ItemRecord, create_store, local, open_store
from aupipe.store.log.index import Index
from aupipe.store.log.journal import Line
from aupipe.store.log.snapshot import read_arrays, snapshot_paths, write_snapshot
from aupipe.store.maintenance.repair import rebuild
from aupipe.store.maintenance.verify import check

from .contract import CLOCK, SOURCE, SPEC, WIDE, random_rows, same
from .test_journal import RECORDS

BACKENDS = [name for name in STORES.names() if STORES.get(name).persistent]
FEATURES = ["hog@0123456789ab", "swin@0123456789ab"]


@pytest.fixture(params=BACKENDS)
def filled(request, tmp_path):
    """A store with a bit of everything."""
    store = create_store(tmp_path / "s", request.param)
    for number, name in enumerate(["a", "b\n", "bad\udcff", ""]):
        store.publish(name, SPEC, random_rows(300, 3, seed=number), source=SOURCE, versions={"x": "1"}, seconds=1.5)
        store.publish(name, CLOCK, random_rows(300, dtype="float64"), video_id="video")
    store.fail("a", SPEC, "crashed")
    store.fail("never", WIDE, "no face")
    store.delete("b\n", SPEC.id)
    return store


def everything(store):
    """All records and states of a store."""
    return (
        list(store.records()),
        list(store.all_published()),
        store.states([feature.id for feature in store.features()]),
        [store.record(name, SPEC.id) for name in ("a", "b\n", "bad\udcff", "", "never", "unknown")],
    )


def test_a_compacted_store_says_the_same(filled):
    before = everything(filled)
    filled.compact()
    assert everything(filled) == before
    assert everything(open_store(filled.path)) == before


def test_lines_after_the_snapshot_are_read(filled):
    filled.compact()
    reader = open_store(filled.path)
    filled.publish("new", SPEC, random_rows(5, 3))
    filled.publish("a", SPEC, random_rows(7, 3))
    filled.delete("", SPEC.id)
    for store in (filled, open_store(filled.path)):
        assert everything(store) == everything(filled)
    reader.refresh()
    assert everything(reader) == everything(filled)
    assert reader.record("a", SPEC.id).frames == 7
    filled.compact()
    assert everything(open_store(filled.path)) == everything(filled)
    assert len(snapshot_paths(os.path.join(filled.root, "catalogue"))) == 1


def test_a_lost_or_damaged_snapshot_changes_nothing_but_speed(filled):
    path = filled.compact()
    before = everything(filled)
    content = bytearray(Path(path).read_bytes())
    content[len(content) // 2] ^= 1
    Path(path).write_bytes(content)
    assert everything(open_store(filled.path)) == before
    assert [damage.kind for damage in check(open_store(filled.path)).damage] == ["catalogue"]
    os.remove(path)
    assert everything(open_store(filled.path)) == before


def test_the_index_is_rebuilt_from_the_items_when_the_journals_are_lost(filled):
    filled.publish("a", SPEC, random_rows(9, 3), source=SOURCE)
    filled.compact()
    drop = {"time_utc": "", "seconds": 0.0}
    before = [vars(record) | drop for record in filled.all_published()]
    shutil.rmtree(os.path.join(filled.root, "journal"))
    shutil.rmtree(os.path.join(filled.root, "catalogue"))
    store = open_store(filled.path)
    assert list(store.records()) == []
    assert rebuild(store) == len(before)
    assert [vars(record) | drop for record in open_store(filled.path).all_published()] == before
    assert check(open_store(filled.path)).damage == []
    assert same(store.read("a", SPEC.id), random_rows(9, 3))


def test_a_damaged_item_is_not_acknowledged(filled):
    item = filled.item_path(filled.published("bad\udcff", SPEC.id))
    file = filled.format.data_file(item, filled.published("bad\udcff", SPEC.id))
    with open(file, "r+b") as stream:
        stream.seek(-200, os.SEEK_END)
        byte = stream.read(1)
        stream.seek(-200, os.SEEK_END)
        stream.write(bytes([byte[0] ^ 1]))
    shutil.rmtree(os.path.join(filled.root, "journal"))
    store = open_store(filled.path)
    rebuild(store)
    assert store.record("bad\udcff", CLOCK.id) is not None
    assert store.record("bad\udcff", SPEC.id) is None or check(store).damage == []


def test_a_store_that_was_written_much_compacts_itself_when_closed(tmp_path, monkeypatch):
    monkeypatch.setattr(local, "COMPACT_LINES", 3)
    with create_store(tmp_path / "s") as store:
        for number in range(5):
            store.publish(f"{number}", SPEC, random_rows(2, 3))
    assert len(snapshot_paths(str(tmp_path / "s" / "catalogue"))) == 1
    with open_store(tmp_path / "s") as store:
        assert len(list(store.records())) == 5


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 2**62), RECORDS, st.sampled_from(FEATURES)), max_size=12))
def test_any_records_survive_compaction_in_any_order(tmp_path_factory, drawn):
    names = ["a", "b", "\udcff"]
    lines = []
    for number, (seq, record, feature) in enumerate(drawn):
        revision = "0123abcd" if record.state == "done" else ""
        fields = vars(record) | {"feature": feature, "recording": names[number % 3], "revision": revision}
        lines.append(Line((seq, f"{number}.jsonl"), ItemRecord(**fields)))
    straight, backwards = Index(""), Index("")
    for line in lines:
        straight.apply(line)
    for line in reversed(lines):
        backwards.apply(line)
    path = tmp_path_factory.mktemp("snapshots")
    kept = [line for entry in straight.entries() for line in entry.lines()]
    write_snapshot(str(path), str(path / "staged"), kept, {}, 1)
    loaded = Index(str(path / "nowhere"), str(path))
    for index in (backwards, loaded):
        assert list(index.records()) == list(straight.records())
        assert list(index.all_published()) == list(straight.all_published())
        assert index.states(FEATURES) == straight.states(FEATURES)
        assert index.last_seq == straight.last_seq or not lines


def test_states_are_what_records_say(filled):
    for store in (filled, open_store(filled.path)):
        features = [SPEC.id, "nope@0123456789ab", CLOCK.id, WIDE.id]
        states = store.states(features)
        assert set(states) == {"a", "b\n", "bad\udcff", "", "never"}
        for recording, row in states.items():
            for feature, state in zip(features, row, strict=True):
                record = store.record(recording, feature)
                assert state == (record and (record.state, record.source))
        assert store.states(["nope@0123456789ab"]) == store.states([]) == {}


def test_a_snapshot_is_plain_numpy_without_pickles(filled):
    with np.load(filled.compact(), allow_pickle=False) as arrays:
        assert json.loads(arrays["about"].tobytes())["recordings"]
        assert len(arrays["seq"]) >= 8


def test_a_snapshot_that_numpy_wrote_is_the_same(filled):
    """Snapshots written before arrays were aligned are `np.savez` files."""
    path = Path(filled.compact())
    before = everything(filled)
    buffer = io.BytesIO()
    with np.load(path) as arrays:
        np.savez(buffer, **arrays)
    path.unlink()
    name = f"base-00000007-{google_crc32c.value(buffer.getvalue()):08x}.npz"
    (path.parent / name).write_bytes(buffer.getvalue())
    shutil.rmtree(os.path.join(filled.root, "journal"))
    assert everything(open_store(filled.path)) == before


def test_what_compaction_writes_is_used_where_it_lies(filled):
    columns = read_arrays(Path(filled.compact()).read_bytes())
    assert not any(column.flags.owndata for column in columns.values())
