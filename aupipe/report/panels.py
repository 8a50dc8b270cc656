"""What a time line shows of a recording: a panel for each series (measured, labelled, predicted), and a heat strip."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from aupipe.errors import DamageError
from aupipe.extract.encoders.visual.blendshapes import NAMES
from aupipe.extract.media.long_arrays import cut
from aupipe.extract.planning.features import FeatureSet
from aupipe.report.faces import RecordingFaces, read_rows
from aupipe.store import Store
from aupipe.train.predictions import Predictions
from aupipe.types import Labels, Recording, Waveform

QUIET_DB = -80.0  # the lower end of the axis; of 16 bits it is three steps
HEAT_COLUMNS = 4096  # of the heat strip: as many as a wide screen has pixels
BLOCK_ROWS = 4096  # of which the sound is held at a time
FINER = 4  # columns for each row, in short recordings: frames need not be evenly in time
UNLABELLED = -1
OF_FACE, OF_SOUND = "measured of the face", "measured of the sound"  # groups of panels, whose gaps differ
SOUND = "sound, dB"


@dataclass(frozen=True)
class Panel:
    """One series of T rows.

    ``values`` (T,): what was measured or predicted, NaN where nothing was; none where there is only a label. ``low``
    and ``high``: the axis. ``labels`` (T,) int8: 1 active, 0 not, -1 not labelled. ``decided`` (T,): what is decided of
    the values. ``target`` (T,): a label that is a number, NaN where there is none.
    """

    name: str
    group: str  # OF_FACE, OF_SOUND, or the name of the task
    low: float
    high: float
    values: NDArray[np.float32] | None = None
    digits: int = 2
    threshold: float | None = None
    labels: NDArray[np.int8] | None = None
    decided: NDArray[np.bool_] | None = None
    target: NDArray[np.float32] | None = None


@dataclass(frozen=True)
class Heat:
    """``values`` (K, n) float32, NaN where there is none, at n times evenly from the first row to the end of the last.

    ``low`` and ``high``: what is dark and what is bright.
    """

    title: str
    names: tuple[str, ...]
    values: NDArray[np.float32]
    low: float = 0.0
    high: float = 1.0


def measured_panels(
    times_s: NDArray[np.float64], faces: RecordingFaces | None, sound: Waveform | None, speech: NDArray | None
) -> list[Panel]:
    """Panels of the faces, the sound and the speech, of what there is."""
    found: list[Panel] = []
    if faces is not None:
        box = faces.subject.box.astype(np.float32)
        height = box[:, 3] - box[:, 1]
        counts = faces.every.counts.astype(np.float32)
        found += [
            Panel("face score", OF_FACE, 0.0, 1.0, faces.subject.score.astype(np.float32)),
            Panel("face height, px", OF_FACE, 0.0, _top(height), height, 0),
            Panel("faces in picture", OF_FACE, 0.0, max(2.0, _top(counts)), counts, 0),
        ]
    if sound is not None:
        found.append(Panel(SOUND, OF_SOUND, QUIET_DB, 0.0, levels_db(times_s, sound), 1))
    if speech is not None:
        found.append(Panel("speech", OF_SOUND, 0.0, 1.0, np.asarray(speech, np.float32).reshape(-1)))
    return found


def task_panels(rows: int, labels: Labels | None, predicted: Predictions | None) -> list[Panel]:
    """A panel for each name of a task: labels, predictions, or both. Labels of other rows than there are, are cut."""
    if labels is None and predicted is None:
        return []
    task = predicted.task if predicted is not None else labels.task if labels is not None else None
    assert task is not None
    targets, valid = _label_rows(rows, labels)
    decisions = None if predicted is None else _fit(predicted.decisions, rows)
    scores = None if predicted is None else _fit(predicted.scores, rows)
    found = []
    for k, name in enumerate(task.names):
        values = None if scores is None else scores[:, k]
        axis = (name, task.name, task.low, task.high) if task.kind != "classes" else (name, task.name, 0.0, 1.0)
        number = labels.names.index(name) if labels is not None and name in labels.names else None
        if not task.whole:
            target = None if number is None else np.where(valid[:, number], targets[:, number], np.float32(np.nan))
            found.append(Panel(*axis, values, target=target))
            continue
        if task.kind == "classes":
            own = None if number is None else np.where(valid[:, 0], targets[:, 0] == number, UNLABELLED)
            decided = None if decisions is None else decisions[:, 0] == k
            threshold = None
        else:
            own = None if number is None else np.where(valid[:, number], targets[:, number] > 0.5, UNLABELLED)
            decided = None if decisions is None else decisions[:, k] > 0.5
            threshold = None if predicted is None else float(np.broadcast_to(predicted.threshold, len(task.names))[k])
        found.append(
            Panel(
                *axis,
                values,
                threshold=threshold,
                labels=None if own is None else own.astype(np.int8),
                decided=decided,
            )
        )
    return found


def stored_rows(
    store: Store, features: FeatureSet, recording: Recording, kind: str, columns: int
) -> tuple[NDArray | None, str]:
    """The rows (T, columns) of the first stored feature of a kind, and else why there are none."""
    known = [spec for spec, _ in features.graph(recording).encoders if spec.kind == kind]
    for spec in known:
        try:
            rows = read_rows(store, recording, spec)
        except DamageError:
            return None, f"the stored rows of {spec.name} are damaged: aupipe store verify"
        if rows is not None and rows.shape[1:] == (columns,):
            return rows, ""
    wanted = f'an [[encoder]] of kind "{kind}"'
    return None, f"{known[0].name} is not stored: aupipe extract" if known else f"no {kind} is stored: add {wanted}"


def blendshape_heat(times_s: NDArray[np.float64], end_s: float, rows: NDArray) -> Heat:
    """The blendshapes (T, 52) as a heat strip from the first row to ``end_s``."""
    return Heat("blendshapes", NAMES, resample(times_s, end_s, np.asarray(rows, np.float32)))


def resample(times_s: NDArray[np.float64], end_s: float, rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows (T, K) as (K, n), n moments evenly in time: the mean of the rows that begin in one, else the row shown then.

    By time and not by row: under a variable frame rate the two differ.
    """
    count = min(HEAT_COLUMNS, FINER * len(rows))
    edges = np.linspace(times_s[0], end_s, count + 1)
    first = np.searchsorted(times_s, edges[:-1], side="left")
    stop = np.searchsorted(times_s, edges[1:], side="left")
    shown = np.clip(np.searchsorted(times_s, (edges[:-1] + edges[1:]) / 2, side="right") - 1, 0, len(rows) - 1)
    first, stop = np.where(stop - first > 1, first, shown), np.where(stop - first > 1, stop, shown + 1)
    known = ~np.isnan(rows)
    sums = np.concatenate([np.zeros((1, rows.shape[1])), np.cumsum(np.where(known, rows, 0), axis=0, dtype=np.float64)])
    numbers = np.concatenate([np.zeros((1, rows.shape[1]), np.int64), np.cumsum(known, axis=0)])
    total, number = sums[stop] - sums[first], numbers[stop] - numbers[first]
    return np.where(number > 0, total / np.maximum(number, 1), np.nan).T.astype(np.float32)


