"""What systems leave beside data is no data: one rule for frames, videos, crops, annotations and lists."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from aupipe.annotations import find_annotations, find_test_tracks
from aupipe.config import DatasetConfig
from aupipe.dataset import crop_folders, open_dataset, walk_videos
from aupipe.extract.media.images import ImageReader, image_length, image_rows
from aupipe.listing import is_hidden, list_folder
from aupipe.sources import source_changed, source_identity

JUNK = b"\0\5\x16\7\0\2\0\0Mac OS X        " + bytes(100)  # AppleDouble
HIDDEN = ("._00003.jpg", ".DS_Store", "Thumbs.db", "thumbs.db", "desktop.ini", "Desktop.ini")


def write_frames(folder: Path, count: int = 3) -> Path:
    folder.mkdir(parents=True)
    for number in range(1, count + 1):
        cv2.imwrite(str(folder / f"{number:05d}.jpg"), np.full((16, 16, 3), 40 * number, np.uint8))
    return folder


def spoil(folder: Path, *names: str) -> None:
    """Put what systems leave into a folder, and an AppleDouble file for each of ``names``."""
    for name in (*HIDDEN, *(f"._{name}" for name in names)):
        (folder / name).write_bytes(JUNK)


def test_the_rule() -> None:
    assert all(map(is_hidden, HIDDEN))
    assert not any(map(is_hidden, ("00003.jpg", "_00003.jpg", "Thumbs.db.jpg", "desktop.ini.mp4", "a.b")))


def test_hidden_images_are_no_frames_and_no_part_of_the_source(tmp_path: Path) -> None:
    folder = write_frames(tmp_path / "clip")
    known = source_identity(folder)
    spoil(folder, "00001.jpg", "cover.png")
    assert list(image_rows(folder)) == [0, 1, 2]
    assert image_length(folder) == 3
    assert sum(len(chunk) for chunk in ImageReader(folder, np.arange(3) / 25)) == 3
    assert source_identity(folder) == known
    assert not source_changed((folder,), known)


def test_hidden_files_are_no_videos_and_no_files_left_out(tmp_path: Path) -> None:
    videos = tmp_path / "videos"
    (videos / "part").mkdir(parents=True)
    (videos / ".Trashes").mkdir()
    for place in (videos, videos / "part", videos / ".Trashes"):
        (place / "talk.mp4").write_bytes(b"x")
        spoil(place, "talk.mp4")
    found, ignored = walk_videos(videos)
    assert (list(found), ignored) == (["part/talk.mp4", "talk.mp4"], [])


def test_folders_that_hold_hidden_images_alone_are_no_recordings(tmp_path: Path) -> None:
    write_frames(tmp_path / "clip")
    (tmp_path / "empty").mkdir()
    spoil(tmp_path / "empty", "00001.jpg")
    spoil(tmp_path / "clip")
    dataset = open_dataset(DatasetConfig(layout="images", videos=tmp_path, fps=25.0))
    assert [recording.id for recording in dataset.recordings] == ["clip"]


def test_hidden_files_are_no_annotations_crops_or_lists(tmp_path: Path) -> None:
    split = tmp_path / "annotations" / "VA_Estimation_Challenge" / "Train_Set"
    split.mkdir(parents=True)
    (split / "talk.txt").write_text("valence,arousal\n0.1,0.2\n")
    lists = tmp_path / "names_of_videos_in_each_test_set"
    lists.mkdir()
    (lists / "Valence_Arousal_Estimation_Challenge_test_set_release.txt").write_text("talk\nother\n")
    write_frames(tmp_path / "cropped_aligned" / "talk")
    expected = find_annotations(tmp_path), find_test_tracks(tmp_path), crop_folders(tmp_path)
    assert list(expected[0]["va"]) == ["talk"]
    assert expected[1] == {"va": ["talk", "other"]}
    assert [folder.name for folder in expected[2]] == ["talk"]
    for folder in (tmp_path, split, split.parent, lists, tmp_path / "cropped_aligned"):
        spoil(folder, "talk.txt", "Valence_Arousal_Estimation_Challenge_test_set_release.txt")
    write_frames(tmp_path / "cropped_aligned" / "._talk")
    shutil.copytree(split, split.parent / "._Validation_Set")
    assert (find_annotations(tmp_path), find_test_tracks(tmp_path), crop_folders(tmp_path)) == expected
    tracks = open_dataset(DatasetConfig(layout="affwild2", root=tmp_path, fps=25.0)).recordings
    assert [track.id for track in tracks] == ["other", "talk"]
    assert [path.name for path in list_folder(tmp_path)] == ["annotations", "cropped_aligned", lists.name]


def test_a_folder_that_may_not_be_listed_hides_no_annotations_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    split = tmp_path / "VA_Estimation_Challenge" / "Train_Set"
    split.mkdir(parents=True)
    (split / "talk.txt").write_text("valence,arousal\n0.1,0.2\n")
    (tmp_path / "lost+found").mkdir()
    iterdir = Path.iterdir

    def refuse(path: Path):
        if path.name == "lost+found":
            raise PermissionError(13, "Permission denied", str(path))
        return iterdir(path)

    monkeypatch.setattr(Path, "iterdir", refuse)
    assert list(find_annotations(tmp_path)["va"]) == ["talk"]
    assert "lost+found (Permission denied): annotations in it are left out" in caplog.text


@pytest.mark.assets
def test_reported_images_beside_those_of_macos_are_five_rows(assets: Path) -> None:
    folder = assets / "reported" / "appledouble_images"
    assert image_length(folder) == 5
    assert sum(len(chunk) for chunk in ImageReader(folder, np.arange(5) / 25)) == 5
