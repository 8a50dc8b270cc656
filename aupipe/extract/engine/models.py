"""The detector and the encoders of one engine: loaded on first use, shared by its threads."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from aupipe.errors import AupipeError, UsageError, explain, is_out_of_memory, named
from aupipe.extract.encoders import ENCODERS, AudioInput, Encode
from aupipe.extract.encoders.base import column_names_of, is_shareable, row_shape_of
from aupipe.extract.engine.device import Device
from aupipe.extract.faces import DETECTORS, Detect
from aupipe.extract.faces.detection import FaceDetector
from aupipe.extract.imaging.templates import CropTemplate
from aupipe.extract.planning.features import FeatureSet
from aupipe.extract.planning.plan import Job
from aupipe.extract.versions import versions_of
from aupipe.extract.weights import RefusedWeightsError
from aupipe.types import Detections, FeatureSpec, Waveform, Weights

if TYPE_CHECKING:
    from aupipe.extract.faces.device_detection import DeviceDetector

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoadedEncoder:
    """``encode``: threads may share it. ``row_shape``: of one row; () where rows have times of their own.
    ``versions``: what the records of its items name besides the libraries of every item."""

    encode: Encode
    row_shape: tuple[int, ...] = ()
    versions: dict[str, str] = field(default_factory=dict)

    @property
    def is_on_device(self) -> bool:
        """Whether it takes crops that lie on a device."""
        return hasattr(self.encode, "start")


Tune = Callable[[FeatureSpec, CropTemplate, LoadedEncoder], LoadedEncoder]


@dataclass
class ModelCache:
    """Detector and encoders; any thread may ask. ``tune`` is called once with each encoder of crops."""

    features: FeatureSet
    device: Device
    tune: Tune = lambda spec, template, loaded: loaded
    _idle: list[FaceDetector] = field(default_factory=list)  # detectors that no thread uses now
    _encoders: dict[str, LoadedEncoder] = field(default_factory=dict)
    _loading: threading.RLock = field(default_factory=threading.RLock)
    _tried: set[str] = field(default_factory=set)
    _device_detector: DeviceDetector | None = None

    def is_warm(self, job: Job) -> bool:
        """Whether all that a job needs has been tried."""
        return all(item.spec.id in self._tried for item in job.items)

    def warm_up(self, job: Job) -> None:
        """Load and try once what a job needs, one thread at a time: libraries that several threads import at the same
        time break each other's imports. Errors are left to whoever needs the model, who knows for which recording.
        """
        with self._loading:
            for item in job.items:
                if item.spec.id in self._tried:
                    continue
                self._tried.add(item.spec.id)
                with suppress(Exception):
                    if item.spec.modality == "detections" and self.features.detector is not None:
                        self.device.frame_buffer()
                        with self.face_detector():
                            pass
                    for recording in job.recordings:
                        for spec, encoder in self.features.graph(recording).encoders:
                            if spec.id == item.spec.id:
                                loaded = self.encoder(spec, encoder)
                                if isinstance(encoder.reads, AudioInput):
                                    rate = encoder.reads.sample_rate
                                    loaded.encode(Waveform(np.zeros(rate, np.float32), rate))

    @contextmanager
    def face_detector(self) -> Iterator[FaceDetector]:
        """A detector for the calling thread while this is open. One that is not shareable is given to one thread at a
        time: there are as many of it as threads that detect at the same time."""
        try:
            found = self._idle.pop()
        except IndexError:
            found = self._load_detector()
        if getattr(self.features.detector, "shareable", False):
            self._idle.append(found)
            yield found
            return
        try:
            yield found
        finally:
            self._idle.append(found)

    def _load_detector(self) -> FaceDetector:
        detector, faces = self.features.detector, self.features.faces
        assert detector is not None  # or there would be no detections to make
        with self._loading, _loading_errors(DETECTORS.describe(faces.detector), detector.identify_weights()):
            detect = detector.load(self.device.name)
            try_detector(DETECTORS.describe(faces.detector), detect)
            return FaceDetector(
                detect,
                faces.detect_px,
                faces.max_faces,
                detector.min_score,
                self._on_device(detector),
            )

    def _on_device(self, detector: Any) -> DeviceDetector | None:
        """The detector for frames on the device, one for all threads; None where it has no such form."""
        if self._device_detector is None and self.device.frames_on and hasattr(detector, "load_tensor"):
            from aupipe.extract.faces.device_detection import DeviceDetector

            self._device_detector = DeviceDetector(detector.load_tensor(self.device.frames_on))
        return self._device_detector

    def encoder(self, spec: FeatureSpec, encoder: Any) -> LoadedEncoder:
        """An encoder, loaded and tuned."""
        found = self._encoders.get(spec.id)
        if found is not None:
            return found
        with self._loading:
            if spec.id not in self._encoders:
                loaded = load_encoder(spec, encoder, self.device.name)
                if isinstance(encoder.reads, CropTemplate):
                    loaded = self.tune(spec, encoder.reads, loaded)
                self._encoders[spec.id] = loaded
            return self._encoders[spec.id]

    def versions(self, spec: FeatureSpec) -> dict[str, str]:
        """What the records of a feature's items name besides the libraries of every item."""
        if spec.modality == "detections":
            return versions_of(self.features.detector)
        loaded = self._encoders.get(spec.id)
        return loaded.versions if loaded is not None else {}


