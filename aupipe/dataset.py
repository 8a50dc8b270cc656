"""Data sets on disk: a folder of videos, folders of images, Aff-Wild2, DISFA, BP4D, or several of them."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from aupipe.annotations import find_annotations, find_test_tracks
from aupipe.config import FILE_NAME, DatasetConfig, load_config
from aupipe.dataset_columns import read_columns
from aupipe.dataset_model import Dataset, divide, is_inside, join_datasets, label_name
from aupipe.errors import UsageError
from aupipe.facs_datasets import PUBLISHED
from aupipe.file_kinds import is_video
from aupipe.label_tables import Clock, add_label_tables, no_clock, part_clock
from aupipe.listing import is_hidden, list_folder
from aupipe.quantities import counted
from aupipe.tasks import OFFICIAL, Task
from aupipe.types import Recording
from aupipe.video_folders import is_own, walk_videos

IMAGE_SUFFIXES = frozenset([".jpg", ".jpeg", ".png", ".bmp"])
VIDEO_FOLDERS = ("videos", "raw_videos", "batch1", "batch2", "new_vids")  # of Aff-Wild2, by edition
SIDES = re.compile(r"(.+)_(left|right)")
log = logging.getLogger(__name__)


def is_in_dataset(folder: Path, config: DatasetConfig) -> bool:
    """Whether a folder is the configured data set, or inside it."""
    if config.layout == "joint":
        return any(is_in_dataset(folder, part) for part in _part_configs(config).values())
    root = config.videos if config.layout in ("folder", "images") else config.root
    return is_inside(folder, root)


def open_dataset(config: DatasetConfig, clock: Clock = no_clock) -> Dataset:
    """The data set a configuration describes.

    ``clock``: the times of the frames of a recording, which labels with times are matched to
    (`aupipe.store.clocks.clock_of`).

    Raises UsageError with the folder that is missing or has no recordings of the layout, and for a file of columns that
    is not readable.
    """
    found = _find_dataset(config, clock)
    if config.columns:
        found = replace(found, recordings=read_columns(config.columns, found.recordings))
    return add_label_tables(found, config.tasks, config.validation, clock)


def _find_dataset(config: DatasetConfig, clock: Clock) -> Dataset:
    if config.layout == "joint":
        parts = _part_configs(config)
        return join_datasets({name: open_dataset(part, part_clock(name, clock)) for name, part in parts.items()})
    check_folders(config)
    if config.layout == "affwild2":
        return _find_affwild2(config)
    if config.layout in PUBLISHED:
        return _find_published(config)
    find = _find_videos if config.layout == "folder" else _find_image_folders
    recordings, ignored = find(config)
    if not recordings:
        what = "videos" if config.layout == "folder" else "folders of images"
        raise UsageError(f"no {what} in {config.videos} ({len(ignored)} other files there): check [dataset]")
    annotations = find_annotations(config.annotations, _folders(config)) if config.annotations else {}
    _warn_unmatched({name for one in recordings for name in (one.id, label_name(one))}, annotations, config.videos)
    return Dataset(tuple(recordings), annotations, tasks=_label_sets(config), ignored=tuple(ignored))


def check_folders(config: DatasetConfig) -> None:
    """Raises UsageError where the folders of a data set, which is not a joint one, are missing; looks for no video."""
    root, videos = config.root, config.videos
    if config.layout == "affwild2":
        if not root.is_dir():
            raise UsageError(f"no folder {root}: set [dataset] root to the Aff-Wild2 tree")
    elif config.layout in PUBLISHED:
        published = PUBLISHED[config.layout]
        if not published.label_files(root):
            raise UsageError(
                f"{root}: no {published.labels} there: set [dataset] root to the folder of {config.layout}"
            )
    elif videos.is_file():
        raise UsageError(f"{videos} is a file: give the folder it is in")
    elif not videos.is_dir():
        raise UsageError(f"no folder {videos}: set [dataset] videos, or run `aupipe init` in the right folder")


def _label_sets(config: DatasetConfig) -> dict[str, Task]:
    """The official label sets and those of [[task]], by name."""
    return OFFICIAL | {task.name: task for task, _ in config.tasks}


def _folders(config: DatasetConfig) -> dict[str, str]:
    """Name of a [[task]] -> the folder of its annotations."""
    return {task.name: source.folder for task, source in config.tasks if source.folder}


def single_datasets(config: DatasetConfig) -> tuple[DatasetConfig, ...]:
    """The data sets of a joint one; of any other, itself. Raises UsageError."""
    return tuple(_part_configs(config).values()) if config.layout == "joint" else (config,)


def _part_configs(config: DatasetConfig) -> dict[str, DatasetConfig]:
    """The data sets' configurations that ``parts`` names, by the names of their folders."""
    if len(config.parts) < 2:
        raise UsageError(f"[dataset] parts names {len(config.parts)} configurations: give two or more")
    parts: dict[str, DatasetConfig] = {}
    for path in (config.root / part for part in config.parts):
        file = path / FILE_NAME if path.is_dir() else path
        name = file.absolute().parent.name
        if name in parts:
            raise UsageError(f"[dataset] parts: two of them are in folders named {name!r}: rename one")
        own = load_config(file, environment={}).dataset
        if own.layout == "joint":
            raise UsageError(f"{file}: a part of a joint data set must not be a joint one itself: name its parts")
        parts[name] = own
    return parts


