"""One job under way: what is loaded, what has been published, and how an error becomes a failure of some items."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aupipe.dataset import source_identity
from aupipe.errors import AupipeError, RecordingError
from aupipe.extract.encoders import Encode
from aupipe.extract.faces import Detect
from aupipe.extract.faces.align import CropTemplate
from aupipe.extract.plan import Job, Parts, source_path
from aupipe.store.base import ItemRecord, Store
from aupipe.types import FeatureSpec, Recording, SourceIdentity

log = logging.getLogger(__name__)

# Loading imports libraries, and several of them (PyAV, torchvision) break when two threads import them at once.
LOADING = threading.Lock()


@dataclass
class Loaded:
    """Detector and encoders of one worker, loaded on first use."""

    parts: Parts
    device: str
    _detect: Detect | None = None
    _encode: dict[str, tuple[Encode, tuple[int, ...]]] = field(default_factory=dict)

    def detect(self) -> Detect:
        if self._detect is None:
            with LOADING:
                self._detect = self.parts.detector.load(self.device)
        return self._detect

    def encode(self, spec: FeatureSpec, encoder: Any) -> tuple[Encode, tuple[int, ...]]:
        """An encoder's function and the shape of one row of it."""
        if spec.id not in self._encode:
            with LOADING:
                function = encoder.load(self.device)
            reads = encoder.reads
            shape: tuple[int, ...] = ()
            if isinstance(reads, CropTemplate):
                shape = function(np.zeros((1, reads.size_px, reads.size_px, 3), np.uint8)).shape[1:]
            elif reads == "landmarks":
                shape = function(np.zeros((1, 5, 2), np.float32)).shape[1:]
            self._encode[spec.id] = (function, shape)
        return self._encode[spec.id]


@dataclass
class Outcome:
    """What came of one job: records published, failures (feature id -> reason), words of warning."""

    job: Job
    frames: int = 0
    faces: dict[str, int] = field(default_factory=dict)  # recording -> frames with the subject's face
    published: list[ItemRecord] = field(default_factory=list)
    failed: list[ItemRecord] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0


@dataclass
class Pass:
    """The state of one job while it runs."""

    job: Job
    store: Store
    loaded: Loaded
    on_frames: Callable[[int], None]
    versions: dict[str, str]
    outcome: Outcome

    def wants_visual(self, recording: Recording) -> bool:
        """True when a visual feature of this recording is to be made and nothing has failed it yet."""
        failed = {(record.recording, record.feature) for record in self.outcome.failed}
        return any(
            spec.modality == "visual" and self.job.wants(spec, recording.id) and (recording.id, spec.id) not in failed
            for spec in specs_of(self, recording)
        )

    def publish(self, key: str, spec: FeatureSpec, rows: NDArray[Any], source: SourceIdentity, began: float) -> None:
        record = self.store.publish(
            key,
            spec,
            rows,
            source=source,
            seconds=time.perf_counter() - began,
            versions=self.versions,
            video_id=self.job.video_id,
        )
        self.outcome.published.append(record)

    def fail(self, key: str, spec: FeatureSpec, reason: str, source: SourceIdentity | None) -> None:
        log.debug("%s %s: %s", key, spec.id, reason)
        self.outcome.failed.append(self.store.fail(key, spec, reason, source=source))


class failing:
    """Turns an error of the media, or of one encoder on it, into failures of the items that hung on it."""

    def __init__(self, run: Pass, recordings: list[Recording], *, visual: bool, audio: bool) -> None:
        self.run, self.recordings = run, recordings
        self.modalities = (("faces", "visual") if visual else ()) + (("audio", "text") if audio else ())

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        if error is None or not _is_of_the_recording(error):
            return False
        reason = describe(error)
        published = {(record.recording, record.feature) for record in self.run.outcome.published}
        failed = {(record.recording, record.feature) for record in self.run.outcome.failed}
        for recording in self.recordings:
            for spec in specs_of(self.run, recording):
                key = recording.key_for(spec.modality)
                known = (key, spec.id) in published or (key, spec.id) in failed
                if spec.modality in self.modalities and self.run.job.wants(spec, key) and not known:
                    failed.add((key, spec.id))
                    self.run.fail(key, spec, reason, identity_of(recording, spec.modality))
        return True


def _is_of_the_recording(error: BaseException) -> bool:
    if isinstance(error, RecordingError):
        return True
    # A full disk or missing weights are nobody's recording's fault; an encoder that breaks on this picture is.
    return isinstance(error, Exception) and not isinstance(error, AupipeError | OSError | MemoryError)


def describe(error: BaseException) -> str:
    """One line for the user; an error nobody foresaw is logged whole."""
    if isinstance(error, AupipeError):
        return " ".join(str(error).split())
    log.error("unforeseen error", exc_info=error)
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def specs_of(run: Pass, recording: Recording) -> list[FeatureSpec]:
    return [spec for spec, _ in run.loaded.parts.chain(recording).encoders]


def identity_of(recording: Recording, modality: str) -> SourceIdentity | None:
    path = source_path(recording, modality)
    try:
        return source_identity(path) if path else None
    except RecordingError:
        return None
