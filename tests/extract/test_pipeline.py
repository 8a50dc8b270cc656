"""One video at a time: every item is of the file it says, and what breaks breaks alone."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from aupipe.config import Config, EncoderConfig, FacesConfig
from aupipe.extract.encoders import AudioInput, TimeSeries
from aupipe.extract.engine.results import JobResult
from aupipe.extract.faces import NO_FACES
from aupipe.extract.imaging.templates import CropTemplate
from aupipe.extract.media.video import VideoReader
from aupipe.extract.planning.features import FeatureSet, build_feature_set
from aupipe.extract.planning.plan import make_plan
from aupipe.store import Store, create_store
from aupipe.types import Recording
from tests.conftest import write_video
from tests.extract.conftest import Lit
from tests.extract.running import run_jobs
from tests.made import write_media
from tests.made_yunet import discs

CONFIG = Config(
    faces=FacesConfig(detector="yunet"),
    encoders=(EncoderConfig("hog", "hog", "visual"), EncoderConfig("mfcc", "mfcc", "audio")),
)


@dataclass(frozen=True)
class Breaks:
    """An encoder of crops that gives what no store holds."""

    modality: ClassVar[str] = "visual"
    version: ClassVar[int] = 1

    @property
    def reads(self) -> CropTemplate:
        return CropTemplate(112)

    def identify_weights(self) -> None:
        return None

    def load(self, device: str):
        return lambda crops: np.full((len(crops), 3), 1e6, np.float32)


@dataclass(frozen=True)
class BreaksOnSound:
    """An encoder of sound that raises."""

    align: str = "nearest"
    modality: ClassVar[str] = "audio"
    version: ClassVar[int] = 1

    @property
    def reads(self) -> AudioInput:
        return AudioInput(16000)

    def identify_weights(self) -> None:
        return None

    def load(self, device: str):
        def encode(waveform) -> TimeSeries:
            raise ArithmeticError("no such thing")

        return encode


@pytest.fixture
def video(tmp_path: Path, lit_yunet: Lit) -> Path:
    """A file of 75 frames with one face."""
    shutil.copy(lit_yunet["one.mpg"], tmp_path / "a.mpg")
    return tmp_path / "a.mpg"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return create_store(tmp_path / "features", "zarr")


def run(store: Store, recordings: list[Recording], parts: FeatureSet, on_frames=lambda n: None) -> JobResult:
    plan = make_plan(recordings, parts, store)
    (outcome,) = run_jobs(plan.jobs, store, parts, on_frames=on_frames)
    return outcome


def reasons(outcome: JobResult) -> dict[str, str]:
    return {record.feature.partition("@")[0]: record.reason for record in outcome.failed}


def names(outcome: JobResult) -> set[str]:
    return {record.feature.partition("@")[0] for record in outcome.published}


def with_encoder(parts: FeatureSet, name: str, encoder) -> FeatureSet:
    return replace(parts, encoders=(*parts.encoders, (EncoderConfig(name, "test", encoder.modality), encoder)))


def test_a_source_that_changes_while_it_is_read_fails_and_is_tried_again(video: Path, store: Store, lit: Lit) -> None:
    parts = build_feature_set(CONFIG)

    def swap(count: int) -> None:
        shutil.copy(lit["other.mp4"], video)

    outcome = run(store, [Recording("a.mpg", video=video)], parts, swap)
    assert not outcome.published
    assert set(reasons(outcome)) == {"hog", "mfcc"}
    assert all("changed while it was read" in reason for reason in reasons(outcome).values())
    assert {item.state for item in make_plan([Recording("a.mpg", video=video)], parts, store).items} == {
        "source changed"
    }
    assert names(run(store, [Recording("a.mpg", video=video)], parts)) >= {"hog", "mfcc"}


def test_stored_faces_of_another_file_are_not_used(video: Path, store: Store, lit: Lit) -> None:
    recording = Recording("a.mpg", video=video)
    run(store, [recording], build_feature_set(CONFIG))
    more = build_feature_set(replace(CONFIG, encoders=(EncoderConfig("geometry", "geometry", "visual"),)))
    plan = make_plan([recording], more, store)  # the faces are stored: only geometry is to be made
    shutil.copy(lit["other.mp4"], video)  # hours may lie between plan and job
    (outcome,) = run_jobs(plan.jobs, store, more)
    assert not outcome.published
    assert "changed since this run began" in reasons(outcome)["geometry"]


def test_an_encoder_that_breaks_leaves_the_others_alone(video: Path, store: Store) -> None:
    parts = with_encoder(with_encoder(build_feature_set(CONFIG), "bad", Breaks()), "worse", BreaksOnSound())
    outcome = run(store, [Recording("a.mpg", video=video)], parts)
    assert set(reasons(outcome)) == {"bad", "worse"}
    assert "float16" in reasons(outcome)["bad"]
    assert "sound: ArithmeticError: no such thing" in reasons(outcome)["worse"]
    assert names(outcome) == {"clock", "detections", "faces", "hog", "mfcc"}


def test_a_detector_that_breaks_leaves_the_sound_alone(video: Path, store: Store) -> None:
    @dataclass(frozen=True)
    class NoDetector:
        min_score: float = 0.5
        version: ClassVar[int] = 1

        def identify_weights(self) -> None:
            return None

        def load(self, device: str):
            def detect(frames):
                if not frames.any():  # it is tried on black frames when it is loaded
                    return [NO_FACES] * len(frames)
                raise ArithmeticError("blind")

            return detect

    outcome = run(store, [Recording("a.mpg", video=video)], replace(build_feature_set(CONFIG), detector=NoDetector()))
    assert set(reasons(outcome)) == {"hog"}
    assert names(outcome) == {"clock", "mfcc"}


def test_replacing_the_video_of_aligned_crops_makes_the_crops_stale_too(tmp_path: Path, store: Store) -> None:
    import cv2

    images = tmp_path / "t"
    images.mkdir()
    for number in (1, 2, 5):
        cv2.imwrite(str(images / f"{number:05d}.jpg"), np.full((112, 112, 3), 20 * number, np.uint8))
    video = write_video(tmp_path / "v.mp4", frames=6)
    recording = Recording("t", video=video, images=images, aligned=True)
    parts = build_feature_set(replace(CONFIG, encoders=CONFIG.encoders[:1], faces=FacesConfig()))
    assert names(run(store, [recording], parts)) == {"clock", "hog"}
    write_video(video, frames=7)
    assert [item.state for item in make_plan([recording], parts, store).items] == ["source changed"]


def test_rows_of_every_feature_are_those_of_the_frames(tmp_path: Path, video: Path, store: Store) -> None:
    """Black, face, black: exactly the rows of the face have features, on the clock of the container."""
    pictures = discs((60, 80), frames=90)
    pictures[:40] = pictures[75:] = 0
    path = write_media(tmp_path / "bfb.mp4", pictures)
    parts = build_feature_set(replace(CONFIG, encoders=CONFIG.encoders[:1]))
    outcome = run(store, [Recording("bfb.mp4", video=path)], parts)
    hog = next(record for record in outcome.published if record.feature.startswith("hog"))
    rows = store.read("bfb.mp4", hog.feature)
    np.testing.assert_array_equal(~np.isnan(rows[:, 0]), [40 <= k < 75 for k in range(90)])
    clock = next(record for record in outcome.published if record.feature.startswith("clock"))
    np.testing.assert_allclose(store.read("bfb.mp4", clock.feature), np.arange(90) / 25, atol=1e-6)


def test_a_video_without_sound_fails_its_sound_alone(tmp_path: Path, video: Path, store: Store) -> None:
    silent = write_video(tmp_path / "s.mp4", frames=12)
    reason = f"sound: {silent}: no audio stream (--on-missing-audio mask --retry-failed gives it invalid rows)"
    outcome = run(store, [Recording("s.mp4", video=silent)], build_feature_set(CONFIG))
    assert reasons(outcome) == {"mfcc": reason}
    hog = next(record for record in outcome.published if record.feature.startswith("hog"))
    assert (hog.frames, hog.valid_frames) == (12, 0)


def test_words_beside_a_video_become_rows_of_the_frames_in_which_they_are_said(video: Path, store: Store) -> None:
    from aupipe.extract.media.transcript import spoken_words

    model = Path(__file__).parent / "models" / "tiny-roberta"
    encoder = EncoderConfig("words", "text", "text", {"model": str(model), "weights": "random", "align_s": 0.3})
    parts = build_feature_set(replace(CONFIG, encoders=(encoder,)))
    recording = Recording("a.mpg", video=video)
    assert "no transcript beside it" in reasons(run(store, [recording], parts))["words"]
    said = "0 12250 sil\n12250 19250 set\n19250 26000 white\n26000 33000 with\n47000 52500 two\n52500 74500 sil\n"
    video.with_suffix(".align").write_text(said)
    outcome = run(store, [recording], parts)  # a transcript has appeared: tried again without being told to
    words = next(record for record in outcome.published if record.feature.startswith("words"))
    heard = ~np.isnan(store.read("a.mpg", words.feature)[:, 0])
    middles = np.array([(word.start_s + word.end_s) / 2 for word in spoken_words(video).words])
    near = (np.abs(VideoReader(video).clock()[:, None] - middles[None]) <= 0.3).any(axis=1)
    assert 0 < near.sum() < 75
    assert (heard == near).mean() > 0.95  # a token's middle is its word's, give or take the edge of a frame


def test_a_video_without_a_transcript_is_masked_where_that_is_asked_for_until_it_has_one(
    video: Path, store: Store
) -> None:
    model = Path(__file__).parent / "models" / "tiny-roberta"
    encoder = EncoderConfig("words", "text", "text", {"model": str(model), "weights": "random"})
    parts = replace(build_feature_set(replace(CONFIG, encoders=(encoder,))), mask_missing_text=True)
    recording = Recording("a.mpg", video=video)
    video.with_suffix(".csv").write_text("frame, timestamp, AU01_r\n1, 0.0, 0.12\n")  # of another program
    (words,) = (record for record in run(store, [recording], parts).published if record.feature.startswith("words"))
    assert (words.frames, words.valid_frames) == (75, 0)
    assert words.media["text"]["notes"] == ["no transcript: all rows are invalid"]
    video.with_suffix(".srt").write_text("")  # nobody speaks
    (words,) = (record for record in run(store, [recording], parts).published if record.feature.startswith("words"))
    assert (words.frames, words.valid_frames) == (75, 0)
    assert "text" not in words.media
    video.with_suffix(".srt").write_text("1\n00:00:00,200 --> 00:00:01,000\nset white\n")
    (words,) = (record for record in run(store, [recording], parts).published if record.feature.startswith("words"))
    assert words.valid_frames > 0
    video.with_suffix(".json").write_text("{")  # broken, and not missing
    assert "a.json: not a transcript" in reasons(run(store, [recording], parts))["words"]
