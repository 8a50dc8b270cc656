"""Damaged media made by a seed, and what decoding them gives: in worker processes, so that a crash has a name.

Every picture of a clip carries its number in a row of squares, so rows that are missing or stand at other times are
told apart from pictures that are merely spoilt.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

FRAMES, FPS, SIZE = 60, 25, (128, 96)
SQUARE, BITS = 16, 8  # six of the number, two that check it; a second row of squares holds the opposite of the first
RATE = 48000
TIME_TOLERANCE_S = 0.015

# name -> (file suffix, video codec, sound codec, layout, muxer, options of the muxer, options of the video codec)
KINDS: dict[str, tuple[str, str, str, str, str, dict[str, str], dict[str, str]]] = {
    "mp4": ("mp4", "libx264", "aac", "mono", "mp4", {"movflags": "faststart"}, {}),
    "mp4_late_index": ("mp4", "libx264", "libmp3lame", "mono", "mp4", {}, {}),
    "mp4_fragments": ("mp4", "libx264", "aac", "mono", "mp4", {"movflags": "frag_keyframe+empty_moov"}, {"g": "12"}),
    "mov_mjpeg": ("mov", "mjpeg", "pcm_s16le", "mono", "mov", {}, {}),
    "mkv_h264": ("mkv", "libx264", "libopus", "mono", "matroska", {}, {"g": "15"}),
    "mkv_mpeg4": ("mkv", "mpeg4", "libmp3lame", "mono", "matroska", {}, {"g": "10"}),
    "webm_vp8": ("webm", "libvpx", "libopus", "mono", "webm", {}, {"deadline": "good", "cpu-used": "5"}),
    "webm_vp9": ("webm", "libvpx-vp9", "libopus", "mono", "webm", {}, {"deadline": "good", "cpu-used": "5"}),
    "avi_mpeg4": ("avi", "mpeg4", "libmp3lame", "mono", "avi", {}, {"g": "10"}),
    "avi_mjpeg": ("avi", "mjpeg", "pcm_s16le", "mono", "avi", {}, {}),
    "ts": ("ts", "libx264", "aac", "mono", "mpegts", {}, {"g": "12"}),
    "m2ts": ("m2ts", "libx264", "aac", "mono", "mpegts", {"mpegts_m2ts_mode": "1"}, {"g": "12"}),
    "mpg": ("mpg", "mpeg1video", "mp2", "stereo", "mpeg", {}, {"b": "800000"}),
    "flv": ("flv", "libx264", "aac", "mono", "flv", {}, {"g": "25"}),
    "wmv": ("wmv", "wmv2", "libmp3lame", "mono", "asf", {}, {"b": "800000"}),
    "ogv_vp8": ("ogv", "libvpx", "libopus", "mono", "ogg", {}, {"deadline": "good", "cpu-used": "5"}),
}


def numbered(number: int) -> NDArray[np.uint8]:
    """(H, W, 3) a moving pattern with a number below 64 in squares at its bottom, least significant bit left."""
    width, height = SIZE
    y, x = np.mgrid[:height, :width]
    grain = np.random.default_rng(number).integers(0, 24, (height, width))
    grey = (96 + 60 * np.sin((x + 3 * number) / 9) * np.cos((y - 2 * number) / 7) + grain).clip(0, 255)
    for bit in range(BITS):
        columns = slice(bit * SQUARE, (bit + 1) * SQUARE)
        is_set = (number | check_of(number) << BITS - 2) >> bit & 1
        grey[-2 * SQUARE : -SQUARE, columns], grey[-SQUARE:, columns] = (235, 20) if is_set else (20, 235)
    return np.repeat(grey.astype(np.uint8)[..., None], 3, axis=2)


def check_of(number: int) -> int:
    """Two bits that a number of six bits must be accompanied by."""
    return (number ^ number >> 2 ^ number >> 4) & 3


def number_in(picture: NDArray[np.uint8]) -> int:
    """The number a picture (H, W, 3) carries; -1 where its squares contradict each other."""
    height = picture.shape[0]
    if picture.shape[:2] != SIZE[::-1]:
        return -1
    number = 0
    for bit in range(BITS):
        columns = slice(bit * SQUARE + 4, (bit + 1) * SQUARE - 4)
        upper = picture[height - 2 * SQUARE + 4 : height - SQUARE - 4, columns].mean()
        lower = picture[height - SQUARE + 4 : height - 4, columns].mean()
        if abs(upper - lower) < 80:
            return -1
        number |= int(upper > lower) << bit
    check, number = divmod(number, 1 << BITS - 2)
    return number if check == check_of(number) else -1


def write_clip(folder: Path, kind: str, frames: int = FRAMES) -> Path:
    """A whole clip of one kind, with a tone that rises."""
    suffix, video, sound, layout, muxer, muxing, coding = KINDS[kind]
    path = folder / f"{kind}.{suffix}"
    with av.open(str(path), "w", format=muxer, options={"fflags": "+bitexact", **muxing}) as container:  # no random ids
        stream = container.add_stream(video, rate=FPS, options={"threads": "1", **coding})
        stream.width, stream.height = SIZE
        stream.pix_fmt = "yuvj420p" if video == "mjpeg" else "yuv420p"
        audio = container.add_stream(sound, rate=RATE, layout=layout)
        format_name = audio.codec_context.codec.audio_formats[0].name
        audio.format = format_name
        fifo, resampler = av.AudioFifo(), av.AudioResampler(format=format_name, layout=layout, rate=RATE)
        times = np.arange(RATE * frames // FPS) / RATE
        tone = (0.3 * np.sin(2 * np.pi * (300 + 200 * times) * times) * 32767).astype(np.int16)
        step, pts = RATE // FPS, 0
        for k in range(frames):
            picture = av.VideoFrame.from_ndarray(numbered(k), format="rgb24")
            container.mux(stream.encode(picture))
            block = av.AudioFrame.from_ndarray(tone[None, k * step : (k + 1) * step], format="s16", layout="mono")
            block.sample_rate, block.pts = RATE, k * step
            for piece in resampler.resample(block):
                piece.pts = None
                fifo.write(piece)
            size = audio.codec_context.frame_size or 1024
            while (ready := fifo.read(size)) is not None:
                ready.pts, pts = pts, pts + ready.samples
                container.mux(audio.encode(ready))
        container.mux(stream.encode(None))
        container.mux(audio.encode(None))
    return path


# Mutations ------------------------------------------------------------------------------------------------------------

Mutation = Callable[[bytes, bytes, np.random.Generator], bytes]


def _place(data: bytes, random: np.random.Generator, length: int = 1) -> int:
    return int(random.integers(0, max(1, len(data) - length)))


def _length(data: bytes, random: np.random.Generator) -> int:
    return int(2 ** random.uniform(4, np.log2(max(32, len(data) / 6))))


def truncate(data: bytes, other: bytes, random: np.random.Generator) -> bytes:
    return data[: int(len(data) * random.uniform(0.1, 0.98))]


def flip_bit(data: bytes, other: bytes, random: np.random.Generator) -> bytes:
    changed = bytearray(data)
    changed[_place(data, random)] ^= 1 << int(random.integers(8))
    return bytes(changed)


def flip_bytes(data: bytes, other: bytes, random: np.random.Generator) -> bytes:
    changed = bytearray(data)
    for _ in range(int(random.integers(1, 20))):
        changed[_place(data, random)] = int(random.integers(256))
    return bytes(changed)


def zero_block(data: bytes, other: bytes, random: np.random.Generator) -> bytes:
    start, length = _place(data, random), _length(data, random)
    return data[:start] + bytes(len(data[start : start + length])) + data[start + length :]


def delete_block(data: bytes, other: bytes, random: np.random.Generator) -> bytes:
    start, length = _place(data, random), _length(data, random)
    return data[:start] + data[start + length :]


def swap_blocks(data: bytes, other: bytes, random: np.random.Generator) -> bytes:
    length = _length(data, random)
    one, two = sorted((_place(data, random, length), _place(data, random, length)))
    if two < one + length:
        return delete_block(data, other, random)
    middle = data[one + length : two]
    return data[:one] + data[two : two + length] + middle + data[one : one + length] + data[two + length :]


def splice(data: bytes, other: bytes, random: np.random.Generator) -> bytes:
    """The beginning of one file and the end of another."""
    share = random.uniform(0.2, 0.9)
    return data[: int(len(data) * share)] + other[int(len(other) * random.uniform(0.1, 0.9)) :]


TAGS = (
    *(b"mvhd", b"mdhd", b"tkhd", b"elst", b"stts", b"stsz", b"stsc", b"stco", b"ctts", b"stsd", b"trun", b"tfhd"),
    *(b"avih", b"strh", b"strf", b"idx1", b"\x44\x89", b"\x2a\xd7\xb1", b"\x23\xe3\x83", b"\xb0", b"\x1f\x43\xb6\x75"),
    *(b"duration", b"framerate", b"\xa1\xdc\xab\x8c\x47\xa9\xcf\x11", b"\x91\x07\xdc\xb7\xb7\xa9\xcf\x11", b"OggS"),
)


def edit_header(data: bytes, other: bytes, random: np.random.Generator) -> bytes:
    """A field of a header set to something else."""
    tags = [tag for tag in TAGS if tag in data]
    if tags and random.random() < 0.8:
        tag = tags[int(random.integers(len(tags)))]
        start = data.index(tag) + len(tag) + int(random.integers(0, 40))
    else:
        start = int(random.integers(0, 400))
    length = int(random.choice([1, 1, 2, 4]))
    value = [bytes(length), b"\xff" * length, random.bytes(length)][int(random.integers(3))]
    return data[:start] + value + data[start + length :]


MUTATIONS: tuple[Mutation, ...] = (
    truncate,
    flip_bit,
    flip_bytes,
    zero_block,
    delete_block,
    swap_blocks,
    splice,
    edit_header,
)


def mutants(folder: Path, count: int, seed: int) -> Iterator[tuple[Path, Path]]:
    """(whole clip, damaged file), ``count`` of them, of every kind and every mutation in turn."""
    clips = {kind: write_clip(folder, kind) for kind in KINDS}
    kinds = list(clips)
    for number in range(count):
        random = np.random.default_rng([seed, number])
        kind, mutation = kinds[number % len(kinds)], MUTATIONS[(number // len(kinds) + number) % len(MUTATIONS)]
        whole = clips[kind]
        partners = [other for other in kinds if clips[other].suffix == whole.suffix] or kinds
        other = clips[partners[int(random.integers(len(partners)))]]
        path = folder / f"{number:04d}_{kind}_{mutation.__name__}{whole.suffix}"
        path.write_bytes(mutation(whole.read_bytes(), other.read_bytes(), random))
        yield whole, path


# What decoding them gives ---------------------------------------------------------------------------------------------


def look_at(path: Path) -> dict[str, Any]:
    """What aupipe makes of a file: its rows, or the reason why there are none, and what its report says."""
    from aupipe.errors import RecordingError
    from aupipe.extract.media.video import VideoReader

    reader = VideoReader(path)
    numbers: list[int] = []
    try:
        for chunk in reader:
            numbers += map(number_in, chunk.rgb)
        times_s = reader.ordered_clock().tolist()
    except RecordingError as error:
        return {"failed": str(error)}
    report = reader.report
    return {
        "numbers": numbers,
        "times_s": times_s,
        "damage": report.summary,
        "notes": report.notes,
        "report": report.to_json(),
        "signs": signs_of(path),
    }


def signs_of(path: Path) -> list[str]:
    """What FFmpeg itself says is wrong with a file, asked for without aupipe's reader: its error log, and its flags."""
    from aupipe.extract.media.container import sniff

    signs = []
    with av.logging.Capture() as lines:
        try:
            with av.open(f"file:{path}", format=sniff(path), metadata_errors="replace") as container:
                stream = container.streams.video[0]
                stream.codec_context.thread_count = 1
                packets = container.demux(stream)
                for _ in range(20000):
                    try:
                        packet = next(packets, None)
                        if packet is None:
                            break
                        if packet.is_corrupt:
                            signs.append("corrupt packet")
                        signs += ["corrupt frame" for frame in packet.decode() if frame.is_corrupt]
                    except av.error.EOFError:
                        break
                    except av.FFmpegError as error:
                        signs.append(str(error))
        except Exception as error:
            signs.append(repr(error))
    return [text.strip() for level, _, text in lines if level <= av.logging.ERROR] + signs


