"""`Engine.process`: any scheduler may call it, from any number of threads; what it gives is whole or nothing."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from aupipe.config import Config, EncoderConfig, FacesConfig
from aupipe.errors import AupipeError
from aupipe.extract.engine.crops import KeptCrops
from aupipe.extract.engine.encode_video import crop_chunk
from aupipe.extract.engine.engine import Engine
from aupipe.extract.engine.events import EngineEvent, FramesDecoded, ItemPublished
from aupipe.extract.engine.models import load_encoder
from aupipe.extract.engine.options import ThreadCounts
from aupipe.extract.engine.process_audio import read_sound
from aupipe.extract.engine.results import JobResult
from aupipe.extract.engine.scan_video import detect_chunks
from aupipe.extract.faces.detection import FaceDetector
from aupipe.extract.faces.detectors.yunet import YuNet
from aupipe.extract.faces.tracking import TrackParams, subject_track
from aupipe.extract.imaging.templates import CropTemplate
from aupipe.extract.media.video import VideoReader
from aupipe.extract.memory import Budget
from aupipe.extract.meter import Meter
from aupipe.extract.planning.features import FeatureSet, build_feature_set
from aupipe.extract.planning.plan import Job, make_plan
from aupipe.store import Store, create_store, fs, open_store
from aupipe.store.maintenance.verify import check
from aupipe.types import Recording
from tests.conftest import write_video
from tests.extract.conftest import FRAMES, Lit
from tests.store.disks import WatchedDisk

CONFIG = Config(
    faces=FacesConfig(detector="yunet", detect_px=320),
    encoders=(
        EncoderConfig("hog", "hog", "visual"),
        EncoderConfig("geometry", "geometry", "visual"),
        EncoderConfig("mfcc", "mfcc", "audio"),
    ),
)
Schedule = Callable[[Engine, list[Job]], list[JobResult]]


@pytest.fixture(autouse=True)
def weights(lit_yunet: Lit) -> None:
    """The detector is the made one."""


def planned(path: Path, recordings: list[Recording], features: FeatureSet) -> tuple[Store, list[Job]]:
    store = create_store(path)
    return store, list(make_plan(recordings, features, store).jobs)


def sums(store: Store) -> dict[tuple[str, str], int]:
    store.refresh()
    return {(record.recording, record.feature): record.crc32c for record in store.all_published()}


# Three schedulers ----------------------------------------------------------------------------------------------------


def one_thread(engine: Engine, jobs: list[Job]) -> list[JobResult]:
    return [engine.process(job) for job in jobs]


def eight_threads(engine: Engine, jobs: list[Job]) -> list[JobResult]:
    results: list[JobResult] = []
    threads = [threading.Thread(target=lambda job=job: results.append(engine.process(job))) for job in jobs * 1]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def smallest_first_by_three(engine: Engine, jobs: list[Job]) -> list[JobResult]:
    """A scheduler of somebody else's: three callers, the smallest video first, results as they come."""
    waiting: queue.PriorityQueue[tuple[int, int]] = queue.PriorityQueue()
    for number, job in enumerate(jobs):
        waiting.put((job.recordings[0].video.stat().st_size, number))
    ended: queue.SimpleQueue[JobResult] = queue.SimpleQueue()

    def call() -> None:
        while True:
            try:
                _, number = waiting.get_nowait()
            except queue.Empty:
                return
            ended.put(engine.process(jobs[number]))

    for _ in range(3):
        threading.Thread(target=call, daemon=True).start()
    return [ended.get(timeout=120) for _ in jobs]


@pytest.fixture(scope="module")
def expected(lit: Lit, tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], int]:
    with pytest.MonkeyPatch.context() as patch:
        lit.use(patch)
        features = build_feature_set(CONFIG)
        recordings = [Recording(f"{name}.{n}", video=lit[name]) for name in FRAMES for n in range(3)]
        store, jobs = planned(tmp_path_factory.mktemp("expected") / "features", recordings, features)
        with Engine(store, features) as engine:
            for job in jobs:
                assert not engine.process(job).failed
        return sums(store)


