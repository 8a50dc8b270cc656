"""The index is the same from an index file and from the journals."""

import os
import shutil
import sqlite3
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aupipe.store import STORES, ItemRecord, create_store, open_store
from aupipe.store.log import index as index_module
from aupipe.store.log.index import Index
from aupipe.store.log.index_file import index_paths
from aupipe.store.log.line import Line, encode_line
from aupipe.store.maintenance.gc import collect
from aupipe.store.maintenance.repair import rebuild
from aupipe.store.maintenance.verify import check

from .contract import CLOCK, SOURCE, SPEC, WIDE, random_rows, same
from .test_journal import RECORDS

BACKENDS = STORES.names()
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


def test_lines_after_the_index_file_are_read(filled):
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


def test_one_lost_or_damaged_index_file_loses_nothing(filled):
    """Also when the journals were merged and removed: two files hold them."""
    filled.close()
    for _ in range(3):
        collect(filled, 0)
    assert os.listdir(filled.folder.journals) == []
    path, _ = index_paths(filled.folder.indexes)
    before = everything(filled)
    content = bytearray(Path(path).read_bytes())
    content[len(content) // 2] ^= 1
    Path(path).write_bytes(content)
    assert everything(open_store(filled.path)) == before
    assert [damage.kind for damage in check(open_store(filled.path)).damage] == ["index"]
    os.remove(path)
    assert everything(open_store(filled.path)) == before


def test_the_index_is_rebuilt_from_the_items_when_the_journals_are_lost(filled):
    filled.publish("a", SPEC, random_rows(9, 3), source=SOURCE)
    collect(filled, 0)  # what was deleted is on the disk until then
    drop = {"time_utc": "", "seconds": 0.0}
    before = [vars(record) | drop for record in filled.all_published()]
    shutil.rmtree(filled.folder.journals)
    shutil.rmtree(filled.folder.indexes)
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


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 2**62), RECORDS, st.sampled_from(FEATURES)), max_size=12))
def test_any_records_survive_compaction_in_any_order(tmp_path_factory, drawn):
    names = ["a", "b", "\udcff"]
    lines = []
    for number, (seq, record, feature) in enumerate(drawn):
        revision = "0123abcd" if record.state == "done" else ""
        fields = vars(record) | {"feature": feature, "recording": names[number % 3], "revision": revision}
        lines.append(Line((seq, f"{number}.jsonl"), ItemRecord(**fields)))
    folder = str(tmp_path_factory.mktemp("indexes"))
    straight, backwards = Index("", folder), Index("")
    for line in lines:
        straight.apply(line)
    for line in reversed(lines):
        backwards.apply(line)
    staged, half = os.path.join(folder, "staged"), Index("", folder)
    for line in lines[::2]:
        half.apply(line)
    half.write_file(staged, {}, {})
    grown = Index("", folder)
    grown.refresh()
    for line in lines[1::2]:
        grown.apply(line)
    grown.write_file(staged, {("a", FEATURES[0], "1-a-b-c"): 7}, {})
    loaded = Index("", folder)
    loaded.refresh()
    assert loaded.filed_garbage() == {("a", FEATURES[0], "1-a-b-c"): 7}
    for index in (backwards, grown, loaded):
        assert list(index.records()) == list(straight.records())
        assert list(index.all_published()) == list(straight.all_published())
        assert index.states(FEATURES) == straight.states(FEATURES)
        assert list(index.damaged()) == list(straight.damaged())
        for name in names:
            assert index.last_seq(name, FEATURES[0]) == straight.last_seq(name, FEATURES[0])


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


def test_an_index_file_is_an_sqlite_database(filled):
    with sqlite3.connect(f"file:{filled.compact()}?mode=ro&immutable=1", uri=True) as database:
        names = database.execute("SELECT name FROM recordings").fetchall()
        assert {name.decode("utf-8", "surrogatepass") for (name,) in names} == {"a", "b\n", "bad\udcff", "", "never"}


