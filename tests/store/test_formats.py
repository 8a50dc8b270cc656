"""zarr-python and h5py read the files, with all checks on."""

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
import zarr

from aupipe.store import create_store
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
    array = zarr.open_array(item, mode="r")
    assert same(array[...], rows)
    assert array.attrs["recording"] == "a clip.mp4"
    assert array.attrs["valid_frames"] == shape[0] - len(range(0, shape[0], 3))
    assert np.isnan(array.fill_value)
    assert array.metadata.dimension_names[0] == "time"


@pytest.mark.parametrize("shape", [(257, 3), (1000, 4), (256, 2)])
def test_the_chunks_in_the_shard_are_those_zarr_python_writes(tmp_path, shape):
    store = create_store(tmp_path / "s", "zarr")
    rows = random_rows(*shape)
    item = store.item_path(store.publish("a", HALF, rows))
    document = json.loads(Path(item, "zarr.json").read_text())
    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / "zarr.json").write_text(json.dumps(document))
    with zarr.config.set({"array.write_empty_chunks": True}):
        zarr.open_array(copy, mode="r+")[...] = rows
    count = -(-shape[0] // document["codecs"][0]["configuration"]["chunk_shape"][0])
    ours, theirs = (_chunks(Path(folder, "c.0.0").read_bytes(), count) for folder in (item, copy))
    assert [content for _, content in ours] == [content for _, content in theirs]
    assert all(offset % 64 == 0 for offset, _ in ours)


def _chunks(shard, count):
    """(offset, bytes) of each chunk of a shard, as its index has it."""
    index = np.frombuffer(shard[-16 * count - 4 : -4], "<u8").reshape(count, 2)
    return [(int(start), shard[start : start + length]) for start, length in index]


@pytest.mark.parametrize("chunk", [0, 1])
def test_zarr_python_finds_a_flipped_byte_by_its_own_checksum(tmp_path, chunk):
    store = create_store(tmp_path / "s", "zarr")
    item = store.item_path(store.publish("a", HALF, random_rows(600, 3)))
    shard = Path(item, "c.0.0")
    content = bytearray(shard.read_bytes())
    content[10 + chunk * 1300] ^= 1
    shard.write_bytes(content)
    with pytest.raises(ValueError, match="checksum"):
        zarr.open_array(item, mode="r")[...]


def test_a_feature_folder_is_a_zarr_group(tmp_path):
    store = create_store(tmp_path / "s", "zarr")
    for name in ("one", "two"):
        store.publish(name, HALF, random_rows(10, 3))
    group = zarr.open_group(tmp_path / "s" / HALF.id / "items", mode="r")
    names = {array.attrs["recording"] for _, array in group.members(max_depth=None) if isinstance(array, zarr.Array)}
    assert names == {"one", "two"}


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("shape", SHAPES)
def test_h5py_reads_what_was_published(tmp_path, shape, dtype):
    rows = random_rows(*shape, dtype=dtype, invalid=range(0, shape[0], 3))
    store = create_store(tmp_path / "s", "hdf5")
    record = store.publish("a clip.mp4", spec(dtype), rows)
    with h5py.File(store.item_path(record), "r", locking=False) as file:
        assert list(file) == ["data"]
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
