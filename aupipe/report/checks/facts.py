"""What is measured of each recording, from its items, their records, and its annotations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aupipe.errors import DamageError
from aupipe.extract.faces.tracking import paired_iou
from aupipe.extract.planning.features import FeatureSet
from aupipe.quantities import counted
from aupipe.report.checks.lag import GRADUAL_EVIDENCE, LEAST_EVIDENCE, LagEstimate, estimate_lag, fit_at_0
from aupipe.report.checks.signals import LabelSignals, Signals, label_columns
from aupipe.report.faces import RecordingFaces, State, read_faces, read_rows
from aupipe.store import ItemRecord, Store
from aupipe.types import Labels, Recording

IRREGULAR_SHARE = 0.1  # of a usual step by which a step between frames differs, and
IRREGULAR_S = 0.0025  # by at least so much: containers that count in milliseconds round
SIDES = ("left", "right")


@dataclass
class Facts:
    """The measurements of one recording by name (`aupipe.report.checks.judge.CHECKS`); what is unknown is absent."""

    recording: str
    values: dict[str, float] = field(default_factory=dict)
    words: dict[str, str] = field(default_factory=dict)  # of a measurement: what it was
    lags: dict[str, LagEstimate] = field(default_factory=dict)  # by task

    def forget_labels(self, task: str) -> None:
        """Drop what was measured of the labels of a task against the face."""
        self.lags.pop(task, None)
        for name in (f"lag:{task}", f"fit:{task}", f"sibling_fit:{task}"):
            self.values.pop(name, None)


@dataclass(frozen=True)
class LabelSet:
    """The labels of a task by recording id, why others cannot be read, and the signals that they are held against."""

    labels: Mapping[str, Labels]
    refused: Mapping[str, str]
    signals: LabelSignals | None


def measure(
    recordings: Sequence[Recording], features: FeatureSet, store: Store, label_sets: Mapping[str, LabelSet]
) -> Iterator[Facts]:
    """The facts of each recording; those of one video follow each other."""
    by_video: dict[str, list[Recording]] = {}
    for recording in recordings:
        by_video.setdefault(recording.video_id, []).append(recording)
    for siblings in by_video.values():
        tracks: dict[str, RecordingFaces | None] = {}
        for recording in siblings:
            facts = Facts(recording.id)
            try:
                tracks |= {one.id: read_faces(store, features, one) for one in siblings if one.id not in tracks}
                _measure_one(facts, recording, siblings, tracks, features, store, label_sets)
            except DamageError as error:  # the other recordings are checked
                facts.values["damaged_rows"] = 1.0
                facts.words["damaged_rows"] = str(error)
            yield facts


def _measure_one(
    facts: Facts,
    recording: Recording,
    siblings: Sequence[Recording],
    tracks: Mapping[str, RecordingFaces | None],
    features: FeatureSet,
    store: Store,
    label_sets: Mapping[str, LabelSet],
) -> None:
    others = [other for other in siblings if other.id != recording.id]
    rows = _measure_clock(facts, store, features, recording)
    own = tracks[recording.id]
    if own is not None:
        _measure_faces(facts, own)
        for other in others:
            if (track := tracks[other.id]) is not None:
                _compare_places(facts, recording, own, track)
    _measure_media(facts, store, features, recording)
    for task, given in label_sets.items():
        if recording.id in given.refused:
            facts.values["unreadable_labels"] = 1.0
            facts.words["unreadable_labels"] = given.refused[recording.id]
        if recording.id in given.labels:
            _measure_labels(facts, task, given, recording, others, rows)


def _measure_clock(facts: Facts, store: Store, features: FeatureSet, recording: Recording) -> int:
    """The clock's facts; returns the number of rows, 0 where they are not stored."""
    times = read_rows(store, recording, features.graph(recording).clock)
    if times is None:
        return 0
    times = np.asarray(times, np.float64).reshape(-1)
    facts.values["frames"] = float(len(times))
    steps = np.diff(times)
    if len(steps):
        usual = float(np.median(steps))
        irregular = np.abs(steps - usual) > max(IRREGULAR_SHARE * usual, IRREGULAR_S)
        facts.values |= {
            "fps": len(steps) / max(float(times[-1] - times[0]), 1e-9),
            "irregular": float(irregular.mean()),
        }
    return len(times)


def _measure_faces(facts: Facts, faces: RecordingFaces) -> None:
    facts.values |= {
        "nobody": faces.share(State.NOBODY),
        "others_only": faces.share(State.OTHERS),
        "jumps": float(len(faces.jumps)),
    }
    valid = faces.subject.valid
    if valid.any():
        box = faces.subject.box[valid].astype(np.float64)
        facts.values |= {
            "face_px": float(np.median(box[:, 3] - box[:, 1])),
            "score": float(np.median(faces.subject.score[valid])),
        }
    rows = faces.jumps
    if len(rows):
        facts.words["jumps"] = "first at " + ", ".join(f"{faces.times_s[row]:.2f} s" for row in rows[:3])


