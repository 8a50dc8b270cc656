"""Stored features as arrays, by name and by index."""

import re
import subprocess
import sys
from dataclasses import replace

import h5py
import numpy as np
import pytest
import torch
import zarr

from aupipe.errors import UsageError
from aupipe.store import STORES, create_store, derive_valid, open_store
from aupipe.store.maintenance.verify import check
from aupipe.types import FeatureSpec, Window

from .contract import CLOCK, SPEC, WIDE, random_rows, same

TIMED = FeatureSpec("swin_t", "visual", "timm", 1, inputs={"clock": CLOCK.id})
TIMES = np.arange(700) / 25


@pytest.fixture(params=STORES.names())
def store(request, tmp_path):
    store = create_store(tmp_path / "s", request.param)
    store.publish("video2", CLOCK, TIMES)
    store.publish("clip.mp4", CLOCK, TIMES + 1)
    store.publish("clip.mp4", TIMED, random_rows(700, 6, invalid=[3, 650]))
    store.publish("video2_left", TIMED, random_rows(700, 6, seed=1), video_id="video2")
    store.publish("clip.mp4", SPEC, random_rows(700, 2, 3))
    return store


def test_items_are_found_by_name_and_by_id(store):
    assert same(store["swin_t"]["clip.mp4"][100:400], random_rows(700, 6, invalid=[3, 650])[100:400])
    assert same(store[TIMED.id]["clip.mp4"][:], store["swin_t"]["clip.mp4"][:])
    assert sorted(store["swin_t"]) == ["clip.mp4", "video2_left"]
    assert len(store["swin_t"]) == 2
    assert "clip.mp4" in store["swin_t"]
    assert "other" not in store["swin_t"]


@pytest.mark.parametrize(
    "index",
    [
        5,
        -1,
        slice(None),
        slice(10, 20),
        slice(-50, None),
        slice(5, 2),
        slice(0, 700, 7),
        slice(None, None, -1),
        slice(690, 900),
        (slice(3, 9), 1),
        (Ellipsis, 0),
        (4, 1, 2),
        [1, 5, 3],
        np.arange(3),
        (slice(10, 20), slice(None), slice(0, 2)),
    ],
)
def test_items_index_as_numpy_does(store, index):
    rows = random_rows(700, 2, 3)
    assert np.array_equal(store["hog"]["clip.mp4"][index], rows[index], equal_nan=True)


def test_items_are_arrays_to_numpy(store):
    item = store["hog"]["clip.mp4"]
    assert (item.shape, item.dtype, len(item)) == ((700, 2, 3), np.float16, 700)
    assert np.array_equal(np.asarray(item), random_rows(700, 2, 3))
    assert np.asarray(item, dtype=np.float64).dtype == np.float64


def test_valid_and_times_come_with_the_rows(store):
    item = store["swin_t"]["clip.mp4"]
    assert np.flatnonzero(~item.valid).tolist() == [3, 650]
    assert np.array_equal(item.pts_s, TIMES + 1)
    everything = item.features()
    assert np.array_equal(everything.valid, derive_valid(everything.data))
    assert np.array_equal(everything.pts_s, item.pts_s)
    assert np.array_equal(store["clock"]["clip.mp4"].pts_s, TIMES + 1)


def test_a_person_in_a_video_has_the_clock_of_the_video(store):
    assert np.array_equal(store["swin_t"]["video2_left"].pts_s, TIMES)


def test_a_feature_without_a_clock_says_so(store):
    with pytest.raises(KeyError, match="names no clock"):
        store["hog"]["clip.mp4"].pts_s  # noqa: B018


def test_unknown_names_are_answered_with_the_nearest(store):
    with pytest.raises(KeyError, match="Did you mean 'swin_t'"):
        store["swin"]
    with pytest.raises(KeyError, match="nope"):
        store["swin_t"]["nope"]


def test_a_name_that_two_features_have_must_be_said_in_full(store):
    other = FeatureSpec("hog", "visual", "hog", 2)
    store.publish("clip.mp4", other, random_rows(2, 3))
    with pytest.raises(KeyError, match=rf"{SPEC.id}.*{other.id}|{other.id}.*{SPEC.id}"):
        store["hog"]
    assert store[other.id]["clip.mp4"].shape == (2, 3)


