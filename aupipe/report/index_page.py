"""The page of a data set: its recordings worst first, their measurements, and what `aupipe check` found in them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from aupipe.files import csv_text
from aupipe.quantities import counted
from aupipe.report.checks.corpus import CorpusReport
from aupipe.report.checks.facts import Facts
from aupipe.report.checks.judge import medians_of
from aupipe.report.drawing import Faces
from aupipe.report.page import render_page
from aupipe.report.strips import draw_strips

SHOWN_ROWS = 200  # of the table at a time
SHOWN_FINDINGS = 40
SHOWN_SHEETS = 40

# Columns of the table: the title, and the value of a recording in a form that sorts.
Column = tuple[str, str, Callable[[Mapping[str, float]], float | None]]
COLUMNS: tuple[Column, ...] = (
    ("frames", "whole", lambda v: v.get("frames")),
    ("seconds", "tenth", lambda v: v["frames"] / v["fps"] if v.get("fps") and "frames" in v else None),
    ("frames per s", "tenth", lambda v: v.get("fps")),
    ("subject", "share", lambda v: 1 - v["nobody"] - v["others_only"] if "nobody" in v else None),
    ("others only", "share", lambda v: v.get("others_only")),
    ("nobody", "share", lambda v: v.get("nobody")),
    ("jumps", "whole", lambda v: v.get("jumps")),
    ("face, px", "whole", lambda v: v.get("face_px")),
    ("score", "hundredth", lambda v: v.get("score")),
    ("no sound", "share", lambda v: 1.0 if v.get("absent") else v.get("no_sound")),
    ("lag", "signed", lambda v: max((v[name] for name in v if name.startswith("lag:")), key=abs, default=None)),
)
FORMS = {"whole": "{:,.0f}", "tenth": "{:.1f}", "hundredth": "{:.2f}", "share": "{:.1%}", "signed": "{:+.0f}"}


def order_of(report: CorpusReport, names: Sequence[str]) -> list[str]:
    """Recordings with the worst first, those without a finding last, in the order in which they were given."""
    wanted = set(names)
    flagged = [name for name in report.flagged if name in wanted]
    return flagged + [name for name in names if name not in report.flagged]


def render_index(
    report: CorpusReport,
    names: Sequence[str],
    pages: Mapping[str, str],
    sheets: Mapping[str, str],
    notes: Sequence[str],
    clean: Callable[[str], str],
    mode: Faces,
) -> str:
    """The page of recordings ``names``, worst first. ``pages`` and ``sheets``: recording -> address; ``clean``: takes
    folders out of a text."""
    facts = {each.recording: each for each in report.facts}
    wanted = set(names)
    own = [one for one in report.findings if one.recording in wanted]
    shown = [{"page": pages.get(one.recording, ""), "one": one, "why": clean(one.why)} for one in own[:SHOWN_FINDINGS]]
    rows = [_row(name, facts.get(name), report, pages) for name in names]
    frames = sum(each.values.get("frames", 0) for name, each in facts.items() if name in wanted)
    flagged = len({one.recording for one in own})
    strips, equal = draw_strips(report.facts, medians_of(report.facts), own, pages)
    return render_page(
        "index.html.j2",
        title="Data set",
        facts=f"{counted(len(names), 'recording')}, {counted(frames, 'frame')}; {flagged:,} flagged, "
        f"{counted(len(own), 'finding')}",
        faces=mode,
        styles=["index.css"],
        scripts=["index.js"],
        findings=shown,
        more=len(own) - len(shown),
        columns=[title for title, _, _ in COLUMNS],
        rows=[_shown(row) for row in rows[:SHOWN_ROWS]],
        count=len(rows),
        strips=strips,
        equal=equal,
        sheets=[(name, pages[name], sheets[name]) for name in names if name in sheets][:SHOWN_SHEETS],
        unshown=max(0, len(sheets) - SHOWN_SHEETS),
        checked=report.checked,
        unchecked=[clean(text) for text in report.not_checked],
        notes=notes,
        data={"step": SHOWN_ROWS, "forms": [form for _, form, _ in COLUMNS], "rows": rows},
    )


def write_csv(report: CorpusReport, names: Sequence[str]) -> str:
    """A line for each recording: every measurement, and its faults."""
    facts = {each.recording: each for each in report.facts}
    columns = list(dict.fromkeys(key for name in names if name in facts for key in facts[name].values))
    table = [["recording", *columns, "faults"]]
    for name in names:
        values = facts[name].values if name in facts else {}
        faults = "; ".join(one.fault for one in report.flagged.get(name, ()))
        table.append([name, *(f"{values[key]:.6g}" if key in values else "" for key in columns), faults])
    return csv_text(table)


def write_json(report: CorpusReport, names: Sequence[str], clean: Callable[[str], str]) -> str:
    """As `aupipe check --json` has it, without folders in its texts."""
    wanted = set(names)
    content = report.to_json()
    content["recordings"] = {name: content["recordings"][name] for name in names if name in content["recordings"]}
    content["findings"] = [
        one | {"why": clean(one["why"])} for one in content["findings"] if one["recording"] in wanted
    ]
    content["not_checked"] = [clean(text) for text in content["not_checked"]]
    return json.dumps(content, indent=1) + "\n"


def _row(name: str, facts: Facts | None, report: CorpusReport, pages: Mapping[str, str]) -> list[Any]:
    """Name, address, faults, values: as the script has them."""
    values = [_rounded(of(facts.values)) if facts else None for _, _, of in COLUMNS]
    faults = [one.fault for one in report.flagged.get(name, ())]
    return [name, pages.get(name, ""), faults, values]


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.6g}")


def _shown(row: list[Any]) -> dict[str, Any]:
    name, page, faults, values = row
    texts = [
        "" if value is None else FORMS[form].format(value) for value, (_, form, _) in zip(values, COLUMNS, strict=True)
    ]
    return {"name": name, "page": page, "faults": ", ".join(faults), "values": texts}