@dataclass(frozen=True)
class Verdict:
    """What became of a damaged file."""

    path: Path
    kind: str  # crashed, hung, failed, flagged, unchanged or silent
    what: str = ""
    signs: tuple[str, ...] = ()  # FFmpeg's own, of a silent one


def judge(path: Path, whole: dict[str, Any], found: dict[str, Any]) -> Verdict:
    """Compare what a damaged file gives with what the whole one gave."""
    if "ended" in found:
        return Verdict(path, found["ended"], found["how"])
    if "failed" in found:
        return Verdict(path, "failed", found["failed"])
    if found["damage"]:
        return Verdict(path, "flagged", found["damage"])
    change = change_between(whole, found)
    if not change:
        return Verdict(path, "unchanged")
    return Verdict(path, "silent", f"{change} {found['notes']}", tuple(found["signs"]))


def change_between(whole: dict[str, Any], found: dict[str, Any]) -> str:
    """In words, how rows differ in number or place; empty where at most pictures are spoilt."""
    rows, expected = len(found["times_s"]), len(whole["times_s"])
    if rows != expected:
        return f"{rows} rows of {expected}"
    late = np.abs(np.array(found["times_s"]) - np.array(whole["times_s"]))
    if late.max(initial=0) > TIME_TOLERANCE_S:
        return f"times differ by up to {late.max():.3f} s"
    shift = [number - row if number >= 0 else 0 for row, number in enumerate(found["numbers"])]
    runs = [k for k in range(len(shift) - 2) if shift[k] and shift[k] == shift[k + 1] == shift[k + 2]]
    return f"rows shifted by {shift[runs[0]]} from {runs[0]}" if runs else ""


