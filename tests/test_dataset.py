from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aupipe.annotations import read_annotation
from aupipe.config import DatasetConfig
from aupipe.dataset import label_name, open_dataset, video_of, walk_videos
from aupipe.demo import DemoCorpus
from aupipe.errors import RecordingError, UsageError
from aupipe.sources import source_changed, source_identity
from aupipe.store import create_store
from aupipe.tasks import OFFICIAL

AU_HEADER = "AU1,AU2,AU4,AU6,AU7,AU10,AU12,AU15,AU23,AU24,AU25,AU26"


@pytest.mark.assets
def test_the_rendered_corpus_is_what_its_readme_says(assets: Path) -> None:
    rendered = assets / "rendered_affwild"
    dataset = open_dataset(DatasetConfig(layout="affwild2", root=rendered))
    assert len(dataset.recordings) == 34
    assert "rend-012" not in {r.id for r in dataset.recordings}  # split into its two tracks
    assert (len(dataset.split("au", "train")), len(dataset.split("au", "validation"))) == (25, 9)
    invalid = [dataset.labels(dataset.select(["rend-006"])[0], task) for task in ("au", "expr", "va")]
    assert [int((~labels.valid.all(axis=1)).sum()) for labels in invalid if labels] == [23] * 3
    found = [dataset.labels(recording, "au") for recording in dataset.split("au", "train")]
    targets = np.concatenate([labels.targets[labels.valid.all(axis=1)] for labels in found if labels])
    stated = [0.155, 0.103, 0.175, 0.231, 0.375, 0.215, 0.244, 0.054, 0.044, 0.043, 0.653, 0.143]
    np.testing.assert_allclose(targets.mean(axis=0), stated, atol=6e-4)


def test_an_affwild2_tree_gives_tracks_videos_subjects_and_splits(corpus: DemoCorpus) -> None:
    dataset = open_dataset(DatasetConfig(layout="affwild2", root=corpus.root))
    assert sorted(r.id for r in dataset.recordings) == sorted(corpus.train + corpus.validation)
    assert "demo-003" not in {r.id for r in dataset.recordings}  # split into its two tracks
    left, right = dataset.select(["demo-003_left", "demo-003_right"])
    assert (left.subject, right.subject) == ("left", "right")
    assert left.video == right.video == corpus.root / "videos" / "demo-003.mp4"
    assert left.video_id == right.video_id == left.group == "demo-003"
    assert left.key_for("audio") == "demo-003"
    assert left.key_for("visual") == "demo-003_left"
    assert (len(dataset.split("au", "train")), len(dataset.split("au", "validation"))) == (2, 2)


def test_annotations_give_one_row_per_decoded_frame(corpus: DemoCorpus, tmp_path: Path) -> None:
    from aupipe.extract.media.video import VideoReader

    root = tmp_path / "tree"
    shutil.copytree(corpus.root, root)
    for challenge, unseen in (("AU_Detection", ",".join(["-1"] * 12)), ("EXPR_Classification", "-1")):
        file = root / "annotations" / f"{challenge}_Challenge" / "Train_Set" / "demo-001.txt"
        lines = file.read_text().splitlines()
        file.write_text("\n".join([*lines[:4], unseen, unseen, *lines[6:]]) + "\n")
    dataset = open_dataset(DatasetConfig(layout="affwild2", root=root))
    recording = dataset.select(["demo-001"])[0]
    assert recording.video is not None
    frames = len(VideoReader(recording.video).clock())
    for task, columns, invalid in (("au", 12, 2), ("expr", 1, 2), ("va", 2, 0)):
        labels = dataset.labels(recording, task)
        assert labels is not None
        assert labels.targets.shape == labels.valid.shape == (frames, columns)
        assert int((~labels.valid.all(axis=1)).sum()) == invalid


