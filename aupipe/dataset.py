"""What to process: recordings in a folder of videos, in folders of images, or in an Aff-Wild2 tree."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from aupipe.annotations import find_annotations, read_annotation, test_tracks
from aupipe.config import FILE_NAME, DatasetConfig
from aupipe.errors import UsageError
from aupipe.registry import nearest
from aupipe.types import Labels, Recording, Task

VIDEO_SUFFIXES = frozenset({".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".wmv", ".asf", ".mpg", ".mpeg"}) | {
    ".ts",
    ".mts",
    ".m2ts",
    ".flv",
    ".3gp",
    ".ogv",
    ".vob",
}
IMAGE_SUFFIXES = frozenset([".jpg", ".jpeg", ".png", ".bmp"])
VIDEO_FOLDERS = ("videos", "raw_videos", "batch1", "batch2", "new_vids")  # of Aff-Wild2, by edition
STORE_FILE = "store.json"  # marks a feature store, which may lie among the videos
RUN_FILE = "run.json"  # marks a trained run
SIDES = re.compile(r"(.+)_(left|right)")
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Dataset:
    """The recordings to process, and where their annotations lie: task -> recording id -> (split, file)."""

    recordings: tuple[Recording, ...]
    annotations: Mapping[Task, Mapping[str, tuple[str, Path]]] = field(default_factory=dict)
    tests: Mapping[Task, tuple[str, ...]] = field(default_factory=dict)
    ignored: tuple[Path, ...] = ()  # files in the folder that are neither video nor known

    def split(self, task: Task, name: str) -> list[Recording]:
        """The recordings of ``train``, ``validation`` or ``test``. Splits differ by task in Aff-Wild2."""
        if name == "test" and task in self.tests:
            wanted = set(self.tests[task])
        else:
            wanted = {track for track, (split, _) in self.annotations.get(task, {}).items() if split == name}
        return [recording for recording in self.recordings if label_name(recording) in wanted]

    def labels(self, recording: Recording, task: Task) -> Labels | None:
        """The annotations of one recording, or None where it has none.

        Raises UsageError where two recordings go by the name that is annotated.
        """
        name = label_name(recording)
        entry = self.annotations.get(task, {}).get(name)
        if entry and len(self._named[name]) > 1:
            raise UsageError(f"{entry[1]} could be of {' or '.join(self._named[name])}: take one of them out")
        return read_annotation(entry[1], task) if entry else None

    @cached_property
    def _named(self) -> dict[str, list[str]]:
        """The ids of the recordings that go by each name in annotation files."""
        found: dict[str, list[str]] = {}
        for recording in self.recordings:
            found.setdefault(label_name(recording), []).append(recording.id)
        return found

    def within(self, folder: Path) -> Dataset:
        """The recordings whose video or images lie in a folder, with their ids. Raises UsageError for none."""
        found = [r for r in self.recordings if any(path and _lies_in(path, folder) for path in (r.video, r.images))]
        if not found:
            raise UsageError(f"no recording of this data set lies in {folder}: check [dataset]")
        return replace(
            self, recordings=tuple(found), ignored=tuple(path for path in self.ignored if _lies_in(path, folder))
        )

    def select(self, ids: Iterable[str]) -> list[Recording]:
        """The recordings of these ids, in this order, each once. Raises UsageError for one that does not exist."""
        by_id = {recording.id: recording for recording in self.recordings}
        chosen = []
        for name in dict.fromkeys(ids):
            if name not in by_id:
                raise UsageError(f"no recording {name!r} in this dataset.{nearest(name, by_id)}")
            chosen.append(by_id[name])
        return chosen


def label_name(recording: Recording) -> str:
    """The name a recording goes by in annotation and submission files: its id without a file suffix."""
    path = Path(recording.id)
    return str(path.with_suffix("")) if path.suffix.lower() in VIDEO_SUFFIXES else recording.id


def part_of(folder: Path, config: DatasetConfig) -> bool:
    """Does a folder lie in the configured data set (or is it that)? Its recordings then have ids there."""
    root = config.root if config.layout == "affwild2" else config.videos
    return _lies_in(folder, root)


def _lies_in(path: Path, folder: Path) -> bool:
    """As the paths are written, or with their links resolved."""
    as_written = Path(os.path.abspath(path)).is_relative_to(os.path.abspath(folder))
    return as_written or Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))


def open_dataset(config: DatasetConfig) -> Dataset:
    """The data set a configuration describes.

    Raises UsageError when a folder is not there or holds nothing of what its layout says, naming the folder.
    """
    if config.layout == "affwild2":
        return _affwild2(config)
    if config.videos.is_file():
        raise UsageError(f"{config.videos} is a file: give the folder it is in")
    if not config.videos.is_dir():
        raise UsageError(f"no folder {config.videos}: set [dataset] videos, or run `aupipe init` in the right place")
    find = _videos if config.layout == "folder" else _image_folders
    recordings, ignored = find(config)
    if not recordings:
        what = "videos" if config.layout == "folder" else "folders of images"
        raise UsageError(f"no {what} in {config.videos} ({len(ignored)} other files there): check [dataset]")
    annotations = find_annotations(config.annotations) if config.annotations else {}
    _name_strangers({label_name(recording) for recording in recordings}, annotations, config.videos)
    return Dataset(tuple(recordings), annotations, ignored=tuple(ignored))


def _name_strangers(known: set[str], annotations: Mapping[Task, Mapping[str, tuple[str, Path]]], folder: Path) -> None:
    """Say which annotated tracks are none of the recordings: they would be missing from every score."""
    strangers = sorted({track for table in annotations.values() for track in table} - known)
    if not strangers:
        return
    sides = any((side := SIDES.fullmatch(track)) and side[1] in known for track in strangers)
    hint = '; layout = "affwild2" knows people by the side of the picture they are on' if sides else ""
    log.warning("%d annotated tracks are not in %s, e.g. %s%s", len(strangers), folder, strangers[0], hint)


def _videos(config: DatasetConfig) -> tuple[list[Recording], list[Path]]:
    files, ignored = walk_videos(config.videos)
    return [Recording(id=name, video=file) for name, file in files.items()], ignored


def walk_videos(folder: Path) -> tuple[dict[str, Path], list[Path]]:
    """Relative name -> path of everything named like a video below ``folder``, and the files that are not.

    A folder named like a video is listed too: it fails by name later instead of vanishing. Hidden entries and what
    aupipe wrote (configuration, stores, runs) are left out. Links to folders elsewhere are followed, each once; those
    to folders that are walked anyway are not, so there are no loops. A folder that cannot be listed is warned of.
    """
    found: dict[str, Path] = {}
    ignored = []
    walked = [folder.resolve()]
    for root, folders, files in os.walk(folder, followlinks=True, onerror=_warn_unlisted):
        here = Path(root)
        folders[:] = [
            name
            for name in sorted(folders)
            if not name.startswith(".") and not _is_store(here / name) and _leads_on(here / name, walked)
        ]
        videos = [name for name in (*folders, *files) if Path(name).suffix.lower() in VIDEO_SUFFIXES]
        folders[:] = [name for name in folders if name not in videos]
        for name in videos:
            if not name.startswith("."):
                found[(here / name).relative_to(folder).as_posix()] = here / name
        own = files if RUN_FILE in files else (FILE_NAME,)
        ignored += [here / name for name in files if name not in (*videos, *own) and not name.startswith(".")]
    return dict(sorted(found.items())), ignored


def _leads_on(folder: Path, walked: list[Path]) -> bool:
    """False for a link to a folder that is walked anyway, or from which one would come back; others are noted."""
    if not folder.is_symlink():
        return True
    target = folder.resolve()
    if any(target.is_relative_to(known) or known.is_relative_to(target) for known in walked):
        return False
    walked.append(target)
    return True


def _warn_unlisted(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        log.warning("cannot list %s (%s): videos in it are left out", error.filename, error.strerror)


def _is_store(folder: Path) -> bool:
    try:
        return b"aupipe-store" in (folder / STORE_FILE).read_bytes()
    except OSError:
        return False


def _image_folders(config: DatasetConfig) -> tuple[list[Recording], list[Path]]:
    recordings = []
    for root, folders, files in os.walk(config.videos):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if any(Path(name).suffix.lower() in IMAGE_SUFFIXES for name in files):
            here = Path(root)
            name = here.relative_to(config.videos).as_posix() if here != config.videos else here.name
            recordings.append(Recording(id=name, images=here, fps=config.fps))
    return sorted(recordings, key=lambda recording: recording.id), []


def _affwild2(config: DatasetConfig) -> Dataset:
    """An Aff-Wild2 tree: tracks from annotations, crops, test lists and videos, each with the video it belongs to."""
    root = config.root
    if not root.is_dir():
        raise UsageError(f"no folder {root}: set [dataset] root to the Aff-Wild2 tree")
    videos: dict[str, Path] = {}
    for folder in VIDEO_FOLDERS:
        for file in walk_videos(root / folder)[0].values():
            if file.stem in videos:
                raise UsageError(f"{file} and {videos[file.stem]} have the same name: Aff-Wild2 names are unique")
            videos[file.stem] = file
    annotations = find_annotations(config.annotations or root)
    tests = {task: tuple(tracks) for task, tracks in test_tracks(root).items()}
    crops = {folder.name: folder for folder in sorted(root.glob("cropped_aligned*/*")) if folder.is_dir()}
    tracks = {track for table in annotations.values() for track in table} | set(crops)
    tracks |= {track for names in tests.values() for track in names}
    split_in_two = {video for track in tracks if (video := video_of(track, videos)) != track}
    tracks |= {video for video in videos if video not in split_in_two}
    if not tracks:
        raise UsageError(f"{root} holds no Aff-Wild2 tree: expected videos/ and annotations/ or cropped_aligned/ in it")
    recordings = []
    for track in sorted(tracks):
        video = video_of(track, videos)
        side = SIDES.fullmatch(track) if video != track else None
        recording = Recording(
            id=track,
            # Where the tree has videos, one that is missing is missing by name; a tree of crops alone has no clock but
            # `fps`, and every track is then a medium of its own.
            video=videos.get(video, root / VIDEO_FOLDERS[0] / f"{video}.mp4") if videos else None,
            subject=side[2] if side else None,  # type: ignore[arg-type]
            video_id=video if videos else track,
            group=video,
            fps=config.fps,
        )
        if config.frames == "cropped_aligned":
            # A track without a crop folder keeps `images` None and fails by name when its frames are asked for.
            recording = replace(recording, images=crops.get(track), aligned=True)
        recordings.append(recording)
    return Dataset(tuple(recordings), annotations, tests)


def video_of(track: str, videos: Iterable[str]) -> str:
    """The video a track belongs to: its own name, or that without a trailing ``_left`` / ``_right``.

    ``video45_1`` is a video of its own, and names are prefixes of each other (``video2``, ``video20``): only the
    literal suffix is taken off, and only where no video has the full name.
    """
    side = SIDES.fullmatch(track)
    return side[1] if side and track not in videos else track
