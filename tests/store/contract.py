"""The tests of the store contract. A backend's tests inherit `StoreContract` and define its fixture `store`."""

import pickle
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import google_crc32c
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aupipe.store import derive_valid
from aupipe.store.local import LocalStore
from aupipe.store.maintenance.repair import repair_damage
from aupipe.store.maintenance.verify import check
from aupipe.types import FeatureSpec, SourceIdentity

SPEC = FeatureSpec("hog", "visual", "hog", 1, {"cells": 8})
WIDE = FeatureSpec("swin_t", "visual", "timm", 1, {"model": "swin"}, dtype="float32")
CLOCK = FeatureSpec("clock", "clock", "pts", 1, dtype="float64")
SOURCE = SourceIdentity(123, 456, "ab" * 32)
NAMES = ["clip.mp4", "Clip.MP4", "a b/ü\n.mp4", "../../etc/passwd", "/abs", "con", "x" * 300, "bad\udcff.avi", ""]


def random_rows(frames, *row_shape, dtype="float16", seed=0, invalid=()):
    """Rows (frames, ...) with NaN in the rows named invalid."""
    rows = np.random.default_rng(seed).standard_normal((frames, *row_shape)).astype(dtype)
    rows[list(invalid)] = np.nan
    return rows


def same(first, second):
    """Equal bit for bit, NaN included."""
    return first.dtype == second.dtype and first.shape == second.shape and first.tobytes() == second.tobytes()


def damage_in(store, **options):
    """Items whose rows are not those that were published, and what `check` finds in the files of a store on disk."""
    found = []
    for record in store.all_published():
        rows = store.read(record.recording, record.feature)
        if google_crc32c.value(rows.tobytes()) != record.crc32c:
            found.append(record)
    return found + (check(store, **options).damage if isinstance(store, LocalStore) else [])


def check_and_repair(store):
    """The report of `check`, with what was repaired."""
    report = check(store)
    repair_damage(store, report)
    return report


def without_revisions(path):
    """Every file of a store but journals and index files: path in the store without the revision -> bytes."""
    found = {}
    for file in path.rglob("*"):
        name = str(file.relative_to(path))
        if file.is_file() and not name.startswith(("journal/", "index/")):
            found[re.sub(r"\.\d+(-[0-9a-f]+){3}", "", name)] = file.read_bytes()
    return found