def test_cropped_aligned_tracks_take_their_pictures_from_the_folder(corpus: DemoCorpus, tmp_path: Path) -> None:
    root = tmp_path / "tree"
    shutil.copytree(corpus.root, root)
    write_crop(root / "cropped_aligned" / "demo-001" / "00001.jpg")
    dataset = open_dataset(DatasetConfig(layout="affwild2", root=root, frames="cropped_aligned"))
    with_crops, without = dataset.select(["demo-001", "demo-002"])
    assert with_crops.aligned
    assert with_crops.images == root / "cropped_aligned" / "demo-001"
    assert without.aligned
    assert without.images is None


def write_crop(path: Path) -> None:
    import cv2

    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 256, (112, 112, 3), dtype=np.uint8))


@pytest.mark.parametrize(
    ("track", "videos", "video"),
    [
        ("video2_left", ["video2"], "video2"),
        ("video2_left", ["video2_left"], "video2_left"),
        ("video45_1", ["video45"], "video45_1"),
        ("130-25-1280x720_right", [], "130-25-1280x720"),
        ("left", [], "left"),
        ("video20", ["video2"], "video20"),
    ],
)
def test_only_a_literal_left_or_right_is_taken_off_a_track_name(track: str, videos: list[str], video: str) -> None:
    assert video_of(track, videos) == video


def test_a_folder_lists_videos_by_relative_path_and_says_what_it_left_out(tmp_path: Path) -> None:
    for name in ("a.mp4", "b/a.mp4", "b/notes.txt", ".hidden.mp4", "x.mp4/inside.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "loop").symlink_to(tmp_path)
    dataset = open_dataset(DatasetConfig(videos=tmp_path))
    assert [r.id for r in dataset.recordings] == ["a.mp4", "b/a.mp4", "x.mp4"]
    assert [path.name for path in dataset.ignored] == ["notes.txt"]


VIDEO_HEADS = {
    ".f4v": b"\0\0\0\x1cftypf4v ",
    ".qt": b"\0\0\0\x08wide",
    ".3g2": b"\0\0\0\x1cftyp3g2a",
    ".divx": b"RIFF\0\0\0\0AVI LIST",
    ".mod": b"\0\0\x01\xba!",
    ".m2v": b"\0\0\x01\xb3",
    ".dat": b"\x1a\x45\xdf\xa3",
    "": b"FLV\x01",
}
OTHER_HEADS = {
    ".cr3": b"\0\0\0\x18ftypcrx ",
    ".heif": b"\0\0\0\x18ftypheic",
    ".mod": b"M.K. a tracker's song",
    ".bwf": b"RIFF\0\0\0\0WAVEfmt ",
    ".mp2": b"\xff\xfd\xa4\x04",
    ".dat": b"1 2 3",
    "": b"notes",
    ".empty": b"",
    ".mp4.part": b"\0\0\0\x1cftypisom",  # still being copied
    ".json": b"\0\0\0\x1cftypisom",
}


def test_files_whose_ending_says_nothing_are_videos_where_their_content_is_a_videos(tmp_path: Path) -> None:
    for folder, heads in (("yes", VIDEO_HEADS), ("no", OTHER_HEADS)):
        (tmp_path / folder).mkdir()
        for suffix, head in heads.items():
            (tmp_path / folder / f"talk{suffix}").write_bytes(head + bytes(100))
    os.mkfifo(tmp_path / "no" / "pipe")  # is not waited for
    found, ignored = walk_videos(tmp_path)
    assert set(found) == {f"yes/talk{suffix}" for suffix in VIDEO_HEADS}
    assert {path.name for path in ignored} == {f"talk{suffix}" for suffix in OTHER_HEADS} | {"pipe"}
    recording = next(r for r in open_dataset(DatasetConfig(videos=tmp_path)).recordings if r.id == "yes/talk.f4v")
    assert label_name(recording) == "yes/talk"


def test_linked_folders_are_walked_once_and_loops_never(tmp_path: Path) -> None:
    inside, outside = tmp_path / "videos", tmp_path / "disk"
    for file in (inside / "sub/a.mp4", outside / "deep/b.mp4"):
        file.parent.mkdir(parents=True)
        file.touch()
    for link, target in (
        (inside / "twin", inside / "sub"),
        (inside / "up", tmp_path),
        (inside / "disk", outside),
        (inside / "disk again", outside),
        (outside / "deep/loop", outside),
        (outside / "back", inside),
    ):
        link.symlink_to(target)
    assert list(walk_videos(inside)[0]) == ["disk/deep/b.mp4", "sub/a.mp4"]


def test_what_aupipe_wrote_is_not_among_the_files_left_out_but_videos_beside_it_are_found(tmp_path: Path) -> None:
    create_store(tmp_path / "features").close()
    for name in ("aupipe.toml", "runs/1/run.json", "runs/1/head.safetensors", "runs/1/a.mp4", "other/b.mp4"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "other" / "store.json").write_text('{"format": "a shop"}')
    (tmp_path / "faces.columns.csv").write_text("column,unit,kind,by,trained_on\n")
    (tmp_path / "faces-b.png").write_bytes(b"\x89PNG...tEXtSoftware\0aupipe")
    (tmp_path / "faces-b.eaf").write_text('<ANNOTATION_DOCUMENT AUTHOR="aupipe">')
    (tmp_path / "own.columns.csv").write_text("column,meaning\n")
    for name in ("faces.csv", "faces-mine.png", "own.csv"):
        (tmp_path / name).touch()
    found, ignored = walk_videos(tmp_path)
    assert list(found) == ["other/b.mp4", "runs/1/a.mp4"]
    others = ["faces-mine.png", "own.columns.csv", "own.csv", "store.json"]
    assert sorted(path.name for path in ignored) == others


def test_a_folder_that_cannot_be_listed_is_warned_of(tmp_path: Path, monkeypatch, caplog) -> None:
    (tmp_path / "locked").mkdir()
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert walk_videos(tmp_path) == ({}, [])
    assert f"cannot list {tmp_path / 'locked'}" in caplog.text


def test_an_empty_folder_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=str(tmp_path)):
        open_dataset(DatasetConfig(videos=tmp_path))


