"""The files of a report of trained models: index.html, a page for each of several models, report.json, figures."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from aupipe.errors import UsageError
from aupipe.files import refuse_existing
from aupipe.quantities import counted
from aupipe.report.figures import to_file, to_svgs
from aupipe.report.page import make_folder, render_page, write_page
from aupipe.report.report_folder import listed_files
from aupipe.report.run import measures
from aupipe.report.run.comparison import Difference, comparison_plot, differences
from aupipe.report.run.costs import Extraction, extractions_of, trainings_of
from aupipe.report.run.recordings import RecordingScore, score_recordings
from aupipe.report.run.sections import LISTED, Section, Table, model_sections
from aupipe.store import Store
from aupipe.train.evaluation import Evaluation
from aupipe.train.scores import Scores

SMALL_INCHES = 2.5  # panels of less are two in a row on a phone
INDEX, DOCUMENT, FIGURES, FORMAT = "index.html", "report.json", "figures", "aupipe-run-report"
OURS = re.compile(rf"{INDEX}|run-\d+\.html|{FIGURES}/[\w-]+\.(svg|pdf)")  # names that files of a report may have


@dataclass(frozen=True)
class RunReport:
    """``split``: what was scored, in words; ``trivial``: the name and the score of a constant prediction."""

    evaluations: Sequence[Evaluation]
    names: Sequence[str]  # of the models, in the order of the evaluations
    split: str
    trivial: tuple[str, Scores]
    recordings: Sequence[Sequence[RecordingScore]]
    extractions: Sequence[Extraction]
    differences: Sequence[Difference]

    def to_json(self) -> dict[str, Any]:
        """The content of report.json: for each model what `aupipe evaluate --json` says, and what pages add to it."""
        runs = [
            {
                "run": name,
                **one.to_json(),
                "recordings_worst_first": [each.to_json() for each in recordings],
                "events": _events(one),
                "training": trainings_of(one.model),
            }
            for name, one, recordings in zip(self.names, self.evaluations, self.recordings, strict=True)
        ]
        return {
            "scored": self.split,
            "runs": runs,
            "differences_to_the_first": [one.to_json() for one in self.differences],
            self.trivial[0]: self.trivial[1].to_json(),
            "extractions": [asdict(one) for one in self.extractions],
        }


def make_report(evaluations: Sequence[Evaluation], split: str, trivial: tuple[str, Scores], store: Store) -> RunReport:
    """What is to be said of models that were scored together."""
    folders = [one.model.path.resolve().name for one in evaluations]
    names = [f"{number} {name}" for number, name in enumerate(folders, 1)] if len(folders) > 1 else folders
    return RunReport(
        evaluations,
        names,
        split,
        trivial,
        [score_recordings(one) for one in evaluations],
        extractions_of([one.model for one in evaluations], store),
        differences(evaluations),
    )


def refuse_report(out: Path, overwrite: bool) -> None:
    """Raises UsageError where a report would replace something, unless ``overwrite``, and for a folder of others."""
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out} is a file: choose another folder")
    for name in (INDEX, DOCUMENT):
        refuse_existing(out / name, overwrite)
    if out.is_dir() and any(out.iterdir()) and not _files_of(out):
        raise UsageError(f"{out} is not empty and holds no report of `aupipe report run`: choose another folder")


def write_report(report: RunReport, out: Path, figures: str | None = None, overwrite: bool = False) -> list[Path]:
    """Write the files of a report; those of a former report that it lacks are removed. Returns what was written.

    ``figures``: svg or pdf, files of the figures, too. Raises UsageError as `refuse_report` does.
    """
    refuse_report(out, overwrite)
    sections = [
        model_sections(one, report.trivial[1], recordings, report.extractions)
        for one, recordings in zip(report.evaluations, report.recordings, strict=True)
    ]
    files: dict[str, str | bytes] = {}
    several = len(report.evaluations) > 1
    for number, own in enumerate(sections):
        name = f"run-{number + 1}.html" if several else INDEX
        files[name] = _model_page(report, number, own, ("index.html", "all models") if several else None)
    plots = {
        f"{number}-" * several + plot.name: plot
        for number, own in enumerate(sections, 1)
        for part in own
        for plot in part.plots
    }
    if several:
        comparison = _comparison(report)
        files[INDEX] = _index_page(report, comparison)
        plots |= {plot.name: plot for part in comparison for plot in part.plots}
    if figures:
        files |= {f"{FIGURES}/{name}.{figures}": to_file(plot, figures) for name, plot in plots.items()}
    document = {"format": FORMAT, "files": sorted(files), **report.to_json()}
    files[DOCUMENT] = json.dumps(document, indent=1, allow_nan=False) + "\n"
    former = _files_of(out)
    for name in files.keys() - former - {DOCUMENT}:
        refuse_existing(out / name)  # somebody's own
    make_folder(out)
    for name, content in files.items():
        write_page(out / name, content, overwrite)
    for name in former - files.keys():
        (out / name).unlink(missing_ok=True)
    return [out / name for name in files]


def _files_of(out: Path) -> set[str]:
    """The files of the report in a folder, as its document names them; other files there are somebody's own."""
    return {name for name in listed_files(out / DOCUMENT, FORMAT) if OURS.fullmatch(name)}


