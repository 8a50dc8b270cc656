import dataclasses
import json
import os
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from aupipe.store import ItemRecord, fs
from aupipe.store.log import journal as journal_module
from aupipe.store.log.journal import (
    CLOSED_LINE,
    Journal,
    blank_lines,
    damaged_lines,
    decode_line,
    encode_line,
    read_lines,
    read_tail,
)
from aupipe.store.processes import writer_has_ended, writer_name
from aupipe.types import SourceIdentity

from .disks import FaultyDisk

FEATURE = "hog@0123456789ab"
RECORDS = st.builds(
    ItemRecord,
    recording=st.text(alphabet=st.characters()),
    feature=st.just(FEATURE),
    state=st.sampled_from(["done", "failed", "deleted"]),
    frames=st.integers(0, 2**40),
    shape=st.tuples(st.integers(0, 9), st.integers(1, 9)),
    crc32c=st.integers(0, 2**32 - 1),
    source=st.none()
    | st.builds(SourceIdentity, st.integers(0, 2**60), st.integers(-(2**62), 2**62), st.text("0af", max_size=64)),
    seconds=st.floats(0, 1e9),
    reason=st.text(),
    versions=st.dictionaries(st.text(), st.text()),
)


def record(name="a"):
    return ItemRecord(name, FEATURE, "done", frames=3)


@settings(deadline=None)
@given(st.integers(0, 2**63), RECORDS)
def test_a_line_says_what_was_recorded_and_is_json(seq, item):
    line = encode_line(seq, item)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert decode_line(line[:-1], "w.jsonl") == ((seq, "w.jsonl"), item)
    assert json.loads(line)["record"]["state"] == item.state


@given(st.data())
def test_any_changed_byte_makes_a_line_say_nothing(data):
    line = bytearray(encode_line(5, record())[:-1])
    place = data.draw(st.integers(0, len(line) - 1))
    line[place] ^= data.draw(st.integers(1, 255))
    assert decode_line(bytes(line), "") is None


def test_a_torn_last_line_says_nothing_wherever_it_is_torn(tmp_path):
    first, second = encode_line(1, record("a")), encode_line(2, record("b"))
    path = tmp_path / "w.jsonl"
    for cut in range(len(second)):
        path.write_bytes(first + second[:cut])
        keys, _, end, _ = read_tail(str(path))
        assert keys == [("a", FEATURE)]
        assert end == len(first)
    path.write_bytes(first + second)
    assert [line.record.recording for line in read_lines(str(path), end)] == ["b"]


def test_any_flipped_byte_of_a_journal_is_found(tmp_path):
    content = encode_line(1, record("a")) + encode_line(2, record("b"))
    path = tmp_path / "w.jsonl"
    path.write_bytes(content)
    assert list(damaged_lines(str(path))) == []
    for place in range(len(content)):
        flipped = bytearray(content)
        flipped[place] ^= 4
        path.write_bytes(flipped)
        assert list(damaged_lines(str(path))), place


INTACT_LINE = encode_line(2, ItemRecord("b", FEATURE, "failed"))
INTACT = st.builds(encode_line, st.integers(0, 2**63), RECORDS)
OTHERS = st.sampled_from([b"garbage\n", b"   \n", b"\n", CLOSED_LINE, b"x" + CLOSED_LINE, b'{"crc32c":"00000000"\n'])
DAMAGES = st.sampled_from(
    [lambda line: b"x" + line, lambda line: line.replace(b'"state"', b'"stave"'), lambda line: line[:-3] + b"\n"]
)


@settings(deadline=None)
@example([encode_line(1, ItemRecord("a", FEATURE, "failed"))], [CLOSED_LINE, INTACT_LINE], 3000, b"")
@given(
    st.lists(INTACT, max_size=2),
    st.lists(INTACT | OTHERS | st.builds(lambda damage, line: damage(line), DAMAGES, INTACT), max_size=5),
    st.integers(1, 3000),
    st.binary(max_size=9).filter(lambda tail: b"\n" not in tail),
)
def test_lines_are_read_alike_many_at_once_and_one_by_one(tmp_path_factory, intact, others, block_bytes, torn):
    """Whatever lies between them, wherever a block that is read at once ends."""
    path, lines = tmp_path_factory.mktemp("journal") / "w.jsonl", intact + others
    path.write_bytes(b"".join(lines) + torn)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(journal_module, "_BLOCK_BYTES", block_bytes)
        tail, records = read_tail(str(path)), read_lines(str(path))
    singly = [line for line in (decode_line(line[:-1], "w.jsonl") for line in lines) if line]
    assert records == singly
    assert tail.keys == [(line.record.recording, line.record.feature) for line in singly]
    assert tail.end == len(b"".join(lines))
    assert tail.closed == (lines[-1:] == [CLOSED_LINE])


def test_a_damaged_line_does_not_hide_the_others(tmp_path):
    path = tmp_path / "w.jsonl"
    path.write_bytes(encode_line(1, record("a")) + b"garbage\n" + encode_line(2, record("b")))
    assert [line.record.recording for line in read_lines(str(path))] == ["a", "b"]


