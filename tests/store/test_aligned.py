"""Several features of a recording side by side: one wide table, one array of all recordings, windows for torch."""

import multiprocessing

import numpy as np
import pytest
import torch

from aupipe.errors import UsageError
from aupipe.store import create_store, open_store
from aupipe.store.windows import WindowDataset, cut_windows, keep
from aupipe.train.windows import tile
from aupipe.types import FeatureSpec, Window

from .contract import CLOCK, random_rows, same

FACE = FeatureSpec("pose", "visual", "geometry", 1, inputs={"clock": CLOCK.id}, columns=("yaw", "pitch"))
SOUND = FeatureSpec("mfcc", "audio", "mfcc", 1, inputs={"clock": CLOCK.id})
CROPS = FeatureSpec("crops", "visual", "crops", 2, dtype="uint8")
DETECTED = FeatureSpec("detections", "detections", "mtcnn", 1, dtype="float32", columns=("x_px", "score"))
SIZES = {"a.mp4": 7, "video2_left": 5, "video2_right": 5}


@pytest.fixture(params=["zarr", "hdf5", "memory"])
def store(request, tmp_path):
    store = create_store(tmp_path / "s", request.param)
    for number, (name, frames) in enumerate(SIZES.items()):
        video = name.partition("_")[0]
        store.publish(video, CLOCK, np.arange(frames) / 25)
        store.publish(video, SOUND, random_rows(frames, 3, seed=10))
        store.publish(name, FACE, random_rows(frames, 2, seed=number, invalid=[1]), video_id=video)
    return store


def test_a_wide_table_has_a_named_column_for_each_value_of_each_feature(store):
    pytest.importorskip("pandas")
    table = store.to_frame(["pose", "mfcc"])
    named = ["pose.yaw", "pose.pitch", "mfcc.0", "mfcc.1", "mfcc.2"]
    assert list(table.columns) == ["recording", "frame", "time_s", *named]
    assert table["recording"].tolist() == [name for name, frames in SIZES.items() for _ in range(frames)]
    assert table["frame"].tolist() == [k for frames in SIZES.values() for k in range(frames)]
    right = table[table["recording"] == "video2_right"]
    assert np.array_equal(right["time_s"], np.arange(5) / 25)
    expected = np.hstack([random_rows(5, 2, seed=2, invalid=[1]), random_rows(5, 3, seed=10)])
    assert np.array_equal(right[named].to_numpy(np.float16), expected, equal_nan=True)
    assert store.to_frame("pose", ["a.mp4"])["recording"].unique().tolist() == ["a.mp4"]


def test_a_recording_that_lacks_a_feature_is_named_or_left_out(store):
    pytest.importorskip("pandas")
    store.publish("b.mp4", FACE, random_rows(4, 2))
    with pytest.raises(UsageError, match=r"'b.mp4' has no mfcc@"):
        store.to_frame(["pose", "mfcc"])
    assert "b.mp4" not in set(store.to_frame(["pose", "mfcc"], allow_missing=True)["recording"])
    store.publish("b.mp4", SOUND, random_rows(5, 3))
    with pytest.raises(UsageError, match="numbers of frames differ"):
        store.to_frame(["pose", "mfcc"])
    with pytest.raises(KeyError, match="Did you mean 'pose'"):
        store.to_frame(["poses"])
    with pytest.raises(UsageError, match="name the features"):
        store.to_frame([])


def test_rows_of_whole_numbers_say_which_are_valid_and_unknown_times_are_nan(store):
    pytest.importorskip("pandas")
    rows = np.zeros((3, 2))
    rows[1] = np.nan
    store.publish("c.png", CROPS, rows)
    table = store.to_frame(["crops"])
    assert table["crops.valid"].tolist() == [True, False, True]
    assert table["crops.0"].dtype == np.uint8
    assert table["time_s"].isna().all()


def test_all_recordings_are_one_labelled_array_that_is_read_when_it_is_needed(store):
    pytest.importorskip("xarray")
    array = store["pose"].to_xarray()
    assert (array.name, array.dims, array.shape) == ("pose", ("row", "column"), (17, 2))
    assert list(array["column"].values) == ["yaw", "pitch"]
    assert array.chunks is not None
    assert (array.recording.dtype, array.recording.names) == (np.int32, list(SIZES))
    left = array[array.recording == 1]
    assert same(left.values, random_rows(5, 2, seed=1, invalid=[1]))
    assert left.frame.values.tolist() == list(range(5))
    assert np.array_equal(left.time.values, np.arange(5) / 25)
    assert left.valid.values.tolist() == [True, False, True, True, True]
    means = array.where(array.valid).groupby("recording").mean()
    assert means.sizes == {"recording": 3, "column": 2}


