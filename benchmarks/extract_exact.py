"""The section ``exact`` of `benchmarks/extract.py`: what `VideoReader` gives against two plain decoders."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path

import av
import cv2
import numpy as np
from av.stream import Disposition
from extract_clips import turn_clip
from extract_run import ASSETS, verdict

from aupipe.extract.media.display import SQUARE, pixel_aspect_of
from aupipe.extract.media.video import VideoReader


def measure(folder: Path) -> None:
    """Print, per clip of square pixels, frames and the largest difference in grey levels to PyAV and to OpenCV."""
    straight = ASSETS / "videos" / "single_face_smile_mp3.mp4"
    turned = [turn_clip(straight, folder / f"turned_{angle}.mp4", angle) for angle in (90, 180, 270)]
    print(f"  {'clip':40} {'frames':>6} {'PyAV':>6} {'differs':>7} {'OpenCV':>6} {'differs':>7}")
    wrong = 0
    for clip in [*sorted((ASSETS / "videos").iterdir()), *turned]:
        if not is_square(clip):
            print(f"  {clip.name:40} pixels that are not square: stretched here, not there")
            continue
        counts, far = np.zeros(3, int), np.zeros(3, int)
        ours = (picture for chunk in VideoReader(clip) for picture in chunk.rgb)
        for pictures in zip_longest(ours, pyav_frames(clip), opencv_frames(clip)):
            counts += [picture is not None for picture in pictures]
            far = np.maximum(far, [difference(pictures[0], picture) for picture in pictures])
        good = len(set(counts)) == 1 and not far.any()
        wrong += not good
        line = f"  {clip.name:40} {counts[0]:6d} {counts[1]:6d} {far[1]:7d} {counts[2]:6d} {far[2]:7d}"
        print(line + ("" if good else "  DIFFERS"), flush=True)
    print(f"  clips that differ: {verdict(wrong, 0, at_most=True)}")


def is_square(clip: Path) -> bool:
    with av.open(str(clip)) as container:
        return pixel_aspect_of(container.streams.video[0]) == SQUARE


def pyav_frames(clip: Path) -> Iterator[np.ndarray]:
    """Upright RGB frames of the first video stream that is no cover."""
    with av.open(str(clip)) as container:
        stream = next(s for s in container.streams.video if not s.disposition & Disposition.attached_pic)
        for frame in container.decode(stream):
            yield np.rot90(frame.to_ndarray(format="rgb24"), (frame.rotation // 90) % 4)


def opencv_frames(clip: Path) -> Iterator[np.ndarray]:
    capture = cv2.VideoCapture(str(clip))
    while (read := capture.read())[0]:
        yield cv2.cvtColor(read[1], cv2.COLOR_BGR2RGB)


def difference(a: np.ndarray | None, b: np.ndarray | None) -> int:
    """Largest difference in grey levels; 255 where the pictures have other sizes or one is missing."""
    if a is None or b is None or a.shape != b.shape:
        return 255
    return int(cv2.absdiff(np.ascontiguousarray(a), np.ascontiguousarray(b)).max())
