import dataclasses
import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aupipe.store import ItemRecord
from aupipe.store.log.journal import (
    Journal,
    blank_lines,
    damaged_lines,
    decode_line,
    encode_line,
    read_lines,
)
from aupipe.store.processes import writer_has_ended, writer_name
from aupipe.types import SourceIdentity

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
        lines, end = read_lines(str(path))
        assert [line.record.recording for line in lines] == ["a"]
        assert end == len(first)
    path.write_bytes(first + second)
    assert [line.record.recording for line in read_lines(str(path), end)[0]] == ["b"]


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


def test_a_damaged_line_does_not_hide_the_others(tmp_path):
    path = tmp_path / "w.jsonl"
    path.write_bytes(encode_line(1, record("a")) + b"garbage\n" + encode_line(2, record("b")))
    assert [line.record.recording for line in read_lines(str(path))[0]] == ["a", "b"]


def test_each_process_has_a_journal_of_its_own(tmp_path):
    journal = Journal(str(tmp_path))
    journal.append(record("parent"))
    child = os.fork()
    if child == 0:
        try:
            journal.append(record("child"))
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    journal.append(record("parent again"))
    found = {tuple(line.record.recording for line in read_lines(str(path))[0]) for path in tmp_path.iterdir()}
    assert found == {("parent", "parent again"), ("child",)}


def test_lines_are_ordered_though_the_clock_jumps_back(tmp_path, monkeypatch):
    journal = Journal(str(tmp_path))
    journal.observe(10**30)
    first, second = journal.append(record()), journal.append(record())
    assert 10**30 < first.order[0] < second.order[0]


def test_a_failed_append_leaves_nothing_for_the_next_line_to_trip_over(tmp_path, monkeypatch):
    from aupipe.store import fs

    journal = Journal(str(tmp_path))
    journal.append(record("a"))
    monkeypatch.setattr(fs, "_count", 0)
    monkeypatch.setenv("AUPIPE_FAULT", "write:1:enospc")
    with pytest.raises(OSError, match="No space left"):
        journal.append(record("lost"))
    monkeypatch.delenv("AUPIPE_FAULT")
    journal.append(record("b"))
    names = [line.record.recording for path in sorted(tmp_path.iterdir()) for line in read_lines(str(path))[0]]
    assert sorted(names) == ["a", "b"]


def test_blanked_lines_are_gone_and_a_live_writer_goes_on(tmp_path):
    journal = Journal(str(tmp_path))
    for name in ("keep", "erase", "keep too"):
        journal.append(record(name))
    assert blank_lines([journal.path], lambda line: b"erase" in line) == 1
    journal.append(record("new"))
    content = Path(journal.path).read_bytes()
    assert b"erase" not in content
    assert [line.record.recording for line in read_lines(journal.path)[0]] == ["keep", "keep too", "new"]
    assert list(damaged_lines(journal.path)) == []


def test_a_writer_has_ended_only_when_that_is_certain():
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    machine, _, _ = writer_name().split("-")
    assert not writer_has_ended(writer_name())
    assert writer_has_ended(f"{machine}-{child}-00000000.h5")
    assert not writer_has_ended(f"00000000-{child}-00000000")
    assert not writer_has_ended("something else")


def test_unknown_fields_of_a_later_version_are_passed_over():
    text = json.dumps({"recording": "a", "feature": FEATURE, "state": "done", "seq": 1, "colour": "red"}).encode()
    import google_crc32c

    line = b'{"crc32c":"%08x","record":%s}' % (google_crc32c.value(text), text)
    assert decode_line(line, "").record == dataclasses.replace(record(), frames=0)


@pytest.mark.parametrize("field", [{"feature": "../x@0123456789ab"}, {"revision": "../../x"}])
def test_a_line_that_leads_out_of_the_store_is_not_believed(field):
    assert decode_line(encode_line(1, dataclasses.replace(record(), **field))[:-1], "") is None
