"""Rows, pictures, times and sound of generated files: ``python benchmarks/media_matrix.py [--only WORDS]``.

Each file is written by FFmpeg (PyAV): every picture carries its number in squares, and the pitch of the sound says
which moment is heard. Read by aupipe, it must give as many rows as FFmpeg decodes, every picture in its place, times
within 1.5 ms of those it was written with, and sound within 12 ms of its picture. Prints one line per file; exits with
1 where one misses for no reason named in `EXCEPTIONS`.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from aupipe.errors import RecordingError
from aupipe.extract.media.audio import read_audio_and_report
from aupipe.extract.media.container import sniff
from aupipe.extract.media.streams import pick_stream
from aupipe.extract.media.video import VideoReader

TIME_S, SOUND_S = 0.0015, 0.012  # how far they may be off
WIDTH, HEIGHT = 176, 144  # H.263 knows few others
SQUARE, BITS = 16, 10
CHIRP_S, LOW_HZ, SLOPE = 2.0, 500.0, 1500.0  # the pitch rises for two seconds and begins anew
WINDOW_S = 0.08
RATE = 16000
TICK = Fraction(1, 480000)  # of stated times: every frame rate here is a multiple

# Container, video codec, pixels, frames a second, sound codec, sample rate, layout; then `start` of the pictures and
# `sound` in seconds, `vfr` for uneven times, options of the video codec.
CASES = """
mp4 libx264 yuv420p 25 aac 48000 stereo
mp4 libx264 yuv420p 25 aac 44100 mono bf=0
mp4 libx264 yuv422p 25 aac 16000 mono
mp4 libx264 yuv444p 25 aac 22050 stereo
mp4 libx264 gray 25 aac 48000 mono
mp4 libx264 yuv420p10le 25 aac 48000 stereo
mp4 libx264 yuv420p 0.2 aac 48000 mono
mp4 libx264 yuv420p 1 aac 48000 mono
mp4 libx264 yuv420p 5 aac 48000 mono
mp4 libx264 yuv420p 12.5 aac 48000 mono
mp4 libx264 yuv420p 23.976 aac 48000 mono
mp4 libx264 yuv420p 29.97 aac 48000 mono
mp4 libx264 yuv420p 50 aac 48000 mono
mp4 libx264 yuv420p 59.94 aac 48000 mono
mp4 libx264 yuv420p 120 aac 48000 mono
mp4 libx264 yuv420p 240 aac 48000 mono
mp4 libx264 yuv420p 25 aac 48000 mono vfr
mp4 libx264 yuv420p 25 aac 48000 mono start=1
mp4 libx264 yuv420p 25 aac 48000 mono sound=0.7
mp4 libx264 yuv420p 25 aac 48000 mono start=0.5 sound=0.25
mp4 libx264 yuv420p 25 aac 48000 5.1
mp4 libx264 yuv420p 25 aac 96000 stereo
mp4 libx264 yuv420p 25 libmp3lame 44100 stereo
mp4 libx264 yuv420p 25 ac3 48000 5.1
mp4 libx264 yuv420p 25 alac 44100 stereo
mp4 libx264 yuv420p 25 flac 96000 stereo
mp4 libx264 yuv420p 25 libopus 48000 stereo
mp4 libx264 yuv420p 25 mp2 48000 stereo
mp4 libx265 yuv420p 25 aac 48000 stereo
mp4 libx265 yuv420p10le 30 aac 48000 stereo
mp4 libx265 yuv422p10le 30 aac 48000 stereo
mp4 libx265 yuv420p12le 30 aac 48000 stereo
mp4 libx265 gray 30 aac 48000 stereo
mp4 mpeg4 yuv420p 25 aac 48000 stereo
mp4 mpeg4 yuv420p 25 aac 48000 stereo bf=2
mp4 mjpeg yuvj420p 25 aac 48000 stereo
mp4 libvpx-vp9 yuv420p 25 libopus 48000 stereo
mp4 libsvtav1 yuv420p 25 aac 48000 stereo
mp4 libsvtav1 yuv420p10le 25 libopus 48000 stereo
mp4 mpeg2video yuv420p 25 aac 48000 stereo
mov libx264 yuv420p 25 pcm_s16le 48000 stereo
mov libx264 yuv420p 25 pcm_s24le 48000 stereo
mov libx264 yuv420p 25 pcm_s16be 44100 mono
mov libx264 yuv420p 25 pcm_f32le 192000 stereo
mov libx264 yuv420p 25 pcm_mulaw 8000 mono
mov libx264 yuv420p 25 pcm_alaw 8000 mono
mov libx264 yuv420p 25 adpcm_ima_qt 44100 mono
mov libx264 yuv420p 25 alac 48000 stereo
mov libx264 yuv420p 25 pcm_s16le 48000 stereo vfr
mov libx264 yuv420p 25 pcm_s16le 48000 stereo start=0.8
mov prores_ks yuv422p10le 25 pcm_s16le 48000 stereo
mov prores_ks yuva444p10le 24 pcm_s16le 48000 stereo
mov mjpeg yuvj422p 30 pcm_s16le 48000 stereo
mov mjpeg yuvj444p 30 pcm_s16le 48000 stereo
mov png rgb24 12 pcm_s16le 48000 mono
mov png rgba 12 pcm_s16le 48000 mono
mov png rgb48be 12 pcm_s16le 48000 mono
mov png gray 12 pcm_s16le 48000 mono
mov qtrle rgb24 12 pcm_s16le 48000 mono
mov qtrle argb 12 pcm_s16le 48000 mono
mov rawvideo yuyv422 10 pcm_s16le 48000 mono
mov libx265 yuv420p10le 60 aac 48000 stereo
mov mpeg4 yuv420p 15 aac 48000 stereo
mkv libx264 yuv420p 25 flac 44100 mono
mkv libx264 yuv420p 25 flac 192000 stereo
mkv libx264 yuv420p 25 pcm_s16le 8000 mono
mkv libx264 yuv420p 25 pcm_f64le 48000 mono
mkv libx264 yuv420p 25 pcm_u8 11025 mono
mkv libx264 yuv420p 25 aac 48000 stereo
mkv libx264 yuv420p 25 ac3 48000 5.1
mkv libx264 yuv420p 25 eac3 48000 5.1
mkv libx264 yuv420p 25 libmp3lame 44100 stereo
mkv libx264 yuv420p 25 mp2 32000 mono
mkv libx264 yuv420p 25 libopus 24000 mono
mkv libx264 yuv420p 25 wavpack 96000 stereo
mkv libx264 yuv420p 25 tta 44100 stereo
mkv libx264 yuv420p 25 flac 48000 mono vfr
mkv libx264 yuv420p 0.2 flac 48000 mono
mkv libx264 yuv420p 240 flac 48000 mono
mkv libx264 yuv420p 29.97 flac 48000 mono start=1.2
mkv libx264 yuv420p 29.97 flac 48000 mono sound=0.9
mkv libx265 yuv420p 25 flac 48000 mono
mkv libx265 yuv444p12le 25 flac 48000 mono
mkv libvpx yuv420p 25 libopus 48000 mono
mkv libvpx-vp9 yuv444p 25 libopus 48000 mono
mkv ffv1 gray 25 flac 48000 mono
mkv ffv1 gray10le 25 flac 48000 mono
mkv ffv1 gray16le 25 flac 48000 mono
mkv ffv1 yuv420p16le 25 flac 48000 mono
mkv ffv1 yuva420p 25 flac 48000 mono
mkv ffv1 yuv410p 25 flac 48000 mono
mkv ffv1 yuv440p 25 flac 48000 mono
mkv ffv1 bgra 25 flac 48000 mono
mkv ffv1 gbrp16le 25 flac 48000 mono
mkv mpeg4 yuv420p 25 libmp3lame 48000 mono
mkv mpeg2video yuv422p 25 mp2 48000 stereo
mkv mjpeg yuvj420p 25 pcm_s16le 48000 mono
mkv rawvideo yuv420p 25 pcm_s16le 48000 mono
webm libvpx yuv420p 25 libopus 48000 stereo
webm libvpx yuv420p 30 libopus 16000 mono
webm libvpx yuva420p 25 libopus 48000 mono auto-alt-ref=0
webm libvpx-vp9 yuv420p 25 libopus 48000 stereo
webm libvpx-vp9 yuva420p 25 libopus 48000 mono
webm libvpx-vp9 yuv420p 25 libopus 48000 mono vfr
webm libvpx-vp9 yuv420p 25 libopus 48000 mono start=0.6
webm libsvtav1 yuv420p 25 libopus 48000 mono
avi mpeg4 yuv420p 25 libmp3lame 44100 stereo
avi mpeg4 yuv420p 25 pcm_s16le 16000 mono
avi mpeg4 yuv420p 29.97 pcm_s16le 48000 stereo
avi mpeg4 yuv420p 10 ac3 48000 stereo
avi msmpeg4 yuv420p 25 pcm_u8 11025 mono
avi msmpeg4v2 yuv420p 25 pcm_s16le 22050 mono
avi mjpeg yuvj420p 30 pcm_s16le 48000 stereo
avi mjpeg yuvj422p 15 pcm_mulaw 8000 mono
avi libx264 yuv420p 25 pcm_s16le 48000 mono bf=0
avi libx264 yuv420p 25 pcm_s16le 48000 mono
avi libx264 yuv420p 1 pcm_s16le 48000 mono
avi libx264 yuv420p 25 libmp3lame 48000 mono bf=0
avi ffv1 yuv420p 25 pcm_s16le 48000 mono
avi huffyuv yuv422p 25 pcm_s16le 48000 mono
avi rawvideo bgr24 15 adpcm_ms 44100 mono
avi rawvideo yuv420p 15 adpcm_ima_wav 22050 mono
ts libx264 yuv420p 25 aac 48000 stereo
ts libx264 yuv420p 50 aac 48000 stereo
ts libx264 yuv420p 29.97 mp2 48000 stereo
ts libx264 yuv420p 25 ac3 48000 5.1
ts libx264 yuv420p 25 libmp3lame 44100 mono
ts libx264 yuv420p 25 aac 48000 mono start=0.5
ts libx264 yuv420p 25 aac 48000 mono sound=0.5
ts libx264 yuv420p 25 libopus 48000 stereo
ts libx265 yuv420p 25 aac 48000 stereo
ts mpeg2video yuv420p 25 mp2 48000 stereo
ts mpeg2video yuv422p 30 ac3 48000 stereo
mpg mpeg1video yuv420p 25 mp2 44100 stereo
mpg mpeg1video yuv420p 30 mp2 32000 mono
mpg mpeg2video yuv420p 25 mp2 48000 stereo
mpg mpeg2video yuv420p 29.97 ac3 48000 stereo
flv flv yuv420p 25 libmp3lame 44100 stereo
flv libx264 yuv420p 25 aac 48000 stereo
flv libx264 yuv420p 30 aac 44100 mono
flv libx264 yuv420p 25 libmp3lame 22050 mono
flv libx264 yuv420p 25 aac 48000 mono vfr
flv flv yuv420p 15 pcm_s16le 44100 mono
ogv libvpx yuv420p 25 libopus 48000 stereo
ogv libvpx yuv420p 25 flac 44100 mono
3gp h263 yuv420p 15 libopencore_amrnb 8000 mono
3gp h263 yuv420p 25 aac 16000 mono
3gp mpeg4 yuv420p 15 aac 22050 mono
3gp libx264 yuv420p 30 aac 48000 stereo
wmv wmv1 yuv420p 25 wmav1 44100 stereo
wmv wmv2 yuv420p 25 wmav2 44100 stereo
wmv wmv2 yuv420p 15 wmav2 22050 mono
wmv msmpeg4 yuv420p 25 libmp3lame 44100 stereo
wmv wmv2 yuv420p 29.97 pcm_s16le 48000 mono
"""

MUXERS = {"mkv": "matroska", "ts": "mpegts", "mpg": "mpeg", "ogv": "ogg", "wmv": "asf"}
OPTIONS = {
    "libx264": {"threads": "1", "preset": "veryfast"},
    "libx265": {"preset": "ultrafast", "x265-params": "log-level=none:pools=none:frame-threads=1"},
    "libvpx": {"deadline": "realtime", "cpu-used": "5", "b": "1000000"},
    "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8", "b": "1000000"},
    "libsvtav1": {"preset": "8", "crf": "12", "svtav1-params": "enable-tf=0"},
    "mjpeg": {"qmin": "2", "qmax": "2"},
    "ffv1": {"strict": "experimental"},
}
# Words of a case -> what is known to be off there, and why.
EXCEPTIONS: dict[str, str] = {
    "avi libmp3lame": "AVI cannot say that MP3 begins with 1105 samples of the encoder's own; its writer moves them",
}


@dataclass(frozen=True)
class Case:
    """One file to be written, from a line of `CASES`."""

    line: str

    @property
    def words(self) -> list[str]:
        return self.line.split()

    @property
    def options(self) -> dict[str, str]:
        return dict((*word.split("="), "")[:2] for word in self.words[7:])  # type: ignore[misc]

    @property
    def fps(self) -> Fraction:
        """``23.976`` is 24000/1001."""
        stated = float(self.words[3])
        return Fraction(round(stated * 1.001) * 1000, 1001) if stated > 20 and stated % 1 else Fraction(self.words[3])

    @property
    def frames(self) -> int:
        return max(6, min(round(2 * self.fps), 300))

    @property
    def times_s(self) -> NDArray[np.float64]:
        """(T,) when each picture is shown."""
        k = np.arange(self.frames)
        uneven = 0.4 * (k % 3) if "vfr" in self.options else 0.0
        return float(self.options.get("start", 0)) + (k + uneven) / float(self.fps)

    @property
    def reason(self) -> str:
        """Why something may be off here; empty where nothing may."""
        return next((why for words, why in EXCEPTIONS.items() if set(words.split()) <= set(self.words)), "")


def picture_of(number: int) -> NDArray[np.uint8]:
    """(H, W, 3) grey with a number in squares, least significant bit left, and its opposite below."""
    picture = np.full((HEIGHT, WIDTH, 3), 110, np.uint8)
    picture[: HEIGHT // 2, (number * 5) % (WIDTH - 24) :][:, :24] = 170  # something moves
    for bit in range(BITS):
        columns = slice(bit * SQUARE, (bit + 1) * SQUARE)
        light, dark = (225, 30) if number >> bit & 1 else (30, 225)
        picture[-2 * SQUARE : -SQUARE, columns], picture[-SQUARE:, columns] = light, dark
    return picture


def number_in(picture: NDArray[np.uint8]) -> int:
    """The number of a picture (H, W, 3); -1 where it cannot be read."""
    height, width = picture.shape[:2]
    if height != HEIGHT or not WIDTH <= width < 1.2 * WIDTH:  # H.263's pixels are 12:11
        return -1
    number = 0
    for bit in range(BITS):
        columns = slice(*(round((bit * SQUARE + inner) * width / WIDTH) for inner in (5, SQUARE - 5)))
        upper = float(picture[-2 * SQUARE + 5 : -SQUARE - 5, columns].mean())
        lower = float(picture[-SQUARE + 5 : -5, columns].mean())
        if abs(upper - lower) < 60:
            return -1
        number |= int(upper > lower) << bit
    return number


def write(case: Case, folder: Path) -> Path:
    """The file of a case. Raises what FFmpeg does where it cannot write one."""
    container_name, codec, pixels, _, sound_codec, rate_word, layout, *_ = case.words
    path = folder / f"{case.line.replace(' ', '_')}.{container_name}"
    options = {key: value for key, value in case.options.items() if key not in ("start", "sound", "vfr")}
    if container_name in ("ts", "mpg", "wmv") and not codec.startswith("lib"):
        options["b"] = "1500000"
    times_s, rate = case.times_s, int(rate_word)
    with av.open(str(path), "w", format=MUXERS.get(container_name, container_name)) as container:
        stream = container.add_stream(codec, rate=case.fps, options=OPTIONS.get(codec, {}) | options)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, pixels
        if {"vfr", "start"} & set(case.options) and codec not in ("mpeg2video", "mpeg1video"):
            stream.codec_context.time_base = Fraction(1, 12800)
        voice = container.add_stream(sound_codec, rate=rate, layout=layout)
        assert isinstance(voice, av.AudioStream)
        voice.bit_rate = {"libopencore_amrnb": 12200, "wmav1": 64000, "wmav2": 64000}.get(sound_codec, 128000)
        sound = sound_frames(voice.codec_context, layout, rate, float(case.options.get("sound", 0)), float(times_s[-1]))
        for number, time_s in enumerate(times_s):
            frame = av.VideoFrame.from_ndarray(picture_of(number), format="rgb24").reformat(format=pixels)
            frame.pts, frame.time_base = round(Fraction(time_s).limit_denominator(480000) / TICK), TICK
            container.mux(stream.encode(frame))
            while sound and sound[0].time <= time_s + 0.5:
                container.mux(voice.encode(sound.pop(0)))
        container.mux(stream.encode(None))
        for block in sound:
            container.mux(voice.encode(block))
        container.mux(voice.encode(None))
    return path


def sound_frames(context: av.AudioCodecContext, layout: str, rate: int, start_s: float, end_s: float) -> list:
    """The chirp from ``start_s`` on, as frames that an encoder takes."""
    context.open(strict=False)
    times_s = start_s + np.arange(round((end_s + 0.1 - start_s) * rate)) / rate
    phase = 2 * np.pi * np.cumsum(LOW_HZ + SLOPE * (times_s % CHIRP_S)) / rate
    format_name, fifo = context.format.name, av.AudioFifo()
    block = av.AudioFrame.from_ndarray((0.3 * np.sin(phase)).astype(np.float32)[None], format="fltp", layout="mono")
    block.sample_rate = rate
    resampler = av.AudioResampler(format=format_name, layout=layout, rate=rate)
    for piece in (*resampler.resample(block), *resampler.resample(None)):
        piece.pts = None
        fifo.write(piece)
    frames, position = [], round(start_s * rate)
    while (frame := fifo.read(context.frame_size or 1024, partial=not context.frame_size)) is not None:
        frame.pts, frame.time_base = position, Fraction(1, rate)
        position += frame.samples
        frames.append(frame)
    return frames


@dataclass(frozen=True)
class Found:
    """What reading a file gave."""

    rows: int
    plain_rows: int  # as FFmpeg decodes
    wrong_pictures: int
    time_error_s: float
    shift_s: float  # of the whole file: some muxers begin later
    sound_error_s: float
    said: str

    def misses(self, case: Case) -> list[str]:
        found = ["rows"] * (not self.rows == self.plain_rows == case.frames)
        found += ["pictures"] * bool(self.wrong_pictures) + ["times"] * (self.time_error_s > TIME_S)
        return found + ["sound"] * (not self.sound_error_s <= SOUND_S) + ["said"] * bool(self.said)


def examine(case: Case, path: Path) -> Found:
    """Read a file, and compare it with what was written."""
    reader = VideoReader(path)
    numbers = [number_in(picture) for chunk in reader for picture in chunk.rgb]
    said = [reader.report.summary, *reader.report.notes]
    times_s = np.sort(np.array(reader.times_s))
    rows = min(len(times_s), case.frames)
    shift_s = float(times_s[0] - case.times_s[0])
    time_error_s = float(np.abs(times_s[:rows] - case.times_s[:rows] - shift_s).max())
    wave, report = read_audio_and_report(path, RATE)
    said += [report.summary, *report.notes]
    wrong = sum(number != k for k, number in enumerate(numbers))
    error_s = sound_error_s(case, wave.samples, wave.start_s - shift_s)
    said = [note for note in said if note and not note.startswith("pixels of")]  # H.263's shape is no mistake
    return Found(
        rows=len(times_s),
        plain_rows=count_plainly(path),
        wrong_pictures=wrong,
        time_error_s=time_error_s,
        shift_s=shift_s,
        sound_error_s=error_s,
        said="; ".join(said),
    )


def count_plainly(path: Path) -> int:
    with av.open(str(path), format=sniff(path)) as container:
        return sum(1 for _ in container.decode(pick_stream(container, path, "video")))


def sound_error_s(case: Case, samples: NDArray[np.float32], start_s: float) -> float:
    """How far the moment that is heard is from the moment it is heard at, at most; infinite where nothing is heard."""
    first_s = max(start_s, float(case.options.get("sound", 0))) + 0.15
    window = round(WINDOW_S * RATE)
    errors_s = []
    for at_s in np.arange(first_s, start_s + len(samples) / RATE - 0.25, 0.05):
        if not 0.1 < at_s % CHIRP_S < CHIRP_S - 0.1:  # it begins anew
            continue
        first = round((at_s - start_s) * RATE) - window // 2
        part = samples[max(first, 0) : first + window]
        if len(part) < window:
            continue
        peak_hz = np.abs(np.fft.rfft(part * np.hanning(window), 1 << 16)).argmax() * RATE / (1 << 16)
        errors_s.append(abs((peak_hz - LOW_HZ) / SLOPE - at_s % CHIRP_S))
    return max(errors_s, default=np.inf)


def run(cases: Sequence[Case], folder: Path) -> int:
    """Print a line per case; the number of those that miss without a reason."""
    unnamed = written = 0
    print(f"{'file':66} {'rows':>9} {'pictures':>8} {'times':>9} {'shift':>8} {'sound':>9}")
    for case in cases:
        try:
            path = write(case, folder)
        except (av.FFmpegError, ValueError) as error:
            print(f"{case.line:66} not written: {error}", flush=True)
            continue
        written += 1
        try:
            found = examine(case, path)
        except RecordingError as error:
            unnamed += not case.reason
            print(f"{case.line:66} REFUSED {error}  {case.reason}", flush=True)
            continue
        finally:
            path.unlink()
        misses = found.misses(case)
        unnamed += bool(misses) and not case.reason
        verdict = f"  {', '.join(misses).upper()}: {case.reason or 'NO REASON NAMED'} {found.said}" if misses else ""
        print(
            f"{case.line:66} {found.rows:4d}/{found.plain_rows:4d} {found.rows - found.wrong_pictures:8d} "
            f"{1000 * found.time_error_s:6.2f} ms {found.shift_s:6.3f} s {1000 * found.sound_error_s:6.1f} ms{verdict}",
            flush=True,
        )
    print(f"{written} of {len(cases)} combinations written, {unnamed} miss without a reason named")
    return unnamed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="cases whose line contains this")
    options = parser.parse_args()
    av.logging.set_level(av.logging.FATAL)
    os.environ["SVT_LOG"] = "1"  # the AV1 encoder's own log
    cases = [Case(line) for line in CASES.strip().splitlines() if options.only in line]
    with tempfile.TemporaryDirectory() as folder:
        sys.exit(bool(run(cases, Path(folder))))


if __name__ == "__main__":
    main()
