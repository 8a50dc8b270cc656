"""The demo corpus: its layout, a label row per decoded frame, every action unit, faces that a detector finds."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
from facenet_pytorch import MTCNN

from aupipe.demo import DemoCorpus, draw_corpus
from aupipe.demo.corpus import TRAIN, VALIDATION, plan_corpus, render_frames, synthesise_audio
from aupipe.demo.labels import EXPRESSIONS, affect_labels, au_labels, expression_labels
from aupipe.demo.motion import AUS

CHALLENGES = {
    "AU_Detection_Challenge": ",".join(AUS),
    "EXPR_Classification_Challenge": ",".join(EXPRESSIONS),
    "VA_Estimation_Challenge": "valence,arousal",
}
SMALL = {"recordings": 3, "seconds": 2.4, "fps": 25, "seed": 5}


@pytest.fixture(scope="module")
def messages() -> list[str]:
    return []


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory, messages: list[str]) -> DemoCorpus:
    return draw_corpus(tmp_path_factory.mktemp("demo"), **SMALL, progress=messages.append)


def label_file(corpus: DemoCorpus, challenge: str, track: str) -> Path:
    split = TRAIN if track in corpus.train else VALIDATION
    return corpus.root / "annotations" / challenge / split / f"{track}.txt"


def test_layout_is_that_of_aff_wild2(corpus: DemoCorpus, messages: list[str]) -> None:
    assert [video.name for video in corpus.videos] == ["demo-001.mp4", "demo-002.mp4", "demo-003.mp4"]
    assert corpus.train == ("demo-001", "demo-002")
    assert corpus.validation == ("demo-003_left", "demo-003_right")
    for challenge, header in CHALLENGES.items():
        written = sorted(path.stem for path in (corpus.root / "annotations" / challenge).rglob("*.txt"))
        assert written == sorted(corpus.train + corpus.validation)
        for track in written:
            assert label_file(corpus, challenge, track).read_text().splitlines()[0] == header
    assert messages == [f"drawing demo-00{n} ({n}/3)" for n in (1, 2, 3)]


def test_one_label_row_per_decoded_frame(corpus: DemoCorpus) -> None:
    frames = 0
    for video in corpus.videos:
        with av.open(str(video)) as container:
            decoded = sum(1 for _ in container.decode(video=0))
            assert container.streams.video[0].average_rate == SMALL["fps"]
        frames += decoded
        tracks = [t for t in corpus.train + corpus.validation if t in {video.stem + s for s in ("", "_left", "_right")}]
        assert tracks
        for track in tracks:
            for challenge in CHALLENGES:
                assert len(label_file(corpus, challenge, track).read_text().splitlines()) - 1 == decoded
    assert corpus.frames == frames


def test_audio_is_as_long_as_the_video_and_has_speech(corpus: DemoCorpus) -> None:
    with av.open(str(corpus.videos[0])) as container:
        stream = container.streams.audio[0]
        assert (stream.codec_context.sample_rate, stream.codec_context.layout.name) == (16_000, "mono")
        sound = np.concatenate([frame.to_ndarray().ravel() for frame in container.decode(audio=0)])
    assert abs(len(sound) / 16_000 - SMALL["seconds"]) < 0.15  # AAC comes in blocks of 1,024
    assert np.abs(sound).max() > 0.05


def test_audio_is_louder_where_the_mouth_is_open() -> None:
    plans = plan_corpus(recordings=6, seconds=8.0, fps=25, seed=1)
    loudness, jaw = [], []
    for plan in plans:
        if len(plan.tracks) == 1:
            blocks = synthesise_audio(plan).reshape(len(plan.tracks[0].motion.voice), -1)
            loudness.append(np.sqrt((blocks**2).mean(axis=1)))
            jaw.append(plan.tracks[0].motion.intensity[:, AUS.index("AU26")])
    assert np.corrcoef(np.concatenate(loudness), np.concatenate(jaw))[0, 1] > 0.3


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_every_action_unit_occurs_in_both_splits(seed: int) -> None:
    plans = plan_corpus(recordings=16, seconds=12.0, fps=25, seed=seed)
    for split in (TRAIN, VALIDATION):
        rows = np.concatenate([au_labels(t.motion) for plan in plans for t in plan.tracks if t.split == split])
        rates = (rows[rows[:, 0] >= 0] == 1).mean(axis=0)
        assert rates.min() > 0.01, dict(zip(AUS, rates, strict=True))
        assert 0.45 < rates[AUS.index("AU25")] < 0.85


def test_hidden_faces_are_invalid_in_all_three_tasks() -> None:
    plans = plan_corpus(recordings=16, seconds=12.0, fps=25, seed=0)
    hidden = [t.motion for plan in plans for t in plan.tracks if not t.motion.visible.all()]
    assert len(hidden) >= 2
    for motion in hidden:
        not_visible = ~motion.visible
        assert 0.02 < not_visible.mean() < 0.3
        np.testing.assert_array_equal((au_labels(motion) == -1).all(axis=1), not_visible)
        np.testing.assert_array_equal(expression_labels(motion, 25) == -1, not_visible)
        np.testing.assert_array_equal((affect_labels(motion, 25) == -5).all(axis=1), not_visible)


def test_labels_depend_on_the_seed_alone(corpus: DemoCorpus) -> None:
    again = plan_corpus(**SMALL)
    for track in (track for plan in again for track in plan.tracks):
        rows = label_file(corpus, "AU_Detection_Challenge", track.name).read_text().splitlines()[1:]
        np.testing.assert_array_equal(np.array([row.split(",") for row in rows], int), au_labels(track.motion))
    other = plan_corpus(**{**SMALL, "seed": 6})
    assert any(
        not np.array_equal(a.tracks[0].motion.intensity, b.tracks[0].motion.intensity)
        for a, b in zip(again, other, strict=True)
    )


def test_the_same_seed_draws_the_same_pictures() -> None:
    first, second = (next(render_frames(plan_corpus(**SMALL)[1]))[0] for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_the_same_seed_draws_the_same_bytes(corpus: DemoCorpus, tmp_path: Path) -> None:
    again = draw_corpus(tmp_path, **SMALL)
    assert [video.read_bytes() for video in again.videos] == [video.read_bytes() for video in corpus.videos]


def test_mtcnn_finds_the_drawn_faces() -> None:
    detector = MTCNN(keep_all=True, min_face_size=40)
    wanted = found = 0
    errors = []
    for plan in plan_corpus(**SMALL):
        rendered = list(render_frames(plan))[::8]
        _, _, detected = detector.detect([picture for picture, _ in rendered], landmarks=True)
        visible = np.stack([track.motion.visible for track in plan.tracks], axis=1)[::8]
        for (_, truth), points, shown in zip(rendered, detected, visible, strict=True):
            for face in truth[shown]:
                wanted += 1
                eyes_px = np.linalg.norm(face[1] - face[0])
                near = [] if points is None else [np.hypot(*(p - face).astype(float).T) / eyes_px for p in points]
                best = min(near, key=np.mean, default=np.ones(5))
                found += bool(np.mean(best) < 0.5)
                errors.append(best)
    assert found >= 0.97 * wanted
    assert np.median(errors) < 0.15


def test_impossible_sizes_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="recordings is 1"):
        draw_corpus(tmp_path, recordings=1)
    with pytest.raises(ValueError, match=r"0\.2 s"):
        draw_corpus(tmp_path, seconds=0.2)
