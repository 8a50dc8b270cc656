"""Pictures of a recording with what the store holds of it drawn in: boxes, the state in words, a strip of all states.

``faces`` says how faces look. ``blur`` hides them from a look, which is no anonymisation: gait, clothes, voice and
the boxes themselves stay. ``none`` shows boxes and landmarks on grey, which are biometric too.
"""

from __future__ import annotations

from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from aupipe.report.faces import RecordingFaces, State

Picture = NDArray[np.uint8]  # (H, W, 3) RGB
Faces = Literal["show", "blur", "none"]

COLOURS = {State.SUBJECT: (0, 158, 115), State.OTHERS: (230, 159, 0), State.NOBODY: (150, 150, 150)}
INK, PAPER, EDGE = (255, 255, 255), (90, 90, 90), (0, 0, 0)
HELD_S = 0.5  # boxes are hidden so long before and after: where a face is missed in between, it is seen
GROWN = 0.35  # of a box, to each side: hair, ears and chin lie outside of it
CELLS = 5  # across what is hidden
STEPS = 2  # of the size of cells, from one size to its double
STRIP_PX = 8


def draw_row(picture: Picture, stored: RecordingFaces, row: int, faces: Faces) -> Picture:
    """A picture (H, W, 3) of a row with its boxes, its state in words and the strip of all states, as a new array."""
    picture = hidden(picture, stored, row, faces)
    line = max(1, round(min(picture.shape[:2]) / 240))
    state = State(int(stored.states[row]))
    for box in stored.others(row):
        _draw_box(picture, box, COLOURS[State.OTHERS], line)
    if state is State.SUBJECT:
        _draw_box(picture, stored.subject.box[row], COLOURS[state], line + 1)
        for x, y in stored.subject.landmarks[row]:
            cv2.circle(picture, (round(float(x)), round(float(y))), line + 1, COLOURS[state], -1)
    write(picture, f"row {row}  {stored.times_s[row]:.2f} s  {state.words}", COLOURS[state])
    draw_strip(picture, stored, row)
    return picture


def hidden(picture: Picture, stored: RecordingFaces, row: int, faces: Faces) -> Picture:
    """A copy of a picture, its faces hidden as asked.

    ``blur``: every detection within `HELD_S` of the row, each with cells of its own size, where several overlap those
    of the largest; and the whole picture where the subject's face was not found: it may be there and was missed. A face
    that was missed in a picture with the subject's stays as it is.
    """
    if faces == "none":
        return np.full_like(picture, PAPER)
    picture = picture.copy()
    if faces == "show":
        return picture
    first, last = np.searchsorted(stored.times_s, stored.times_s[row] + np.array([-HELD_S, HELD_S + 1e-9]))
    boxes = stored.every.rows[stored.starts[first] : stored.starts[last], :4]
    if not stored.subject.valid[row]:
        return mosaic(picture)
    height, width = picture.shape[:2]
    x1, y1, x2, y2 = boxes.astype(np.float64).T
    sizes = np.maximum(np.maximum(x2 - x1, y2 - y1), 1)
    steps = np.ceil(np.log2(sizes) * STEPS).astype(int)  # boxes of one face, of nearly one size, have one mosaic
    left, right = (np.clip(x, 0, width).astype(int) for x in (x1 - GROWN * (x2 - x1), x2 + GROWN * (x2 - x1) + 1))
    top, bottom = (np.clip(y, 0, height).astype(int) for y in (y1 - GROWN * (y2 - y1), y2 + GROWN * (y2 - y1) + 1))
    given = picture.copy()
    for step in np.unique(steps):  # from the smallest to the largest
        coarse = mosaic(given, max(1, int(height * CELLS / 2 ** (step / STEPS))))
        for k in np.flatnonzero(steps == step):
            part = np.s_[top[k] : bottom[k], left[k] : right[k]]
            picture[part] = coarse[part]
    return picture


def mosaic(picture: Picture, cells: int = 2 * CELLS) -> Picture:
    """A picture of so many cells across its height, smoothly joined: hard edges would look like detail."""
    height, width = picture.shape[:2]
    size = (max(1, round(cells * width / height)), max(1, cells))
    small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)


def draw_strip(picture: Picture, stored: RecordingFaces, row: int = -1) -> None:
    """The states of all rows, by time, along the lower edge, with a mark at ``row``; in place."""
    height, width = picture.shape[:2]
    times = stored.times_s
    span = max(float(times[-1] - times[0]), 1e-9)
    at = np.searchsorted(times, times[0] + (np.arange(width) + 0.5) / width * span, side="right") - 1
    table = np.array([COLOURS[state] for state in State], np.uint8)
    picture[height - STRIP_PX :] = table[stored.states[np.clip(at, 0, len(times) - 1)]][None]
    if row >= 0:
        x = min(width - 1, int((times[row] - times[0]) / span * width))
        picture[height - STRIP_PX :, max(0, x - 1) : x + 2] = INK


def write(picture: Picture, text: str, colour: tuple[int, int, int]) -> None:
    """A line of text on a dark bar at the upper edge, cut to the width; in place. ASCII, as OpenCV's fonts are."""
    height, width = picture.shape[:2]
    scale = min(0.6, max(0.35, min(height, width) / 700))
    text = text.encode("ascii", "backslashreplace").decode()
    while len(text) > 1 and (size := cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, 1)[0])[0] > width - 8:
        text = text[:-1]
    size = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, 1)[0]
    bar = size[1] + 10
    picture[:bar] //= 4
    picture[:bar, :4] = colour
    cv2.putText(picture, text, (8, bar - 5), cv2.FONT_HERSHEY_SIMPLEX, scale, INK, 1, cv2.LINE_AA)


def _draw_box(picture: Picture, box: NDArray[np.floating], colour: tuple[int, int, int], line: int) -> None:
    x1, y1, x2, y2 = (round(float(value)) for value in box)
    cv2.rectangle(picture, (x1, y1), (x2, y2), EDGE, line + 2)
    cv2.rectangle(picture, (x1, y1), (x2, y2), colour, line)
