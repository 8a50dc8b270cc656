"""Sound of any length, in any layout, in bounded memory: the numbers are those of the whole file."""

from __future__ import annotations

import os
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from aupipe.config import Config, EncoderConfig
from aupipe.errors import AupipeError, RecordingError
from aupipe.extract.encoders import FrameAlignment, TimeSeries, build_encoder
from aupipe.extract.encoders.audio import logmel, mfcc
from aupipe.extract.encoders.frame_alignment import resample_to_frames
from aupipe.extract.media import long_arrays, sound_placement
from aupipe.extract.media.long_arrays import ArrayBuilder, cut
from aupipe.extract.planning.features import build_feature_set
from aupipe.extract.planning.plan import make_plan
from aupipe.store import create_store
from aupipe.types import Recording, Waveform
from tests.conftest import REPOSITORY
from tests.extract.running import run_jobs
from tests.made import read_audio

RATE = 16000
TINY = str(Path(__file__).parent / "models" / "tiny-hubert")


def write_sound(
    path: Path,
    blocks: Iterator[tuple[float, np.ndarray]],
    *,
    codec: str = "pcm_s16le",
    fmt: str = "s16",
    layout: str = "mono",
    rate: int = RATE,
    frames: int = 0,
    fps: int = 25,
) -> Path:
    """A file with blocks of sound (C, n), each at its time in seconds, and ``frames`` small pictures."""
    with av.open(str(path), "w") as container:
        picture = None
        if frames:
            picture = container.add_stream("mpeg4", rate=fps)
            picture.width, picture.height, picture.pix_fmt = 64, 48, "yuv420p"
        stream = container.add_stream(codec, rate=rate, layout=layout)
        stream.codec_context.format = fmt
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 60, np.uint8), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, fps)
            container.mux(picture.encode(frame))
        if picture is not None:
            container.mux(picture.encode(None))
        for at_s, samples in blocks:
            packed = samples if fmt.endswith("p") else np.ascontiguousarray(samples.T).reshape(1, -1)
            frame = av.AudioFrame(format=fmt, layout=layout, samples=samples.shape[1])
            if samples.shape[0] < 8 or not fmt.endswith("p"):  # PyAV cannot fill eight planes either
                frame = av.AudioFrame.from_ndarray(packed, format=fmt, layout=layout)
            else:
                frame = interleaved(samples, fmt, layout)
            frame.sample_rate, frame.pts, frame.time_base = rate, round(at_s * rate), Fraction(1, rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def interleaved(samples: np.ndarray, fmt: str, layout: str) -> av.AudioFrame:
    """A planar frame of 8 or more channels."""
    packed = av.AudioFrame.from_ndarray(
        np.ascontiguousarray(samples.T).reshape(1, -1), format=fmt.removesuffix("p"), layout=layout
    )
    packed.sample_rate = RATE
    (frame,) = av.AudioResampler(format=fmt).resample(packed)
    return frame


@contextmanager
def allocating_less_than(megabytes: float) -> Iterator[None]:
    """Fails when more than this is allocated by Python and numpy at any moment inside."""
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < megabytes * 1e6, f"{peak / 1e6:.0f} MB at the peak"


def noise(channels: int, count: int, dtype: str) -> np.ndarray:
    rng = np.random.default_rng(channels)
    if dtype[0] == "f":
        return (rng.standard_normal((channels, count)) * 0.1).astype(dtype)
    bits = 8 * np.dtype(dtype).itemsize
    middle = 128 if dtype == "u1" else 0
    return (rng.integers(-(2 ** (bits - 2)), 2 ** (bits - 2), (channels, count)) + middle).astype(dtype)


@pytest.mark.parametrize(("layout", "channels"), [("mono", 1), ("stereo", 2), ("5.1", 6), ("7.1", 8)])
@pytest.mark.parametrize(
    ("codec", "fmt", "dtype"),
    [
        ("pcm_u8", "u8", "u1"),
        ("pcm_s16le", "s16", "i2"),
        ("pcm_s32le", "s32", "i4"),
        ("pcm_f32le", "flt", "f4"),
        ("pcm_f64le", "dbl", "f8"),
        ("wavpack", "u8p", "u1"),
        ("wavpack", "s16p", "i2"),
        ("wavpack", "s32p", "i4"),
        ("wavpack", "fltp", "f4"),
    ],
)
def test_every_format_and_layout_is_the_mean_of_its_channels(
    tmp_path: Path, codec: str, fmt: str, dtype: str, layout: str, channels: int
) -> None:
    samples = noise(channels, 4000, dtype)
    path = write_sound(tmp_path / "a.mkv", iter([(0.0, samples)]), codec=codec, fmt=fmt, layout=layout, rate=RATE)
    scale = {"u1": 128.0, "i2": 2.0**15, "i4": 2.0**31}.get(dtype, 1.0)
    scaled = (samples.astype(np.float32) - np.float32(128 if dtype == "u1" else 0)) / np.float32(scale)
    found = read_audio(path, RATE).samples
    if channels < 8:  # what these formats have always given, to the bit
        np.testing.assert_array_equal(found, scaled.mean(axis=0, dtype=np.float32))
    else:
        np.testing.assert_allclose(found, scaled.mean(axis=0), atol=1e-7)


def test_sixteen_planar_channels_are_heard_too(tmp_path: Path) -> None:
    samples = noise(16, 4000, "i2")
    path = write_sound(tmp_path / "a.mkv", iter([(0.0, samples)]), codec="wavpack", fmt="s16p", layout="hexadecagonal")
    np.testing.assert_allclose(read_audio(path, RATE).samples, samples.mean(axis=0) / 2**15, atol=1e-6)


def project_with(tmp_path: Path, *tables: str) -> Path:
    encoders = "".join(f'[[encoder]]\nname = "{kind}"\nmodality = "audio"\nkind = "{kind}"\n' for kind in tables)
    (tmp_path / "aupipe.toml").write_text(f'[dataset]\nvideos = "videos"\n[store]\npath = "features"\n{encoders}')
    (tmp_path / "videos").mkdir()
    return tmp_path


def extract_audio(folder: Path) -> tuple[int, float, str]:
    """Exit code of `aupipe extract --modality audio`, peak MB of its largest process, and what it said."""
    command = [sys.executable, "-c", "from aupipe.cli import main; main()", "extract", "--cpu", "--modality", "audio"]
    with (folder / "said.txt").open("w") as said:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
            stdout=said,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
        )
        _, status, used = os.wait4(process.pid, 0)  # of the worker too, which the command waits for
        process.returncode = os.waitstatus_to_exitcode(status)
    return process.returncode, used.ru_maxrss / 1024, (folder / "said.txt").read_text()