def end_of(times_s: NDArray[np.float64]) -> float:
    """When the last row ends: as long after its beginning as rows usually last."""
    steps = np.diff(times_s)
    return float(times_s[-1] + (np.median(steps) if len(steps) and np.median(steps) > 0 else 0.04))


def levels_db(times_s: NDArray[np.float64], sound: Waveform) -> NDArray[np.float32]:
    """(T,) the level of the sound while each row is shown, in dB of full scale; NaN where most of that has none."""
    edges = np.round((np.append(times_s, end_of(times_s)) - sound.start_s) * sound.sample_rate).astype(np.int64)
    found = np.full(len(times_s), np.nan, np.float32)
    within = np.clip(edges, 0, len(sound.samples))
    heard, edges = np.diff(within) > np.diff(edges) / 2, within
    for first in range(0, len(times_s), BLOCK_ROWS):
        rows = first + np.flatnonzero(heard[first : first + BLOCK_ROWS])
        if not len(rows):
            continue
        begin, stop = edges[rows[0]], edges[rows[-1] + 1]
        energy = cut(sound.samples, int(begin), int(stop)).astype(np.float64) ** 2
        sums = np.concatenate([[0.0], np.cumsum(energy)])
        mean = (sums[edges[rows + 1] - begin] - sums[edges[rows] - begin]) / (edges[rows + 1] - edges[rows])
        found[rows] = np.maximum(10 * np.log10(np.maximum(mean, 1e-12)), QUIET_DB)
    return found


def _label_rows(rows: int, labels: Labels | None) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    if labels is None:
        return np.zeros((rows, 0), np.float32), np.zeros((rows, 0), bool)
    return _fit(labels.targets, rows, 0.0), _fit(labels.valid, rows, False)


def _fit(array: NDArray, rows: int, fill: float = np.nan) -> NDArray:
    """The first rows of an array (n, K), filled up."""
    short = rows - len(array)
    if short <= 0:
        return array[:rows]
    return np.concatenate([array, np.full((short, array.shape[1]), fill, array.dtype)])


def _top(values: NDArray[np.float32]) -> float:
    known = values[~np.isnan(values)]
    return float(known.max()) if len(known) and known.max() > 0 else 1.0