def load_encoder(spec: FeatureSpec, encoder: Any, device: str) -> LoadedEncoder:
    """An encoder on a torch device, ready to be shared by threads. Raises AupipeError, UsageError."""
    with _loading_errors(_describe(spec), spec.weights):
        encode = encoder.load(device)
    declared = row_shape_of(encoder, encode)
    if not is_shareable(encoder, encode):
        encode = one_at_a_time(encode)
    reads, versions = encoder.reads, versions_of(encoder)
    if isinstance(reads, CropTemplate):
        inputs: Any = np.zeros((1, reads.size_px, reads.size_px, 3), np.uint8)
    elif reads == "landmarks":
        inputs = np.zeros((1, 5, 2), np.float32)
    else:
        return LoadedEncoder(encode, versions=versions)
    return LoadedEncoder(encode, _row_shape(spec, encoder, encode, inputs, declared), versions)


def try_detector(what: str, detect: Detect) -> None:
    """Raises UsageError for a detector that does not take in frames, or gives something else than `Detections`."""
    frames = np.zeros((2, 64, 64, 3), np.uint8)
    try:
        found = detect(frames)
        if len(found) != len(frames) or not all(isinstance(one, Detections) for one in found):
            raise TypeError(f"expected a list of {len(frames)} Detections")
    except Exception as error:
        raise _refusal(what, frames, error) from error


def _refusal(what: str, inputs: NDArray[Any], error: Exception) -> Exception:
    """The error of a model that fails on inputs of the shape it asked for: it, or its parameters, are wrong."""
    if isinstance(error, AupipeError) or is_out_of_memory(error):
        return error
    log.info("%s cannot be run", what, exc_info=error)
    reason = named(error)
    return UsageError(f"{what} cannot take in {inputs.shape} {inputs.dtype}: {reason}; check its parameters")


def _describe(spec: FeatureSpec) -> str:
    """An encoder by the name of its feature, and the package it comes from where that is not aupipe."""
    package = ENCODERS.origin(spec.kind)
    return f"encoder {spec.name!r}" + (f" of the package {package}" if package != "aupipe" else "")


@contextmanager
def _loading_errors(what: str, weights: Weights | None) -> Iterator[None]:
    """What keeps a network from being loaded is the reason of no recording, whichever library says so and how."""
    try:
        yield
    except AupipeError:
        raise
    except Exception as error:
        reason = explain(error)
        if reason is not None:
            raise AupipeError(f"{what} cannot be loaded: {reason}") from error
        reason = named(error)
        log.info("%s cannot be loaded", what, exc_info=error)
        if weights is None:
            raise AupipeError(f"{what} cannot be loaded: {reason}") from error
        raise RefusedWeightsError(
            f"{what} cannot be loaded from {weights.name}: {reason}; is the file whole, and for this encoder?"
        ) from error


def _row_shape(
    spec: FeatureSpec, encoder: Any, encode: Encode, inputs: Any, declared: tuple[int, ...] | None
) -> tuple[int, ...]:
    """The shape of one row. One input is encoded: an encoder that cannot take in the shape it asked for, or gives other
    rows than it declares, is configured wrongly, and that is known before anything is decoded."""
    try:
        rows = encode(inputs)
        if len(rows) != len(inputs):
            raise ValueError(f"{len(rows)} rows for {len(inputs)} input")
        shape: tuple[int, ...] = rows.shape[1:]
    except Exception as error:
        raise _refusal(_describe(spec), inputs, error) from error
    if declared is not None and declared != shape:
        raise UsageError(f"{_describe(spec)} declares rows of shape {declared} and gives {shape}")
    names = column_names_of(encoder)
    if names and shape != (len(set(names)),):
        raise UsageError(f"{_describe(spec)} names {len(set(names))} columns and gives rows of shape {shape}")
    return shape


def one_at_a_time(encode: Encode) -> Encode:
    """The same function for several threads: one that does not say it is thread-safe (OpenCV's networks are not) is
    called by one at a time."""
    lock = threading.Lock()

    def locked(inputs: Any) -> Any:
        with lock:
            return encode(inputs)

    return locked