def _find_published(config: DatasetConfig) -> Dataset:
    """A data set in a published layout, divided by subject."""
    published = PUBLISHED[config.layout]
    files = published.label_files(config.root)
    found = (published.recording(config.root, name, config.fps) for name in sorted(files))
    recordings = [replace(recording, streams=config.streams) for recording in found]
    splits = divide(recordings, config.validation)
    annotations = {task: {r.id: (splits[r.id], files[r.id]) for r in recordings} for task in published.tasks}
    return Dataset(tuple(recordings), annotations, tasks=published.tasks, read=published.read)


def _warn_unmatched(known: set[str], annotations: Mapping[str, Mapping[str, tuple[str, Path]]], folder: Path) -> None:
    """Warn of annotated tracks without a recording: they would be missing from every score."""
    unmatched = sorted({track for table in annotations.values() for track in table} - known)
    if not unmatched:
        return
    sides = any((side := SIDES.fullmatch(track)) and side[1] in known for track in unmatched)
    hint = '; layout = "affwild2" matches _left and _right tracks to their video' if sides else ""
    log.warning("%d annotated tracks are not in %s, e.g. %s%s", len(unmatched), folder, unmatched[0], hint)


def _find_videos(config: DatasetConfig) -> tuple[list[Recording], list[Path]]:
    files, ignored = walk_videos(config.videos)
    return [Recording(id=name, video=file, streams=config.streams) for name, file in files.items()], ignored


def dataset_of(root: Path, videos: Iterable[Path], config: DatasetConfig) -> Dataset:
    """The data set of some videos, and of all in some folders, below ``root``. Raises UsageError where one is none."""
    found: dict[str, Path] = {}
    ignored = []
    for path in videos:
        files, others = walk_videos(path) if path.is_dir() else ({path.name: path} if is_video(path) else {}, [])
        if not files:
            if not path.is_dir():
                raise UsageError(f"{path} is no video")
            has_images = any(is_frame(one.name) for one in others)
            images = "; numbered images need a frame rate: `aupipe init` in the folder above, then this again there"
            raise UsageError(f"no videos in {path} ({counted(len(others), 'file')}){images * has_images}")
        below = Path(os.path.relpath(path if path.is_dir() else path.parent, root))
        found |= {(below / name).as_posix(): file for name, file in files.items()}
        ignored += others
    recordings = [Recording(id=name, video=file, streams=config.streams) for name, file in sorted(found.items())]
    return Dataset(tuple(recordings), ignored=tuple(ignored))


