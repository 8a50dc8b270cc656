"""The sections of a model's page: what each says, its tables and its figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from aupipe.report.figures import Plot
from aupipe.report.run import measures, number_plots, plots
from aupipe.report.run.costs import Extraction, stage_totals, trainings_of
from aupipe.report.run.learning import learning_plot
from aupipe.report.run.recordings import RecordingScore
from aupipe.train.evaluation import Evaluation
from aupipe.train.model import Model
from aupipe.train.scores import HIDDEN, Scores

LISTED = 500  # recordings of the table; report.json has all


@dataclass(frozen=True)
class Table:
    """Cells as text. ``words``: the columns, counted from 0, that hold words and not numbers."""

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    words: Sequence[int] = (0,)
    foot: Sequence[str] = ()


@dataclass(frozen=True)
class Section:
    """``name``: its address within the page."""

    name: str
    title: str
    text: str = ""
    tables: Sequence[Table] = ()
    plots: Sequence[Plot] = ()


def model_sections(
    evaluation: Evaluation,
    trivial: Scores,
    recordings: Sequence[RecordingScore],
    extractions: Sequence[Extraction],
) -> list[Section]:
    """What is shown of one model, by the kind of its task."""
    pooled, kind = measures.pool(evaluation), evaluation.model.task.kind
    sections = [scores_section(evaluation, trivial), recordings_section(evaluation, recordings)]
    if kind == "multi_label":
        sections.append(_errors_section(evaluation, pooled))
        plot = plots.precision_recall_plot(evaluation, pooled)
        sections.append(Section("thresholds", "Thresholds", plot.caption, plots=[plot]))
    if kind == "classes":
        plot = plots.confusion_plot(evaluation, pooled)
        sections.append(Section("confusion", "Confusion", plot.caption, plots=[plot]))
    if kind in ("multi_label", "classes"):
        plot = plots.reliability_plot(evaluation, pooled)
        sections.append(Section("reliability", "Reliability", plot.caption, plots=[plot]))
    else:
        plot = number_plots.agreement_plot(evaluation, pooled)
        sections.append(Section("agreement", "Agreement", plot.caption, plots=[plot]))
        plot = number_plots.residuals_plot(evaluation, recordings)
        sections.append(Section("residuals", "Errors over time", plot.caption, plots=[plot]))
    if kind == "multi_label" and len(evaluation.model.task.names) > 1:
        plot = plots.co_occurrence_plot(evaluation, pooled)
        sections.append(Section("co-occurrence", "Co-occurrence", plot.caption, plots=[plot]))
    return [*sections, learning_section(evaluation.model), cost_section(extractions)]


def scores_section(evaluation: Evaluation, trivial: Scores) -> Section:
    """The table of `aupipe evaluate`, with thresholds."""
    scores, interval = evaluation.scores, evaluation.interval
    others = {name: values for name, values in scores.others.items() if name not in HIDDEN}
    is_f1 = scores.metric == "F1"
    thresholds = measures.thresholds_of(evaluation) if scores.task.kind == "multi_label" else {}
    head = [scores.task.name, scores.metric, "95% by video", "constant", *others]
    head += ["positive"] * is_f1 + ["threshold"] * bool(thresholds)
    bounds = ["{:.3f} to {:.3f}".format(*one) for one in (*interval.each, interval.bounds)] if interval else None
    rows = []
    for k, name in enumerate(scores.names):
        row = [name, f"{scores.values[k]:z.3f}", bounds[k] if bounds else "", f"{trivial.values[k]:z.3f}"]
        row += [f"{values[k]:z.3f}" for values in others.values()]
        row += [f"{scores.share(k):.1%}"] * is_f1
        rows.append([*row, *([_threshold(thresholds[name])] if thresholds else [])])
    foot = ["mean", f"{scores.mean:z.3f}", bounds[-1] if bounds else "", f"{trivial.mean:z.3f}"]
    foot += [f"{sum(values) / len(values):z.3f}" for values in others.values()]
    foot += [""] * (len(head) - len(foot))
    plot = plots.scores_plot(evaluation, trivial)
    table = Table("Scores, pooled over all scored frames", head, rows, foot=foot)
    return Section("scores", "Scores", plot.caption, [table], [plot])


def _threshold(value: float | None) -> str:
    return "differs" if value is None else f"{value:z.2f}"


def recordings_section(evaluation: Evaluation, recordings: Sequence[RecordingScore]) -> Section:
    """The recordings, worst first."""
    task = evaluation.model.task
    third = "entries right" if task.kind == "multi_label" else "frames right" if task.whole else "mean error"
    head = ["recording", f"mean {task.metric}", third, "frames", "face found", "labels late by", "weakest"]
    rows = [
        [
            one.recording,
            "none shown" if one.score is None else f"{one.score:z.2f}",
            f"{one.right:.0%}" if task.whole else f"{one.right:.2f}",
            f"{one.frames:,}",
            f"{one.face_found:.0%}",
            _late_by(one),
            ", ".join(one.weakest),
        ]
        for one in recordings[:LISTED]
    ]
    more = len(recordings) - len(rows)
    text = (
        f"Worst first, by the mean {task.metric} of what is labelled or predicted in a recording. 'Labels late by' is "
        "the shift at which labels fit the predictions best; negative: labels are early; \u2013: no shift is sure."
    )
    text += f" {more} better ones are in report.json." * bool(more)
    return Section("recordings", "Recordings, worst first", text, [Table("Recordings", head, rows, words=(0, 6))])


def _late_by(one: RecordingScore) -> str:
    lag = one.lag.told if one.lag is not None else None
    return "\u2013" if lag is None else f"{lag:+d} frames" if lag else "0"


def _errors_section(evaluation: Evaluation, pooled: measures.Pooled) -> Section:
    plot = plots.errors_plot(evaluation, pooled)
    counts = measures.count_events(evaluation)
    rows = [
        [name, f"{found + missed:,}", *(f"{count:,}" for count in (found, missed, false))]
        for name, (found, missed, false) in zip(evaluation.model.task.names, counts, strict=True)
    ]
    total = [sum(each) for each in zip(*counts, strict=True)]
    foot = ["all", *(f"{count:,}" for count in (total[0] + total[1], *total))]
    caption = "Events: one is found where a predicted one overlaps it by half (intersection over union)"
    table = Table(caption, [evaluation.model.task.name, "labelled", "found", "missed", "false"], rows, foot=foot)
    return Section("errors", "Found, missed, false", plot.caption, [table], [plot])


def learning_section(model: Model) -> Section:
    """Curves of the epochs, and a line for each training."""
    plot = learning_plot(model)
    rows = [
        [
            one["run"],
            one["recipe"],
            f"{one['best_epoch']} of {one['epochs']}",
            "" if one["score"] is None else f"{one['score']:z.3f}",
            f"{one['train']:,}",
            f"{one['validation']:,}",
            str(one["seed"]),
            f"{one['seconds']:,.1f}",
        ]
        for one in trainings_of(model)
    ]
    head = [
        "run",
        "recipe",
        "epoch kept",
        f"validation {model.task.metric}",
        "trained on",
        "validated on",
        "seed",
        "seconds",
    ]
    text = plot.caption if plot else "No epochs are recorded."
    table = Table("Trainings; the score chose the epoch, so it is optimistic", head, rows, words=(0, 1))
    return Section("learning", "Learning", text, [table], [plot] if plot else [])


def cost_section(extractions: Sequence[Extraction]) -> Section:
    """What the extraction of the features took, by its logs."""
    title = "Cost of the features"
    if not extractions:
        return Section("cost", title, "The store has no log of the extraction of these features.")
    rows = [
        [
            one.utc.replace("T", " ").removesuffix("Z"),
            one.where,
            one.state,
            f"{one.videos:,}",
            f"{one.frames:,}",
            f"{one.seconds:,.1f}",
            f"{one.cpu_s:,.1f}",
            f"{one.frames / one.seconds:,.0f}" if one.seconds else "",
        ]
        for one in extractions
    ]
    head = ["began (UTC)", "on", "state", "videos", "frames", "seconds", "CPU seconds", "frames/s"]
    stages = [
        [one.stage, f"{one.frames:,}", f"{one.busy_s:,.1f}", f"{one.cpu_s:,.1f}"] for one in stage_totals(extractions)
    ]
    tables = [Table("Extractions", head, rows, words=(0, 1, 2))]
    if stages:
        caption = "Stages, all extractions and threads together"
        tables.append(Table(caption, ["stage", "frames", "busy seconds", "CPU seconds"], stages))
    return Section("cost", title, "From the logs of the extractions that made these features.", tables)
