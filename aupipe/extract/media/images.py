"""FrameChunk of a folder of numbered images: `Frames` on a known clock, one row per number."""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from aupipe.dataset import frame_files
from aupipe.errors import RecordingError
from aupipe.extract.limits import FREE_ROWS, MAX_PIXELS, MAX_ROWS_PER_IMAGE
from aupipe.extract.media.clock import length_of
from aupipe.extract.media.frame_buffer import chunk_length
from aupipe.quantities import counted
from aupipe.types import Frames

log = logging.getLogger(__name__)


def image_rows(folder: Path) -> dict[int, Path]:
    """Row -> image of a folder of numbered images; numbers may be missing, and a missing number is a missing row.

    The number is the last run of digits in the name. Numbering starts at 1 as in Aff-Wild2 (00001.jpg is row 0), or at
    0 where an image 0 exists. Raises RecordingError for an empty folder, a name without number, or a number twice.
    """
    try:
        files = frame_files(folder)
    except OSError as error:
        raise RecordingError(f"cannot read {folder}: {error.strerror or error}") from error
    if not files:
        raise RecordingError(f"{folder}: no images in it")
    numbered: dict[int, Path] = {}
    for file in files:
        digits = re.findall(r"\d+", file.stem)
        if not digits:
            raise RecordingError(f"{file}: no frame number in the name; expected 00001{file.suffix}")
        if (number := int(digits[-1])) in numbered:
            raise RecordingError(f"{file} and {numbered[number].name} are both frame {number}")
        numbered[number] = file
    first = 0 if 0 in numbered else 1
    return {number - first: file for number, file in sorted(numbered.items())}


def image_length(folder: Path) -> int:
    """How many rows a folder of numbered images has: up to its last number.

    Raises RecordingError where that is far more than it has images (`MAX_ROWS_PER_IMAGE`, `FREE_ROWS`): a row without
    an image takes as much disk in the store as any other.
    """
    rows = image_rows(folder)
    last = max(rows)
    if last >= max(FREE_ROWS, MAX_ROWS_PER_IMAGE * len(rows)):
        raise RecordingError(
            f"{folder}: frame numbers run to {rows[last].name}, but there are {len(rows)} images; renumber them"
        )
    return last + 1


@dataclass
class ImageReader:
    """The frames of a folder of numbered images, as `VideoReader` gives those of a file.

    ``clock_s`` (T,): the times of all rows, present or not. Rows without an image are not yielded. Images whose row
    lies beyond the clock are left out with a note, when they are few: numbering by another decoder differs by a frame
    or two; more than that is a folder of another video and raises RecordingError.
    """

    folder: Path
    clock_s: NDArray[np.float64]

    def __post_init__(self) -> None:
        self.notes: list[str] = []
        self.decoded = 0

    def position(self) -> tuple[float, float]:
        """Seconds of the clock behind the last image read, and those of the whole clock."""
        length_s = length_of(self.clock_s)
        return length_s * min(1.0, self.decoded / max(1, len(self.clock_s))), length_s

    def __iter__(self) -> Iterator[Frames]:
        self.decoded = 0
        rows = image_rows(self.folder)
        beyond = [row for row in rows if row >= len(self.clock_s)]
        if len(beyond) > max(2, len(self.clock_s) // 100):
            raise RecordingError(
                f"{self.folder}: numbers run to {rows[beyond[-1]].name}, but its video has "
                f"{counted(len(self.clock_s), 'frame')}"
            )
        if beyond:
            self.notes = [
                f"{counted(len(beyond), 'image')} beyond the video's last frame left out: {rows[beyond[0]].name} ..."
            ]
            log.warning("%s: %s", self.folder, self.notes[0])
        pictures: list[NDArray[np.uint8]] = []
        index: list[int] = []
        for row, file in rows.items():
            if row >= len(self.clock_s):
                break
            picture = read_image(file)
            self.decoded += 1
            if pictures and (len(pictures) >= chunk_length(pictures[0].nbytes) or picture.shape != pictures[0].shape):
                yield Frames(np.stack(pictures), self.clock_s[index], np.array(index))
                pictures, index = [], []
            pictures.append(picture)
            index.append(row)
        if pictures:
            yield Frames(np.stack(pictures), self.clock_s[index], np.array(index))


def read_image(path: Path) -> NDArray[np.uint8]:
    """One image as RGB uint8 (H, W, 3). Raises RecordingError when it cannot be decoded."""
    try:
        data = np.fromfile(path, dtype=np.uint8)  # not cv2.imread: names that are no UTF-8 crash it
    except OSError as error:
        raise RecordingError(f"cannot read {path}: {error.strerror or error}") from error
    if not data.size:
        raise RecordingError(f"{path}: not an image that can be read")
    _refuse_large(path, data)
    picture = cv2.imdecode(data, cv2.IMREAD_COLOR)
    if picture is None:
        raise RecordingError(f"{path}: not an image that can be read")
    return cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)  # type: ignore[return-value]


def _refuse_large(path: Path, data: NDArray[np.uint8]) -> None:
    """Raises RecordingError for an image whose header says that it is beyond the cap, before anything is allocated."""
    try:
        with Image.open(io.BytesIO(data.tobytes())) as image:  # reads the header alone
            width, height = image.size
    except Image.DecompressionBombError as error:  # Pillow's own cap, which is higher
        raise RecordingError(f"{path}: at most {MAX_PIXELS / 1e6:.0f} megapixels are decoded ({error})") from error
    except Exception as error:
        raise RecordingError(f"{path}: not an image that can be read ({type(error).__name__})") from error
    if width * height > MAX_PIXELS:
        raise RecordingError(
            f"{path}: a picture of {width}x{height}, at most {MAX_PIXELS / 1e6:.0f} megapixels are decoded"
        )