def test_the_columns_of_an_item_are_named_also_of_several_faces_in_a_frame(store):
    pandas = pytest.importorskip("pandas")
    store.publish("a.mp4", DETECTED, random_rows(7, 3, 2))
    item = store["detections"]["a.mp4"]
    assert item.columns == ["x_px_0", "score_0", "x_px_1", "score_1", "x_px_2", "score_2"]
    assert list(item.to_pandas().columns) == item.columns
    assert store["mfcc"]["a.mp4"].columns == ["0", "1", "2"]
    assert list(store["mfcc"]["a.mp4"].to_pandas().columns) == [0, 1, 2]
    pose = store["pose"]["a.mp4"]
    assert pandas.DataFrame(pose, columns=pose.columns).equals(pose.to_pandas().reset_index(drop=True))


def test_what_is_stored_can_be_listed(store):
    assert store.recordings() == ["a.mp4", "video2", "video2_left", "video2_right"]
    assert [spec.name for spec in store.features()] == ["clock", "mfcc", "pose"]


@pytest.mark.parametrize(("length", "hop"), [(3, None), (3, 2), (4, 4), (9, 1), (5, 5)])
def test_windows_cover_every_frame_as_those_of_training_do(store, length, hop):
    windows = cut_windows(store, ["pose", "mfcc"], length, hop)
    assert windows == [one for name, n in SIZES.items() for one in tile(name, n, length, hop or length)]
    with pytest.raises(ValueError, match="hop"):
        cut_windows(store, ["pose"], 3, 4)
    store.publish("empty", FACE, random_rows(0, 2))
    assert cut_windows(store, ["pose"], 3, recordings=["empty"]) == []
    with pytest.raises(UsageError, match="name the features"):
        cut_windows(store, [], 3, recordings=["a.mp4"])


def test_the_sound_of_a_person_is_found_by_the_video_also_alone(store):
    pytest.importorskip("pandas")
    sound = random_rows(5, 3, seed=10).astype(np.float16)
    table = store.to_frame(["mfcc"], ["video2_left"])
    assert set(table["recording"]) == {"video2_left"}
    assert np.array_equal(table[["mfcc.0", "mfcc.1", "mfcc.2"]].to_numpy(np.float16), sound)
    (window,) = cut_windows(store, ["mfcc"], 5, recordings=["video2_left"])
    assert window == Window("video2_left", 0, 5)
    with pytest.raises(UsageError, match="'nobody' has no mfcc@"):
        store.to_frame(["mfcc"], ["nobody"])


def expected_windows(dataset):
    rows = {name: random_rows(n, 2, seed=k, invalid=[1]) for k, (name, n) in enumerate(SIZES.items())}
    return [rows[window.recording][window.start : window.stop] for window in dataset.windows]


WAYS = [
    (backend, method, collate) for backend in ("zarr", "hdf5") for method in (None, "fork") for collate in (None, keep)
]


@pytest.mark.parametrize(("backend", "method", "collate"), [*WAYS, ("zarr", "spawn", keep)])  # which takes seconds
def test_windows_reach_torch_through_any_worker_process_and_can_be_written_to(tmp_path, backend, method, collate):
    made = create_store(tmp_path / "s", backend)
    for number, (name, frames) in enumerate(SIZES.items()):
        made.publish(name, FACE, random_rows(frames, 2, seed=number, invalid=[1]))
    made.close()
    store = open_store(tmp_path / "s")
    _ = store["pose"]["a.mp4"][:]  # a file is mapped when the workers start
    dataset = WindowDataset(store, ["pose"], cut_windows(store, ["pose"], 4), length=4)
    options = {} if method is None else {"num_workers": 1 if method == "spawn" else 4}
    context = multiprocessing.get_context(method) if method else None
    loader = torch.utils.data.DataLoader(
        dataset, batch_size=2, collate_fn=collate, multiprocessing_context=context, **options
    )
    found = []
    for batch in loader:
        assert batch["pose"].dtype == torch.float16
        batch["pose"].nan_to_num_(9)
        found += list(batch["pose"].numpy())
    assert len(found) == len(dataset)
    for rows, expected in zip(found, expected_windows(dataset), strict=True):
        assert same(rows[: len(expected)], np.nan_to_num(expected, nan=9))
        assert (rows[len(expected) :] == 9).all()


def test_windows_of_a_person_have_the_sound_of_the_video(store):
    batch = WindowDataset(store, ["pose", "mfcc"], [Window("video2_left", 1, 4)], 3)[0]
    assert same(batch["mfcc"].numpy(), random_rows(5, 3, seed=10)[1:4])
    with pytest.raises(UsageError, match="'other' has no pose@"):
        WindowDataset(store, ["pose"], [Window("other", 0, 3)], 3)
