"""What the four users have in their folder before they type anything. All of it is made by code."""

from __future__ import annotations

import re
from pathlib import Path

import av
import numpy as np

from aupipe.demo import draw_corpus
from aupipe.tasks import AU_NAMES
from benchmarks.extract_clips import turn_clip
from tests.docs.blocks import ROOT
from tests.made import FPS, talking, write_media, write_talking

FRAMES = 20
CUT = 13  # frames in the file that was not downloaded as a whole
UNEVEN_S = np.cumsum(np.where(np.arange(FRAMES) % 3, 0.04, 0.07)) - 0.04  # times of a phone in the dark


def student(folder: Path) -> None:
    """Videos of phones and cameras, one cut off and one that is a text file."""
    videos = folder / "videos"
    pictures, sound = talking(0, FRAMES)
    others, voice = talking(1, FRAMES)
    write_media(videos / "Café à midi.mp4", others, voice)
    write_media(videos / "dark room.mkv", pictures, sound, times_s=UNEVEN_S)
    write_media(videos / "late sound.mp4", pictures, sound[: len(sound) // 2], sound_start_s=FRAMES / FPS / 2)
    write_media(videos / "old camera.avi", others, voice)
    write_media(videos / "webcam.webm", pictures)
    aside = write_media(folder / "aside.mov", np.rot90(pictures[:, :, 60:260], 1, axes=(1, 2)), sound)
    turn_clip(aside, videos / "phone upright.mov", 90)
    aside.unlink()
    cut_after(write_media(videos / "download.mkv", others, voice), CUT)
    (videos / "notes.mp4").write_text("To do: charge the camera.\n")


def cut_after(video: Path, frames: int) -> None:
    """End a file where the packet after so many frames begins."""
    with av.open(str(video)) as container:
        packets = [packet.pos for packet in container.demux(video=0) if packet.size]
    video.write_bytes(video.read_bytes()[: packets[frames]])


def scientist(folder: Path) -> None:
    """Two interviews, one of which was recorded at an uneven rate."""
    pictures, sound = talking(0, FRAMES)
    write_media(folder / "interviews" / "Anna Müller.mp4", pictures, sound)
    write_media(folder / "interviews" / "Bernd.mkv", *talking(1, FRAMES), times_s=UNEVEN_S)


def participant(folder: Path) -> None:
    """The tree of Aff-Wild2: two videos to train on, one of two people, one to validate on, one to predict."""
    draw_corpus(folder, recordings=4, seconds=2.0, seed=5)
    for labels in (folder / "annotations").rglob("demo-002.txt"):
        labels.unlink()
    lists = folder / "names_of_videos_in_each_test_set"
    lists.mkdir()
    (lists / "Action_Unit_Detection_Challenge_test_set_release.txt").write_text("demo-002\n")
    rows = [f"demo-002/{frame:05d}.jpg,{','.join('0' * len(AU_NAMES))}" for frame in range(1, 51)]
    (folder / "sample.txt").write_text("\n".join([f"image_location,{','.join(AU_NAMES)}", *rows]) + "\n")


def engineer(folder: Path) -> None:
    """Four videos, what OpenFace made of them, and a package with an encoder: that of docs/extend.md."""
    for number in range(4):
        write_talking(folder / "videos" / f"s{number}.mp4", number % 2, FRAMES)
        lines = ["frame, face_id, timestamp, confidence, success, pose_Rx, AU12_r"]
        lines += [f"{k}, 0, {(k - 1) / FPS:.3f}, 0.98, {int(k != 3)}, 0.1, {k / 10}" for k in range(1, FRAMES + 1)]
        table = folder / "openface" / f"s{number}.csv"
        table.parent.mkdir(exist_ok=True)
        table.write_text("\n".join(lines) + "\n")
    page = (ROOT / "docs" / "extend.md").read_text()
    for name, text in re.findall(r"^`(aupipe-zones/[\w./-]+)`:\n\n```\w+\n(.*?)^```$", page, re.MULTILINE | re.DOTALL):
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    (folder / "aupipe-zones" / "aupipe_zones" / "__init__.py").touch()