def _find_image_folders(config: DatasetConfig) -> tuple[list[Recording], list[Path]]:
    recordings = []
    for root, folders, files in os.walk(config.videos):
        here = Path(root)
        if here != config.videos and is_own(here, files):
            folders.clear()
            continue
        folders[:] = sorted(name for name in folders if not is_hidden(name))
        if any(is_frame(name) for name in files):
            name = here.relative_to(config.videos).as_posix() if here != config.videos else here.name
            recordings.append(Recording(id=name, images=here, fps=config.fps))
    return sorted(recordings, key=lambda recording: recording.id), []


def _find_affwild2(config: DatasetConfig) -> Dataset:
    """An Aff-Wild2 tree: tracks from annotations, crops, test lists and videos, each with its video."""
    root = config.root
    videos: dict[str, Path] = {}
    for folder in VIDEO_FOLDERS:
        for file in walk_videos(root / folder)[0].values():
            if file.stem in videos:
                raise UsageError(f"{file} and {videos[file.stem]} have the same name: Aff-Wild2 names are unique")
            videos[file.stem] = file
    annotations = find_annotations(config.annotations or root, _folders(config))
    tests = {task: tuple(tracks) for task, tracks in find_test_tracks(root).items()}
    crops = {folder.name: folder for folder in crop_folders(root)}
    tracks = {track for table in annotations.values() for track in table} | set(crops)
    tracks |= {track for names in tests.values() for track in names}
    split_in_two = {video for track in tracks if (video := video_of(track, videos)) != track}
    tracks |= {video for video in videos if video not in split_in_two}
    if not tracks:
        raise UsageError(
            f"{root} is not an Aff-Wild2 tree: expected videos/ and annotations/ or cropped_aligned/ in it"
        )
    recordings = []
    for track in sorted(tracks):
        video = video_of(track, videos)
        side = SIDES.fullmatch(track) if video != track else None
        recording = Recording(
            id=track,
            # In a tree with videos, a missing one fails by name. A tree of crops alone has no clock but `fps`, and each
            # track then counts as a video of its own.
            video=videos.get(video, root / VIDEO_FOLDERS[0] / f"{video}.mp4") if videos else None,
            subject=side[2] if side else None,  # type: ignore[arg-type]
            video_id=video if videos else track,
            group=video,
            fps=config.fps,
            streams=config.streams,
        )
        if config.frames == "cropped_aligned":
            # A track without a folder of crops keeps `images` None, and fails by name when its frames are read.
            recording = replace(recording, images=crops.get(track), aligned=True)
        recordings.append(recording)
    return Dataset(tuple(recordings), annotations, tests, _label_sets(config))


def crop_folders(root: Path) -> list[Path]:
    """The folders of aligned crops in an Aff-Wild2 tree, one for each track."""
    parts = [path for path in list_folder(root) if path.name.startswith("cropped_aligned") and path.is_dir()]
    return [folder for part in parts for folder in list_folder(part) if folder.is_dir()]


def is_frame(name: str) -> bool:
    """Whether a file of this name is a frame in a folder of images."""
    return Path(name).suffix.lower() in IMAGE_SUFFIXES and not is_hidden(name)


def frame_files(folder: Path) -> list[Path]:
    """The files of the frames in a folder of images, sorted by name. Raises OSError."""
    return [path for path in list_folder(folder) if is_frame(path.name)]


def video_of(track: str, videos: Iterable[str]) -> str:
    """The video a track belongs to: its own name, or that without a trailing ``_left`` / ``_right``.

    Only this suffix is removed, and only where no video has the full name: ``video45_1`` is a video of its own, and
    names may be prefixes of each other (``video2``, ``video20``).
    """
    side = SIDES.fullmatch(track)
    return side[1] if side and track not in videos else track