def test_each_process_has_a_journal_of_its_own(tmp_path):
    journal = Journal(str(tmp_path))
    journal.append(1, record("parent"))
    child = os.fork()
    if child == 0:
        try:
            journal.append(1, record("child"))
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    journal.append(1, record("parent again"))
    found = {tuple(line.record.recording for line in read_lines(str(path))) for path in tmp_path.iterdir()}
    assert found == {("parent", "parent again"), ("child",)}


def test_a_failed_append_leaves_nothing_for_the_next_line_to_trip_over(tmp_path, monkeypatch):
    journal = Journal(str(tmp_path))
    journal.append(1, record("a"))
    with monkeypatch.context() as patch:
        patch.setattr(fs, "disk", FaultyDisk("write:1:enospc"))
        with pytest.raises(OSError, match="No space left"):
            journal.append(1, record("lost"))
    journal.append(1, record("b"))
    names = [line.record.recording for path in sorted(tmp_path.iterdir()) for line in read_lines(str(path))]
    assert sorted(names) == ["a", "b"]


def test_a_line_that_went_into_a_removed_journal_is_written_again(tmp_path):
    journal = Journal(str(tmp_path))
    journal.append(1, record("a"))
    os.remove(journal.path)
    line, _, size = journal.append(2, record("b"))
    (path,) = tmp_path.iterdir()
    assert (path.name, path.stat().st_size) == (line.order[1], size)
    assert read_lines(str(path)) == [line]


def test_a_journal_that_the_server_has_lost_is_replaced(tmp_path, monkeypatch):
    """ESTALE: another machine removed the file."""
    journal = Journal(str(tmp_path))
    first = journal.append(1, record("a"))[0].order[1]
    monkeypatch.setattr(fs, "disk", FaultyDisk("fsync:1:estale"))
    line, *_ = journal.append(2, record("b"))
    assert line.order[1] != first
    assert read_lines(journal.path) == [line]


def test_a_journal_that_was_idle_for_long_gets_no_more_lines(tmp_path, monkeypatch):
    """A collector of another machine takes its writer for ended after a day."""
    from aupipe.store.maintenance.gc import ABANDONED_AFTER_S

    now = [1000.0]
    monkeypatch.setattr(journal_module, "_running_s", lambda: now[0])
    journal = Journal(str(tmp_path))
    names = []
    for pause_s in (0, journal_module.IDLE_S - 1, journal_module.IDLE_S + 1):
        now[0] += pause_s
        names.append(journal.append(1, record())[0].order[1])
    assert names[0] == names[1] != names[2]
    assert journal_module.IDLE_S <= ABANDONED_AFTER_S / 2


def test_a_closed_journal_says_so_and_a_killed_one_does_not(tmp_path):
    journal = Journal(str(tmp_path))
    journal.close()
    assert list(tmp_path.iterdir()) == []
    journal.append(1, record("a"))
    path = journal.path
    assert not read_tail(path).closed
    journal.close()
    journal.close()
    tail = read_tail(path)
    assert tail.closed
    assert tail.keys == [("a", FEATURE)]
    assert list(damaged_lines(path)) == []
    assert tail.end == os.path.getsize(path)
    for place in range(Path(path).read_bytes().index(b"\n") + 1, tail.end):
        content = bytearray(Path(path).read_bytes())
        content[place] ^= 4
        (tmp_path / "flipped.jsonl").write_bytes(content)
        assert list(damaged_lines(str(tmp_path / "flipped.jsonl"))) == [2], place


def test_blanked_lines_are_gone_and_a_live_writer_goes_on(tmp_path):
    journal = Journal(str(tmp_path))
    for name in ("keep", "erase", "keep too"):
        journal.append(1, record(name))
    assert blank_lines([journal.path], lambda line: b"erase" in line) == 1
    journal.append(1, record("new"))
    content = Path(journal.path).read_bytes()
    assert b"erase" not in content
    assert [line.record.recording for line in read_lines(journal.path)] == ["keep", "keep too", "new"]
    assert list(damaged_lines(journal.path)) == []


def test_a_writer_has_ended_only_when_that_is_certain():
    child = os.fork()
    if child == 0:
        os._exit(0)
    machine, _, _ = writer_name().split("-")
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    assert writer_has_ended(f"{machine}-{child}-00000000"), "it has, also where its parent has not asked"
    os.waitpid(child, 0)
    assert not writer_has_ended(writer_name())
    assert writer_has_ended(f"{machine}-{child}-00000000.h5")
    assert not writer_has_ended(f"00000000-{child}-00000000")
    assert not writer_has_ended("something else")


def test_unknown_fields_of_a_later_version_are_passed_over():
    text = json.dumps({"recording": "a", "feature": FEATURE, "state": "done", "seq": 1, "colour": "red"}).encode()
    import google_crc32c

    line = b'{"crc32c":"%08x","record":%s}' % (google_crc32c.value(text), text)
    assert decode_line(line, "").record == dataclasses.replace(record(), frames=0)


@pytest.mark.parametrize("field", [{"feature": "../x@0123456789ab"}, {"revision": "../../x"}, {"revision": "1-a-b"}])
def test_a_line_that_leads_out_of_the_store_is_not_believed(field):
    assert decode_line(encode_line(1, dataclasses.replace(record(), **field))[:-1], "") is None
