"""Out of a store and back, bit for bit."""

from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pandas
import pytest

from aupipe.errors import DamageError, UsageError
from aupipe.store import create_store, open_store
from aupipe.store.keys import name_as_text
from aupipe.store.maintenance.export import export
from aupipe.store.maintenance.migrate import migrate
from aupipe.store.maintenance.verify import check
from aupipe.types import FeatureSpec

from .contract import CLOCK, SOURCE, SPEC, WIDE, random_rows, same

NAMES = ["a.mp4", "b/c d.mp4", "bad\udcff.avi"]


@pytest.fixture(params=["zarr", "hdf5"])
def store(request, tmp_path):
    store = create_store(tmp_path / "s", request.param)
    for number, name in enumerate(NAMES):
        store.publish(
            name, SPEC, random_rows(700, 3, seed=number, invalid=[5]), source=SOURCE, versions={"x": "1"}, seconds=2
        )
        store.publish(name, CLOCK, random_rows(700, dtype="float64", seed=number), video_id="v")
    store.publish("empty", SPEC, random_rows(0, 3))
    store.fail("a.mp4", SPEC, "crashed since")
    store.fail("never", WIDE, "no face")
    return store


def content(store):
    """What must be the same after any conversion."""
    fields = (
        "recording",
        "feature",
        "frames",
        "valid_frames",
        "shape",
        "dtype",
        "crc32c",
        "source",
        "versions",
        "video_id",
    )
    return (
        [[getattr(record, field) for field in fields] + [record.seconds] for record in store.all_published()],
        [(record.recording, record.feature, record.state, record.reason) for record in store.records()],
        {(r.recording, r.feature): store.read(r.recording, r.feature).tobytes() for r in store.all_published()},
        store.features(),
    )


def test_migration_there_and_back_is_bit_exact(store, tmp_path):
    other = {"zarr": "hdf5", "hdf5": "zarr"}[store.backend]
    records = list(migrate(store, tmp_path / "there", other))
    assert len(records) == 9
    there = open_store(tmp_path / "there")
    assert (there.backend, content(there)) == (other, content(store))
    list(migrate(there, tmp_path / "back", store.backend))
    back = open_store(tmp_path / "back")
    assert content(back) == content(store)
    for record in store.all_published():
        first, second = (
            store.published(record.recording, record.feature),
            back.published(record.recording, record.feature),
        )
        assert (first.nbytes, first.metadata_crc32c) == (second.nbytes, second.metadata_crc32c)
    assert check(there).damage == check(back).damage == []


def test_a_migration_goes_on_where_it_stopped(store, tmp_path):
    steps = migrate(store, tmp_path / "there", "zarr")
    next(steps)
    next(steps)
    steps.close()
    assert len(list(migrate(store, tmp_path / "there", "zarr"))) == 7
    assert list(migrate(store, tmp_path / "there", "zarr")) == []
    assert content(open_store(tmp_path / "there")) == content(store)


def test_damage_does_not_migrate(store, tmp_path):
    record = store.published("b/c d.mp4", SPEC.id)
    with open(store.format.data_file(store.item_path(record), record), "r+b") as file:
        file.seek(record.offset + 100)
        file.write(b"\1\2\3")
    with pytest.raises(DamageError, match=r"b/c d\.mp4"):
        list(migrate(open_store(store.path), tmp_path / "there", "zarr"))
    assert open_store(tmp_path / "there").record("b/c d.mp4", SPEC.id) is None


def test_npz_has_a_file_per_recording_and_an_array_per_feature(store, tmp_path):
    files = export(store, tmp_path / "out", "npz")
    assert len(files) == 4
    for number, name in enumerate(NAMES):
        (found,) = (
            arrays
            for arrays in map(np.load, files)
            if str(arrays["recording"]) == name.encode("utf-8", "backslashreplace").decode()
        )
        assert same(found["hog"], random_rows(700, 3, seed=number, invalid=[5]))
        assert same(found["clock"], random_rows(700, dtype="float64", seed=number))


