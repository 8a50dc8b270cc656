"""The data of a recording page: JSON in which series are base64 of little-endian arrays, which scripts read at once.

``pts`` float64 seconds; ``states`` uint8; ``track`` int16 in parts of a pixel; ``values`` and ``target`` uint16 from
``low`` (0) to ``high`` (65534), 65535 where there is nothing; ``marks`` uint8, the sum of the bits in `Mark`.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from enum import IntFlag
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aupipe.report.faces import RecordingFaces
from aupipe.report.panels import Heat, Panel

MISSING, HIGHEST = 65535, 65534
HEAT_MISSING, HEAT_HIGHEST = 255, 254
NOWHERE = -32768  # coordinate of what is not there
PARTS_PX = 4  # of a pixel, in which coordinates are counted
HEIGHT_WIDTH = slice(15, 17)  # columns of a `FaceTable` with the size of the frame
LONGEST_SIDE_PX = 8000  # that int16 can count so


class Mark(IntFlag):
    """What a task says of a row."""

    ACTIVE = 1  # labelled so
    LABELLED = 2
    DECIDED = 4  # predicted so
    PREDICTED = 8


def encode(array: NDArray[Any], kind: str) -> str:
    """An array as base64 of the little-endian ``kind``."""
    return base64.b64encode(np.ascontiguousarray(array, np.dtype(kind).newbyteorder("<")).tobytes()).decode("ascii")


def quantise(values: NDArray[np.floating], low: float, high: float, steps: int = HIGHEST) -> NDArray[np.int64]:
    """Values as whole steps from ``low`` to ``high``, cut at both; ``steps + 1`` where there is none."""
    known = ~np.isnan(values)
    scaled = (np.where(known, values, low).astype(np.float64) - low) / max(high - low, 1e-12)
    return np.where(known, np.round(np.clip(scaled, 0, 1) * steps), steps + 1).astype(np.int64)


def pack_panel(panel: Panel, rows: slice) -> dict[str, Any]:
    """The rows of a panel."""
    found: dict[str, Any] = {
        "name": panel.name,
        "group": panel.group,
        "low": panel.low,
        "high": panel.high,
        "digits": panel.digits,
        "threshold": panel.threshold,
    }
    for name, series in (("values", panel.values), ("target", panel.target)):
        if series is not None:
            found[name] = encode(quantise(series[rows], panel.low, panel.high), "u2")
    if panel.labels is not None or panel.decided is not None:
        found["marks"] = encode(_marks(panel, rows), "u1")
    return found


def pack_faces(faces: RecordingFaces, size: tuple[int, int], rows: slice) -> dict[str, Any]:
    """States, the subject's box and five points, and the boxes of others, in pixels of a picture of ``size`` (W, H).

    Boxes of a row whose picture had another size are scaled to this one.
    """
    parts = PARTS_PX if max(size) <= LONGEST_SIDE_PX else PARTS_PX * LONGEST_SIDE_PX / max(size)
    track = np.concatenate([faces.subject.box, faces.subject.landmarks.reshape(-1, 10)], axis=1)[rows]
    track = track.astype(np.float64) * _scales(faces, size, rows, 7)
    boxes = [faces.others(row)[:255] for row in range(rows.start, rows.stop)]
    others = np.concatenate([np.zeros((0, 4), np.float32), *boxes]).astype(np.float64)
    counts = np.array([len(each) for each in boxes], np.int64)
    others = others * np.repeat(_scales(faces, size, rows, 2), counts, axis=0)
    return {
        "states": encode(faces.states[rows], "u1"),
        "parts": parts,
        "track": encode(_coordinates(track, parts), "i2"),
        "counts": encode(counts, "u1"),
        "others": encode(_coordinates(others, parts), "i2"),
    }


def pack_heat(heat: Heat) -> dict[str, Any]:
    """A heat strip, row of names after row of names."""
    values = quantise(heat.values, heat.low, heat.high, HEAT_HIGHEST)
    return {
        "title": heat.title,
        "names": list(heat.names),
        "columns": heat.values.shape[1],
        "low": heat.low,
        "high": heat.high,
        "values": encode(values, "u1"),
    }


def _marks(panel: Panel, rows: slice) -> NDArray[np.uint8]:
    marks = np.zeros(rows.stop - rows.start, np.uint8)
    if panel.labels is not None:
        labels = panel.labels[rows]
        marks |= np.where(labels >= 0, Mark.LABELLED, 0).astype(np.uint8)
        marks |= np.where(labels == 1, Mark.ACTIVE, 0).astype(np.uint8)
    if panel.decided is not None:
        marks |= np.where(panel.decided[rows], Mark.DECIDED | Mark.PREDICTED, Mark.PREDICTED).astype(np.uint8)
    return marks


def _scales(faces: RecordingFaces, size: tuple[int, int], rows: slice, pairs: int) -> NDArray[np.float64]:
    """(T, 2 pairs): by how much x and y of each row are enlarged."""
    own = np.tile(np.array(size, np.float64), (len(faces), 1))
    first = faces.starts[:-1][faces.every.counts > 0]
    own[faces.every.counts > 0] = faces.every.rows[first, HEIGHT_WIDTH][:, ::-1]  # width and height
    return np.asarray(np.tile((np.array(size) / np.maximum(own, 1))[rows], pairs), np.float64)


def _coordinates(values: NDArray[np.float64], parts: float) -> NDArray[np.int64]:
    limits = (-HIGHEST // 2, HIGHEST // 2)
    return np.where(np.isnan(values), NOWHERE, np.clip(np.round(np.nan_to_num(values) * parts), *limits)).astype(
        np.int64
    )


def cut_rows(times_s: Sequence[float] | NDArray[np.float64], span_s: float, most: int) -> list[slice]:
    """Rows in parts of ``span_s`` seconds and at most so many rows; one part where all fit into one page."""
    if len(times_s) <= most:
        return [slice(0, len(times_s))]
    parts, first = [], 0
    while first < len(times_s):
        stop = int(np.searchsorted(times_s, times_s[first] + span_s))
        stop = max(first + 1, min(stop, first + most))
        parts.append(slice(first, stop))
        first = stop
    return parts