def _model_page(report: RunReport, number: int, sections: Sequence[Section], up: tuple[str, str] | None) -> str:
    evaluation = report.evaluations[number]
    scores, interval = evaluation.scores, evaluation.interval
    within = f", 95% {interval.bounds[0]:.3f} to {interval.bounds[1]:.3f} by video" if interval else ""
    plain = replace(scores, caveats=(), tuned_on_itself=False)  # these have lines of their own
    trivial = f"; {report.trivial[0]}: {report.trivial[1].mean:.3f}"
    return render_page(
        "run.html.j2",
        title=report.names[number],
        facts=_facts(evaluation, report.split),
        up=up,
        styles=["run.css"],
        headline=(f"{scores.mean:z.3f}", f"mean {scores.metric}{within}{trivial}"),
        note=plain.footnote() + (f"; {interval.caveat}" if interval and interval.caveat else ""),
        warnings=_caveats(scores),
        sections=_shown(sections),
    )


def _index_page(report: RunReport, comparison: Sequence[Section]) -> str:
    first = report.evaluations[0]
    links = [(f"run-{number}.html", name) for number, name in enumerate(report.names, 1)]
    return render_page(
        "run.html.j2",
        title=f"{len(report.names)} models of {first.model.task}",
        facts=f"{report.split}; {_extent(first.scores)}",
        styles=["run.css"],
        headline=None,
        note="",
        warnings=[
            *(
                f"{name}: {what}"
                for name, one in zip(report.names, report.evaluations, strict=True)
                for what in _caveats(one.scores)
            ),
            *dict.fromkeys(one.interval.caveat for one in report.evaluations if one.interval and one.interval.caveat),
        ],
        sections=_shown([*comparison, _recordings_of_all(report)]),
        links=links,
    )


def _facts(evaluation: Evaluation, split: str) -> str:
    scores = evaluation.scores
    post = evaluation.post.describe() if evaluation.post else "no post-processing"
    return f"{evaluation.model.name}; {split}; {_extent(scores)}; {post}"


def _caveats(scores: Scores) -> list[str]:
    tuned = "TUNED ON THESE RECORDINGS, so it is optimistic"
    return [*scores.caveats, *[tuned] * scores.tuned_on_itself]


def _shown(sections: Sequence[Section]) -> list[Mapping[str, Any]]:
    return [
        {
            "name": one.name,
            "title": one.title,
            "text": one.text,
            "tables": one.tables,
            "figures": [{"panels": to_svgs(plot), "small": plot.inches[0] < SMALL_INCHES} for plot in one.plots],
        }
        for one in sections
    ]


def _comparison(report: RunReport) -> list[Section]:
    head = [
        "model",
        f"mean {report.evaluations[0].scores.metric}",
        "95% by video",
        "minus the first",
        "95% of that",
        "conclusion",
    ]
    rows = []
    shown: list[Difference | None] = [None, *report.differences]
    for name, one, difference in zip(report.names, report.evaluations, shown, strict=True):
        bounds = "{:.3f} to {:.3f}".format(*one.interval.bounds) if one.interval else ""
        row = [f"{name}: {one.model.name}", f"{one.scores.mean:z.3f}", bounds]
        if difference is None:
            rows.append([*row, "", "", ""])
            continue
        between = "{:+.3f} to {:+.3f}".format(*difference.bounds) if difference.bounds else ""
        rows.append([*row, f"{difference.value:+.3f}", between, difference.words])
    name, trivial = report.trivial
    rows.append([name, f"{trivial.mean:z.3f}", "", "", "", ""])
    titles = [report.evaluations[0].model.task.name, *report.names, name]
    columns = [[*one.scores.values, one.scores.mean] for one in report.evaluations] + [[*trivial.values, trivial.mean]]
    labels = [*trivial.names, "mean"]
    each = [[label, *(f"{column[k]:z.3f}" for column in columns)] for k, label in enumerate(labels)]
    plot = comparison_plot(report.evaluations, report.names)
    said = "A difference and its 95% are of the same drawn videos; where these hold 0, no difference is shown."
    return [
        Section("differences", "Differences", said, [Table("Scores of the models", head, rows, words=(0, 5))]),
        Section("each", "Side by side", plot.caption, [Table("Scores", titles, each[:-1], foot=each[-1])], [plot]),
    ]


def _recordings_of_all(report: RunReport) -> Section:
    """The recordings with the score of each model, those first that the first model predicts worst."""
    by_model = [{one.recording: one.score for one in recordings} for recordings in report.recordings]
    names = list(dict.fromkeys(name for own in by_model for name in own))[:LISTED]
    rows = [[name, *(_score(own.get(name)) for own in by_model)] for name in names]
    return Section(
        "recordings",
        "Recordings, worst first",
        "By the score of the first model; its page says how that of a recording is made.",
        [Table("Recordings", ["recording", *report.names], rows)],
    )


def _score(value: float | None) -> str:
    return "" if value is None else f"{value:z.2f}"


def _events(evaluation: Evaluation) -> dict[str, dict[str, int]] | None:
    if evaluation.model.task.kind != "multi_label":
        return None
    counts = zip(evaluation.model.task.names, measures.count_events(evaluation), strict=True)
    return {name: dict(zip(("found", "missed", "false"), each, strict=True)) for name, each in counts}


def _extent(scores: Scores) -> str:
    return f"{counted(scores.frames, 'frame')} of {counted(scores.recordings, 'recording')}"
