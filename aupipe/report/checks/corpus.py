"""The checks of a corpus: labels and signals are gathered, recordings measured, faults judged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aupipe.dataset import Dataset
from aupipe.errors import UsageError
from aupipe.extract.planning.features import FeatureSet
from aupipe.report.checks.facts import Facts, LabelSet, measure
from aupipe.report.checks.judge import Finding, judge, medians_of
from aupipe.report.checks.signals import LabelSignals, choose_signals
from aupipe.store import Store
from aupipe.tasks import Task
from aupipe.types import Labels, Recording

LEAST_LEARNED_FIT = 0.4  # correlation in the median recording, of predictions that labels are held against


@dataclass(frozen=True)
class HeldOut:
    """``scores`` (T, K) by recording, a column for each name of ``task``, of a head that was not trained on them."""

    task: Task
    scores: Mapping[str, NDArray[np.floating]]


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
    held_out: HeldOut | None = None,
) -> CorpusReport:
    """The faults of some recordings, measured against all of them.

    Labels of the task of ``held_out`` are held against its scores in place of signals computed here. A regression,
    where one is needed, is fitted on all annotated recordings of the data set.
    """
    label_sets: dict[str, LabelSet] = {}
    checked, missing = list[str](), list[str]()
    for task in dataset.tasks:
        labels, refused = _labels(dataset, task)
        if not labels and not refused:
            continue
        chosen = choose_signals(dataset.task(task), labels, list(dataset.recordings), features, store)
        if held_out is not None and held_out.task.name == task:
            chosen = _given(held_out, dataset.task(task), chosen)
        if isinstance(chosen, str):
            missing.append(f"{task} labels against the face: {chosen}")
            label_sets[task] = LabelSet(labels, refused, None)
        else:
            label_sets[task] = LabelSet(labels, refused, chosen)
    if held_out is not None and held_out.task.name not in label_sets:
        missing.append(f"held-out predictions of {held_out.task}: the data set has no labels of it")
    facts = tuple(measure(recordings, features, store, label_sets))
    for task, given in label_sets.items():
        if given.signals is None:
            continue
        by = given.signals.by
        fits = [each.lags[task].fit_at_0 for each in facts if task in each.lags]
        untold = sum(each.recording in given.labels for each in facts) - len(fits)
        if fits and given.signals.learned and np.median(fits) < LEAST_LEARNED_FIT:
            for each in facts:
                each.forget_labels(task)
            reached = f"fits them by {np.median(fits):.2f} in the median; {LEAST_LEARNED_FIT} is needed"
            missing.append(f"{task} labels against the face: {by}, {reached}")
            continue
        if fits:
            checked.append(f"{task} labels against the face, by {by}")
        if untold:
            missing.append(f"{task} labels of {untold} against the face: nothing can be told of them by {by}")
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


def _given(held_out: HeldOut, task: Task, otherwise: LabelSignals | str) -> LabelSignals | str:
    """Given scores as signals; of recordings without any those that are computed here, where there are.

    Columns go by their names. Returns why there are no signals where the head lacks some of them.
    """
    scores, names = held_out.scores, held_out.task.names
    if absent := [name for name in task.names if name not in names]:
        return f"the held-out predictions have no {', '.join(absent)}"
    columns = [names.index(name) for name in task.names]
    rest = None if isinstance(otherwise, str) else otherwise

    def of(recording: Recording) -> NDArray[np.float64] | None:
        if recording.id in scores:
            return np.asarray(scores[recording.id], np.float64)[:, columns]
        return rest.of(recording) if rest is not None else None

    return LabelSignals(of, f"held-out predictions of {len(scores)}" + (f", else by {rest.by}" if rest else " alone"))
