"""The faces that a store holds of one recording: the subject's box in every row, and who else is in the picture."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from aupipe.extract.faces.face_table import FaceTable
from aupipe.extract.faces.tracking import paired_iou
from aupipe.extract.planning.features import FeatureSet
from aupipe.store import Store
from aupipe.types import FaceTrack, FeatureSpec, Recording

SAME_FACE_IOU = 0.1  # of successive boxes: below that the subject has jumped to another place


class State(IntEnum):
    """What a row shows. A face that is not the subject's is another thing than no face at all."""

    NOBODY = 0
    OTHERS = 1  # faces, none of which is the subject's
    SUBJECT = 2

    @property
    def words(self) -> str:
        return ("nobody", "other faces only", "subject")[self]


@dataclass(frozen=True)
class RecordingFaces:
    """``times_s`` (T,) of the rows, the ``subject``'s track (T rows), and every face of every row."""

    times_s: NDArray[np.float64]
    subject: FaceTrack
    every: FaceTable

    def __len__(self) -> int:
        return len(self.times_s)

    @cached_property
    def states(self) -> NDArray[np.uint8]:
        """(T,) the `State` of each row."""
        return np.where(self.subject.valid, State.SUBJECT, np.minimum(self.every.counts, 1)).astype(np.uint8)

    def share(self, state: State) -> float:
        """Share of the rows in this state; 0 without rows."""
        return float(np.mean(self.states == state)) if len(self) else 0.0

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        """(T + 1,) where the faces of each row begin among the rows of ``every``."""
        return np.concatenate([[0], np.cumsum(self.every.counts)])

    @cached_property
    def jumps(self) -> NDArray[np.int64]:
        """The rows at which the subject's box has nothing to do with its last one, however long before."""
        valid = np.flatnonzero(self.subject.valid)
        boxes = self.subject.box.astype(np.float64)
        overlap = paired_iou(boxes[valid[:-1]], boxes[valid[1:]])
        return valid[1:][overlap < SAME_FACE_IOU]

    def others(self, row: int) -> NDArray[np.float32]:
        """(n, 4) boxes in a row that are not the subject's."""
        boxes = self.every.rows[self.starts[row] : self.starts[row + 1], :4]
        own = self.subject.box[row]
        return boxes[~(boxes == own).all(axis=1)] if len(boxes) else boxes


def length_s(times_s: NDArray[np.float64]) -> float:
    """How long rows (T,) last, in seconds, the last one as long as they do in the mean: frames by frames per second."""
    return float(times_s[-1] - times_s[0]) * len(times_s) / max(len(times_s) - 1, 1)


def without_faces(times_s: NDArray[np.float64]) -> RecordingFaces:
    """Rows (T,) in which no face was looked for."""
    nowhere = FaceTrack.from_rows(np.full((len(times_s), 15), np.nan, np.float32))
    return RecordingFaces(times_s, nowhere, FaceTable(np.zeros(len(times_s), np.int64), np.zeros((0, 17), np.float32)))


def read_faces(store: Store, features: FeatureSet, recording: Recording) -> RecordingFaces | None:
    """The faces of a recording; None where they are not stored, or no detector is configured."""
    graph = features.graph(recording)
    times = read_rows(store, recording, graph.clock)
    track = read_rows(store, recording, graph.faces)
    found = read_rows(store, recording, graph.detections)
    if times is None or track is None or found is None:
        return None
    return RecordingFaces(
        np.asarray(times, np.float64).reshape(-1), FaceTrack.from_rows(track), FaceTable.from_dense(found)
    )


def read_rows(store: Store, recording: Recording, spec: FeatureSpec | None) -> NDArray | None:
    """The rows of a feature of a recording, or None where there are none."""
    if spec is None:
        return None
    try:
        return np.asarray(store.read(recording.key_for(spec.modality), spec.id))
    except KeyError:
        return None
