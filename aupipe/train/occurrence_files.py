"""Files of intervals: one table, and what annotation tools read: ELAN's .eaf and Praat's TextGrid.

Both formats are a few lines of XML and of text: Max Planck Institute for Psycholinguistics, "EAF Annotation Format"
(schema 3.0); Boersma and Weenink, "Praat: TextGrid file formats". Tests read them back by other libraries.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any
from xml.etree import ElementTree

from aupipe.files import csv_text
from aupipe.train.occurrences import Occurrence, Occurrences

SCHEMA = "http://www.mpi.nl/tools/elan/EAFv3.0.xsd"
TYPE = "label"  # of ELAN's tiers
MIME_TYPES = {  # of video files, by suffix, as registered at IANA or as ELAN writes them; others are "video/*"
    **dict.fromkeys((".mp4", ".m4v"), "video/mp4"),
    **dict.fromkeys((".mpg", ".mpeg", ".vob"), "video/mpeg"),
    **dict.fromkeys((".ts", ".mts", ".m2ts"), "video/mp2t"),
    **{".mov": "video/quicktime", ".avi": "video/x-msvideo", ".mkv": "video/x-matroska", ".webm": "video/webm"},
    **{".ogv": "video/ogg", ".3gp": "video/3gpp", ".flv": "video/x-flv"},
    **{".wmv": "video/x-ms-wmv", ".asf": "video/x-ms-asf"},
}
COLUMNS = ("recording", "label", "start_s", "end_s", "frame", "rows", "mean_probability", "face_found")


def events_table(found: Mapping[str, Occurrences]) -> str:
    """A CSV table of all recordings: a row for each occurrence; ``frame`` counts from 1, ``face_found`` is a share."""
    rows: list[tuple[Any, ...]] = [COLUMNS]
    for name, own in found.items():
        for one in own.found:
            times = f"{one.start_s:.6f}", f"{one.end_s:.6f}"
            shares = f"{one.probability:.6f}", f"{one.face_found:.6f}"
            rows.append((name, one.label, *times, one.first + 1, one.stop - one.first, *shares))
    return csv_text(rows)


Tiers = Mapping[str, Sequence[Occurrence]]  # by the name of the tier


def cut_at_zero(found: Iterable[Occurrence]) -> list[Occurrence]:
    """Without what lies before 0 s."""
    return [replace(one, start_s=max(0.0, one.start_s)) for one in found if one.end_s > 0]


def tiers_of(own: Occurrences, task: str) -> dict[str, list[Occurrence]]:
    """The tiers of a recording: one for each label, also for one that is not shown; of classes one for all.

    What lies before 0 s is cut off: ELAN has no such times, and readers of Praat's files read them wrong.
    """
    found = cut_at_zero(own.found)
    if own.exclusive:
        return {task: found}
    return {name: [one for one in found if one.label == name] for name in own.names}


def eaf_text(own: Occurrences, task: str, folder: Path = Path(), video: Path | None = None) -> str:
    """The ELAN document of one task; see `eaf_document`."""
    return eaf_document(tiers_of(own, task), folder, video)


def textgrid_text(own: Occurrences, task: str) -> str:
    """The Praat TextGrid of one task; see `textgrid_document`."""
    return textgrid_document(tiers_of(own, task), own.end_s)


def eaf_document(
    tiers: Tiers,
    folder: Path = Path(),
    video: Path | None = None,
    annotators: Mapping[str, str] = MappingProxyType({}),
) -> str:
    """An ELAN document (.eaf): times in whole milliseconds, as ELAN has them.

    ``folder``: where the document will be. ``video``: what it links to. ``annotators``: who says what is in a tier.
    """
    xsi = "http://www.w3.org/2001/XMLSchema-instance"
    document = ElementTree.Element(
        "ANNOTATION_DOCUMENT",
        {
            "AUTHOR": "aupipe",
            "DATE": datetime.now(UTC).isoformat(timespec="seconds"),
            "FORMAT": "3.0",
            "VERSION": "3.0",
            "xmlns:xsi": xsi,
            "xsi:noNamespaceSchemaLocation": SCHEMA,
        },
    )
    header = ElementTree.SubElement(document, "HEADER", {"MEDIA_FILE": "", "TIME_UNITS": "milliseconds"})
    if video is not None:
        ElementTree.SubElement(header, "MEDIA_DESCRIPTOR", _link(folder, video))
    order = ElementTree.SubElement(document, "TIME_ORDER")
    slots: list[tuple[int, str]] = []
    for name, occurrences in tiers.items():
        by = {"ANNOTATOR": annotators[name]} if name in annotators else {}
        tier = ElementTree.SubElement(document, "TIER", by | {"LINGUISTIC_TYPE_REF": TYPE, "TIER_ID": name})
        for one in occurrences:
            start, end = round(one.start_s * 1000), round(one.end_s * 1000)
            number = len(slots) // 2 + 1
            ends = [f"ts{2 * number - 1}", f"ts{2 * number}"]
            slots += [(start, ends[0]), (max(end, start + 1), ends[1])]
            holder = ElementTree.SubElement(tier, "ANNOTATION")
            about = {"ANNOTATION_ID": f"a{number}", "TIME_SLOT_REF1": ends[0], "TIME_SLOT_REF2": ends[1]}
            annotation = ElementTree.SubElement(holder, "ALIGNABLE_ANNOTATION", about)
            ElementTree.SubElement(annotation, "ANNOTATION_VALUE").text = one.label
    for time_ms, slot in sorted(slots, key=lambda pair: pair[0]):  # ELAN reads them in the order of time
        ElementTree.SubElement(order, "TIME_SLOT", {"TIME_SLOT_ID": slot, "TIME_VALUE": str(time_ms)})
    about = {"GRAPHIC_REFERENCES": "false", "LINGUISTIC_TYPE_ID": TYPE, "TIME_ALIGNABLE": "true"}
    ElementTree.SubElement(document, "LINGUISTIC_TYPE", about)
    ElementTree.indent(document)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ElementTree.tostring(document, encoding="unicode")}\n'


def _link(folder: Path, video: Path) -> dict[str, str]:
    """Where ELAN looks for the video: at its URL, in which ELAN escapes nothing, then relative to the document."""
    place = Path(os.path.abspath(video)).as_posix()
    return {
        "MEDIA_URL": f"file://{place}" if place.startswith("/") else f"file:///{place}",
        "MIME_TYPE": MIME_TYPES.get(video.suffix.lower(), "video/*"),
        "RELATIVE_MEDIA_URL": Path(os.path.relpath(video, folder)).as_posix(),
    }


def textgrid_document(tiers: Tiers, end_s: float) -> str:
    """A Praat TextGrid in the long text format: seconds; between occurrences of a tier are intervals without a text."""
    begin, end = 0.0, max(0.0, end_s)
    lines = ['File type = "ooTextFile"', 'Object class = "TextGrid"', "", *_span(begin, end), "tiers? <exists>"]
    lines += [f"size = {len(tiers)}", "item []:"]
    for number, (name, occurrences) in enumerate(tiers.items(), 1):
        filled = _filled(occurrences, begin, end)
        lines += [f"    item [{number}]:", '        class = "IntervalTier"', f"        name = {_quoted(name)}"]
        lines += [f"        {line}" for line in _span(begin, end)]
        lines.append(f"        intervals: size = {len(filled)}")
        for place, (start, stop, text) in enumerate(filled, 1):
            lines.append(f"        intervals [{place}]:")
            lines += [f"            {line}" for line in (*_span(start, stop), f"text = {_quoted(text)}")]
    return "\n".join(lines) + "\n"


def _filled(occurrences: Sequence[Occurrence], begin: float, end: float) -> list[tuple[float, float, str]]:
    filled: list[tuple[float, float, str]] = []
    at = begin
    for one in occurrences:
        if one.start_s > at:
            filled.append((at, one.start_s, ""))
        filled.append((one.start_s, one.end_s, one.label))
        at = one.end_s
    return [*filled, (at, end, "")] if at < end or not filled else filled


def _span(start: float, stop: float) -> tuple[str, str]:
    return f"xmin = {start:.6f}", f"xmax = {stop:.6f}"


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'
