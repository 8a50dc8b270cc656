"""Exports for training elsewhere: WebDataset shards, and Parquet as Hugging Face `datasets` reads it."""

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest

from aupipe.store import create_store
from aupipe.store.maintenance import webdataset as shards
from aupipe.store.maintenance.export import export
from aupipe.types import FeatureSpec

from .contract import CLOCK, random_rows, same

FACE = FeatureSpec("pose", "visual", "geometry", 1, inputs={"clock": CLOCK.id}, columns=("yaw", "pitch"))
SOUND = FeatureSpec("mfcc", "audio", "mfcc", 1, inputs={"clock": CLOCK.id})
SIZES = {"a.mp4": 7, "b.mp4": 9, "video2_left": 5}


@pytest.fixture
def store(tmp_path):
    store = create_store(tmp_path / "s")
    for number, (name, frames) in enumerate(SIZES.items()):
        video = name.partition("_")[0]
        store.publish(video, CLOCK, np.arange(frames) / 25)
        store.publish(name, FACE, random_rows(frames, 2, seed=number, invalid=[1]), video_id=video)
        if name != "b.mp4":
            store.publish(video, SOUND, random_rows(frames, 3, seed=10))
    return store


def read_shards(files):
    """Recording -> member -> array, as WebDataset groups them: by the name up to the first dot."""
    samples = {}
    for file in files:
        with tarfile.open(file) as shard:
            for member in shard:
                key, _, name = member.name.partition(".")
                content = shard.extractfile(member).read()
                samples.setdefault(key, {})[name] = (
                    json.loads(content) if name == "json" else np.load(io.BytesIO(content))
                )
    return {sample["json"]["recording"]: sample for sample in samples.values()}


def test_a_sample_of_a_shard_is_a_recording_with_its_features_their_validity_and_times(store, tmp_path):
    files = export(store, tmp_path / "out", "webdataset", features=["pose", "mfcc"])
    assert [file.rpartition("/")[2] for file in files] == ["shard-000000.tar"]
    found = read_shards(files)
    assert set(found) == set(SIZES)
    left = found["video2_left"]
    assert same(left["pose.npy"], random_rows(5, 2, seed=2, invalid=[1]))
    assert same(left["mfcc.npy"], random_rows(5, 3, seed=10))  # the sound of the video
    assert left["pose.valid.npy"].tolist() == [True, False, True, True, True]
    assert left["time_s.npy"].tolist() == [0.0, 0.04, 0.08, 0.12, 0.16]
    assert left["json"]["features"]["pose"] == {"id": FACE.id, "columns": ["yaw", "pitch"]}
    assert "mfcc.npy" not in found["b.mp4"]


def test_a_shard_is_full_after_so_many_bytes_and_the_same_rows_are_the_same_bytes(store, tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "SHARD_BYTES", 100)
    first = export(store, tmp_path / "out", "webdataset", features=["pose"])
    again = export(store, tmp_path / "again", "webdataset", features=["pose"])
    assert len(first) == 3
    assert [Path(one).read_bytes() for one in first] == [Path(one).read_bytes() for one in again]
    assert set(read_shards(first)) == set(SIZES)


def test_only_the_recordings_that_are_asked_for_are_in_shards(store, tmp_path):
    files = export(store, tmp_path / "out", "webdataset", features=["pose", "mfcc"], recordings=["video2_left"])
    assert set(read_shards(files)) == {"video2_left"}
    assert "mfcc.npy" in read_shards(files)["video2_left"]


def test_webdataset_reads_the_shards(store, tmp_path):
    import webdataset

    files = export(store, tmp_path / "out", "webdataset", features=["pose"])
    samples = list(webdataset.WebDataset(files, shardshuffle=False).decode())
    assert len(samples) == 3
    assert same(samples[0]["pose.npy"], random_rows(7, 2, seed=0, invalid=[1]))
    assert samples[0]["json"]["recording"] == "a.mp4"


def test_datasets_reads_the_parquet_export(store, tmp_path):
    import datasets

    files = export(store, tmp_path / "out", "parquet", features=["pose"])
    found = datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=str(tmp_path / "cache"))
    assert found.column_names == ["recording", "frame", "time_s", "valid", "yaw", "pitch"]
    assert found.num_rows == sum(SIZES.values())
    rows = found.filter(lambda row: row["recording"] == "b.mp4").with_format("numpy")
    assert np.array_equal(
        rows["yaw"][:].astype(np.float16), random_rows(9, 2, seed=1, invalid=[1])[:, 0], equal_nan=True
    )