def test_hdf5_is_one_file_with_a_group_per_feature(store, tmp_path):
    assert export(store, tmp_path / "out.h5", "hdf5", features=["hog"]) == [str(tmp_path / "out.h5")]
    with h5py.File(tmp_path / "out.h5") as file:
        assert list(file) == ["hog"]
        found = {data.attrs["recording"]: data[...] for data in file["hog"].values()}
    assert len(found) == 4
    assert same(found["b/c d.mp4"], random_rows(700, 3, seed=1, invalid=[5]))


def test_parquet_has_a_row_per_frame(store, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    files = export(store, tmp_path / "out", "parquet", features=["hog"], recordings=["a.mp4", "b/c d.mp4"])
    table = parquet.read_table(files[0])
    assert table.num_rows == 1400
    rows = table.filter([name == "b/c d.mp4" for name in table["recording"].to_pylist()])
    expected = random_rows(700, 3, seed=1, invalid=[5])
    values = np.array(rows["hog"].to_pylist(), np.float16)
    assert np.array_equal(values, expected, equal_nan=True)
    assert rows["frame"].to_pylist() == list(range(700))
    assert rows["valid"].to_pylist() == (~np.isnan(expected[:, 0])).tolist()


@pytest.mark.parametrize("backend", ["zarr", "hdf5"])
def test_named_columns_keep_their_names_and_known_times_are_there(backend, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    spec = FeatureSpec("pose", "visual", "geometry", 1, inputs={"clock": CLOCK.id}, columns=("yaw", "pitch"))
    rows, times = random_rows(7, 2, invalid=[2]), np.arange(7) / 25
    with create_store(tmp_path / "s", backend) as store:
        store.publish("a.mp4", CLOCK, times)
        store.publish("a.mp4", spec, rows)
    store = open_store(tmp_path / "s")
    table = parquet.read_table(export(store, tmp_path / "out", "parquet", features=["pose"])[0])
    assert table.column_names == ["recording", "frame", "time_s", "valid", "yaw", "pitch"]
    assert table["time_s"].to_pylist() == times.tolist()
    assert np.array_equal(table["pitch"].to_numpy(), rows[:, 1], equal_nan=True)
    (file,) = export(store, tmp_path / "npz", "npz", features=["pose"])
    assert np.load(file)["pose.columns"].tolist() == ["yaw", "pitch"]
    (file,) = export(store, tmp_path / "out.h5", "hdf5", features=["pose"])
    assert list(h5py.File(file)["pose"].attrs["columns"]) == ["yaw", "pitch"]


@pytest.mark.parametrize("backend", ["zarr", "hdf5"])
def test_columns_that_were_named_later_have_their_names_in_exports_and_copies(backend, tmp_path):
    pytest.importorskip("pandas")
    named = replace(SPEC, columns=("yaw", "pitch", "roll"))
    with create_store(tmp_path / "s", backend) as store:
        store.publish("a.mp4", SPEC, random_rows(7, 3))
    with open_store(tmp_path / "s") as store:
        store.publish("b.mp4", named, random_rows(7, 3))
    store = open_store(tmp_path / "s")
    assert list(store["hog"]["a.mp4"].to_pandas().columns) == list(named.columns)
    for file in export(store, tmp_path / "out", "npz"):
        assert np.load(file)["hog.columns"].tolist() == list(named.columns)
    assert len(list(migrate(store, tmp_path / "there", backend))) == 2
    assert open_store(tmp_path / "there").spec(SPEC.id).columns == named.columns


@pytest.mark.parametrize("columns", [("frame", "yaw"), ("yaw", "yaw"), ("time_s", "valid")])
def test_names_that_something_else_has_too_replace_nothing_in_parquet(tmp_path, columns):
    parquet = pytest.importorskip("pyarrow.parquet")
    store, rows = create_store(tmp_path / "s"), random_rows(7, 2)
    for name in ("pose", "valid"):
        store.publish("a.mp4", FeatureSpec(name, "visual", "geometry", 1, columns=columns), rows)
    for file in export(store, tmp_path / "out", "parquet"):
        table = parquet.read_table(file)
        assert table.column_names[:4] == ["recording", "frame", "time_s", "valid"]
        assert table["frame"].to_pylist() == list(range(7))
        assert table["valid"].to_pylist() == [True] * 7
        (values,) = table.column_names[4:]
        assert values.partition("@")[0] in ("pose", "valid")
        assert np.array_equal(np.array(table[values].to_pylist(), np.float16), rows)


def test_csv_has_a_row_per_frame_that_is_read_back_exactly(store, tmp_path):
    """Float16 and float64 as short as they are exact, nothing where a row is invalid, names that clash told apart."""
    wide = random_rows(3, 2, 2)
    store.publish("a.mp4", WIDE, wide, source=SOURCE)
    clashing = FeatureSpec("pose", "visual", "geometry", 1, columns=("frame", "yaw"))
    store.publish("a.mp4", clashing, random_rows(3, 2))
    files = export(store, tmp_path / "out", "csv", features=[SPEC.id, CLOCK.id, WIDE.id, clashing.id])
    tables = {Path(file).stem: pandas.read_csv(file, dtype={"recording": str}) for file in files}
    hog = tables[SPEC.name]
    assert list(hog.columns) == ["recording", "frame", "time_s", "valid", "hog.0", "hog.1", "hog.2"]
    assert hog["recording"].unique().tolist() == [name_as_text(name) for name in sorted(NAMES)]
    for name in NAMES:
        of_it = hog[hog["recording"] == name_as_text(name)]
        assert of_it["frame"].tolist() == list(range(700))
        assert same(of_it.iloc[:, 4:].to_numpy(np.float16), store.read(name, SPEC.id))
        assert np.flatnonzero(of_it["valid"] == 0).tolist() == [5]
    clock = tables[CLOCK.name]
    assert np.array_equal(clock.iloc[:700, 4], store.read(clock["recording"][0], CLOCK.id))
    assert list(tables["pose"].columns[4:]) == ["pose.frame", "pose.yaw"]
    assert same(tables[WIDE.name].iloc[:, 4:].to_numpy(np.float16), wide.reshape(3, 4))


def test_a_feature_that_is_called_recording_is_exported_under_its_id(tmp_path):
    store, spec = create_store(tmp_path / "s"), FeatureSpec("recording", "visual", "x", 1)
    store.publish("a.mp4", spec, random_rows(7, 2))
    arrays = np.load(export(store, tmp_path / "out", "npz")[0])
    assert str(arrays["recording"]) == "a.mp4"
    assert same(arrays[spec.id], random_rows(7, 2))


def test_more_names_than_an_attribute_of_hdf5_holds_are_left_out_and_the_rows_are_exported(tmp_path):
    store = create_store(tmp_path / "s")
    for count in (2000, 5000):
        spec = FeatureSpec(f"x{count}", "visual", "x", 1, columns=tuple(f"column_{k}" for k in range(count)))
        store.publish("a", spec, random_rows(3, count))
    (file,) = export(store, tmp_path / "out.h5", "hdf5")
    with h5py.File(file) as found:
        assert list(found["x2000"].attrs["columns"])[-1] == "column_1999"
        assert "columns" not in found["x5000"].attrs
        assert next(iter(found["x5000"].values())).shape == (3, 5000)


def test_parquet_without_pyarrow_says_what_to_install(store, tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UsageError, match="pip install pyarrow"):
        export(store, tmp_path / "out", "parquet")
    assert not (tmp_path / "out").exists()


def test_only_what_is_asked_for_is_exported(store, tmp_path):
    files = export(store, tmp_path / "out", "npz", features=["hog"], recordings=["a.mp4"])
    assert len(files) == 1
    assert set(np.load(files[0])) == {"recording", "hog"}
    with pytest.raises(UsageError, match="'nope'"):
        export(store, tmp_path / "other", "npz", recordings=["nope"])


def test_nothing_is_overwritten_and_nothing_half_made_is_left(store, tmp_path, monkeypatch):
    (tmp_path / "out").write_text("precious")
    with pytest.raises(UsageError, match="exists"):
        export(store, tmp_path / "out", "npz")
    assert (tmp_path / "out").read_text() == "precious"
    with pytest.raises(UsageError, match="Did you mean 'npz'"):
        export(store, tmp_path / "new", "npy")

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(OSError, match="No space"):
        export(store, tmp_path / "new", "npz")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "s"]
