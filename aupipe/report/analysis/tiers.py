"""Intervals of an analysis: when the subject is seen, somebody speaks, an AU or a class is shown; a tier for each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from aupipe.report.analysis.columns import Column
from aupipe.report.analysis.table import FACES, Block, Layout, Table
from aupipe.report.checks.signals import BLENDSHAPES_OF
from aupipe.report.panels import end_of
from aupipe.train.occurrence_files import cut_at_zero, tiers_of
from aupipe.train.occurrences import Occurrence, find_occurrences, occurrences_of
from aupipe.train.predictions import Predictions

# AU -> blendshapes: only where both name one movement (`BLENDSHAPES_OF` also has what merely moves along).
AUS = ("AU1", "AU2", "AU4", "AU5", "AU9", "AU10", "AU12", "AU14", "AU15", "AU18", "AU20", "AU26", "AU45")
SPEECH_THRESHOLD, SPEECH_LEAST_S, SPEECH_GAP_S = 0.5, 0.25, 0.1  # Silero's own
EVENT_COLUMNS = ("recording", "tier", "label", "start_s", "end_s", "frame", "rows", "mean", "said_by")


@dataclass(frozen=True)
class Rules:
    """When an AU is active, by its blendshapes: from ``threshold`` on. Shorter intervals of all tiers but speech than
    ``min_duration_s`` are left out, after gaps of at most ``max_gap_s`` were closed (not between classes)."""

    threshold: float = 0.5
    min_duration_s: float = 0.0
    max_gap_s: float = 0.0


@dataclass(frozen=True)
class Tiers:
    """``found``: the intervals of each tier, by their start, at the times of the rows; those of a model without what
    lies before 0 s. ``said_by``: what says them."""

    recording: str
    found: Mapping[str, tuple[Occurrence, ...]]
    said_by: Mapping[str, str]
    end_s: float

    def rows(self) -> list[tuple[object, ...]]:
        """A row for each interval, in the order of `EVENT_COLUMNS`; ``frame`` counts from 1."""
        return [
            (
                *(self.recording, tier, one.label, one.start_s, one.end_s, one.first + 1, one.stop - one.first),
                *(round(one.probability, 6), self.said_by[tier]),
            )
            for tier, own in self.found.items()
            for one in own
        ]

    def from_zero(self) -> Mapping[str, tuple[Occurrence, ...]]:
        """The tiers without what lies before 0 s, which annotation tools do not have."""
        return {tier: tuple(cut_at_zero(own)) for tier, own in self.found.items()}


def find_tiers(
    layout: Layout, table: Table, predictions: Mapping[str, Mapping[str, Predictions]], rules: Rules
) -> Tiers:
    """The tiers of a recording: one for every AU and label, also for one that is never shown."""
    found: dict[str, tuple[Occurrence, ...]] = {}
    said_by: dict[str, str] = {}
    end_s = 0.0

    def add(tier: str, values: NDArray[np.floating], least: float, by: str, label: str, limits: tuple) -> None:
        nonlocal end_s
        shown = np.nan_to_num(values, nan=-1.0) >= least
        own = occurrences_of(
            shown[:, None], values[:, None], (label,), table.times_s, shown, False, limits[0], limits[1]
        )
        found[tier], said_by[tier], end_s = own.found, by, own.end_s

    own_limits = rules.min_duration_s, rules.max_gap_s
    for block in layout.blocks:
        values, by = table.values[block.name], said_of(block.columns)
        if block.name == FACES:
            add("face", values[:, 1], 1.0, by, "subject", own_limits)
        elif block.kind == "vad" and len(block.columns) == 1:
            add("speech", values[:, 0], SPEECH_THRESHOLD, by, "speech", (SPEECH_LEAST_S, SPEECH_GAP_S))
        elif block.kind == "blendshapes":
            for au, columns in au_columns(block).items():
                names = ", ".join(dict.fromkeys(BLENDSHAPES_OF[au]))
                by_au = f"{by}; mean of {names} from {rules.threshold:g} on"
                add(f"{au} ({names})", values[:, columns].mean(axis=1), rules.threshold, by_au, au, own_limits)
        elif block.kind == "model" and (item := predictions[block.name].get(table.recording)) is not None:
            if item.task.whole:
                gap_s = 0.0 if item.task.kind == "classes" else rules.max_gap_s
                shown = find_occurrences(item, rules.min_duration_s, gap_s)
                for tier, own in tiers_of(shown, item.task.name).items():
                    tier = f"{tier} ({block.name})"
                    found[tier], said_by[tier] = tuple(own), by
        elif block.is_classifier:
            tier = f"classes ({block.name})"
            found[tier], said_by[tier] = _classes(block, values, table.times_s, rules), by
    return Tiers(table.recording, found, said_by, end_s or (end_of(table.times_s) if len(table) else 0.0))


def au_columns(block: Block) -> dict[str, list[int]]:
    """AU -> the columns of the blendshapes that move with it, of both sides of the face."""
    names = [column.name for column in block.columns]
    found = {au: [k for k, name in enumerate(names) if name.startswith(BLENDSHAPES_OF[au])] for au in AUS}
    return {au: columns for au, columns in found.items() if columns}


def _classes(
    block: Block, values: NDArray[np.floating], times_s: NDArray[np.float64], rules: Rules
) -> tuple[Occurrence, ...]:
    """The class with the highest score of each row that has values."""
    present = ~np.isnan(values).any(axis=1)
    best = np.where(present, np.nan_to_num(values).argmax(axis=1), -1)
    shown = best[:, None] == np.arange(values.shape[1])
    names = [column.name for column in block.columns]
    return occurrences_of(shown, values, names, times_s, present, True, rules.min_duration_s).found


def said_of(columns: tuple[Column, ...]) -> str:
    """Who says what is in these columns, in one line."""
    one = columns[-1] if columns else Column("", "", "guess", "")
    trained = f", trained on {one.trained_on}" if one.trained_on else ""
    return f"{one.kind} of {one.by}{trained}"
