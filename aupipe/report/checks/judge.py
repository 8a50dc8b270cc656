"""Which measurements are faults: each check with its threshold, and the findings of a corpus, worst first."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from aupipe.report.checks.facts import Facts
from aupipe.report.checks.lag import LEAST_FIT, LagEstimate

LEAST_CORPUS = 8  # recordings with a measurement, from which one can be unlike the others
UNLIKE_Z = -4.0  # robust: of the distance to the median in units of 1.4826 median absolute deviations
LEAST_DEVIATION = 0.03  # of scores and correlations: in a corpus of equals nothing is unlike


@dataclass(frozen=True)
class Check:
    """``name`` of the measurement; ``fault`` in words; ``above``: the value from which it is one; ``weight``: how much
    of a recording that spoils, by which findings are ordered; ``why`` that matters."""

    name: str
    fault: str
    above: float
    weight: int
    why: str
    form: str = "{:.0%}"  # empty for what is or is not

    def shown(self, value: float) -> str:
        """A value of the measurement in words."""
        return self.form.format(value) if self.form else ("yes" if value else "no")


CHECKS = (
    Check("sibling_overlap", "same person as its sibling", 0.5, 100, "of the frames show both boxes on one face"),
    Check("wrong_side", "on its sibling's side", 0.5, 100, "of the frames have it on the other side of its sibling"),
    Check("damaged_rows", "damaged rows", 0.5, 96, "aupipe store verify", ""),
    Check("unreadable_labels", "unreadable labels", 0.5, 95, "training refuses them", ""),
    Check("damage", "damaged media", 0.5, 60, "labels may be shifted against the rows", ""),
    Check("absent", "no sound", 0.5, 55, "the video has no audio stream", ""),
    Check("silent", "silent sound", 0.5, 55, "all samples are below -80 dB", ""),
    Check("others_only", "other faces only", 0.25, 50, "of the frames show faces, none of them the subject's"),
    Check("nobody", "nobody in the picture", 0.25, 48, "of the frames show no face"),
    Check(
        "jumps", "subject jumps", 0.5, 46, "its next box has nothing to do with the last one: several people?", "{:.0f}"
    ),
    Check("no_sound", "sound missing in part", 0.05, 40, "of the frames have no sound"),
    Check("out_of_phase", "channels out of phase", 0.5, 38, "of the sound is lost in their mean"),
    Check("drift", "sound's clock is off", 0.005, 30, "faster or slower than the video's: it was resampled", "{:.2%}"),
    Check("clipped", "clipped sound", 0.005, 25, "of the samples are at full scale", "{:.1%}"),
    Check("irregular", "variable frame rate", 0.1, 15, "of the steps between frames are unlike the usual one"),
)
LEAST_FACE_PX = 40.0
ODD_FPS = (12.0, 121.0)
SIBLING_FIT = 0.15  # by which labels fit another face better before they are taken for its own


@dataclass(frozen=True)
class Finding:
    """A fault of one recording. ``value`` and ``median`` (of the corpus) are those of the measurement ``check``."""

    recording: str
    check: str
    fault: str  # in words
    value: float
    median: float
    why: str
    weight: int
    shown: str  # the value in words
    shown_median: str

    def to_json(self) -> dict[str, Any]:
        """As `aupipe check --json` has it."""
        found = asdict(self)
        return {name: found[name] for name in ("recording", "check", "fault", "value", "median", "why")}


def judge(corpus: Sequence[Facts]) -> list[Finding]:
    """The faults of all recordings, worst first: by what a fault spoils, then by how far it goes."""
    medians = medians_of(corpus)
    spreads = _spreads(corpus)
    judged = (_judge_one(facts, medians, spreads) for facts in corpus)
    found = [finding for findings in judged for finding in _merged(findings)]
    return sorted(found, key=lambda finding: (-finding.weight, -abs(finding.value), finding.recording))


def _merged(findings: Sequence[Finding]) -> list[Finding]:
    """One finding for each fault of a recording: of several label sets the first, and all of them in its reason."""
    found: dict[str, Finding] = {}
    for one in findings:
        first = found.get(one.fault)
        found[one.fault] = one if first is None else replace(first, why=f"{first.why}; {one.why}")
    return list(found.values())


def medians_of(corpus: Sequence[Facts]) -> dict[str, float]:
    """The median of each measurement over the recordings that have it."""
    names = dict.fromkeys(name for facts in corpus for name in facts.values)
    return {name: float(np.median([f.values[name] for f in corpus if name in f.values])) for name in names}


def _spreads(corpus: Sequence[Facts]) -> dict[str, float]:
    """The robust deviation of each measurement that at least `LEAST_CORPUS` recordings have."""
    found = {}
    for name in medians_of(corpus):
        values = np.array([facts.values[name] for facts in corpus if name in facts.values])
        if len(values) >= LEAST_CORPUS:
            found[name] = max(1.4826 * float(np.median(np.abs(values - np.median(values)))), LEAST_DEVIATION)
    return found


def _judge_one(facts: Facts, medians: Mapping[str, float], spreads: Mapping[str, float]) -> list[Finding]:
    found: list[Finding] = []

    def add(name: str, fault: str, weight: int, why: str, form: Callable[[float], str]) -> None:
        value, median = facts.values[name], medians[name]
        found.append(Finding(facts.recording, name, fault, value, median, why, weight, form(value), form(median)))

    for check in CHECKS:
        value = facts.values.get(check.name, 0.0)
        if value > check.above:
            more = facts.words.get(check.name)
            add(check.name, check.fault, check.weight, check.why + f": {more}" * bool(more), check.shown)
    _judge_labels(facts, medians, spreads, add)
    if surplus := int(facts.values.get("surplus_labels", 0)):
        weight = 70 if abs(surplus) > max(2, 0.01 * facts.values.get("frames", 0)) else 20
        add("surplus_labels", "rows against labels", weight, facts.words["surplus_labels"], "{:+.0f}".format)
    if 0 < facts.values.get("face_px", 0) < LEAST_FACE_PX:
        why = f"the median height of the face is below {LEAST_FACE_PX:.0f} px"
        add("face_px", "tiny face", 35, why, "{:.0f} px".format)
    if _is_unlike("score", facts, medians, spreads):
        why = "the detector is far less sure than elsewhere: dark, blurred, covered or turned away?"
        add("score", "face hard to see", 30, why, "{:.2f}".format)
    if "fps" in facts.values and not ODD_FPS[0] <= facts.values["fps"] <= ODD_FPS[1]:
        why = "movements of the face are not seen, or the clock is wrong"
        add("fps", "odd frame rate", 15, why, "{:.3g}".format)
    return found


def _judge_labels(
    facts: Facts, medians: Mapping[str, float], spreads: Mapping[str, float], add: Callable[..., None]
) -> None:
    """What the labels of each task say against the face: those of its sibling, late or early, or of nobody."""
    shifted: list[tuple[str, LagEstimate]] = []
    unlike: list[str] = []
    is_siblings = False
    for task, lag in facts.lags.items():
        of_sibling, fit = f"sibling_fit:{task}", f"fit:{task}"
        if facts.values.get(of_sibling, 0.0) > SIBLING_FIT:
            why = f"{task}: correlation {facts.words[of_sibling]}"
            add(of_sibling, "labels of its sibling", 100, why, "{:+.2f}".format)
            is_siblings = True
        elif lag.lag:
            shifted.append((task, lag))
        elif _is_unlike(fit, facts, medians, spreads) and medians[fit] > LEAST_FIT:
            unlike.append(task)
    if is_siblings:  # that explains the rest
        return
    for task in unlike if not shifted else ():
        why = f"{task}: correlation with the face far below that of others: another person's, or far off?"
        add(f"fit:{task}", "labels do not fit the face", 80, why, "{:.2f}".format)
    shifted.sort(key=lambda pair: -pair[1].evidence)  # the surest names the fault
    for task, lag in shifted:
        fault = "labels late" if shifted[0][1].lag > 0 else "labels early"
        by = (
            f"{lag.lag:+d} frames ({lag.lag / facts.values['fps']:+.2f} s)"
            if facts.values.get("fps")
            else f"{lag.lag:+d}"
        )
        why = f"{task}: {by}, correlation with the face {lag.fit:.2f} there and {lag.fit_at_0:.2f} as they are"
        add(f"lag:{task}", fault, 90, why, "{:+.0f} frames".format)


def _is_unlike(name: str, facts: Facts, medians: Mapping[str, float], spreads: Mapping[str, float]) -> bool:
    """Whether a measurement is far below those of the others, which are enough."""
    if name not in facts.values or name not in spreads:
        return False
    return (facts.values[name] - medians[name]) / spreads[name] < UNLIKE_Z
