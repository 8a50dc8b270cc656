"""The checks of a corpus: labels and signals are gathered, recordings measured, faults judged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from aupipe.dataset import Dataset
from aupipe.errors import UsageError
from aupipe.extract.planning.features import FeatureSet
from aupipe.report.checks.facts import Facts, LabelSet, measure
from aupipe.report.checks.judge import Finding, judge, medians_of
from aupipe.report.checks.signals import LabelSignals, choose_signals
from aupipe.store import Store
from aupipe.types import Labels, Recording


@dataclass(frozen=True)
class CorpusReport:
    """``facts`` of every recording, ``findings`` worst first, ``checked`` and ``not_checked`` in words."""

    facts: tuple[Facts, ...]
    findings: tuple[Finding, ...]
    checked: tuple[str, ...]
    not_checked: tuple[str, ...]

    @property
    def flagged(self) -> dict[str, list[Finding]]:
        """Recording -> its findings; those of the worst come first."""
        found: dict[str, list[Finding]] = {}
        for finding in self.findings:
            found.setdefault(finding.recording, []).append(finding)
        return found

    def to_json(self) -> dict[str, Any]:
        """As `aupipe check --json` has it."""
        return {
            "recordings": {facts.recording: facts.values for facts in self.facts},
            "medians": medians_of(self.facts),
            "findings": [finding.to_json() for finding in self.findings],
            "checked": list(self.checked),
            "not_checked": list(self.not_checked),
        }


def check_corpus(
    dataset: Dataset,
    recordings: Sequence[Recording],
    features: FeatureSet,
    store: Store,
    scores: Mapping[str, Mapping[str, Any]] | None = None,
) -> CorpusReport:
    """The faults of some recordings, measured against all of them.

    ``scores``: task -> recording -> held-out scores (T, K) of a head, which labels are held against in place of signals
    computed here. A regression, where one is needed, is fitted on all annotated recordings of the data set.
    """
    label_sets, checked, missing = {}, [], []
    for task in dataset.tasks:
        labels, refused = _labels(dataset, task)
        if not labels and not refused:
            continue
        chosen = choose_signals(dataset.task(task), labels, list(dataset.recordings), features, store)
        if scores and task in scores:
            chosen = _given(scores[task], chosen)
        if isinstance(chosen, str):
            missing.append(f"{task} labels against the face: {chosen}")
            label_sets[task] = LabelSet(labels, refused, None)
        else:
            checked.append(f"{task} labels against the face, by {chosen.by}")
            label_sets[task] = LabelSet(labels, refused, chosen)
    facts = tuple(measure(recordings, features, store, label_sets))
    for what, name in (("clocks", "fps"), ("faces", "nobody"), ("sound", "absent")):
        count = sum(name in each.values for each in facts)
        if count:
            checked.append(f"{what} of {count}")
        if count < len(facts):
            missing.append(f"{what} of {len(facts) - count}: not stored, or not asked for in the configuration")
    return CorpusReport(facts, tuple(judge(facts)), tuple(checked), tuple(missing))


def _labels(dataset: Dataset, task: str) -> tuple[dict[str, Labels], dict[str, str]]:
    """The labels of a task by recording id, and why those of others are refused."""
    found, refused = {}, {}
    for recording in dataset.recordings:
        try:
            labels = dataset.labels(recording, task)
        except UsageError as error:
            refused[recording.id] = str(error)
            continue
        if labels is not None:
            found[recording.id] = labels
    return found, refused


def _given(scores: Mapping[str, Any], otherwise: LabelSignals | str) -> LabelSignals:
    """Given scores as signals; of recordings without any those that are computed here, where there are."""
    rest = None if isinstance(otherwise, str) else otherwise

    def of(recording: Recording) -> Any:
        if recording.id in scores:
            return np.asarray(scores[recording.id], np.float64)
        return rest.of(recording) if rest is not None else None

    return LabelSignals(of, f"held-out predictions of {len(scores)}" + (f", else by {rest.by}" if rest else " alone"))
