"""The engine: the same bytes whatever the threads, the batches and the other jobs; one decode; bounded memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aupipe.config import Config, EncoderConfig, FacesConfig
from aupipe.extract import memory
from aupipe.extract.engine import resources
from aupipe.extract.engine.batcher import Batcher, BatchSlice, joined
from aupipe.extract.engine.crops import whole_crops
from aupipe.extract.engine.options import ThreadCounts
from aupipe.extract.engine.results import JobResult
from aupipe.extract.imaging.templates import CropTemplate
from aupipe.extract.media.video import VideoReader
from aupipe.extract.meter import Meter, trace_events
from aupipe.extract.planning.features import FeatureSet, build_feature_set
from aupipe.extract.planning.plan import make_plan
from aupipe.store import Store, create_store
from aupipe.types import Recording
from tests.extract.conftest import FRAMES, Lit
from tests.extract.running import run_jobs

ONE, OTHER, PAIR = FRAMES
TIMM = EncoderConfig("net", "timm", "visual", {"model": "test_resnet.r160_in1k", "weights": "random"})
CONFIG = Config(
    faces=FacesConfig(detector="yunet", detect_px=320),
    encoders=(
        EncoderConfig("hog", "hog", "visual"),
        EncoderConfig("geometry", "geometry", "visual"),
        TIMM,
        EncoderConfig("mfcc", "mfcc", "audio"),
    ),
)


@pytest.fixture(autouse=True)
def weights(lit_yunet: Lit) -> None:
    """The detector is the made one."""


def recordings(lit: Lit, *names: str) -> list[Recording]:
    return [Recording(name, video=lit[name]) for name in names or FRAMES]


def extracted(path: Path, items: list[Recording], parts: FeatureSet, **options) -> tuple[Store, list[JobResult]]:
    store = create_store(path, "zarr")
    return store, run_jobs(make_plan(items, parts, store).jobs, store, parts, **options)


def contents(outcomes: list[JobResult]) -> dict[tuple[str, str], tuple[int, int, int]]:
    """(recording, feature) -> what its bytes sum to."""
    return {
        (record.recording, record.feature): (record.crc32c, record.frames, record.valid_frames)
        for outcome in outcomes
        for record in outcome.published
    }


@pytest.fixture(scope="module")
def plain(lit: Lit, tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], tuple[int, int, int]]:
    """One video at a time, one thread for each stage."""
    with pytest.MonkeyPatch.context() as patch:
        lit.use(patch)
        parts = build_feature_set(CONFIG)
        found: dict[tuple[str, str], tuple[int, int, int]] = {}
        for item in recordings(lit):
            _, outcomes = extracted(tmp_path_factory.mktemp("plain"), [item], parts, threads=ThreadCounts(1, 1))
            assert not outcomes[0].failed
            found |= contents(outcomes)
    return found


@pytest.mark.parametrize(
    ("threads", "batch"), [(ThreadCounts(3, 2), 0), (ThreadCounts(1, 3), 7), (ThreadCounts(2, 1), 1)]
)
def test_items_are_the_same_bytes_whatever_the_crew_the_batch_size_and_the_neighbours(
    plain, lit: Lit, tmp_path: Path, threads: ThreadCounts, batch: int
) -> None:
    parts = build_feature_set(CONFIG)
    _, outcomes = extracted(tmp_path / "features", recordings(lit), parts, threads=threads, batch=batch)
    assert contents(outcomes) == plain


def test_crops_that_found_no_room_are_cut_again_and_are_the_same(
    plain, lit: Lit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second decode gives what the first would have kept, from the first frame on or from the middle."""
    parts = build_feature_set(CONFIG)
    for number, limit in enumerate((0, 5 << 20)):
        monkeypatch.setattr(resources, "KEPT_BYTES", limit)
        meter = Meter()
        _, outcomes = extracted(tmp_path / str(number), recordings(lit), parts, meter=meter)
        assert contents(outcomes) == plain
        assert meter.totals["decode"].frames > sum(FRAMES.values())