def test_an_item_is_a_dask_array(store):
    array = store["hog"]["clip.mp4"].dask(chunk_rows=256)
    assert array.chunks == ((256, 256, 188), (2,), (3,))
    assert np.array_equal(array[100:600, 1].compute(scheduler="synchronous"), random_rows(700, 2, 3)[100:600, 1])


WINDOWS = [Window("clip.mp4", 0, 300), Window("video2_left", 100, 400), Window("clip.mp4", 690, 700)]


def test_windows_are_gathered_into_one_batch(store):
    from aupipe.store.windows import WindowDataset, keep

    dataset = WindowDataset(store, ["swin_t"], WINDOWS, length=300)
    loader = torch.utils.data.DataLoader(dataset, batch_size=2, collate_fn=keep)
    first, second = [batch["swin_t"] for batch in loader]
    assert first.shape == (2, 300, 6)
    assert first.dtype == torch.float16
    for tensor, window in zip([*first, *second], WINDOWS, strict=True):
        rows = store["swin_t"][window.recording][window.start : window.stop]
        assert same(tensor[: len(rows)].numpy(), rows)
        assert torch.isnan(tensor[len(rows) :]).all()
    assert torch.equal(dataset[1]["swin_t"], first[1])


def test_a_batch_can_be_filled_again(store):
    from aupipe.store.windows import WindowDataset

    dataset = WindowDataset(store, ["swin_t"], WINDOWS, length=300)
    batch = dataset.allocate(2)
    assert dataset.gather([1, 0], out=batch) is batch
    place = batch["swin_t"].data_ptr()
    dataset.gather([0, 1], out=batch)
    assert batch["swin_t"].data_ptr() == place
    assert same(batch["swin_t"][1].numpy(), random_rows(700, 6, seed=1)[100:400])


def test_several_features_are_gathered_at_once(store):
    from aupipe.store.windows import WindowDataset

    batch = WindowDataset(store, ["swin_t", "hog"], [WINDOWS[0], WINDOWS[2]], length=300).gather([0, 1])
    assert {name: tuple(tensor.shape) for name, tensor in batch.items()} == {
        "swin_t": (2, 300, 6),
        "hog": (2, 300, 2, 3),
    }


def test_a_window_longer_than_the_batch_is_refused(store):
    from aupipe.store.windows import WindowDataset

    with pytest.raises(ValueError, match="at most 299"):
        WindowDataset(store, ["swin_t"], WINDOWS, length=299)


def test_views_need_no_torch(store):
    subprocess.run(
        [sys.executable, "-c", "import sys, aupipe.store.view; assert 'torch' not in sys.modules"], check=True
    )


def test_a_wide_feature_nobody_published_is_no_feature(store):
    with pytest.raises(KeyError):
        store[WIDE.id]


def test_an_item_is_given_to_other_libraries_with_its_times_and_validity(store):
    pytest.importorskip("pandas")
    pytest.importorskip("xarray")
    rows, item = random_rows(700, 6, invalid=[3, 650]), store["swin_t"]["clip.mp4"]
    assert same(item.to_numpy(), rows)
    assert item.to_numpy(np.float32).dtype == np.float32
    copy = item.to_numpy(copy=True)
    copy[:] = 0
    assert same(item.to_torch().numpy(), rows)
    assert item.to_torch(torch.float32).dtype == torch.float32
    frame = item.to_pandas()
    assert same(frame.to_numpy(), rows)
    assert np.array_equal(frame.index, TIMES + 1)
    array = item.to_xarray()
    assert (array.name, array.dims) == ("swin_t", ("time", "dim_1"))
    assert same(array.sel(time=slice(2.0, 3.0)).values, rows[25:51])
    assert np.flatnonzero(~array.valid.values).tolist() == [3, 650]


def test_an_item_without_a_clock_is_indexed_by_its_frames(store):
    pytest.importorskip("pandas")
    xarray = pytest.importorskip("xarray")
    item = store["hog"]["clip.mp4"]
    assert item.to_pandas().index.name == "frame"
    assert item.to_pandas().shape == (700, 6)
    assert set(item.to_xarray().coords) == {"valid"}
    assert same(xarray.DataArray(item).values, random_rows(700, 2, 3))