def test_an_index_file_made_from_an_old_one_hides_nothing(filled):
    """What a process writes that was stopped for long does not hide what others wrote meanwhile."""
    sleeper = open_store(filled.path)
    garbage = sleeper.index.garbage(0)
    filled.publish("later", SPEC, random_rows(3, 3))
    for _ in range(3):
        filled.close()
        collect(filled, 0)
    sleeper.index.write_file(sleeper.folder.staging_path(), garbage, sleeper.index.parts())
    assert everything(open_store(filled.path)) == everything(filled)
    assert open_store(filled.path).record("later", SPEC.id).frames == 3
    sleeper.refresh()
    assert everything(sleeper) == everything(filled)


def test_a_reader_of_before_finds_what_was_merged_and_removed_meanwhile(filled):
    filled.compact()
    reader = open_store(filled.path)
    filled.publish("later", SPEC, random_rows(3, 3))
    filled.close()
    for _ in range(3):
        collect(filled, 0)
    assert not os.listdir(filled.folder.journals)
    assert reader.record("later", SPEC.id) is None
    reader.refresh()
    assert everything(reader) == everything(filled)
    assert same(reader.read("later", SPEC.id), random_rows(3, 3))


def test_opening_a_store_parses_no_line_and_asking_for_an_item_parses_its_own(tmp_path, monkeypatch):
    with create_store(tmp_path / "s") as store:
        for number in range(30):
            store.fail(f"{number}", SPEC, "x")
    parsed, parse = [], index_module.parse_text
    monkeypatch.setattr(index_module, "parse_text", lambda *text: parsed.append(text) or parse(*text))
    opened = open_store(tmp_path / "s")
    assert parsed == []
    assert opened.record("7", SPEC.id).reason == "x"
    assert opened.record("7", SPEC.id).reason == "x"
    assert len(parsed) == 1


def test_a_line_that_appears_late_does_not_take_the_place_of_a_newer_one(tmp_path):
    """One that another machine wrote before, and that is seen after a newer one was merged."""
    store = create_store(tmp_path / "s")
    for number, name in enumerate(["late.jsonl", "prompt.jsonl"], 1):
        line = encode_line(number, ItemRecord("a", SPEC.id, "failed", reason=name))
        (tmp_path / name).write_bytes(line)
    (tmp_path / "s/journal").mkdir(exist_ok=True)
    shutil.copy(tmp_path / "prompt.jsonl", tmp_path / "s/journal")
    store.compact()
    reader = open_store(store.path)
    shutil.copy(tmp_path / "late.jsonl", tmp_path / "s/journal")
    for opened in (reader, open_store(store.path)):
        opened.refresh()
        assert opened.record("a", SPEC.id).reason == "prompt.jsonl"
        assert [record.reason for record in opened.records()] == ["prompt.jsonl"]


def test_a_later_line_of_an_item_is_added_whether_or_not_the_item_was_asked_for_before(tmp_path):
    with create_store(tmp_path / "s") as store:
        store.publish("a", SPEC, random_rows(5, 3))
        reader = open_store(store.path)
        assert reader.record("a", SPEC.id).state == "done"
        store.fail("a", SPEC, "crashed")
    reader.refresh()
    for opened in (reader, open_store(store.path)):
        assert opened.record("a", SPEC.id).state == "failed"
        assert same(opened.read("a", SPEC.id), random_rows(5, 3))  # a failure leaves what was published


def test_a_line_that_leads_out_of_the_store_is_no_record(tmp_path):
    store = create_store(tmp_path / "s")
    store.fail("a", SPEC, "x")
    line = encode_line(9, ItemRecord("b", SPEC.id, "done", revision="../../x"))
    (tmp_path / "s/journal/w.jsonl").write_bytes(line)
    for opened in (open_store(store.path), open_store(store.path)):
        assert [record.recording for record in opened.records()] == ["a"]
        assert opened.record("b", SPEC.id) is None
        assert list(opened.states([SPEC.id])) == ["a"]
        opened.compact()