def test_a_video_is_decoded_once_and_its_memory_given_back(
    lit: Lit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    budgets: list[memory.Budget] = []
    original = memory.Budget.__init__

    def remember(self, limit_bytes: int) -> None:
        original(self, limit_bytes)
        budgets.append(self)

    monkeypatch.setattr(memory.Budget, "__init__", remember)
    meter = Meter()
    parts = build_feature_set(CONFIG)
    store, outcomes = extracted(tmp_path / "features", recordings(lit, ONE), parts, meter=meter)
    assert meter.totals["decode"].frames == outcomes[0].frames == 75
    assert budgets
    assert all(budget.acquired_bytes == 0 for budget in budgets)
    more = build_feature_set(
        replace(CONFIG, encoders=(replace(TIMM, name="more", params=TIMM.params | {"weights": "random:more"}),))
    )
    again = Meter()
    (outcome,) = run_jobs(make_plan(recordings(lit, ONE), more, store).jobs, store, more, meter=again)
    assert "detect" not in again.totals  # a stored face track makes detection free
    assert {record.feature.partition("@")[0] for record in outcome.published} == {"more"}


@dataclass(frozen=True)
class Dislikes:
    """An encoder that raises on any batch with a picture it dislikes; it gives the mean colour of the others."""

    bright: float = 255.0
    memory: int = 0  # pictures that fit
    modality: ClassVar[str] = "visual"
    version: ClassVar[int] = 1

    @property
    def reads(self) -> CropTemplate:
        return CropTemplate(32)

    def identify_weights(self) -> None:
        return None

    def load(self, device: str) -> Callable[[np.ndarray], np.ndarray]:
        def encode(crops: np.ndarray) -> np.ndarray:
            if self.memory and len(crops) > self.memory:
                raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to ...")
            if (crops.mean(axis=(1, 2, 3)) > self.bright).any():
                raise ArithmeticError("too bright")
            return crops.mean(axis=(1, 2)).astype(np.float32)

        return encode


def pictures(folder: Path, grey: int, count: int) -> Recording:
    import cv2

    folder.mkdir()
    for number in range(1, count + 1):
        cv2.imwrite(str(folder / f"{number:05d}.png"), np.full((32, 32, 3), grey + number, np.uint8))
    return Recording(folder.name, images=folder, aligned=True, fps=25)


def with_encoder(encoder: Dislikes) -> FeatureSet:
    return replace(build_feature_set(CONFIG), encoders=((EncoderConfig("mine", "test", "visual"), encoder),))


def test_a_recording_that_breaks_a_batch_fails_alone_and_says_where(tmp_path: Path) -> None:
    items = [
        pictures(tmp_path / name, grey, 20) for name, grey in (("dark", 10), ("bright", 200), ("dim", 50), ("dull", 90))
    ]
    store, outcomes = extracted(tmp_path / "features", items, with_encoder(Dislikes(bright=150)))
    failed = {record.recording: record.reason for outcome in outcomes for record in outcome.failed}
    assert failed == {"bright": "encode: ArithmeticError: too bright"}
    for name, grey in (("dark", 10), ("dim", 50), ("dull", 90)):
        rows = store["mine"][name][:]
        np.testing.assert_array_equal(rows[:, 0], grey + np.arange(1, 21))


def test_out_of_memory_halves_the_batch_and_goes_on_with_the_same_numbers(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    items = [pictures(tmp_path / name, grey, 50) for name, grey in (("a", 10), ("b", 90))]
    store, outcomes = extracted(tmp_path / "features", items, with_encoder(Dislikes(memory=5)))
    assert not any(outcome.failed for outcome in outcomes)
    np.testing.assert_array_equal(store["mine"]["b"][:][:, 0], 90 + np.arange(1, 51))
    assert "out of memory" in caplog.text


@dataclass(frozen=True)
class Alone(Dislikes):
    """An encoder that breaks when two threads are in it."""

    def load(self, device: str) -> Callable[[np.ndarray], np.ndarray]:
        import threading
        import time

        inside = threading.Lock()

        def encode(crops: np.ndarray) -> np.ndarray:
            if not inside.acquire(blocking=False):
                raise ArithmeticError("two at once")
            time.sleep(0.005)
            inside.release()
            return crops.mean(axis=(1, 2)).astype(np.float32)

        return encode


def test_an_encoder_that_does_not_say_it_bears_several_threads_meets_one_at_a_time(tmp_path: Path) -> None:
    items = [pictures(tmp_path / name, grey, 40) for name, grey in (("a", 10), ("b", 90), ("c", 30))]
    _, outcomes = extracted(tmp_path / "features", items, with_encoder(Alone()), threads=ThreadCounts(2, 4), batch=2)
    assert not any(outcome.failed for outcome in outcomes)


def test_whole_pictures_are_encoded_where_no_face_is_asked_for(lit: Lit, tmp_path: Path) -> None:
    config = replace(CONFIG, faces=FacesConfig(detector="none"), encoders=(TIMM, CONFIG.encoders[1]))
    parts = build_feature_set(config)
    store, (outcome,) = extracted(tmp_path / "features", recordings(lit, OTHER), parts)
    assert {record.feature.partition("@")[0] for record in outcome.published} == {"clock", "net"}
    assert "whole pictures carry none" in outcome.failed[0].reason
    net = next(record for record in outcome.published if record.feature.startswith("net"))
    assert net.frames == net.valid_frames == outcome.frames
    frames = next(iter(VideoReader(lit[OTHER])))
    encoder = parts.encoders[0][1]
    expected = encoder.load("cpu")(whole_crops(frames, encoder.reads))
    np.testing.assert_allclose(store["net"][OTHER][: len(frames)], expected, atol=2e-3)


def test_faces_between_detected_frames_are_filled_in_and_are_another_feature(lit: Lit, tmp_path: Path) -> None:
    names = (ONE,)
    every = build_feature_set(replace(CONFIG, encoders=CONFIG.encoders[:1]))
    third = build_feature_set(
        replace(CONFIG, encoders=CONFIG.encoders[:1], faces=replace(CONFIG.faces, detect_every=3))
    )
    store, _ = extracted(tmp_path / "features", recordings(lit, *names), every)
    plan = make_plan(recordings(lit, *names), third, store)
    assert [item.state for item in plan.items] == ["spec changed"]
    (outcome,) = run_jobs(plan.jobs, store, third)
    tracks = [store.read(names[0], spec.id) for spec in store.features() if spec.name == "faces"]
    assert len(tracks) == 2
    assert outcome.faces[names[0]] == 75
    box = np.stack([track[:, :4] for track in tracks])
    np.testing.assert_array_equal(box[0, ::3], box[1, ::3])
    side = (box[0, :, 2] - box[0, :, 0]).mean()
    assert 0 < np.abs(box[0] - box[1]).max() < 0.2 * side


def test_two_people_of_one_video_share_its_decode_and_its_crops(lit: Lit, tmp_path: Path) -> None:
    both = [Recording(f"v_{side}", video=lit[PAIR], video_id="v", subject=side) for side in ("left", "right")]  # type: ignore[arg-type]
    parts = build_feature_set(replace(CONFIG, encoders=CONFIG.encoders[:1]))
    meter = Meter()
    _, (outcome,) = extracted(tmp_path / "both", both, parts, meter=meter)
    assert not outcome.failed
    alone = {}
    for item in both:
        _, (one,) = extracted(tmp_path / item.id, [item], parts)
        alone |= contents([one])
    assert contents([outcome]) == alone
    assert min(outcome.faces.values()) > 50


def test_the_steps_are_traced(lit: Lit, tmp_path: Path) -> None:
    meter = Meter(trace=True)
    parts = build_feature_set(CONFIG)
    extracted(tmp_path / "features", recordings(lit, ONE), parts, meter=meter)
    measured = meter.snapshot()
    assert {event.stage for event in measured.events} >= {"decode", "detect", "align", "encode", "write", "sound"}
    assert measured.stages["encode"].frames == 3 * 75
    for event in trace_events(0, measured.events):
        assert event["ph"] == "X"
        assert event["dur"] >= 0  # type: ignore[operator]
    assert not meter.snapshot().events  # told once


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 9)), max_size=30),
    st.integers(1, 8),
)
def test_batches_are_full_until_nothing_more_comes_and_lose_double_or_reorder_nothing(
    puts: list[tuple[str, int]], size: int
) -> None:
    batches: Batcher[str] = Batcher(lambda encoder: size)
    producing = batches.producing(["encoder"])
    producing.__enter__()
    sent: dict[str, list[int]] = {}
    got: dict[str, list[tuple[int, int]]] = {}
    fills = []

    def take(until: int) -> None:
        while sum(map(len, got.values())) + until <= sum(map(len, sent.values())):
            taken = batches.take()
            assert taken is not None
            parts = taken[1]
            fills.append(len(joined(parts)))
            for part in parts:
                got.setdefault(part.to, []).extend(
                    (part.first + offset, int(value)) for offset, value in enumerate(part.inputs[:, 0])
                )

    value = 0
    for to, count in puts:
        values = np.arange(value, value + count)
        value += count
        batches.put("encoder", BatchSlice(to, len(sent.get(to, [])), values[:, None]))
        sent.setdefault(to, []).extend(values.tolist())
        take(size)
    assert all(fill == size for fill in fills)
    producing.__exit__(None, None, None)
    take(1)
    batches.close()
    assert batches.take() is None
    assert {to: values for to, values in sent.items() if values} == {
        to: [value for _, value in sorted(pairs)] for to, pairs in got.items()
    }
    assert all([ordinal for ordinal, _ in pairs] == list(range(len(pairs))) for pairs in got.values())


def test_more_than_the_room_waits_until_somebody_takes() -> None:
    import threading

    batches: Batcher[str] = Batcher(lambda encoder: 2)
    ended = threading.Event()

    def fill() -> None:
        for number in range(10):
            batches.put("encoder", BatchSlice("a", number, np.zeros((1, 1))))
        ended.set()

    threading.Thread(target=fill, daemon=True).start()
    assert not ended.wait(0.2)
    assert batches.filled() == 1.0
    batches.take()
    batches.take()
    assert ended.wait(5)


def test_no_new_conversion_context_is_made_for_a_frame(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trap: `frame.to_ndarray` and `frame.reformat` build one for every frame."""
    from aupipe.extract.media import frame_buffer as decode
    from tests.conftest import write_video

    made: list[object] = []
    original = decode.VideoReformatter

    def counted() -> object:
        made.append(original())
        return made[-1]

    monkeypatch.setattr(decode, "VideoReformatter", counted)
    assert sum(len(frames) for frames in VideoReader(write_video(tmp_path / "a.mp4", frames=70))) == 70
    assert len(made) == 1
