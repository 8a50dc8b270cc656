"""zarr-python, xarray and h5py read the files, with all checks on."""

import json
from dataclasses import replace
from pathlib import Path

import google_crc32c
import h5py
import numpy as np
import pytest
import zarr

from aupipe.documents import parse_json
from aupipe.errors import DamageError
from aupipe.store import ItemRecord, create_store, derive_valid, open_store
from aupipe.store.maintenance.migrate import migrate
from aupipe.store.maintenance.verify import check
from aupipe.store.record_json import item_metadata, parse_metadata
from aupipe.types import FeatureSpec

from .contract import SPEC as HALF
from .contract import random_rows, same

SHAPES = [(0, 3), (1,), (255,), (256, 5), (257, 2, 3), (300, 7), (1000, 4), (3, 1, 1, 2)]


def spec(dtype):
    return FeatureSpec("x", "visual", "x", 1, dtype=dtype)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("shape", SHAPES)
def test_zarr_python_reads_what_was_published(tmp_path, shape, dtype):
    rows = random_rows(*shape, dtype=dtype, invalid=range(0, shape[0], 3))
    store = create_store(tmp_path / "s", "zarr")
    item = store.item_path(store.publish("a clip.mp4", spec(dtype), rows))
    group = zarr.open_group(item, mode="r")
    array = group["data"]
    assert same(array[...], rows)
    assert same(array[10:290], rows[10:290])
    assert np.array_equal(group["valid"][...], np.arange(shape[0]) % 3 > 0)
    assert group.attrs["recording"] == array.attrs["recording"] == "a clip.mp4"
    assert group.attrs["valid_frames"] == shape[0] - len(range(0, shape[0], 3))
    assert np.isnan(array.fill_value)
    assert array.metadata.dimension_names[0] == "time"


