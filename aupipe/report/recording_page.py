"""The page of a recording: its video with the faces drawn in, and all series on one time line."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aupipe.quantities import counted
from aupipe.report.checks.judge import Finding
from aupipe.report.drawing import Faces
from aupipe.report.faces import RecordingFaces, State, length_s
from aupipe.report.packing import cut_rows, encode, pack_faces, pack_heat, pack_panel
from aupipe.report.page import render_page
from aupipe.report.panels import OF_SOUND, Heat, Panel, end_of
from aupipe.report.sheet import describe
from aupipe.report.stretches import FAR, LISTED, Stretch, find_stretches, longest

MOST_ROWS = 120_000  # of a page: 12 MB
PART_S = 3600.0  # of a recording with more
STRIP_CELLS = 1000
FILE, VIDEO_FILE, SHEET_FILE = "index.html", "video.mp4", "sheet.jpg"


@dataclass(frozen=True)
class RecordingView:
    """What a page shows. ``size`` (W, H) of the pictures, (0, 0) where that is not known."""

    name: str
    times_s: NDArray[np.float64]
    faces: RecordingFaces | None
    panels: Sequence[Panel]
    heat: Callable[[slice, float], Heat] | None = None  # of some rows, to the time at which they end
    size: tuple[int, int] = (0, 0)
    has_video: bool = False
    has_sheet: bool = False
    findings: Sequence[Finding] = ()
    notes: Sequence[str] = field(default=())
    mode: Faces = "show"


def render_recording(view: RecordingView) -> dict[str, str]:
    """File name -> HTML: one page, or one for each hour where there are more than `MOST_ROWS` rows."""
    parts = cut_rows(view.times_s, PART_S, MOST_ROWS)
    stretches = find_stretches(view.faces, view.panels, view.times_s)
    files = [FILE, *(f"part-{number}.html" for number in range(2, len(parts) + 1))]
    listed = [
        {
            "file": file,
            "words": f"{_clock(view.times_s[part.start])} to {_clock(view.times_s[part.stop - 1])}",
        }
        for file, part in zip(files, parts, strict=True)
    ]
    return {
        file: render_page(
            "recording.html.j2",
            title=view.name,
            facts=_facts(view),
            faces=view.mode,
            up=("../../index.html", "All recordings"),
            styles=["recording.css"],
            scripts=["recording.js"],
            findings=view.findings,
            parts=listed,
            part=number,
            strip=_strip(view) if len(parts) > 1 else [],
            data=_pack(view, part),
            notes=view.notes,
            sheet=SHEET_FILE if view.has_sheet else "",
            labelled=_groups(view.panels),
            heard=any(panel.group == OF_SOUND for panel in view.panels),
            predicted=any(panel.threshold is not None for panel in view.panels),
            **_listed(view, stretches, part),
        )
        for number, (file, part) in enumerate(zip(files, parts, strict=True))
    }


def _pack(view: RecordingView, rows: slice) -> dict[str, Any]:
    times = view.times_s[rows]
    after = view.times_s[rows.stop] if rows.stop < len(view.times_s) else end_of(view.times_s)
    found: dict[str, Any] = {
        "count": len(times),
        "rows": len(view.times_s),
        "first": rows.start,
        "start": float(view.times_s[0]),
        "end": float(after),
        "size": list(view.size),
        "video": VIDEO_FILE if view.has_video else "",
        "far": FAR,
        "labelled": _groups(view.panels),
        "pts": encode(times, "f8"),
        "panels": [pack_panel(panel, rows) for panel in view.panels],
    }
    if view.faces is not None:
        found |= pack_faces(view.faces, view.size if view.size[0] else (1, 1), rows)
    if view.heat is not None:
        found["heat"] = pack_heat(view.heat(rows, float(after)))
    return found


def _facts(view: RecordingView) -> str:
    times = view.times_s
    size = f", {view.size[0]}x{view.size[1]}" if view.size[0] else ""
    rate = f"{(len(times) - 1) / max(float(times[-1] - times[0]), 1e-9):.2f} frames per s{size}"
    if view.faces is None:
        return f"{counted(len(times), 'frame')}, {length_s(times):.1f} s; {rate}"
    return f"{describe(view.faces)}; {rate}"


def _listed(view: RecordingView, stretches: Sequence[Stretch], rows: slice) -> dict[str, Any]:
    """The table of where to look in these rows."""
    own = [
        replace(one, first=max(one.first, rows.start), stop=min(one.stop, rows.stop))
        for one in stretches
        if one.first < rows.stop and one.stop > rows.start
    ]
    ends = np.append(view.times_s[1:], end_of(view.times_s))
    shown = [
        {
            "first": one.first,
            "from": _clock(view.times_s[one.first], 2),
            "to": _clock(ends[one.stop - 1], 2),
            "what": one.what,
        }
        for one in longest(own, LISTED)
    ]
    return {"stretches": shown, "found": len(own)}


def _strip(view: RecordingView) -> list[dict[str, Any]]:
    """The states of the whole recording, by time, as cells that are joined where they are equal."""
    if view.faces is None:
        return []
    at = np.linspace(view.times_s[0], end_of(view.times_s), STRIP_CELLS, endpoint=False)
    states = view.faces.states[np.clip(np.searchsorted(view.times_s, at, side="right") - 1, 0, None)]
    edges = np.concatenate([[0], np.flatnonzero(np.diff(states)) + 1, [len(states)]])
    names = {State.NOBODY: "nobody", State.OTHERS: "others", State.SUBJECT: "subject"}
    return [
        {"x": int(first), "width": int(stop - first), "state": names[State(int(states[first]))]}
        for first, stop in pairwise(edges)
    ]


def _groups(panels: Sequence[Panel]) -> list[str]:
    """The tasks that are labelled by frames that are active."""
    return list(dict.fromkeys(panel.group for panel in panels if panel.labels is not None))


def _clock(seconds: float, digits: int = 0) -> str:
    """Seconds as 1:02:03.45."""
    total = round(abs(float(seconds)) * 10**digits)
    whole, part = divmod(total, 10**digits)
    minutes, second = divmod(whole, 60)
    hours, minute = divmod(minutes, 60)
    head = f"{hours}:{minute:02d}" if hours else f"{minute}"
    tail = f".{part:0{digits}d}" if digits else ""
    return f"{'-' if seconds < 0 < total else ''}{head}:{second:02d}{tail}"
