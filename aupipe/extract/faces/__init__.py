"""Finding, following and aligning the face; the contract of a detector.

A detector is a frozen dataclass of its parameters (no torch needed to plan with it) whose ``load(device)`` gives a
function ``frames uint8 (B, H, W, 3) RGB -> list of B Detections`` in pixels of those frames.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from aupipe.extract.contract import check_members
from aupipe.registry import Registry
from aupipe.tables import build
from aupipe.types import Detections, Weights

if TYPE_CHECKING:
    from torch import Tensor

DETECTORS = Registry(
    "detector",
    {
        "mtcnn": "aupipe.extract.faces.detectors.mtcnn:Mtcnn",
        "retinaface": "aupipe.extract.faces.detectors.retinaface:RetinaFace",
        "scrfd": "aupipe.extract.faces.detectors.scrfd:Scrfd",
        "yunet": "aupipe.extract.faces.detectors.yunet:YuNet",
    },
)

Detect = Callable[[NDArray[np.uint8]], list[Detections]]


class FaceTensors(NamedTuple):
    """Every face of B frames, on a device: K places a frame, the first ``number`` of them filled, best first, rest 0.

    ``settled`` (B,) bool: False where a frame had more candidates than were looked at, or overlaps that were not
    decided in the rounds given; its faces are then not certain. Nothing here has been copied to the host.
    """

    box: Tensor  # (B, K, 4) xyxy px
    landmarks: Tensor  # (B, K, 5, 2) px
    score: Tensor  # (B, K)
    number: Tensor  # (B,)
    settled: Tensor  # (B,)

    def to_detections(self) -> list[Detections]:
        """On the host, frame by frame; waits for the device."""
        box, landmarks, score = (each.float().cpu().numpy() for each in self[:3])
        return [Detections(box[i, :n], landmarks[i, :n], score[i, :n]) for i, n in enumerate(self.number.tolist())]


DetectTensor = Callable[["Tensor"], FaceTensors]


class Detector(Protocol):
    """What every registered detector offers: a frozen dataclass of its parameters.

    Parameters that say where weights lie are called ``weights`` or have the type `aupipe.extract.contract.WeightFile`.
    A detector may declare more; where it does not, the value in brackets stands:

    - ``requires: ClassVar[tuple[str, ...]]`` (none): distributions whose versions belong into the records of its items;
    - ``shareable: ClassVar[bool]`` (False): several threads may call its function at once. Of a detector that says
      nothing, each thread loads its own;
    - ``load_tensor(device) -> DetectTensor`` (none): the function for pictures that lie on a device already.
    """

    version: ClassVar[int]  # raised when the numbers change
    min_score: float  # faces below it are left out

    def identify_weights(self) -> Weights | None:
        """Which weights it will use; None when it has none.

        Raises WeightsMissingError, naming file, sha256 and how to get it.
        """
        ...

    def load(self, device: str) -> Detect:
        """The function, on a torch device (``cpu``, ``cuda:0``).

        It keeps nothing from one call to the next: a frame has the same faces whichever frames it comes with.
        """
        ...


NO_FACES = Detections(
    box=np.zeros((0, 4), np.float32), landmarks=np.zeros((0, 5, 2), np.float32), score=np.zeros(0, np.float32)
)


def build_detector(kind: str, params: Mapping[str, Any]) -> Detector:
    """The detector of this name with these parameters.

    Raises UsageError for an unknown name, an unknown parameter (with the nearest known one) or a wrong value, and,
    naming its package, for a plug-in that cannot be built.
    """
    cls = DETECTORS.get(kind)
    with DETECTORS.plugin_errors(kind):
        detector: Detector = build(cls, params, f"detector {kind!r}")
    check_members(detector, DETECTORS.describe(kind), ("version", "min_score", "identify_weights", "load"))
    return detector