@pytest.mark.parametrize("shape", [(257, 3), (1000, 4), (256, 2)])
def test_the_chunks_in_the_shard_are_those_zarr_python_writes(tmp_path, shape):
    store = create_store(tmp_path / "s", "zarr")
    rows = random_rows(*shape)
    item = Path(store.item_path(store.publish("a", HALF, rows)), "data")
    document = json.loads((item / "zarr.json").read_text())
    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / "zarr.json").write_text(json.dumps(document))
    with zarr.config.set({"array.write_empty_chunks": True}):
        zarr.open_array(copy, mode="r+")[...] = rows
    count = -(-shape[0] // document["codecs"][0]["configuration"]["chunk_shape"][0])
    ours, theirs = (_chunks((folder / "c.0.0").read_bytes(), count) for folder in (item, copy))
    assert [content for _, content in ours] == [content for _, content in theirs]
    assert b"".join(content for _, content in ours)[: rows.nbytes] == rows.tobytes()
    assert [offset for offset, _ in ours] == [k * len(ours[0][1]) for k in range(count)]  # one after another


def _chunks(shard, count):
    """(offset, bytes) of each chunk of a shard, as its index has it."""
    index = np.frombuffer(shard[-16 * count - 4 : -4], "<u8").reshape(count, 2)
    return [(int(start), shard[start : start + length]) for start, length in index]


@pytest.mark.parametrize("backend", ["zarr", "hdf5"])
def test_the_times_and_the_validity_of_the_rows_lie_beside_them(tmp_path, backend):
    store = create_store(tmp_path / "s", backend)
    rows, times = random_rows(300, 4, invalid=[7]), np.arange(300) / 25
    clock = FeatureSpec("clock", "clock", "pts", 1, dtype="float64")
    timed = FeatureSpec("swin", "visual", "timm", 1, inputs={"clock": clock.id})
    store.publish("video", clock, times)
    path = store.item_path(store.publish("video_left", timed, rows, video_id="video"))
    if backend == "zarr":
        xarray = pytest.importorskip("xarray")
        item = xarray.open_zarr(path)
        assert item.data.dims == ("time", "dim_1")
        assert set(item.data.coords) == {"time", "valid"}
        assert item.data.sel(time=slice(4.0, 8.0)).shape == (101, 4)
        found = {name: item[name].values for name in ("data", "valid", "time")}
        assert item.attrs["recording"] == "video_left"
    else:
        with h5py.File(path, "r", locking=False) as file:
            found = {name: file[name][...] for name in ("data", "valid", "time")}
    assert same(found["data"], rows)
    assert np.flatnonzero(~found["valid"]).tolist() == [7]
    assert same(found["time"], times)


@pytest.mark.parametrize("backend", ["zarr", "hdf5"])
def test_an_item_keeps_its_times_and_validity_when_its_clock_is_gone(tmp_path, backend):
    store = create_store(tmp_path / "s", backend)
    clock = FeatureSpec("clock", "clock", "pts", 1, dtype="float64")
    timed = FeatureSpec("swin", "visual", "timm", 1, inputs={"clock": clock.id})
    store.publish("video", clock, np.arange(300) / 25)
    store.publish("video", timed, random_rows(300, 4, invalid=[7]))
    store.delete("video", clock.id)
    item = store["swin"]["video"]
    assert np.array_equal(item.pts_s, np.arange(300) / 25)
    store.read = None  # neither reads the rows
    assert np.flatnonzero(~item.valid).tolist() == [7]


@pytest.mark.parametrize("name", ["valid/c.0", "time/c.0", "time/zarr.json", "data/zarr.json"])
def test_damage_beside_the_rows_is_found(tmp_path, name):
    store = create_store(tmp_path / "s", "zarr")
    clock = FeatureSpec("clock", "clock", "pts", 1, dtype="float64")
    store.publish("video", clock, np.arange(300) / 25)
    timed = FeatureSpec("swin", "visual", "timm", 1, inputs={"clock": clock.id})
    file = Path(store.item_path(store.publish("video", timed, random_rows(300, 4, invalid=[7]))), name)
    content = file.read_bytes()
    for damaged in (bytes([content[0] ^ 1]) + content[1:], None):
        file.unlink()
        if damaged is not None:
            file.write_bytes(damaged)
        (found,) = check(store).damage
        assert "swin" in str(found)
        if damaged is not None and name.endswith("c.0"):
            with pytest.raises(DamageError, match="verify"):
                getattr(store["swin"]["video"], {"valid/c.0": "valid", "time/c.0": "pts_s"}[name])


def old_item(store, recording, spec, rows):
    """An item as earlier versions stored it: one Zarr array, its chunks with checksums and gaps between them."""
    count = -(-len(rows) // 256)
    size = -(-len(rows) // count)
    padded = np.full((count * size, *rows.shape[1:]), np.nan, rows.dtype)
    padded[: len(rows)] = rows
    shard, table = b"", []
    for chunk in np.split(padded, count):
        end = google_crc32c.value(chunk.tobytes()).to_bytes(4, "little")
        end += bytes(-(chunk.nbytes + 4) % 64)
        table.append((len(shard), chunk.nbytes + 4))
        shard += chunk.tobytes() + end
    index = np.array(table, "<u8").tobytes()
    shard += index + google_crc32c.value(index).to_bytes(4, "little")
    item = ItemRecord(
        recording,
        spec.id,
        "done",
        frames=len(rows),
        valid_frames=int(derive_valid(rows).sum()),
        shape=rows.shape,
        dtype=rows.dtype.name,
        crc32c=google_crc32c.value(rows.tobytes()),
    )
    metadata = json.dumps({key: value for key, value in parse_json(item_metadata(item)).items() if key != "layout"})
    little, crc = {"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}
    sharding = {
        "chunk_shape": [size, *rows.shape[1:]],
        "codecs": [little, crc],
        "index_codecs": [little, crc],
        "index_location": "end",
    }
    document = {
        "zarr_format": 3,
        "node_type": "array",
        "shape": list(rows.shape),
        "data_type": rows.dtype.name,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(padded.shape)}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "."}},
        "fill_value": "NaN",
        "codecs": [{"name": "sharding_indexed", "configuration": sharding}],
        "attributes": {"recording": recording, "aupipe_item": metadata},
    }
    text = json.dumps(document).encode()
    stored = replace(parse_metadata(metadata), revision="0123abcd")
    store.publish(recording, spec, rows)  # makes the folders; `acknowledge` replaces it below
    path = Path(store.item_path(stored))
    path.mkdir()
    (path / "zarr.json").write_bytes(text)
    (path / ("c" + ".0" * rows.ndim)).write_bytes(shard)
    stored = store.format.measure(str(path), stored)
    array, rest = store.format.checksums(str(path), stored)
    assert array == stored.crc32c
    return path, replace(stored, metadata_crc32c=rest)


def test_items_of_earlier_versions_are_read_verified_and_migrated(tmp_path):
    store = create_store(tmp_path / "s", "zarr")
    rows = random_rows(700, 5, invalid=[3, 300])
    path, record = old_item(store, "b", HALF, rows)
    assert same(zarr.open_array(path, mode="r")[...], rows)  # it is what it claims to be
    store.acknowledge(record)
    item = open_store(tmp_path / "s")["hog"]["b"]
    assert same(item[:], rows)
    assert same(item[100:400], rows[100:400])
    out = np.empty((300, 5), np.float16)
    item.store.read_into(out, "b", HALF.id, 250)
    assert same(out, rows[250:550])
    assert np.flatnonzero(~item.valid).tolist() == [3, 300]
    assert check(store).damage == []
    clock = FeatureSpec("z_clock", "clock", "pts", 1, dtype="float64")
    timed = FeatureSpec("a_timed", "visual", "timm", 1, inputs={"clock": clock.id})
    store.publish("b", clock, np.arange(700) / 25)
    path, record = old_item(store, "b", timed, rows)
    store.acknowledge(record)
    for backend in ("zarr", "hdf5"):
        list(migrate(store, tmp_path / backend, backend))
        copy = open_store(tmp_path / backend)
        assert same(copy["hog"]["b"][:], rows)
        assert np.flatnonzero(~copy["hog"]["b"].valid).tolist() == [3, 300]
    assert set(zarr.open_group(next((tmp_path / "zarr").glob("hog*/items/*/b-*")), mode="r")) == {"data", "valid"}
    new = zarr.open_group(next((tmp_path / "zarr").glob("a_timed*/items/*/b-*")), mode="r")
    assert np.array_equal(new["time"][...], np.arange(700) / 25)


def test_a_feature_folder_is_a_zarr_group(tmp_path):
    store = create_store(tmp_path / "s", "zarr")
    for name in ("one", "two"):
        store.publish(name, HALF, random_rows(10, 3))
    group = zarr.open_group(tmp_path / "s" / HALF.id / "items", mode="r")
    names = {item.attrs["recording"] for _, item in group.members(max_depth=None) if "recording" in item.attrs}
    assert names == {"one", "two"}


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("shape", SHAPES)
def test_h5py_reads_what_was_published(tmp_path, shape, dtype):
    rows = random_rows(*shape, dtype=dtype, invalid=range(0, shape[0], 3))
    store = create_store(tmp_path / "s", "hdf5")
    record = store.publish("a clip.mp4", spec(dtype), rows)
    with h5py.File(store.item_path(record), "r", locking=False) as file:
        assert set(file) == {"data", "valid"}
        assert np.array_equal(file["valid"][...], np.arange(shape[0]) % 3 > 0)
        data = file["data"]
        assert same(data[...], rows)
        assert data.chunks is None
        assert data.attrs["recording"] == "a clip.mp4"
        assert np.isnan(data.fillvalue)
        assert shape[0] == 0 or data.id.get_offset() == record.offset
        assert record.offset % 8 == 0


def test_a_name_no_tool_can_show_is_still_valid_metadata(tmp_path):
    for backend in ("zarr", "hdf5"):
        store = create_store(tmp_path / backend, backend)
        item = store.item_path(store.publish("bad\udcff\0.avi", HALF, random_rows(3, 2)))
        assert "bad\\udcff" in store.format.read_metadata(item)
        if backend == "zarr":
            json.loads(Path(item, "zarr.json").read_text())["attributes"]["recording"].encode()