@pytest.mark.parametrize("schedule", [one_thread, eight_threads, smallest_first_by_three])
def test_any_scheduler_gets_the_same_bytes(
    expected: dict[tuple[str, str], int], lit: Lit, tmp_path: Path, schedule: Schedule
) -> None:
    features = build_feature_set(CONFIG)
    recordings = [Recording(f"{name}.{n}", video=lit[name]) for name in FRAMES for n in range(3)]
    store, jobs = planned(tmp_path / "features", recordings, features)
    events: list[EngineEvent] = []
    with Engine(store, features, threads=ThreadCounts(2, 2), on_event=events.append) as engine:
        results = schedule(engine, jobs)
    assert sorted(result.video_id for result in results) == sorted(recording.id for recording in recordings)
    assert not any(result.failed for result in results)
    assert sums(store) == expected
    published = [event.record for event in events if isinstance(event, ItemPublished)]
    assert {(record.recording, record.feature): record.crc32c for record in published} == expected
    assert sum(event.count for event in events if isinstance(event, FramesDecoded)) == 3 * sum(FRAMES.values())


class MeetingDisk(WatchedDisk):
    """Holds the first item that is put in its place until a second one, of another thread, is as far."""

    def __init__(self) -> None:
        self.first: int | None = None
        self.met, self.in_time = threading.Event(), False

    def before(self, call: str, *arguments: object) -> None:
        if call != "rename" or self.met.is_set():
            return
        if self.first is None:
            self.first = threading.get_ident()
            self.in_time = self.met.wait(timeout=20)
        elif self.first != threading.get_ident():
            self.met.set()


def test_a_job_that_waits_for_the_disk_holds_up_no_other(
    lit: Lit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    features = build_feature_set(CONFIG)
    recordings = [Recording(f"{name}.{n}", video=lit[name]) for name in FRAMES for n in range(2)]
    store, jobs = planned(tmp_path / "features", recordings, features)
    disk = MeetingDisk()
    with Engine(store, features, threads=ThreadCounts(2, 2)) as engine:
        monkeypatch.setattr(fs, "disk", disk)
        results = eight_threads(engine, jobs)
    assert not any(result.failed for result in results)
    assert disk.in_time


# What is no recording's reason ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FullDisk:
    """An encoder that cannot go on, for a reason that no recording has."""

    modality: ClassVar[str] = "visual"
    version: ClassVar[int] = 1
    reads: ClassVar[CropTemplate] = CropTemplate(32)

    def identify_weights(self) -> None:
        return None

    def load(self, device: str) -> Callable[[np.ndarray], np.ndarray]:
        def encode(crops: np.ndarray) -> np.ndarray:
            if len(crops) > 1:
                raise AupipeError("the licence server is gone")
            return crops.mean(axis=(1, 2)).astype(np.float32)

        return encode


def test_what_stops_one_job_for_no_reason_of_its_own_stops_every_caller(lit: Lit, tmp_path: Path) -> None:
    features = replace(build_feature_set(CONFIG), encoders=((EncoderConfig("gone", "test", "visual"), FullDisk()),))
    recordings = [Recording(f"{n}", video=lit["one.mpg"]) for n in range(4)]
    store, jobs = planned(tmp_path / "features", recordings, features)
    raised: list[BaseException] = []
    with Engine(store, features, threads=ThreadCounts(2, 2)) as engine:

        def call(job: Job) -> None:
            try:
                engine.process(job)
            except AupipeError as error:
                raised.append(error)

        threads = [threading.Thread(target=call, args=(job,)) for job in jobs]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=120)
            assert not thread.is_alive()
    assert [str(error) for error in raised] == ["the licence server is gone"] * 4
    assert not [key for key in sums(store) if key[1].startswith("gone")]
    assert not [record for record in store.records() if record.state == "failed"]