class StoreContract:
    """Inherited with a fixture `store`: an empty store of the backend under test."""

    # Publishing

    @pytest.mark.parametrize("frames", [0, 1, 255, 256, 257, 300, 1000])
    @pytest.mark.parametrize("row_shape", [(), (7,), (5, 2)])
    def test_rows_come_back_bit_for_bit(self, store, frames, row_shape):
        rows = random_rows(frames, *row_shape, invalid=range(0, frames, 3))
        record = store.publish("clip.mp4", SPEC, rows)
        assert same(store.read("clip.mp4", SPEC.id), rows)
        assert (record.frames, record.shape, record.dtype) == (frames, rows.shape, "float16")
        assert record.valid_frames == frames - len(range(0, frames, 3)) == derive_valid(rows).sum()

    @pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
    def test_rows_are_stored_in_the_dtype_of_the_spec(self, store, dtype):
        spec = FeatureSpec("x", "visual", "x", 1, dtype=dtype)
        store.publish("a", spec, random_rows(300, 3, dtype="float64"))
        assert same(store.read("a", spec.id), random_rows(300, 3, dtype="float64").astype(dtype))

    @pytest.mark.parametrize(("frames", "invalid"), [(300, [0, 5, 299]), (5, []), (5, range(5)), (0, [])])
    def test_whole_numbers_take_a_byte_and_the_store_knows_which_rows_are_valid(self, store, frames, invalid):
        spec = FeatureSpec("x", "visual", "x", 1, dtype="uint8")
        pixels = np.random.default_rng(0).integers(0, 256, (frames, 4, 3), np.uint8)
        rows, valid = pixels.astype(np.float32), np.ones(frames, bool)
        valid[list(invalid)] = False
        rows[~valid] = np.nan
        record = store.publish("float", spec, rows)
        with store.writer("bytes", spec, frames=frames, row_shape=(4, 3)) as item:
            item.append(pixels * valid[:, None, None], valid)
            assert item.commit().crc32c == record.crc32c
        for name in ("float", "bytes"):
            found = store.read(name, spec.id)
            assert found.dtype == np.uint8
            assert np.array_equal(found, pixels * valid[:, None, None])
            assert np.array_equal(store["x"][name].valid, valid)
            assert store.published(name, spec.id).valid_frames == valid.sum()
        assert damage_in(store) == []

    @pytest.mark.parametrize(
        ("value", "message"),
        [(256.0, "256 does not fit uint8"), (-1.0, "-1 does"), (0.5, "0.5 does"), (np.nan, "NaN in part")],
    )
    def test_what_is_no_whole_number_of_a_byte_is_refused_with_its_row(self, store, value, message):
        rows = np.zeros((4, 3), np.float32)
        rows[2, 1] = value
        with pytest.raises(ValueError, match=f"row 2: {message}"):
            store.publish("a", FeatureSpec("x", "visual", "x", 1, dtype="uint8"), rows)

    def test_appending_piece_by_piece_is_publishing_at_once(self, store):
        rows = random_rows(1000, 6, invalid=[3, 4, 999])
        with store.writer("pieces", SPEC, frames=1000, row_shape=(6,)) as item:
            for start in range(0, 1000, 77):
                item.append(rows[start : start + 77])
            pieces = item.commit(seconds=2.5)
        whole = store.publish("whole", SPEC, rows)
        assert same(store.read("pieces", SPEC.id), rows)
        assert (pieces.crc32c, pieces.nbytes, pieces.seconds) == (whole.crc32c, whole.nbytes, 2.5)

    def test_nothing_is_seen_of_an_item_before_its_commit(self, store):
        with store.writer("a", SPEC, frames=2, row_shape=(3,)) as item:
            item.append(random_rows(2, 3))
            assert store.record("a", SPEC.id) is None
            with pytest.raises(KeyError):
                store.read("a", SPEC.id)
            item.commit()
        assert store.record("a", SPEC.id).state == "done"

    def test_leaving_a_writer_without_commit_leaves_the_item_as_it_was(self, store):
        before = store.publish("a", SPEC, random_rows(5, 3))
        with store.writer("a", SPEC, frames=5, row_shape=(3,)) as item:
            item.append(random_rows(5, 3, seed=1))
        assert store.record("a", SPEC.id) == before
        assert same(store.read("a", SPEC.id), random_rows(5, 3))
        assert damage_in(store) == []

    def test_a_writer_is_used_once(self, store):
        with store.writer("a", SPEC, frames=1, row_shape=(3,)) as item:
            item.append(random_rows(1, 3))
            item.commit()
            with pytest.raises(ValueError, match="closed"):
                item.commit()

    @pytest.mark.parametrize("appended", [9, 11])
    def test_a_wrong_number_of_rows_is_refused(self, store, appended):
        def write():
            with store.writer("a", SPEC, frames=10, row_shape=(3,)) as item:
                item.append(random_rows(appended, 3))
                item.commit()

        with pytest.raises(ValueError, match=r"a.*announced"):
            write()
        assert store.record("a", SPEC.id) is None

    @pytest.mark.parametrize(
        ("value", "message"),
        [(np.inf, "infinite"), (-np.inf, "infinite"), (np.nan, "NaN in part"), (65520.0, "65520 does not fit float16")],
    )
    def test_bad_values_are_refused_by_name_and_row(self, store, value, message):
        rows = random_rows(300, 4, dtype="float32")
        rows[270, 2] = value
        with pytest.raises(ValueError, match=rf"hog@.*clip.*row 270.*{message}"):
            store.publish("clip.mp4", SPEC, rows)
        assert store.record("clip.mp4", SPEC.id) is None

    @pytest.mark.parametrize("rows", [np.zeros((2, 4)), np.zeros((2, 3, 1)), np.zeros((2, 3), int), np.zeros(())])
    def test_rows_of_another_shape_or_kind_are_refused(self, store, rows):
        with store.writer("a", SPEC, frames=2, row_shape=(3,)) as item, pytest.raises(ValueError, match="expected"):
            item.append(rows)

    def test_rows_that_are_called_invalid_have_no_data(self, store):
        valid = np.array([True, False, True])
        for name, rows in {"a": np.ones((3, 2), np.float16), "b": np.ones((3, 2), np.uint8)}.items():
            spec = replace(SPEC, dtype=rows.dtype.name)
            with store.writer(name, spec, frames=3, row_shape=(2,)) as item:
                with pytest.raises(ValueError, match=r"validity is \(1,\), expected \(3,\)"):
                    item.append(rows, np.ones(1, bool))
                item.append(rows, valid)
                assert item.commit().valid_frames == 2
            found = store.read(name, spec.id)
            assert np.array_equal(found[1], np.full(2, np.nan if name == "a" else 0), equal_nan=True)
            assert (found[valid] == 1).all()

    def test_rows_given_to_the_store_are_not_changed(self, store):
        rows = random_rows(4, 3, invalid=[1])
        rows[1] = -rows[1]
        before = rows.tobytes()
        store.publish("a", SPEC, rows)
        assert rows.tobytes() == before

    def test_equal_rows_are_equal_bytes_however_their_nan_is_written(self, store):
        rows = random_rows(4, 3, invalid=[1])
        other = rows.copy()
        other[1] = -other[1]
        assert store.publish("a", SPEC, rows).crc32c == store.publish("b", SPEC, other).crc32c

    def test_values_up_to_the_limit_of_the_dtype_are_kept(self, store):
        store.publish("a", SPEC, np.array([[65504.0, -65504.0, 65519.0]]))
        assert store.read("a", SPEC.id).tolist() == [[65504.0, -65504.0, 65504.0]]

    def test_all_that_is_known_of_an_item_is_in_its_record(self, store):
        store.publish("a", SPEC, random_rows(2, 3), source=SOURCE, seconds=1.5, versions={"x": "1"}, video_id="v")
        record = store.record("a", SPEC.id)
        assert (record.source, record.seconds, record.versions, record.video_id) == (SOURCE, 1.5, {"x": "1"}, "v")
        assert record.time_utc.endswith("Z")

    # Names

    @pytest.mark.parametrize("name", NAMES)
    def test_any_name_is_stored_and_found(self, store, name):
        for seed, other in enumerate(NAMES):
            store.publish(other, SPEC, random_rows(2, 3, seed=seed))
        assert same(store.read(name, SPEC.id), random_rows(2, 3, seed=NAMES.index(name)))
        assert {record.recording for record in store.records(SPEC.id)} == set(NAMES)

    # Reading

    @given(start=st.integers(0, 700), length=st.integers(0, 700))
    @settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    def test_every_window_is_the_slice_of_the_whole(self, store, start, length):
        if store.record("a", SPEC.id) is None:
            store.publish("a", SPEC, random_rows(700, 3))
            store.publish("clock", CLOCK, random_rows(700, dtype="float64"))
        stop = min(700, start + length)
        for recording, spec, rows in (
            ("a", SPEC, random_rows(700, 3)),
            ("clock", CLOCK, random_rows(700, dtype="float64")),
        ):
            assert same(store.read(recording, spec.id, start, stop), rows[start:stop])
            out = np.empty_like(rows[start:stop])
            store.read_into(out, recording, spec.id, start)
            assert same(out, rows[start:stop])

    @pytest.mark.parametrize(("start", "stop"), [(-1, 3), (0, 11), (5, 4), (11, 11), (11, None)])
    def test_a_range_outside_of_the_item_is_an_error(self, store, start, stop):
        store.publish("a", SPEC, random_rows(10, 3))
        with pytest.raises(IndexError, match=r"hog@.*'a'.*10"):
            store.read("a", SPEC.id, start, stop)

    @pytest.mark.parametrize(("start", "length"), [(-1, 3), (8, 3), (11, 0)])
    def test_reading_into_an_array_keeps_to_the_item_too(self, store, start, length):
        store.publish("a", SPEC, random_rows(10, 3))
        with pytest.raises(IndexError):
            store.read_into(np.empty((length, 3), np.float16), "a", SPEC.id, start)

    @pytest.mark.parametrize("window", [(0, 10), (0, None), (100, 700)])
    def test_what_is_read_cannot_be_changed(self, store, window):
        store.publish("a", SPEC, random_rows(700, 3))
        with pytest.raises(ValueError, match="read-only"):
            store.read("a", SPEC.id, *window)[0] = 0
        assert damage_in(store) == []

    def test_an_unknown_item_is_a_key_error(self, store):
        store.publish("a", SPEC, random_rows(2, 3))
        for recording, feature in (("b", SPEC.id), ("a", WIDE.id), ("a", "hog"), ("a", "../hog")):
            with pytest.raises(KeyError):
                store.read(recording, feature)

    # State

    def test_publishing_anew_replaces(self, store):
        store.publish("a", SPEC, random_rows(10, 3))
        store.read("a", SPEC.id)
        record = store.publish("a", SPEC, random_rows(20, 3, seed=1))
        assert same(store.read("a", SPEC.id), random_rows(20, 3, seed=1))
        assert store.record("a", SPEC.id) == record
        assert list(store.records()) == [record]
        assert damage_in(store) == []

    def test_what_was_read_before_a_replacement_stays_what_it_was(self, store):
        store.publish("a", SPEC, random_rows(10, 3))
        rows = store.read("a", SPEC.id)
        store.publish("a", SPEC, random_rows(10, 3, seed=1))
        store.delete("a", SPEC.id)
        assert same(rows, random_rows(10, 3))

    def test_threads_publish_side_by_side(self, store):
        clocks = {f"{number}.mp4": np.arange(number + 5.0)[:, None] for number in range(24)}
        spec = replace(SPEC, inputs={"clock": CLOCK.id}, columns=tuple(f"c{cell}" for cell in range(7)))
        rows = {name: random_rows(len(clock), 7, seed=len(clock)) for name, clock in clocks.items()}

        def publish(name):
            store.publish(name, CLOCK, clocks[name])
            store.publish(name, spec, rows[name])
            store.fail(name, WIDE, "no face")

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(publish, clocks))
        for name in clocks:
            assert same(store.read(name, spec.id), rows[name])
            assert np.array_equal(store.read_times(name, spec.id), clocks[name].ravel())
            assert store.record(name, WIDE.id).reason == "no face"
        assert store.spec(spec.id) == spec
        assert not damage_in(store)

    def test_publishing_the_same_twice_is_publishing_once(self, store):
        first = store.publish("a", SPEC, random_rows(10, 3))
        second = store.publish("a", SPEC, random_rows(10, 3))
        assert first.crc32c == second.crc32c
        assert len(list(store.records())) == 1
        assert damage_in(store) == []

    def test_a_failure_is_recorded_with_its_reason_in_one_line(self, store):
        record = store.fail("a", SPEC, "no face\nin any frame", source=SOURCE, seconds=3.0)
        assert (record.state, record.reason, record.source, record.seconds) == (
            "failed",
            "no face in any frame",
            SOURCE,
            3.0,
        )
        assert store.record("a", SPEC.id) == record
        assert list(store.records(SPEC.id)) == [record]
        with pytest.raises(KeyError):
            store.read("a", SPEC.id)

    def test_a_failure_leaves_what_was_published_readable(self, store):
        done = store.publish("a", SPEC, random_rows(10, 3))
        store.fail("a", SPEC, "decoder crashed")
        assert store.record("a", SPEC.id).state == "failed"
        assert store.published("a", SPEC.id) == done
        assert same(store.read("a", SPEC.id), random_rows(10, 3))
        store.publish("a", SPEC, random_rows(10, 3))
        assert store.record("a", SPEC.id).state == "done"

    def test_a_deleted_item_is_gone_and_can_be_published_again(self, store):
        store.publish("a", SPEC, random_rows(10, 3))
        store.publish("b", SPEC, random_rows(10, 3))
        store.delete("a", SPEC.id)
        assert store.record("a", SPEC.id).state == "deleted"
        assert [record.recording for record in store.records()] == ["b"]
        with pytest.raises(KeyError):
            store.read("a", SPEC.id)
        with pytest.raises(KeyError):
            store.delete("a", SPEC.id)
        assert damage_in(store) == []
        store.publish("a", SPEC, random_rows(10, 3, seed=1))
        assert same(store.read("a", SPEC.id), random_rows(10, 3, seed=1))

    def test_features_are_listed_with_their_specs(self, store):
        assert store.features() == []
        store.publish("a", WIDE, random_rows(2, 3))
        store.fail("a", SPEC, "x")
        assert store.features() == [SPEC, WIDE]
        assert store.spec(SPEC.id) == SPEC
        for unknown in ("nope@000000000000", "hog", "../x"):
            with pytest.raises(KeyError):
                store.spec(unknown)

    def test_a_feature_that_was_stored_without_names_of_columns_has_them_once_they_are_known(self, store):
        named = replace(SPEC, columns=("yaw", "pitch", "roll"))
        store.publish("a", SPEC, random_rows(2, 3))
        assert store[SPEC.id]["a"].spec.columns == ()
        store.publish("b", named, random_rows(2, 3))
        for recording in ("a", "b"):
            assert store[SPEC.id][recording].spec.columns == named.columns
        store.publish("c", SPEC, random_rows(2, 3))
        store.fail("d", SPEC, "x")
        assert store.spec(SPEC.id).columns == named.columns
        assert damage_in(store) == []

    def test_names_of_columns_that_were_changed_are_those_of_the_feature_and_the_log_says_both(self, store, caplog):
        old, new = (replace(SPEC, columns=columns) for columns in (("x", "y", "z"), ("yaw", "pitch", "roll")))
        store.publish("a", old, random_rows(2, 3))
        store.publish("b", new, random_rows(2, 3))
        assert store[SPEC.id]["a"].spec.columns == new.columns
        assert "named x, y, z; now they are named yaw, pitch, roll" in caplog.text
        assert damage_in(store) == []

    def test_records_are_those_of_one_feature_or_of_all(self, store):
        store.publish("a", SPEC, random_rows(2, 3))
        store.publish("b", WIDE, random_rows(2, 3))
        assert [record.recording for record in store.records(WIDE.id)] == ["b"]
        assert {record.recording for record in store.records()} == {"a", "b"}

    def test_a_sound_store_verifies(self, store):
        for frames in (0, 1, 300, 900):
            store.publish(f"clip{frames}", SPEC, random_rows(frames, 3))
        assert damage_in(store) == damage_in(store, quick=True) == []

    def test_a_closed_store_lets_go_and_can_be_used_again(self, store):
        store.publish("a", SPEC, random_rows(2, 3))
        store.close()
        store.refresh()
        assert same(store.read("a", SPEC.id), random_rows(2, 3))

    def test_a_pickled_store_reads_the_same(self, store):
        store.publish("a", SPEC, random_rows(2, 3))
        assert same(pickle.loads(pickle.dumps(store)).read("a", SPEC.id), random_rows(2, 3))

    # Items as arrays

    def test_the_store_goes_through_the_names_it_accepts(self, store):
        assert (list(store), len(store), bool(store)) == ([], 0, True)
        assert "hog" not in store
        other = FeatureSpec("hog", "visual", "hog", 2)
        for spec in (SPEC, WIDE):
            store.publish("a", spec, random_rows(2, 3))
        assert sorted(store) == ["hog", "swin_t"]
        assert all(name in store for name in ("hog", SPEC.id, "swin_t", WIDE.id))
        assert not any(name in store for name in ("swin", other.id, "a", 3, None))
        store.publish("a", other, random_rows(2, 3))
        assert sorted(store) == sorted([SPEC.id, other.id, "swin_t"])  # ids where a name would be ambiguous
        assert len(store) == 3
        assert {store[name].spec.id for name in store} == {SPEC.id, WIDE.id, other.id}
        assert "hog" in store

    @pytest.mark.parametrize(
        ("index", "most"),
        [
            (5, 1),
            (-1, 1),
            (np.int64(999), 1),
            ((7, slice(1, 3)), 1),
            (slice(10, 20), 10),
            (slice(None, None, 100), 10),
            (slice(900, 100, -200), 4),
            (slice(30, 10, -1), 20),
            (slice(20, 10), 0),
            ([3, 999, 3, -500], 3),
            (np.array([[2, 1], [0, 3]]), 4),
            (([5, 700], [0, 2]), 2),
            ([], 0),
            (np.arange(1000) % 250 == 7, 4),
            ((np.arange(1000) == 7, 1), 1),
            (np.zeros(1000, bool), 0),
        ],
    )
    def test_an_item_reads_the_rows_asked_for_and_no_others(self, store, monkeypatch, index, most):
        rows = random_rows(1000, 3)
        store.publish("a", SPEC, rows)
        item, read, seen = store["hog"]["a"], store.read, []

        def counted(recording, feature, start=0, stop=None):
            found = read(recording, feature, start, stop)
            seen.append(len(found))
            return found

        monkeypatch.setattr(store, "read", counted)
        found = item[index]
        assert same(np.asarray(found), np.asarray(rows[index]))
        assert sum(seen) <= most

    @pytest.mark.parametrize("index", [1000, -1001, [0, 1000], [-1001], np.ones(999, bool), [0.5], "a"])
    def test_rows_an_item_does_not_have_are_an_index_error(self, store, index):
        store.publish("a", SPEC, random_rows(1000, 3))
        with pytest.raises(IndexError, match="hog@"):
            store["hog"]["a"][index]

    @pytest.mark.parametrize("frames", [0, 1, 600])
    def test_going_through_an_item_gives_its_rows_some_at_a_time(self, store, monkeypatch, frames):
        rows = random_rows(frames, 3)
        store.publish("a", SPEC, rows)
        item, read, sizes = store["hog"]["a"], store.read, []

        def counted(recording, feature, start=0, stop=None):
            sizes.append(stop - start)
            return read(recording, feature, start, stop)

        monkeypatch.setattr(store, "read", counted)
        found = list(item)
        assert len(found) == len(item) == frames
        assert all(same(row, own) for row, own in zip(found, rows, strict=True))
        assert sum(sizes) == frames
        assert max(sizes, default=0) <= 256

    def test_an_item_is_an_array_of_any_dtype_copied_or_not(self, store):
        rows = random_rows(200, 3)
        store.publish("a", SPEC, rows)
        item = store["hog"]["a"]
        assert same(np.asarray(item), rows)
        assert same(np.asarray(item, dtype="float64"), rows.astype("float64"))
        copied = np.array(item)
        copied[:] = 0
        assert same(np.asarray(item, copy=False), rows)
        with pytest.raises(ValueError, match="copy"):
            np.asarray(item, dtype="float64", copy=False)

    def test_an_item_is_a_tensor_at_once(self, store, monkeypatch):
        torch = pytest.importorskip("torch")
        rows = random_rows(600, 3, invalid=[4])
        store.publish("a", SPEC, rows)
        item, read, calls = store["hog"]["a"], store.read, []
        monkeypatch.setattr(store, "read", lambda *window: calls.append(window) or read(*window))
        tensor = torch.as_tensor(item)
        assert same(tensor.numpy(), rows)
        tensor[:] = 0  # its own memory
        assert same(torch.as_tensor(item, dtype=torch.float32).numpy(), rows.astype("float32"))
        assert len(calls) < 10  # and not one for every row

    def test_an_item_is_a_table_and_a_labelled_array(self, store):
        pandas = pytest.importorskip("pandas")
        rows = random_rows(300, 3)
        store.publish("a", SPEC, rows)
        assert same(pandas.DataFrame(store["hog"]["a"]).to_numpy(), rows)
        xarray = pytest.importorskip("xarray")
        labelled = xarray.DataArray(store["hog"]["a"], dims=("frame", "column"))
        assert same(labelled.values, rows)
        assert same(labelled.isel(frame=[3, 5]).values, rows[[3, 5]])
