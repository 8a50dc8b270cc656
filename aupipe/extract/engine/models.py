"""The detector and the encoders of one process, and how its threads share them."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from aupipe.errors import AupipeError, UsageError, explain, is_out_of_memory
from aupipe.extract.encoders import AudioInput, Encode
from aupipe.extract.faces.detection import FaceDetector
from aupipe.extract.imaging.templates import CropTemplate
from aupipe.extract.planning.features import FeatureSet
from aupipe.extract.planning.plan import Job
from aupipe.extract.weights import RefusedWeightsError
from aupipe.types import FeatureSpec, Waveform, Weights

if TYPE_CHECKING:  # the run that only hears of jobs needs no decoder
    from aupipe.extract.faces.device_detection import DeviceDetector
    from aupipe.extract.media.video import FrameBuffer

log = logging.getLogger(__name__)


@dataclass
class ModelCache:
    """Detector and encoders of one process, loaded on first use; asked by any of its threads."""

    parts: FeatureSet
    device: str
    frames_on: str = ""  # the torch device that frames are decoded to; "" for the host. A CUDA device takes its own
    nvdec: bool = False  # whether a CUDA device's own circuit decodes
    on_load: Callable[[FeatureSpec, CropTemplate, Encode], Encode] = lambda spec, template, encode: encode
    made_by: dict[str, dict[str, str]] = field(default_factory=dict)  # feature id -> what else its records name
    _local: threading.local = field(default_factory=threading.local)
    _encode: dict[str, tuple[Encode, tuple[int, ...]]] = field(default_factory=dict)
    _loading: threading.Lock = field(default_factory=threading.Lock)
    _tried: set[str] = field(default_factory=set)
    _stream: Any = None
    _device_detector: DeviceDetector | None = None

    def __post_init__(self) -> None:
        if self.device.startswith("cuda"):
            from aupipe.extract.gpu.numerics import compute_as_written

            compute_as_written()
            self.frames_on = self.frames_on or self.device

    def prepare(self, job: Job) -> None:
        """Load and try once what a job needs, before its threads do: libraries that several threads import at the same
        time break each other's imports. Errors are left to whoever needs the thing, who can say for which recording.
        """
        for item in job.items:
            if item.spec.id in self._tried:
                continue
            self._tried.add(item.spec.id)
            with suppress(Exception):
                if item.spec.modality == "detections" and self.parts.detector is not None:
                    self.frame_buffer()
                    self.finder()
                for recording in job.recordings:
                    for spec, encoder in self.parts.graph(recording).encoders:
                        if spec.id == item.spec.id:
                            function, _ = self.encode(spec, encoder)
                            if isinstance(encoder.reads, AudioInput):
                                rate = encoder.reads.sample_rate
                                function(Waveform(np.zeros(rate, np.float32), rate))

    def stream(self) -> AbstractContextManager[Any]:
        """Where the calling thread's work on a device goes: every thread that detects or encodes works in here.

        The device is the thread's current one. FFmpeg brings NVDEC's frames to the host in CUDA's default stream, where
        each would wait for all batches before it; so with NVDEC they have a stream of their own, one for all threads,
        since they hand tensors to each other.
        """
        if not self.device.startswith("cuda"):
            return nullcontext()
        import torch

        if not self.nvdec:
            return torch.cuda.device(self.device)
        with self._loading:
            if self._stream is None:
                self._stream = torch.cuda.Stream(self.device)
        context: AbstractContextManager[Any] = torch.cuda.stream(self._stream)  # and its device
        return context

    def frame_buffer(self) -> FrameBuffer:
        """What the frames of one video are decoded to."""
        if not self.frames_on:
            from aupipe.extract.media.video import HostFrameBuffer

            return HostFrameBuffer()
        from aupipe.extract.gpu.frames import DeviceFrameBuffer

        if self.frames_on.startswith("cuda"):
            import torch

            torch.cuda.set_device(self.frames_on)  # of the decoding thread, which would wake the first GPU otherwise
        if not self.nvdec:
            return DeviceFrameBuffer(self.frames_on)
        from aupipe.extract.gpu.nvdec import nvdec

        return DeviceFrameBuffer(self.frames_on, nvdec(self.frames_on))

    def finder(self) -> FaceDetector:
        """A detector of the calling thread's own: most are not made to be shared, and all are small."""
        if not hasattr(self._local, "finder"):
            detector, faces = self.parts.detector, self.parts.faces
            assert detector is not None  # or there would be no detections to make
            with self._loading, _loading_errors(f"detector {faces.detector!r}", detector.identify_weights()):
                self._local.finder = FaceDetector(
                    detector.load(self.device),
                    faces.detect_px,
                    faces.max_faces,
                    detector.min_score,
                    self._on_device(detector),
                )
        finder: FaceDetector = self._local.finder
        return finder

    def _on_device(self, detector: Any) -> DeviceDetector | None:
        """The detector for frames on the device, one for all threads; None where it has no such form."""
        if self._device_detector is None and self.frames_on and hasattr(detector, "load_tensor"):
            from aupipe.extract.faces.device_detection import DeviceDetector

            self._device_detector = DeviceDetector(detector.load_tensor(self.frames_on))
        return self._device_detector

    def encode(self, spec: FeatureSpec, encoder: Any) -> tuple[Encode, tuple[int, ...]]:
        """An encoder's function, which threads may share, and the shape of one row of it."""
        with self._loading:
            if spec.id not in self._encode:
                with _loading_errors(f"encoder {spec.name!r}", spec.weights):
                    function = encoder.load(self.device)
                if not (hasattr(function, "start") or getattr(encoder, "shareable", False)):
                    function = _one_at_a_time(function)
                reads = encoder.reads
                shape: tuple[int, ...] = ()
                if isinstance(reads, CropTemplate):
                    shape = _row_shape(spec, function, np.zeros((1, reads.size_px, reads.size_px, 3), np.uint8))
                    function = self.on_load(spec, reads, function)
                elif reads == "landmarks":
                    shape = _row_shape(spec, function, np.zeros((1, 5, 2), np.float32))
                self._encode[spec.id] = (function, shape)
            return self._encode[spec.id]


