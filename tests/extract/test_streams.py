"""Of several streams the expected one is read, or the one that was asked for; what is odd in sound is said."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
from av.stream import Disposition

from aupipe.config import Config, EncoderConfig, load_config
from aupipe.errors import RecordingError, UsageError
from aupipe.extract.media.audio import media_starts, read_audio_and_report
from aupipe.extract.media.video import VideoReader
from aupipe.extract.planning.features import build_feature_set
from aupipe.extract.planning.plan import make_plan
from aupipe.store import create_store
from aupipe.types import Recording, StreamChoice
from tests.extract.running import run_jobs
from tests.extract.test_long_sound import write_sound

RATE = 16000
Picture = tuple[int, int, int]  # frames, grey level, disposition
Sound = tuple[float, int]  # level, disposition
DEFAULT = int(Disposition.default)


def write_streams(
    path: Path, pictures: Sequence[Picture] = (), sounds: Sequence[Sound] = (), starts_s: Sequence[float] = ()
) -> Path:
    """A file with these streams, each picture of one grey and each sound a tone of one level."""
    with av.open(str(path), "w") as container:
        videos, voices = [], []
        for _, _, disposition in pictures:
            stream = container.add_stream("mjpeg", rate=25)
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p"
            stream.disposition = Disposition(disposition)
            videos.append(stream)
        for _, disposition in sounds:
            voice = container.add_stream("pcm_s16le", rate=RATE, layout="mono")
            voice.disposition = Disposition(disposition)
            voices.append(voice)
        for stream, (frames, grey, _) in zip(videos, pictures, strict=True):
            for _ in range(frames):
                picture = np.full((48, 64, 3), grey, np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            container.mux(stream.encode(None))
        for number, (voice, (level, _)) in enumerate(zip(voices, sounds, strict=True)):
            tone = (level * 32767 * np.sin(np.arange(RATE) / 10)).astype(np.int16)
            block = av.AudioFrame.from_ndarray(tone[None], format="s16", layout="mono")
            block.sample_rate, block.pts = RATE, round(starts_s[number] * RATE) if starts_s else 0
            container.mux(voice.encode(block))
            container.mux(voice.encode(None))
    return path


def seen(path: Path, number: int | None = None) -> tuple[int, float, list[str]]:
    """Frames, grey level and notes."""
    reader = VideoReader(path, stream=number)
    (chunk,) = list(reader)
    return len(chunk), round(float(chunk.rgb.mean()), -1), reader.report.notes


def heard(path: Path, **choice: object) -> tuple[float, list[str]]:
    """Level and notes."""
    wave, report = read_audio_and_report(path, RATE, streams=StreamChoice(**choice))
    return round(float(np.abs(wave.samples).max()), 2), report.notes


def test_a_single_picture_before_the_film_is_not_the_film(tmp_path: Path) -> None:
    path = write_streams(tmp_path / "a.mov", [(1, 40, DEFAULT), (25, 200, DEFAULT)])
    assert seen(path) == (25, 200, [])
    assert seen(path, 0)[:2] == (1, 40)
    matroska = write_streams(tmp_path / "a.mkv", [(1, 40, DEFAULT), (25, 200, 0)])
    assert seen(matroska) == (25, 200, [])
    only = write_streams(tmp_path / "b.mov", [(1, 40, DEFAULT)])
    assert seen(only) == (1, 40, [])


def test_cover_art_is_not_the_film_but_can_be_asked_for(tmp_path: Path) -> None:
    path = write_streams(tmp_path / "a.mp4", [(1, 40, int(Disposition.attached_pic)), (25, 200, DEFAULT)])
    assert seen(path) == (25, 200, [])


def test_the_video_marked_default_is_read_and_another_can_be_asked_for(tmp_path: Path) -> None:
    path = write_streams(tmp_path / "a.mkv", [(10, 40, 0), (20, 200, DEFAULT)])
    note = "2 streams, number 1 is read; [dataset] video_stream and audio_stream pick another"
    assert seen(path) == (20, 200, [note])
    assert seen(path, 0) == (10, 40, [note.replace("number 1", "number 0")])
    unmarked = write_streams(tmp_path / "b.mkv", [(10, 40, 0), (20, 200, 0)])
    assert seen(unmarked)[:2] == (10, 40)


def test_the_sound_marked_default_is_read_and_another_can_be_asked_for(tmp_path: Path) -> None:
    path = write_streams(tmp_path / "a.mkv", [(5, 40, 0)], [(0.0, 0), (0.5, DEFAULT), (0.25, 0)], (0.0, 0.2, 0.4))
    level, notes = heard(path)
    assert level == 0.5
    assert notes == ["3 streams, number 1 is read; [dataset] video_stream and audio_stream pick another"]
    assert heard(path, audio=2)[0] == 0.25
    assert heard(path, audio=0)[1][1:] == ["the sound is silent throughout"]
    assert [media_starts(path, StreamChoice(audio=number))[1] for number in (None, 0, 2)] == [0.2, 0.0, 0.4]


def test_a_stream_that_a_file_does_not_have_is_an_error_that_counts_them(tmp_path: Path) -> None:
    path = write_streams(tmp_path / "a.mkv", [(5, 40, 0)], [(0.5, 0)])
    with pytest.raises(RecordingError, match=r"a\.mkv: one audio stream, and \[dataset\] audio_stream is 1 \(counted"):
        heard(path, audio=1)
    with pytest.raises(RecordingError, match="one video stream, and"):
        seen(path, 7)


def test_a_run_reads_the_streams_that_the_data_set_names(tmp_path: Path) -> None:
    path = write_streams(tmp_path / "a.mkv", [(10, 40, 0), (20, 200, DEFAULT)], [(0.0, 0), (0.5, DEFAULT)])
    features = build_feature_set(Config(encoders=(EncoderConfig("mfcc", "mfcc", "audio"),)))
    store = create_store(tmp_path / "features")
    for number, choice in enumerate((StreamChoice(), StreamChoice(video=0, audio=0))):
        recording = Recording(f"{number}", video=path, streams=choice)
        (result,) = run_jobs(make_plan([recording], features, store).jobs, store, features)
        assert not result.failed
        clock, mfcc = sorted(result.published, key=lambda record: record.feature)
        assert (clock.frames, mfcc.frames) == ((20, 20), (10, 10))[number]
        read = [mfcc.media[kind].get("stream", 0) for kind in ("video", "audio")]
        assert read == [1 - number, 1 - number]
    silent = store.read("1", next(spec.id for spec in store.features() if "audio_stream" in spec.params))
    assert np.ptp(silent[:, 0]) < 1e-3


def test_another_stream_is_another_feature_and_the_default_keeps_its_key() -> None:
    encoders = tuple(EncoderConfig(kind, kind, mode) for kind, mode in (("hog", "visual"), ("mfcc", "audio")))
    features = build_feature_set(Config(encoders=encoders))
    recording = Recording("a", video=Path("a.mp4"))

    def ids(**choice: object) -> list[str]:
        graph = features.graph(replace(recording, streams=StreamChoice(**choice)))
        return [graph.clock.id, *(spec.id for spec, _ in graph.encoders)]

    usual = ids()
    assert all(one != other for one, other in zip(usual, ids(video=1), strict=True))  # all stand on the clock
    assert [one == other for one, other in zip(usual, ids(audio=0), strict=True)] == [True, True, False]
    assert [one == other for one, other in zip(usual, ids(channels="left"), strict=True)] == [True, True, False]
    graph = features.graph(recording)
    assert graph.clock.params == {"source": "video"}
    assert not {"audio_stream", "audio_channels"} & set(graph.encoders[1][0].params)


def test_streams_are_configured_for_the_data_set_and_mistakes_are_named(tmp_path: Path) -> None:
    file = tmp_path / "aupipe.toml"
    file.write_text('[dataset]\nvideo_stream = 1\naudio_stream = 2\naudio_channels = "left"\n')
    assert load_config(file, environment={}).dataset.streams == StreamChoice(1, 2, "left")
    for line, words in (("audio_stream = -1", "audio_stream"), ('audio_channels = "both"', "Accepted: mix, left")):
        file.write_text(f"[dataset]\n{line}\n")
        with pytest.raises(UsageError, match=words):
            load_config(file, environment={})


# What is odd in sound ---------------------------------------------------------------------------------------------


def write_channels(path: Path, *channels: np.ndarray, layout: str = "stereo") -> Path:
    samples = np.stack([(32767 * channel).clip(-32768, 32767).astype(np.int16) for channel in channels])
    return write_sound(path, iter([(0.0, samples)]), layout=layout)


VOICE = 0.5 * np.sin(np.arange(RATE) / 10)


def test_channels_out_of_phase_are_said_and_one_of_them_can_be_read(tmp_path: Path) -> None:
    path = write_channels(tmp_path / "a.mkv", VOICE, -0.96 * VOICE)
    level, (note,) = heard(path)
    assert level == 0.01
    assert note == 'channels out of phase, their mean loses 99.9 %: [dataset] audio_channels = "left" reads one'
    assert heard(path, channels="left") == (0.5, [])
    assert heard(path, channels="first") == (0.5, [])
    assert heard(path, channels="right") == (0.48, [])
    partly = write_channels(tmp_path / "d.mkv", VOICE, -0.5 * VOICE)
    level, (note,) = heard(partly)
    assert level == 0.12
    assert note.startswith("channels out of phase, their mean loses 90 %")
    one_sided = write_channels(tmp_path / "b.mkv", VOICE, np.zeros(RATE))
    assert heard(one_sided, channels="right") == (0.0, ["the sound is silent throughout"])
    almost = write_channels(tmp_path / "c.mkv", VOICE, -0.999 * VOICE)
    assert heard(almost, channels="left")[1] == [], "what is said is said of the channel that is read"


def test_ordinary_channels_are_not_called_out_of_phase(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    noise = 0.1 * random.standard_normal(RATE)
    silence = np.zeros(RATE)
    for number, channels in enumerate(((VOICE, VOICE), (VOICE, silence), (noise, random.permutation(noise)))):
        assert heard(write_channels(tmp_path / f"{number}.mkv", *channels))[1] == []
    surround = write_channels(tmp_path / "6.mkv", silence, silence, VOICE, *[silence] * 3, layout="5.1")
    assert heard(surround)[1] == []


def test_left_is_the_channel_of_that_name_and_mono_has_only_one(tmp_path: Path) -> None:
    mono = write_channels(tmp_path / "mono.mkv", VOICE, layout="mono")
    assert [heard(mono, channels=name)[0] for name in ("left", "right", "first", "mix")] == [0.5] * 4
    nameless = write_channels(tmp_path / "a.mkv", VOICE, 0.5 * VOICE, 0.1 * VOICE, layout="3.0")
    assert [heard(nameless, channels=name)[0] for name in ("left", "right", "first")] == [0.5, 0.25, 0.5]
    three = write_channels(tmp_path / "a.mov", 0.1 * VOICE, VOICE, 0.5 * VOICE, layout="3.0")
    assert heard(three, channels="left")[0] == 0.05
    odd = write_channels(tmp_path / "b.mov", VOICE, VOICE, layout="downmix")
    with pytest.raises(RecordingError, match=r"audio_channels is 'left', and its sound has none .* DL, DR"):
        heard(odd, channels="left")


def test_a_silent_track_is_said_and_a_quiet_voice_is_none(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    dither = random.integers(-1, 2, RATE) / 32767
    assert heard(write_channels(tmp_path / "a.mkv", dither, layout="mono"))[1] == ["the sound is silent throughout"]
    assert heard(write_channels(tmp_path / "b.mkv", 0.002 * VOICE, layout="mono"))[1] == []


def test_clipped_sound_is_said_and_loud_sound_is_not(tmp_path: Path) -> None:
    clipped = write_channels(tmp_path / "a.mkv", (4 * VOICE).clip(-1, 1), layout="mono")
    assert heard(clipped)[1] == ["the sound is clipped: 67 % of its samples are at full scale"]
    assert heard(write_channels(tmp_path / "b.mkv", 1.99 * VOICE, layout="mono"))[1] == []
