"""Files of intervals: one table, and what annotation tools read: ELAN's .eaf and Praat's TextGrid.

Both formats are a few lines of XML and of text: Max Planck Institute for Psycholinguistics, "EAF Annotation Format"
(schema 3.0); Boersma and Weenink, "Praat: TextGrid file formats". Tests read them back by other libraries.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from mimetypes import guess_type
from types import MappingProxyType
from xml.etree import ElementTree

from aupipe.train.occurrences import Occurrence, Occurrences

SCHEMA = "http://www.mpi.nl/tools/elan/EAFv3.0.xsd"
TYPE = "label"  # of ELAN's tiers
COLUMNS = ("recording", "label", "start_s", "end_s", "frame", "rows", "mean_probability", "face_found")


def events_table(found: Mapping[str, Occurrences]) -> str:
    """A CSV table of all recordings: a row for each occurrence; ``frame`` counts from 1, ``face_found`` is a share."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for name, own in found.items():
        for one in own.found:
            times = f"{one.start_s:.6f}", f"{one.end_s:.6f}"
            shares = f"{one.probability:.6f}", f"{one.face_found:.6f}"
            writer.writerow((name, one.label, *times, one.first + 1, one.stop - one.first, *shares))
    return out.getvalue()


Tiers = Mapping[str, Sequence[Occurrence]]  # by the name of the tier


def tiers_of(own: Occurrences, task: str) -> dict[str, list[Occurrence]]:
    """The tiers of a recording: one for each label, also for one that is not shown; of classes one for all.

    What lies before 0 s is cut off: ELAN has no such times, and readers of Praat's files read them wrong.
    """
    found = [replace(one, start_s=max(0.0, one.start_s)) for one in own.found if one.end_s > 0]
    if own.exclusive:
        return {task: found}
    return {name: [one for one in found if one.label == name] for name in own.names}


def eaf_text(own: Occurrences, task: str, media: str = "") -> str:
    """The ELAN document of one task; see `eaf_document`."""
    return eaf_document(tiers_of(own, task), media)


def textgrid_text(own: Occurrences, task: str) -> str:
    """The Praat TextGrid of one task; see `textgrid_document`."""
    return textgrid_document(tiers_of(own, task), own.end_s)


def eaf_document(tiers: Tiers, media: str = "", annotators: Mapping[str, str] = MappingProxyType({})) -> str:
    """An ELAN document (.eaf): times in whole milliseconds, as ELAN has them.

    ``media``: path of the video, relative to the document; '' for none. ``annotators``: who says what is in a tier.
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
    if media:
        kind = guess_type(media)[0] or "video/mp4"
        about = {"MEDIA_URL": media, "MIME_TYPE": kind, "RELATIVE_MEDIA_URL": media}
        ElementTree.SubElement(header, "MEDIA_DESCRIPTOR", about)
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