@pytest.mark.parametrize(
    ("task", "text", "message"),
    [
        ("au", f"{AU_HEADER}\n0,0,0,0,0,0,0,0,0,0,0,0\n0,0,0\n", "line 3"),
        ("au", f"{AU_HEADER}\n0\n", "line 2"),
        ("au", f"{AU_HEADER}\n\n0,0,0,0,0,0,0,0,0,0,0,0\n", "line 2"),
        (
            "au",
            f"{AU_HEADER}\n0,0,0,0,0,2,0,0,0,0,0,0\n",
            "line 2: AU10 is 2: expected a whole number of 0 to 1",
        ),
        ("au", "AU1,AU2,AU4,AU6,AU12,AU15,AU20,AU25\n0,0,0,0,0,0,0,0\n", "line 1: header"),
        (
            "expr",
            "Neutral,Anger,Disgust,Fear,Happiness,Sadness,Surprise,Other\n9\n",
            "line 2: the class is 9",
        ),
        ("va", "valence,arousal\n0.1,1.5\n", "line 2: arousal is 1.5: expected -1 to 1, or -5"),
        ("va", "valence,arousal\n0.1,x\n", "line 2"),
    ],
)
def test_a_malformed_annotation_is_named_by_file_and_line(tmp_path: Path, task, text: str, message: str) -> None:
    file = tmp_path / "t.txt"
    file.write_text(text)
    with pytest.raises(UsageError, match=message) as error:
        read_annotation(file, OFFICIAL[task])
    assert str(file) in str(error.value)