@pytest.mark.parametrize("name", ["pandas", "xarray", "torch", "dask"])
def test_a_missing_library_is_named_in_one_line(store, monkeypatch, name):
    for module in [module for module in sys.modules if module.partition(".")[0] == name]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, name, None)
    item = store["hog"]["clip.mp4"]
    with pytest.raises(UsageError, match=f"pip install {name}$"):
        item.dask() if name == "dask" else getattr(item, f"to_{name}")()


def test_what_is_printed_says_how_large_it_is(store):
    assert repr(store["hog"]["clip.mp4"]) == f"<'clip.mp4', {SPEC.id}: (700, 2, 3) float16, 8.4 kB>"
    assert re.fullmatch(rf"<{TIMED.id}: 2 recordings, \d\d\.\d kB>", repr(store["swin_t"]))
    assert re.fullmatch(r"<\w+Store '.*': 3 features>", repr(store))
    assert store.keys() == list(store)
    assert {len(view) for view in dict(store).values()} == {1, 2}


def test_a_feature_has_one_width(store):
    with pytest.raises(ValueError, match=rf"{TIMED.id}, recording 'new': rows of shape \(1,\).*clip\.mp4.*\(6,\)"):
        store.publish("new", TIMED, random_rows(10, 1))
    assert store.record("new", TIMED.id) is None
    store.publish("new", TIMED, random_rows(10, 6))
    store.delete("new", TIMED.id)
    store.publish("only", WIDE, random_rows(10, 1))
    store.publish("only", WIDE, random_rows(10, 3))  # the first item is replaced: there is no other


@pytest.mark.parametrize("backend", ["zarr", "hdf5"])
@pytest.mark.parametrize("count", [3, 240])
@pytest.mark.parametrize("frames", [1, 700])
def test_columns_have_their_names_in_pandas_xarray_and_in_the_files_themselves(tmp_path, backend, count, frames):
    pytest.importorskip("pandas")
    pytest.importorskip("xarray")
    names = tuple(f"jaw_open_{k}" for k in range(count))
    spec = replace(SPEC, columns=names)
    assert spec.key == SPEC.key
    with create_store(tmp_path / "s", backend) as store:
        store.publish("a.mp4", spec, random_rows(frames, count))
    store = open_store(tmp_path / "s")
    assert store.spec(spec.id).columns == names
    item = store[spec.name]["a.mp4"]
    assert list(item.to_pandas().columns) == list(names)
    assert list(item.to_xarray().sel(column="jaw_open_1").dims) == ["time"]
    (file,) = (tmp_path / "s" / spec.id / "items").glob("*/a.mp4-*")
    attributes = zarr.open_group(file, mode="r").attrs if backend == "zarr" else h5py.File(file)["data"].attrs
    assert list(attributes["columns"]) == list(names)
    assert check(store).damage == []


@pytest.mark.parametrize("length", [1, 300])
@pytest.mark.parametrize("count", [2000, 2001, 5000])
def test_an_hdf5_item_of_very_many_columns_is_stored_and_the_spec_has_their_names(tmp_path, count, length):
    names = tuple(f"{k:0{length}d}" for k in range(count))
    spec = replace(SPEC, columns=names)
    with create_store(tmp_path / "s", "hdf5") as store:
        store.publish("a.mp4", spec, random_rows(3, count))
    store = open_store(tmp_path / "s")
    assert store[spec.name]["a.mp4"].spec.columns == names
    (file,) = (tmp_path / "s" / spec.id / "items").glob("*/a.mp4-*")
    with h5py.File(file) as found:
        assert ("columns" in found["data"].attrs) == (count <= 2000)
    assert check(store).damage == []


def test_columns_of_several_faces_and_of_single_numbers_have_names(tmp_path):
    pytest.importorskip("pandas")
    faces, clock = replace(SPEC, columns=("x_px", "y_px")), replace(CLOCK, columns=("time_s",))
    with create_store(tmp_path / "s", "zarr") as store:
        store.publish("a.mp4", faces, random_rows(5, 3, 2))
        store.publish("a.mp4", clock, np.arange(5.0))
    store = open_store(tmp_path / "s")
    assert list(store[faces.name]["a.mp4"].to_pandas().columns) == [f"{c}_px_{k}" for k in range(3) for c in "xy"]
    assert list(store[clock.name]["a.mp4"].to_pandas().columns) == ["time_s"]