def _compare_places(facts: Facts, recording: Recording, own: RecordingFaces, other: RecordingFaces) -> None:
    """The box against that of another recording of the same video."""
    frames = min(len(own), len(other))
    both = np.flatnonzero(own.subject.valid[:frames] & other.subject.valid[:frames])
    if not len(both):
        return
    a, b = own.subject.box[both].astype(np.float64), other.subject.box[both].astype(np.float64)
    overlap = float((paired_iou(a, b) > 0.5).mean())
    facts.values["sibling_overlap"] = max(overlap, facts.values.get("sibling_overlap", 0.0))
    if recording.subject in SIDES:
        is_right = (a[:, 0] + a[:, 2]) > (b[:, 0] + b[:, 2])
        wrong = is_right if recording.subject == "left" else ~is_right
        facts.values["wrong_side"] = max(float(wrong.mean()), facts.values.get("wrong_side", 0.0))


def _measure_media(facts: Facts, store: Store, features: FeatureSet, recording: Recording) -> None:
    """What decoding the media found, and which rows have sound."""
    graph = features.graph(recording)
    specs = [spec for spec in (graph.clock, graph.detections, graph.faces) if spec is not None]
    records = [store.record(recording.key_for(s.modality), s.id) for s in (*specs, *(s for s, _ in graph.encoders))]
    known = [record for record in records if record is not None]
    if damage := max((record.damage for record in known), key=len, default=""):
        facts.values["damage"] = 1.0
        facts.words["damage"] = damage
    elif known:
        facts.values["damage"] = 0.0
    sound = {spec.id: spec for spec, _ in graph.encoders if spec.modality == "audio"}
    of_sound = [record for record in known if record.feature in sound]
    if not of_sound:
        return
    done = [record for record in of_sound if record.state == "done"]
    media: dict[str, Any] = next((dict(record.media["audio"]) for record in done if "audio" in record.media), {})
    is_absent = not done and any("no audio" in record.reason for record in of_sound)
    if done:
        # Windows of some encoders are invalid at the ends of the sound: the one that reaches furthest counts.
        covered = max(record.valid_frames / max(record.frames, 1) for record in done)
        is_absent = covered == 0 and (not media or "absent" in media)
        if not is_absent:
            facts.values["no_sound"] = 1 - covered
            facts.words["no_sound"] = _where_silent(store, recording, max(done, key=lambda r: r.valid_frames))
    elif not is_absent:
        return
    facts.values["absent"] = float(is_absent)
    if not is_absent:
        facts.values |= {
            "silent": float(bool(media.get("silent"))),
            "clipped": float(media.get("clipped", 0.0)),
            "out_of_phase": float(media.get("cancelled", 0.0)),
            "drift": abs(float(media.get("drift", 0.0))),
        }


def _where_silent(store: Store, recording: Recording, record: ItemRecord) -> str:
    if record.valid_frames == record.frames:
        return ""
    valid = store.read_valid(record.recording, record.feature)
    first, last = np.flatnonzero(valid)[[0, -1]] if valid.any() else (0, -1)
    before, after = int(first), len(valid) - 1 - int(last)
    ends = [f"{counted(before, 'row')} before it begins"] * bool(before) + [f"{after} after it has ended"] * bool(after)
    return " and ".join(ends) or "in the middle"


def _measure_labels(
    facts: Facts, task: str, given: LabelSet, recording: Recording, siblings: Sequence[Recording], rows: int
) -> None:
    labels = given.labels[recording.id]
    if rows:
        surplus = len(labels) - rows
        if abs(surplus) >= abs(facts.values.get("surplus_labels", 0)):
            facts.values["surplus_labels"] = float(surplus)
            facts.words["surplus_labels"] = (
                f"{task}: {counted(len(labels), 'row')} of labels for {counted(rows, 'frame')}"
            )
    if given.signals is None:
        return
    signals = given.signals.of(recording)
    if signals is None:
        return
    targets, valid = label_columns(labels)
    learned = given.signals.learned
    evidence = GRADUAL_EVIDENCE if learned and labels.task.kind != "multi_label" else LEAST_EVIDENCE
    found = estimate_lag(targets, valid, signals, facts.values.get("fps", 30.0), learned, evidence)
    if found is None:
        return
    facts.lags[task] = found
    facts.values |= {f"lag:{task}": float(found.lag), f"fit:{task}": found.fit_at_0}
    better = _fit_of_siblings(given.signals.of, targets, valid, siblings)
    if better:
        name, fit = max(better.items(), key=lambda pair: pair[1])
        facts.values[f"sibling_fit:{task}"] = fit - max(found.fit_at_0, found.fit if found.lag else 0.0)
        facts.words[f"sibling_fit:{task}"] = f"{fit:.2f} with the face of {name}, {found.fit_at_0:.2f} with its own"


def _fit_of_siblings(
    signals_of: Signals, targets: NDArray[np.float64], valid: NDArray[np.bool_], siblings: Sequence[Recording]
) -> dict[str, float]:
    """How well labels go with the faces of the other recordings of the video, by recording."""
    found = {}
    for other in siblings:
        signals = signals_of(other)
        if signals is not None and (fit := fit_at_0(targets, valid, signals)) is not None:
            found[other.id] = fit
    return found