def test_thousands_of_ended_journals_cost_a_refresh_nothing(tmp_path, monkeypatch):
    """Those that said so are not looked at again, and the merged ones not even once."""
    path = tmp_path / "s"
    with create_store(path) as store:
        for number in range(50):
            store.fail(f"{number}", SPEC, "x")
            store.close()
    looked = []
    for name in ("stat", "open"):
        call = getattr(os, name)
        monkeypatch.setattr(
            os, name, lambda path, *rest, call=call, **more: looked.append(str(path)) or call(path, *rest, **more)
        )
    store = open_store(path)
    assert sum(name.endswith(".jsonl") for name in looked) == 50
    looked.clear()
    store.refresh()
    assert not any(name.endswith(".jsonl") for name in looked)
    store.compact()
    collect(store, 3600)
    looked.clear()
    assert len(list(open_store(path).records())) == 50
    assert not any(name.endswith(".jsonl") for name in looked)


def test_a_line_that_another_thread_has_written_before_is_not_passed_over():
    index = Index()
    first, second = (
        Line((number, "journal.jsonl"), ItemRecord(f"{number}", FEATURES[0], "failed")) for number in (1, 2)
    )
    index.apply(second, 100, 200)
    assert index.parts() == {}, "the first 100 bytes are still to be read"
    index.apply(first, 0, 100)
    assert [part.bytes for part in index.parts().values()] == [100], "what follows is read again"


def test_readers_find_every_item_while_another_thread_begins_anew_from_a_newer_index_file(tmp_path):
    writer = create_store(tmp_path / "s", "hdf5")
    names = [f"{number:03}" for number in range(200)]
    for name in names:
        writer.fail(name, SPEC, "no face")
    reader, missing, done = open_store(tmp_path / "s"), [], threading.Event()

    def read():
        while not done.is_set():
            missing.extend(name for name in names if reader.record(name, SPEC.id) is None)
            missing.extend(name for name in names if name not in reader.states([SPEC.id]))

    thread = threading.Thread(target=read)
    thread.start()
    for _ in range(15):
        writer.compact()
        reader.refresh()
    done.set()
    thread.join()
    assert missing == []


REVISIONS = [
    *("1-0a1b2c3d-77-89abcdef", "1-0a1b2c3d-77-89ABCDEF", "1-0a1b2c3d-77-abc"),
    *("2-0a1b2c3d-77-89abcdef", "1-0a1b2c3d-7-89abcdef", "89abcdef", "1-a-b-c", ""),
]
TIMES = ["2026-11-28T19:56:29Z", "0001-01-01T00:00:00Z", "2026-11-28T19:56:29.5Z", "yesterday", ""]


@pytest.mark.parametrize("revision", REVISIONS)
@pytest.mark.parametrize("time_utc", TIMES)
def test_revisions_and_times_are_read_as_they_were_written_whatever_their_form(tmp_path, revision, time_utc):
    record = ItemRecord("a", FEATURES[0], "done", revision=revision, time_utc=time_utc)
    index = Index("", str(tmp_path))
    index.apply(Line((1, "0a1b2c3d-77-01234567.jsonl"), record))
    index.write_file(str(tmp_path / "staged"), {}, {})
    loaded = Index("", str(tmp_path))
    loaded.refresh()
    assert list(loaded.records()) == [record]


@pytest.mark.parametrize("apart", [True, False], ids=["in two journals", "in one"])
def test_of_two_lines_that_are_read_at_once_the_newer_one_holds_whichever_is_read_first(tmp_path, apart):
    folder = tmp_path / "s/journal"
    create_store(tmp_path / "s").close()
    lines = [encode_line(number, ItemRecord("a", SPEC.id, "failed", reason=f"{number}")) for number in (2, 1)]
    for name, content in zip("xy", lines if apart else [b"".join(lines)], strict=False):
        (folder / f"{name}.jsonl").write_bytes(content)
    store = open_store(tmp_path / "s")
    assert store.record("a", SPEC.id).reason == "2"
    assert [record.reason for record in store.records()] == ["2"]