def test_a_video_with_planar_surround_sound_has_audio_features(tmp_path: Path) -> None:
    folder = project_with(tmp_path, "mfcc")
    blocks = ((k * 0.1, noise(8, 1600, "i2")) for k in range(10))
    write_sound(folder / "videos" / "a.mkv", blocks, codec="wavpack", fmt="s16p", layout="7.1", frames=25)
    code, _, said = extract_audio(folder)
    assert code == 0, said
    assert "done 1" in said


def holes(count: int, hole_s: float, rate: int) -> Iterator[tuple[float, np.ndarray]]:
    for k in range(count + 1):
        yield k * hole_s, noise(1, rate, "i2")


def test_sound_ends_with_the_picture_and_holes_are_never_one_array(tmp_path: Path) -> None:
    path = write_sound(tmp_path / "holes.mkv", holes(8, 3000, RATE), rate=RATE)
    with allocating_less_than(60):  # all of it is 1.5 GB
        wave = read_audio(path, 8000, until_s=2400.5)
    assert wave.duration_s == 2400.5
    assert np.abs(cut(wave.samples, 0, 8000)).max() > 0.1
    assert not cut(wave.samples, 9000, 8000 * 2400).any()
    assert read_audio(path, 8000, until_s=0.25).duration_s == 0.25
    assert read_audio(path, 8000, until_s=-5.0).duration_s == 0.0