def look_at_all(paths: Sequence[Path], at_once: int = 25, deadline_s: float = 60.0) -> list[dict[str, Any]]:
    """`look_at` each file in worker processes, ``at_once`` files each; a crash or a hang is that file's."""
    found: list[dict[str, Any]] = []
    while len(found) < len(paths):
        batch = paths[len(found) : len(found) + at_once]
        found += _run_worker(batch, deadline_s)
    return found


def _run_worker(paths: Sequence[Path], deadline_s: float) -> list[dict[str, Any]]:
    """What a worker process says of files, up to the one that it crashes or hangs on."""
    command = [sys.executable, "-m", "tests.extract.mutations", *map(str, paths)]
    root = Path(__file__).parent.parent.parent
    found: list[dict[str, Any]] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=root) as process:
        assert process.stdout is not None
        begun, buffer = time.monotonic(), b""
        while len(found) < len(paths):
            ready, _, _ = select.select([process.stdout], [], [], max(0.0, begun + deadline_s - time.monotonic()))
            if not ready:
                process.kill()
                return [*found, {"ended": "hung", "how": f"nothing for {deadline_s:.0f} s"}]
            chunk = os.read(process.stdout.fileno(), 1 << 16)
            if not chunk:
                return [*found, {"ended": "crashed", "how": f"exit code {process.wait()}"}]
            *lines, buffer = (buffer + chunk).split(b"\n")
            found += map(json.loads, lines)
            begun = time.monotonic() if lines else begun
    return found


if __name__ == "__main__":
    for name in sys.argv[1:]:
        print(json.dumps(look_at(Path(name))), flush=True)