@given(st.lists(st.lists(st.sampled_from([-1, 0, 1]), min_size=12, max_size=12), max_size=30))
def test_au_annotations_survive_the_file_row_for_row(rows: list[list[int]]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "t.txt"
        file.write_text("\ufeff" + AU_HEADER + "\r\n" + "".join(",".join(map(str, row)) + "\r\n" for row in rows))
        labels = read_annotation(file, OFFICIAL["au"])
    values = np.array(rows, dtype=np.float32).reshape(-1, 12)
    np.testing.assert_array_equal(labels.valid, values != -1)
    np.testing.assert_array_equal(labels.targets, np.maximum(values, 0))


def test_a_touched_or_copied_source_is_the_same_and_another_of_the_same_size_is_not(tmp_path: Path) -> None:
    file = tmp_path / "a.mp4"
    file.write_bytes(b"x" * 1000)
    known = source_identity(file)
    os.utime(file, (1, 1))
    assert not source_changed((file,), known)
    file.write_bytes(b"x" * 999 + b"y")
    os.utime(file, (2, 2))
    assert source_changed((file,), known)
    file.unlink()
    assert not source_changed((file,), known)  # vanished, not changed: what was computed from it stays good
    with pytest.raises(RecordingError, match=r"a\.mp4"):
        source_identity(file)


def test_a_folder_of_images_is_its_images(tmp_path: Path) -> None:
    folder = tmp_path / "t"
    write_crop(folder / "00001.jpg")
    known = source_identity(folder)
    (folder / "Thumbs.db").touch()
    assert not source_changed((folder,), known)
    data = (folder / "00001.jpg").read_bytes()
    (folder / "00001.jpg").write_bytes(data[:-1] + b"x")  # another picture of the same size
    os.utime(folder / "00001.jpg", (3, 3))
    assert source_changed((folder,), known)
    (folder / "00001.jpg").write_bytes(data)
    assert not source_changed((folder,), known)
    shutil.copy(folder / "00001.jpg", folder / "00002.jpg")
    assert source_changed((folder,), known)


def test_a_track_of_a_missing_video_keeps_its_kind_and_tracks_without_any_video_have_clocks_of_their_own(
    tmp_path: Path,
) -> None:
    tree = tmp_path / "tree"
    for side in ("left", "right"):
        write_crop(tree / "cropped_aligned" / f"v_{side}" / "00001.jpg")
    config = DatasetConfig(layout="affwild2", root=tree, frames="cropped_aligned", fps=25.0)
    left, right = open_dataset(config).recordings
    assert (left.video_id, right.video_id, left.group, right.group) == ("v_left", "v_right", "v", "v")
    (tree / "videos").mkdir()
    (tree / "videos" / "other.mp4").touch()
    by_id = {recording.id: recording for recording in open_dataset(config).recordings}
    assert by_id["v_left"].video == tree / "videos" / "v.mp4"  # expected there, and missing by name
    assert by_id["v_left"].video_id == by_id["v_right"].video_id == "v"


def test_annotated_tracks_that_a_folder_does_not_hold_are_named(tmp_path: Path, corpus: DemoCorpus, caplog) -> None:
    for video in corpus.videos:
        if video.stem != "demo-001":
            (tmp_path / video.name).symlink_to(video)
    open_dataset(DatasetConfig(layout="folder", videos=tmp_path, annotations=corpus.root / "annotations"))
    (line,) = caplog.messages
    assert "3 annotated tracks are not in" in line
    assert "e.g. demo-001; layout" in line  # and the two people of the video with two
    caplog.clear()
    open_dataset(DatasetConfig(layout="affwild2", root=corpus.root))
    assert not caplog.messages


def test_an_overlay_among_the_videos_is_no_recording_and_is_said(tmp_path: Path) -> None:
    for name in ("a.mp4", "a.mp4-overlay.mp4"):
        (tmp_path / name).touch()
    found, ignored = walk_videos(tmp_path)
    assert list(found) == ["a.mp4"]
    assert [path.name for path in ignored] == ["a.mp4-overlay.mp4"]