def test_a_hole_that_is_not_cut_off_is_silence_in_bounded_memory(tmp_path: Path) -> None:
    path = write_sound(tmp_path / "hole.mkv", holes(1, 3500, 8000), rate=8000)
    with allocating_less_than(60):
        wave = read_audio(path, 8000)
    assert wave.duration_s == 3501
    assert np.abs(cut(wave.samples, 3500 * 8000, 3501 * 8000)).max() > 0.1


def test_a_jump_of_hours_within_the_picture_is_still_a_broken_clock(tmp_path: Path) -> None:
    path = write_sound(tmp_path / "jump.mkv", holes(1, 9000, 8000), rate=8000)
    with pytest.raises(RecordingError, match="sound jumps"):
        read_audio(path, 8000)
    assert read_audio(path, 8000, until_s=60).duration_s == 60  # beyond the picture it is nobody's concern


def test_more_sound_than_the_cap_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_sound(tmp_path / "day.mkv", ((float(k), noise(1, 8000, "i2")) for k in range(5)), rate=8000)
    monkeypatch.setattr(sound_placement, "MAX_SOUND_S", 3.5)
    assert read_audio(path, 8000, until_s=3.0).duration_s == 3.0
    with pytest.raises(RecordingError, match=r"day\.mkv: more than .* h of sound; cut it"):
        read_audio(path, 8000)


def test_hours_of_holes_beyond_the_picture_cost_no_memory_and_no_rows(tmp_path: Path) -> None:
    path = write_sound(tmp_path / "a.mkv", holes(8, 3000, RATE), rate=RATE, frames=25)
    parts = build_feature_set(Config(encoders=(EncoderConfig("mfcc", "mfcc", "audio"),)))
    store = create_store(tmp_path / "features", "zarr")
    jobs = make_plan([Recording("a", video=path)], parts, store).jobs
    build_encoder(EncoderConfig("mfcc", "mfcc", "audio")).load("cpu")(waveform(1))  # librosa is loaded
    with allocating_less_than(60):  # the sound is 1.5 GB
        (outcome,) = run_jobs(jobs, store, parts)
    assert not outcome.failed
    (record,) = [record for record in outcome.published if record.feature.startswith("mfcc")]
    assert (record.frames, record.valid_frames) == (25, 25)


@pytest.mark.parametrize(
    ("kind", "params", "least_s"),
    [
        ("mfcc", {}, 60.0),
        ("mfcc", {"align": "mean", "align_s": 90.0}, 150.0),
        ("vggish", {"hop_s": 5.0, "align": "window", "align_rows": 20}, 160.0),
        ("speech", {"model": TINY, "chunk_s": 120.0}, 180.0),
    ],
)
def test_sound_is_read_as_far_beyond_the_last_frame_as_its_windows_reach(
    kind: str, params: dict, least_s: float
) -> None:
    assert build_encoder(EncoderConfig("x", kind, "audio", params)).reach_s >= least_s