@contextmanager
def _loading_errors(what: str, weights: Weights | None) -> Iterator[None]:
    """What keeps a network from being loaded is no recording's fault, whichever library says so and how."""
    try:
        yield
    except AupipeError:
        raise
    except Exception as error:
        reason = explain(error)
        if reason is not None:
            raise AupipeError(f"{what} cannot be loaded: {reason}") from error
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        log.info("%s cannot be loaded", what, exc_info=error)
        if weights is None:
            raise AupipeError(f"{what} cannot be loaded: {reason}") from error
        raise RefusedWeightsError(
            f"{what} cannot be loaded from {weights.name}: {reason}; is the file whole, and for this encoder?"
        ) from error


def _row_shape(spec: FeatureSpec, function: Encode, inputs: Any) -> tuple[int, ...]:
    """The shape of one row, by trying; what cannot take in the shape it asked for is configured wrongly."""
    try:
        shape: tuple[int, ...] = function(inputs).shape[1:]
    except Exception as error:
        if isinstance(error, AupipeError) or is_out_of_memory(error):
            raise
        log.info("encoder %s cannot be run", spec.name, exc_info=error)
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise UsageError(
            f"encoder {spec.name!r} cannot take in {inputs.shape} {inputs.dtype}: {reason}; check its parameters"
        ) from error
    return shape


def _one_at_a_time(function: Encode) -> Encode:
    """The same function for several threads: what is not known to bear two at once (OpenCV's networks do not) waits."""
    lock = threading.Lock()

    def encode(inputs: Any) -> Any:
        with lock:
            return function(inputs)

    return encode