KILLED = """
import sys
from aupipe.config import Config, EncoderConfig, FacesConfig
from aupipe.extract.engine.engine import Engine
from aupipe.extract.planning.features import build_feature_set
from aupipe.extract.planning.plan import make_plan
from aupipe.store import open_store
from aupipe.types import Recording
from pathlib import Path

def tell(event):
    print(event, flush=True)

encoders = (EncoderConfig("hog", "hog", "visual"), EncoderConfig("level", "level", "audio"))
features = build_feature_set(Config(faces=FacesConfig(detector="none"), encoders=encoders))
store = open_store(Path(sys.argv[1]))
recordings = [Recording(str(n), video=Path(sys.argv[2])) for n in range(40)]
with Engine(store, features, on_event=tell) as engine:
    for job in make_plan(recordings, features, store).jobs:
        engine.process(job)
"""


@pytest.mark.parametrize("backend", ["zarr", "hdf5"])
def test_killed_in_the_middle_nothing_is_published_in_part(tmp_path: Path, backend: str) -> None:
    video = write_video(tmp_path / "a.mp4", 30, tone_hz=300)
    store = create_store(tmp_path / "features", backend)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    for kills in range(3):
        with subprocess.Popen(
            [sys.executable, "-c", KILLED, str(tmp_path / "features"), str(video)],
            stdout=subprocess.PIPE,
            env=environment,
        ) as process:
            assert process.stdout is not None
            for _ in range(4 + 3 * kills):
                assert process.stdout.readline()
            time.sleep(0.01 * kills)
            process.send_signal(signal.SIGKILL)
        store = open_store(tmp_path / "features")
        assert check(store).damage == []  # type: ignore[arg-type]
    whole = {"clock": 30, "hog": 30, "level": 30}
    found = [(record.feature.partition("@")[0], record.frames) for record in store.all_published()]
    assert found
    assert all(frames == whole[name] for name, frames in found)


# The stages by themselves --------------------------------------------------------------------------------------------


def test_the_stages_of_one_video_are_functions_that_need_no_thread(lit: Lit, tmp_path: Path) -> None:
    """Read, detect, track, crop, encode, one after the other in this thread, give what the engine publishes."""
    path, detector, template = lit["one.mpg"], YuNet(), CropTemplate(112)
    meter, before = Meter(), threading.active_count()
    faces_of = FaceDetector(detector.load("cpu"), 320, 8, detector.min_score)
    kept = KeptCrops([], Budget(0), Budget(0))
    reader = VideoReader(path)
    rows, table = detect_chunks(reader, faces_of, meter, kept)
    track = subject_track(table.spread(rows, reader.decoded), TrackParams(subject="largest"))
    features = build_feature_set(CONFIG)
    recording = Recording("a", video=path)
    (spec, encoder), *_ = features.graph(recording).encoders
    encode = load_encoder(spec, encoder, "cpu").encode
    made = np.full((reader.decoded, 1764), np.nan, np.float32)
    for frames in VideoReader(path):
        index, crops = crop_chunk(frames, track, template, meter)
        made[index] = encode(crops)
    sound, report = read_sound(path, features.graph(recording).encoders[2][1].reads, 3.0)
    assert report is not None
    assert len(sound.samples) > 0
    assert threading.active_count() == before
    store, jobs = planned(tmp_path / "features", [recording], features)
    with Engine(store, features) as engine:
        engine.process(jobs[0])
    np.testing.assert_array_equal(store.read("a", spec.id), made.astype(np.float16))


def test_there_are_as_many_detectors_as_threads_that_detect_and_not_as_callers(lit: Lit, tmp_path: Path) -> None:
    loaded: list[object] = []

    @dataclass(frozen=True)
    class Counted(YuNet):
        def load(self, device: str):
            loaded.append(device)
            return super().load(device)

    features = replace(build_feature_set(CONFIG), detector=Counted())
    store, jobs = planned(tmp_path / "features", [Recording(f"{n}", video=lit["one.mpg"]) for n in range(8)], features)
    with Engine(store, features, threads=ThreadCounts(2, 2)) as engine:
        assert len(eight_threads(engine, jobs)) == 8
    assert 1 <= len(loaded) <= 2