def waveform(seconds: float) -> Waveform:
    rng = np.random.default_rng(0)
    times = np.arange(round(seconds * RATE)) / RATE
    samples = 0.3 * np.sin(2 * np.pi * (200 + 50 * times) * times) + rng.standard_normal(len(times)) * 0.01
    samples[len(samples) // 2 :] *= 0.001  # the loudest moment is not in the last block
    return Waveform(samples.astype(np.float32), RATE, 0.25)


ENCODERS = {
    "mfcc": {},
    "logmel": {"deltas": 2},
    "vad": {"weights": "random"},
    "vggish": {"weights": "random", "hop_s": 0.5},
    "speech": {"model": TINY, "weights": "random", "chunk_s": 4.0, "context_s": 1.0},
}


@pytest.mark.parametrize("kind", ENCODERS)
def test_rows_are_the_same_bytes_from_a_file_and_from_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    encode = build_encoder(EncoderConfig("x", kind, "audio", ENCODERS[kind])).load("cpu")
    wave = waveform(20)
    expected = encode(wave)
    monkeypatch.setattr(long_arrays, "MEMORY_BYTES", 1000)
    built = ArrayBuilder()
    for start in range(0, len(wave.samples), 50_000):
        built.append(wave.samples[start : start + 50_000])
    long = built.array()
    assert isinstance(long, np.memmap)
    found = encode(Waveform(long, RATE, wave.start_s))
    np.testing.assert_array_equal(found.data, expected.data)
    np.testing.assert_array_equal(found.times_s, expected.times_s)
    frames = np.arange(480) / 24
    for rule, rows in [("interpolate", 0), ("nearest", 0), ("mean", 0), ("window", 3)]:
        alignment = FrameAlignment(align=rule, align_rows=rows)
        resampled = [resample_to_frames(series, frames, alignment) for series in (found, expected)]
        np.testing.assert_array_equal(*resampled)


@pytest.mark.parametrize("kind", ["mfcc", "logmel"])
@pytest.mark.parametrize("rows", [1 << 14, 301, 5])
def test_spectra_in_blocks_are_librosas_of_the_whole(monkeypatch: pytest.MonkeyPatch, kind: str, rows: int) -> None:
    """Slopes and the loudest moment reach beyond a block."""
    import librosa

    monkeypatch.setattr(logmel, "BLOCK", rows)
    monkeypatch.setattr(mfcc, "BLOCK", rows)
    wave = waveform(8)
    found = build_encoder(EncoderConfig("x", kind, "audio", {"deltas": 2})).load("cpu")(wave).data
    sizes = {"sr": RATE, "n_fft": 512, "win_length": 400, "hop_length": 160}
    if kind == "mfcc":
        power = librosa.feature.melspectrogram(y=wave.samples, n_mels=40, **sizes)
        base = librosa.feature.mfcc(S=librosa.power_to_db(power), n_mfcc=13)
    else:
        power = librosa.feature.melspectrogram(y=wave.samples, n_mels=64, fmax=8000.0, **sizes)
        base = librosa.power_to_db(power, amin=1e-10, top_db=None)
    slopes = [librosa.feature.delta(base, order=i, width=9, mode="nearest") for i in (1, 2)]
    expected = np.concatenate([base, *slopes]).T
    if rows == 1 << 14:
        np.testing.assert_array_equal(found, expected)
    else:
        np.testing.assert_allclose(found, expected, atol=1e-3)


def test_wide_means_over_long_series_take_bounded_memory() -> None:
    built = ArrayBuilder()
    for _ in range(40):
        built.append(np.ones((10_000, 64), np.float32))
    series = TimeSeries(built.array(), np.arange(400_000) * 0.01)
    wide = FrameAlignment(align="mean", align_s=3000.0)
    with allocating_less_than(100):  # running sums of all rows are 205 MB
        rows = resample_to_frames(series, np.array([0.0, 2000.0, 4000.0]), wide)
    np.testing.assert_array_equal(rows, 1)


def test_a_full_disk_under_the_temporary_folder_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    with open("/dev/full", "wb+", 0) as full:
        monkeypatch.setattr(long_arrays.tempfile, "TemporaryFile", lambda **options: full)
        with pytest.raises(AupipeError, match="no space for 40 MB of sound; set TMPDIR"):
            ArrayBuilder().append(np.zeros(10_000_000, np.float32))


def long_blocks(seconds: int) -> Iterator[tuple[float, np.ndarray]]:
    """Tones, noise and silence, a second at a time."""
    rng = np.random.default_rng(0)
    times = np.arange(RATE) / RATE
    for second in range(seconds):
        loud = 0.0 if second // 7 % 3 == 2 else 0.3
        samples = loud * np.sin(2 * np.pi * (200 + 3 * (second % 600)) * times) + (second % 21 == 9) * (
            0.05 * rng.standard_normal(RATE)
        )
        yield float(second), (samples * 30000).astype(np.int16)[None]


@pytest.mark.slow
def test_three_hours_of_sound_take_little_more_memory_than_three_minutes(tmp_path: Path) -> None:
    peaks = {}
    for name, seconds in (("minutes", 180), ("hours", 10800)):
        (tmp_path / name).mkdir()
        folder = project_with(tmp_path / name, "mfcc", "logmel", "vad")
        video = folder / "videos" / "a.mkv"
        write_sound(video, long_blocks(seconds), codec="flac", frames=seconds, fps=1)
        code, peaks[name], said = extract_audio(folder)
        assert code == 0, said
    assert peaks["hours"] - peaks["minutes"] < 400, peaks
