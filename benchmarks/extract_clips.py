"""Clips made from a real one: short ones cut and encoded anew, long ones joined without encoding. Tests use them."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av

FPS = 25
CHEAP = {"preset": "veryfast", "crf": "30", "bf": "0", "threads": "1"}  # no B-frames: packets of clips can be joined


def cut_clips(source: Path, folder: Path, count: int, frames: int = FPS) -> list[Path]:
    """``count`` h264 clips of ``frames`` frames each: successive pieces of ``source``, from its start again at its end.

    Pieces that come again are copies, so that a thousand take no longer than the source. What exists is left alone.
    """
    paths = [folder / f"clip_{number:05d}.mp4" for number in range(count)]
    if all(path.is_file() for path in paths):
        return paths
    folder.mkdir(parents=True, exist_ok=True)
    made: list[Path] = []
    with av.open(str(source)) as container:
        pictures = container.decode(video=0)
        while len(made) < count and len(piece := list(itertools.islice(pictures, frames))) == frames:
            made.append(_write(paths[len(made)], piece))
    if not made:
        raise ValueError(f"{source} has fewer than {frames} frames")
    for number in range(len(made), count):
        shutil.copyfile(made[number % len(made)], paths[number])
    return paths


def join_clips(clips: Sequence[Path], path: Path) -> Path:
    """One video of the frames of ``clips`` in turn, on one rising clock: their packets are copied, nothing is decoded.

    The clips must come from one `cut_clips` call (same encoder settings, no B-frames). What exists is left alone.
    """
    if path.is_file():
        return path
    part = path.with_name(f"part-{path.name}")
    with av.open(str(part), "w") as joined:
        stream, shift, end = None, 0, 0
        for clip in clips:
            with av.open(str(clip)) as container:
                video = container.streams.video[0]
                stream = stream or joined.add_stream_from_template(video)
                for packet in container.demux(video):
                    if packet.pts is None or packet.dts is None:  # the demuxer's last, empty one
                        continue
                    packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
                    end = max(end, packet.pts + (packet.duration or 0))
                    packet.stream = stream
                    joined.mux(packet)
            shift = end
    return part.rename(path)


def turn_clip(source: Path, path: Path, degrees: int) -> Path:
    """A copy of an mp4 whose first track (its video) says it is to be shown turned by 90, 180 or 270 degrees."""
    cosine, sine = {90: (0, 1), 180: (-1, 0), 270: (0, -1)}[degrees]
    data = bytearray(source.read_bytes())
    at = data.index(b"tkhd") + 4 + 40  # the display matrix: 16.16 fixed point, its last column 2.30
    matrix = [cosine << 16, sine << 16, 0, -sine << 16, cosine << 16, 0, 0, 0, 1 << 30]
    data[at : at + 36] = b"".join(value.to_bytes(4, "big", signed=True) for value in matrix)
    path.write_bytes(data)
    return path


def _write(path: Path, pictures: list[av.VideoFrame]) -> Path:
    part = path.with_name(f"part-{path.name}")
    with av.open(str(part), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options=CHEAP)
        stream.width, stream.height, stream.pix_fmt = pictures[0].width, pictures[0].height, "yuv420p"
        for number, picture in enumerate(pictures):
            frame = picture.reformat(format="yuv420p")
            frame.pts, frame.time_base, frame.pict_type = number, Fraction(1, FPS), 0
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return part.rename(path)
