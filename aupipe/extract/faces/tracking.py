"""From the faces of every frame to the one subject: linking by overlap, then a stated rule."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from aupipe.extract.faces.face_table import FaceTable
from aupipe.types import FaceTrack, Subject

VERSION = 1
MAX_SEEDS = 8  # heaviest tracks tried as the subject's own: bounds the work on hours of crowds


@dataclass(frozen=True)
class TrackParams:
    """How faces are linked and which of them is the subject.

    Two faces in neighbouring frames are one when their boxes overlap by ``min_iou``; a face may be missing for
    ``max_gap`` frames. Tracks of fewer than ``min_frames`` frames are detector noise, unless the recording is shorter.
    """

    subject: Subject = "largest"
    min_iou: float = 0.3
    max_gap: int = 12
    min_frames: int = 3


@dataclass
class _Track:
    frames: list[int] = field(default_factory=list)
    rows: list[NDArray[np.float32]] = field(default_factory=list)  # each (17,): box, points, score, frame size

    @property
    def span(self) -> tuple[int, int]:
        return self.frames[0], self.frames[-1]

    def centre_x(self) -> float:
        boxes = np.array(self.rows)
        return float(np.median(boxes[:, 0] + boxes[:, 2]) / 2)


def subject_track(faces: FaceTable, params: TrackParams) -> FaceTrack:
    """The subject's face in every frame of a recording, of all ``faces`` seen in it.

    The rule weighs every frame of a track: ``largest`` by its area, ``center`` by its nearness to the middle, ``left``
    and ``right`` by its place. A subject is a chain of tracks no two of which share a moment: after a cut or a long
    absence it has a new track, and somebody who was seen beside it never stands in for it. The heaviest chain wins.
    For ``left`` and ``right`` a track continues a chain only where it lies nearer to it than to those seen beside it.
    """
    tracks = _link(faces, params)
    least = min(params.min_frames, len(faces))
    weigh = RULES[params.subject]
    weighed = [(sum(map(weigh, track.rows)), track) for track in tracks if len(track.frames) >= least]
    weighed.sort(key=lambda pair: -pair[0])
    sided = params.subject in ("left", "right")
    # By place the heaviest track is the subject; by size or nearness one that is often lost may outweigh it in sum.
    seeds = min(1 if sided else MAX_SEEDS, len(weighed))
    chains = [_chain(weighed, seed, sided) for seed in range(seeds)]
    subject = np.full((len(faces), 15), np.nan, dtype=np.float32)
    for track in max(chains, key=lambda pair: pair[0], default=(0.0, []))[1]:
        subject[track.frames] = np.array(track.rows)[:, :15]
    return FaceTrack.from_rows(subject)


def _chain(weighed: list[tuple[float, _Track]], seed: int, sided: bool) -> tuple[float, list[_Track]]:
    """The weight and the tracks of the subject whose heaviest track is ``seed``, continued heaviest first."""
    total, first = weighed[seed]
    chain = [first]
    rivals: list[_Track] = []
    for weight, track in weighed:
        if track is first:
            continue
        if any(_overlap(track, other) for other in chain):
            rivals.append(track)
        elif not (sided and _resembles(track, rivals, first)):
            chain.append(track)
            total += weight
    return total, chain


def _link(table: FaceTable, params: TrackParams) -> list[_Track]:
    """Greedy linking, best overlap first, frame by frame."""
    tracks: list[_Track] = []
    live: list[_Track] = []
    for t, faces in enumerate(table):
        live = [track for track in live if t - track.frames[-1] <= params.max_gap + 1]
        if live and len(faces):
            overlap = iou(np.array([track.rows[-1][:4] for track in live]), faces[:, :4])
        else:
            overlap = np.zeros((len(live), len(faces)))
        free_tracks, free_faces = set(range(len(live))), set(range(len(faces)))
        for flat in np.argsort(-overlap, axis=None, kind="stable"):
            i, j = divmod(int(flat), max(1, len(faces)))
            if overlap[i, j] < params.min_iou:
                break
            if i in free_tracks and j in free_faces:
                live[i].frames.append(t)
                live[i].rows.append(faces[j])
                free_tracks.discard(i)
                free_faces.discard(j)
        for j in sorted(free_faces):
            track = _Track([t], [faces[j]])
            tracks.append(track)
            live.append(track)
    return tracks


def iou(a: NDArray[np.floating], b: NDArray[np.floating]) -> NDArray[np.floating]:
    """(N, M) intersection over union of (N, 4) and (M, 4) xyxy boxes."""
    return paired_iou(a[:, None], b[None])


def paired_iou(a: NDArray[np.floating], b: NDArray[np.floating]) -> NDArray[np.floating]:
    """(...) intersection over union of boxes (..., 4) xyxy, one with one, as shapes broadcast; NaN where a box is."""
    low, high = np.maximum(a[..., :2], b[..., :2]), np.minimum(a[..., 2:], b[..., 2:])
    common = np.prod(np.clip(high - low, 0, None), axis=-1)
    areas = [np.prod(np.clip(boxes[..., 2:] - boxes[..., :2], 0, None), axis=-1) for boxes in (a, b)]
    return common / np.maximum(areas[0] + areas[1] - common, 1e-9)


def _overlap(a: _Track, b: _Track) -> bool:
    return a.span[0] <= b.span[1] and b.span[0] <= a.span[1]


def _resembles(track: _Track, rivals: list[_Track], subject: _Track) -> bool:
    """True when the track lies nearer, in x, to somebody seen beside the subject than to the subject."""
    x = track.centre_x()
    return any(abs(x - rival.centre_x()) < abs(x - subject.centre_x()) for rival in rivals)


def _area(row: NDArray[np.float32]) -> float:
    return float((row[2] - row[0]) * (row[3] - row[1]) / (row[15] * row[16]))


def _nearness(row: NDArray[np.float32]) -> float:
    return float(np.exp(-8 * np.hypot(_x(row) - 0.5, (row[1] + row[3]) / 2 / row[15] - 0.5)))


def _leftness(row: NDArray[np.float32]) -> float:
    return float(np.exp(-8 * _x(row)))  # steep: a person further left wins though seen in fewer frames


def _rightness(row: NDArray[np.float32]) -> float:
    return float(np.exp(-8 * (1 - _x(row))))


def _x(row: NDArray[np.float32]) -> float:
    """Where the middle of the box lies, 0 at the left edge of the frame, 1 at the right."""
    return float((row[0] + row[2]) / 2 / row[16])


RULES: dict[str, Callable[[NDArray[np.float32]], float]] = {
    "largest": _area,
    "center": _nearness,
    "left": _leftness,
    "right": _rightness,
}
