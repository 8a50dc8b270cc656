"""The scores of predictions, as numbers, as JSON and as a table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from aupipe.errors import UsageError
from aupipe.quantities import counted
from aupipe.tasks import Task, task_from_json
from aupipe.train.intervals import BootstrapInterval
from aupipe.train.predictions import Threshold

HIDDEN = ("event F1 @.25", "event F1 @.75")  # not in tables, but in JSON
JSON_NAMES = {"face_found": "seen"}  # fields of `Scores` that JSON, and so every saved run, names differently


@dataclass(frozen=True)
class Scores:
    """The score of one task over all valid frames together, each counted once.

    ``support``: positives per AU, or frames per class or dimension; names in ``absent`` have none, so that their F1 of
    0 has no meaning. ``annotated``: scored frames of each name; runs of older versions do not hold them. ``coverage``:
    share of annotated frames that were predicted. ``face_found``: share of scored frames in which the face was found;
    in JSON its name is ``seen``. ``others``: further scores, with a value per name.
    """

    task: Task
    names: tuple[str, ...]
    values: tuple[float, ...]
    mean: float
    frames: int
    recordings: int
    coverage: float
    face_found: float
    support: tuple[int, ...]
    annotated: tuple[int, ...] = ()
    absent: tuple[str, ...] = ()
    tuned_on_itself: bool = False  # thresholds or smoothing were fitted on these recordings: the score is optimistic
    caveats: tuple[str, ...] = ()  # other reasons why it is optimistic
    missing: tuple[str, ...] = ()  # annotated recordings without a prediction
    threshold: Threshold | None = 0.5  # None: not the same for all recordings
    others: Mapping[str, tuple[float, ...]] = field(default_factory=dict)

    @property
    def metric(self) -> str:
        """``F1``, ``CCC``, ``ICC`` or ``PCC``."""
        return self.task.metric

    def to_json(self) -> dict[str, Any]:
        """A JSON object that `from_json` turns back into equal scores."""
        content = {JSON_NAMES.get(one.name, one.name): getattr(self, one.name) for one in fields(self)}
        return content | {"task": self.task.to_json(), "others": dict(self.others)}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Scores:
        """The inverse of `to_json`."""
        names = {name: key for key, name in JSON_NAMES.items()}
        values: dict[str, Any] = {
            names.get(key, key): tuple(value) if isinstance(value, list) else value for key, value in content.items()
        }
        others = {name: tuple(value) for name, value in content.get("others", {}).items()}
        return cls(**values | {"task": task_from_json(values["task"]), "others": others})

    def table(
        self, other: Mapping[str, Scores] | None = None, name: str = "model", interval: BootstrapInterval | None = None
    ) -> str:
        """A text table: a line per AU, class or dimension, and their mean; a column for these and the ``other`` scores.

        ``interval`` adds a column of 95% intervals. Raises UsageError for ``other`` scores of another task.
        """
        columns = {name: self, **(other or {})}
        for title, scores in columns.items():
            if scores.names != self.names:
                raise UsageError(f"{title}: scores of task {scores.task.name!r} next to scores of {self.task.name!r}")
        counted = self.task.metric == "F1"
        others = {name: values for name, values in self.others.items() if name not in HIDDEN}
        is_partial = any(count != self.frames for count in self.annotated)
        titles = [
            self.metric,
            *columns,
            "95% by video" if interval else "",
            *others,
            "positive" if counted else "",
            "frames" if is_partial else "",
        ]
        bounds = (*interval.each, interval.bounds) if interval else ((),) * (len(self.names) + 1)
        within = ["{:.3f} to {:.3f}".format(*bound) if bound else "" for bound in bounds]
        rows = [
            [
                label,
                *(f"{scores.values[k]:.3f}" for scores in columns.values()),
                within[k],
                *(f"{values[k]:.3f}" for values in others.values()),
                self._describe_share(k),
                str(self.annotated[k]) if is_partial else "",
            ]
            for k, label in enumerate(self.names)
        ]
        means = [f"{sum(values) / len(values):.3f}" for values in others.values()]
        rows.append(["mean", *(f"{scores.mean:.3f}" for scores in columns.values()), within[-1], *means, "", ""])
        widths = [max(len(row[column]) for row in (titles, *rows)) for column in range(len(titles))]
        lines = [_line(titles, widths), *(_line(row, widths) for row in rows[:-1])]
        note = f"; {interval.caveat}" if interval and interval.caveat else ""
        lines += ["-" * len(lines[0].rstrip()), _line(rows[-1], widths), "", self.footnote() + note]
        return "\n".join(line.rstrip() for line in lines)

    def share(self, k: int) -> float:
        """The share of positives of a name, or of a class, among the frames in which it is annotated."""
        return self.support[k] / max(self.annotated[k] if self.annotated else self.frames, 1)

    def _describe_share(self, k: int) -> str:
        if self.task.metric != "F1":
            return ""
        return f"{self.share(k):.3f}" if self.support[k] else "none"

    def footnote(self) -> str:
        """One line: what the numbers are, over how many frames, and what they do not cover."""
        how = {"multi_label": f"F1 at {_threshold(self.threshold)}", "classes": "F1 of the likeliest class"}
        text = (
            f"{how.get(self.task.kind, self.metric)}, pooled over {counted(self.frames, 'frame')} of "
            f"{counted(self.recordings, 'recording')}; "
            f"{self.coverage:.1%} of annotated frames predicted, face found in {self.face_found:.1%} of them"
        )
        if self.tuned_on_itself:
            text += "; TUNED ON THESE RECORDINGS, so it is optimistic"
        for caveat in self.caveats:
            text += f"; {caveat}"
        if self.absent:
            text += f"; ABSENT from the annotations, counted as 0: {', '.join(self.absent)}"
        return text + (f"; no prediction for {counted(len(self.missing), 'recording')}" if self.missing else "")


def _threshold(threshold: Threshold | None) -> str:
    if threshold is None:
        return "thresholds that differ by recording"
    if isinstance(threshold, tuple):
        return f"thresholds {min(threshold):.2f} to {max(threshold):.2f}, one per AU"
    return f"threshold {threshold:g}"


def _line(cells: list[str], widths: list[int]) -> str:
    return "  ".join([cells[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(cells[1:], widths[1:], strict=True))])
