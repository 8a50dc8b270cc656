"""`aupipe report run` and the intervals of `aupipe predict`, on stores that are filled without decoding."""

from __future__ import annotations

import csv
import json
import re
import shlex
import shutil
import stat
from pathlib import Path

import numpy as np
import pytest

from aupipe.cli.context import Context
from aupipe.config import load_config
from aupipe.dataset import open_dataset
from aupipe.extract.planning.features import build_feature_set
from aupipe.report.run.comparison import Difference
from aupipe.report.run.costs import extractions_of
from aupipe.report.run.sections import cost_section
from aupipe.sources import source_identity
from aupipe.store import open_store
from aupipe.store.run_log import RunLog
from aupipe.tasks import OFFICIAL
from aupipe.train.model import load_model
from tests.cli.test_train import FOLDED, FRAMES, SMALL, Folder, fill
from tests.report.conftest import BrowserPage

TIMES_S = 0.852 + np.cumsum(np.random.default_rng(2).uniform(0.0137, 0.0417, FRAMES))
FOLDERS = {"expr": "EXPR_Recognition_Challenge", "va": "VA_Estimation_Challenge"}
SECTIONS = {
    "au": ["scores", "recordings", "errors", "thresholds", "reliability", "co-occurrence", "learning", "cost"],
    "expr": ["scores", "recordings", "confusion", "reliability", "learning", "cost"],
    "va": ["scores", "recordings", "agreement", "residuals", "learning", "cost"],
}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """The corpus of `fill` with labels of all tasks, a clock that is not regular, and the log of an extraction."""
    root = tmp_path_factory.mktemp("report")
    fill(root)
    rng = np.random.default_rng(1)
    for split in ("Train_Set", "Validation_Set"):
        for file in (root / "annotations" / "AU_Detection_Challenge" / split).iterdir():
            for task, folder in FOLDERS.items():
                values = np.repeat(rng.integers(0, 8, (FRAMES // 10, 1)), 10, axis=0)
                values = values if task == "expr" else np.repeat(rng.uniform(-1, 1, (FRAMES // 10, 2)), 10, axis=0)
                rows = [",".join(f"{value:g}" for value in row) for row in values]
                path = root / "annotations" / folder / split / file.name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text("\n".join([",".join(OFFICIAL[task].names), *rows]) + "\n")
    config = load_config(root / "aupipe.toml")
    recordings = open_dataset(config.dataset).recordings
    parts = build_feature_set(config)
    store = open_store(root / "features")
    for recording in {one.video_id: one for one in recordings}.values():
        clock = parts.graph(recording).clock
        source = source_identity(recording.video)
        store.publish(recording.video_id, clock, TIMES_S[:, None].astype(clock.dtype), source=source)
    store.close()
    return Folder(root)


@pytest.fixture(scope="module")
def runs(project: Folder) -> dict[str, str]:
    """A run of each task, and a second one of valence and arousal."""
    for name, task, seed in (("au", "au", 0), ("expr", "expr", 0), ("va", "va", 0), ("va2", "va", 1)):
        own = ("--task", task, "--seed", seed, "--out", f"runs/{name}")
        project.ask("train", "--recipe", "baseline", "--feature", "hog", *SMALL, *own)
    return {name: f"runs/{name}" for name in ("au", "expr", "va", "va2")}


@pytest.fixture(scope="module")
def folds(project: Folder) -> str:
    """An ensemble of folds with thresholds that were fitted on what each held out."""
    project.ask("train", "--recipe", "field", "--feature", "hog", *SMALL, *FOLDED, "--out", "runs/folds")
    return "runs/folds"


def report(project: Folder, *arguments: object) -> str:
    return project.ask("report", "run", *arguments, "--cpu", "--overwrite")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("task", ["au", "expr", "va"])
def test_the_headline_is_that_of_evaluate(project: Folder, runs: dict[str, str], task: str) -> None:
    assert f"wrote {runs[task]}/report/index.html: 2 files" in report(project, runs[task])
    folder = project.path / runs[task] / "report"
    evaluated = project.json("evaluate", runs[task], "--cpu")
    del evaluated["message_type"]
    (own,) = json.loads((folder / "report.json").read_text())["runs"]
    assert {name: own[name] for name in evaluated} == evaluated | {"run": task}
    html = (folder / "index.html").read_text()
    low, high = evaluated["spread"]["interval"]
    headline = f"<strong>{evaluated['mean']:z.3f}</strong> mean {'CCC' if task == 'va' else 'F1'}"
    assert f"{headline}, 95% {low:.3f} to {high:.3f} by video" in html
    assert re.findall(r'<section id="([\w-]+)"', html) == SECTIONS[task]
    assert "does not carry over" not in html  # no threshold was fitted
    assert bool(re.search(r">\d+%</text>", html.partition('id="confusion"')[2])) == (task == "expr")
    assert " style=" not in html  # which the page's policy does not allow
    assert len(re.findall(r' id="', html)) == len(set(re.findall(r' id="[^"]*"', html)))


def test_two_builds_give_equal_bytes_for_their_owner_alone_and_name_no_path_of_the_machine(
    project: Folder, runs: dict[str, str]
) -> None:
    folder = project.path / "twice"
    report(project, runs["expr"], "--out", "twice", "--figures", "pdf")
    first = contents(folder)
    report(project, runs["expr"], "--out", "twice", "--figures", "pdf")
    assert contents(folder) == first
    figures = {name for name in first if name.startswith("figures/")}
    assert figures == {f"figures/{name}.pdf" for name in ("scores", "confusion", "reliability", "learning")}
    assert {first[name][:5] for name in figures} == {b"%PDF-"}
    assert not [name for name, content in first.items() if str(project.path).encode() in content]
    assert {stat.S_IMODE(path.stat().st_mode) for path in (folder, folder / "figures")} == {0o700}
    assert {stat.S_IMODE((folder / name).stat().st_mode) for name in first} == {0o600}


def test_several_runs_stand_side_by_side_and_a_former_report_leaves_nothing(
    project: Folder, runs: dict[str, str]
) -> None:
    folder = project.path / "both"
    report(project, runs["va"], runs["va2"], "--out", "both")
    assert contents(folder).keys() == {"index.html", "run-1.html", "run-2.html", "report.json"}
    html = (folder / "index.html").read_text()
    said = project.ask("evaluate", runs["va"], runs["va2"], "--cpu")
    ((value, low, high),) = re.findall(r" minus .*: (\S+), 95% (\S+) to (\S+)", said)
    assert f'<td class="number">{value}</td><td class="number">{low} to {high}</td>' in html
    (difference,) = json.loads((folder / "report.json").read_text())["differences_to_the_first"]
    assert f"{difference['difference']:+.3f}" == value
    assert difference["conclusion"].endswith("shown, from 3 videos only; see the warnings")
    assert f"<td>{difference['conclusion']}</td>" in html
    assert Difference(0.2, (0.1, 0.3), groups=3).words == "different, from 3 videos only"
    assert Difference(0.2, (0.1, 0.3), groups=30, warned=True).words == "different; see the warnings"
    assert "the 95% interval is from 3 groups only, so it is too narrow" in html
    (folder / "figures").mkdir()
    (folder / "figures" / "mine.pdf").write_text("precious")
    report(project, runs["expr"], "--out", "both")
    assert contents(folder).keys() == {"index.html", "report.json", "figures/mine.pdf"}
    (folder / "run-2.html").write_text("precious")
    ask = ("report", "run", runs["va"], runs["va2"], "--out", "both", "--cpu", "--overwrite")
    assert "run-2.html is there already" in project.ask(*ask, code=2)
    assert (folder / "run-2.html").read_text() == "precious"
    assert "run-1.html" not in contents(folder)


def test_a_report_replaces_another_only_when_told_to_and_is_refused_before_anything_is_scored(
    project: Folder, runs: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (project.path / "once").mkdir()
    (project.path / "once" / "report.json").write_text("precious")
    monkeypatch.setattr(Context, "predict", lambda *_: pytest.fail("predicted"))
    assert "report.json is there already" in project.ask("report", "run", runs["va"], "--out", "once", "--cpu", code=2)
    ask = ("report", "run", runs["va"], "--out", "once", "--cpu", "--overwrite")
    assert "once is not empty and holds no report of `aupipe report run`" in project.ask(*ask, code=2)
    (project.path / "once" / "report.json").rename(project.path / "once" / "mine.txt")
    assert "once is not empty and holds no report of `aupipe report run`" in project.ask(*ask, code=2)
    assert (project.path / "once" / "mine.txt").read_text() == "precious"


@pytest.mark.slow
def test_held_out_recordings_are_those_of_evaluate(project: Folder, folds: str) -> None:
    ask = (folds, "--split", "train", "--held-out", "--on-tuned", "--cpu")
    project.ask("report", "run", *ask, "--out", "held")
    (own,) = json.loads((project.path / "held" / "report.json").read_text())["runs"]
    assert own["mean"] == project.json("evaluate", *ask)["mean"]
    html = (project.path / "held" / "index.html").read_text()
    assert "by the members that did not see it" in html
    assert "a large difference is a threshold that does not carry over" in html


def test_the_cost_of_the_features_is_that_of_the_log(project: Folder, runs: dict[str, str]) -> None:
    model, store = load_model(project.path / runs["au"]), open_store(project.path / "features")
    assert extractions_of([model], store) == []
    features = list(model.runs[0].features.values())
    with RunLog.in_store(store.path, command="extract", where="cpu", features=features) as log:
        stage = {"frames": 700, "busy_s": 2.5, "cpu_s": 2.25}
        log.end |= {"videos_ended": 9, "frames": 700, "cpu_s": 4321.0, "stages": {"decode": stage}}
    with RunLog.in_store(store.path, command="extract", where="cpu", features=["other@0"]) as other:
        pass
    extractions, stages = cost_section(extractions_of([model], store)).tables
    assert [row[:4] for row in extractions.rows] == [[extractions.rows[0][0], "cpu", "done", "9"]]
    assert extractions.rows[0][6] == "4,321.0"
    assert stages.rows == [["decode", "700", "2.5", "2.2"]]
    for path in (log.path, other.path):
        Path(path).unlink()


@pytest.mark.parametrize(("task", "form"), [("au", "events"), ("expr", "events"), ("au", "eaf"), ("expr", "textgrid")])
def test_intervals_have_the_stored_times_and_the_decisions_of_the_tables(
    project: Folder, runs: dict[str, str], task: str, form: str
) -> None:
    out = {"events": "events.csv"}.get(form, form)
    ask = ("predict", runs[task], "--split", "validation", "--format", form, "--cpu")
    said = project.ask(*ask)
    assert re.search(rf"wrote {runs[task]}/{out}: [\d,]+ intervals of 3 recordings", said)
    again = project.ask(*ask, code=2)
    assert "is there already" in again or "is not empty" in again
    path = project.path / runs[task] / out
    if form != "events":
        suffix = {"eaf": "eaf", "textgrid": "TextGrid"}[form]
        assert {one.name for one in path.iterdir()} == {f"v{number}.{suffix}" for number in range(3)}
        text = (path / f"v0.{suffix}").read_text(encoding="utf-8")
        assert ('RELATIVE_MEDIA_URL="../../../videos/v0.mp4"' in text) == (form == "eaf")
        assert text.count(str(project.path)) == text.count(f'MEDIA_URL="file://{project.path}') == (form == "eaf")
        return
    edges = np.append(TIMES_S, TIMES_S[-1] + np.median(np.diff(TIMES_S)))
    for row in csv.DictReader(path.read_text().splitlines()):
        first, rows = int(row["frame"]) - 1, int(row["rows"])
        assert float(row["start_s"]) == pytest.approx(edges[first], abs=1e-6)
        assert float(row["end_s"]) == pytest.approx(edges[first + rows], abs=1e-6)


def test_what_was_joined_and_left_out_is_said_and_options_that_do_not_fit_are_refused(
    project: Folder, runs: dict[str, str]
) -> None:
    ask = ("predict", runs["au"], "v0", "--cpu", "--overwrite", "--out", "some.csv")
    said = project.ask(*ask, "--format", "events", "--min-duration", "0.2", "--max-gap", "0.1")
    assert re.search(
        r"intervals( \(\d+ gaps of at most 0.1 s closed\))? \(\d+ shorter than 0.2 s left out\) of 1", said
    )
    assert "are of intervals" in project.ask(*ask, "--max-gap", "0.1", code=2)
    for option, value in (("--min-duration", "nan"), ("--max-gap", "nan"), ("--max-gap", "inf")):
        assert f"{value} is not a finite number" in project.ask(*ask, "--format", "events", option, value, code=2)
    said = project.ask("predict", runs["va"], "v0", "--cpu", "--format", "eaf", code=2)
    assert "valence, arousal are numbers, which have no intervals" in said


@pytest.mark.slow
def test_every_command_of_the_page_works_as_it_stands(project: Folder, runs: dict[str, str], folds: str) -> None:
    shutil.copytree(project.path / runs["au"], project.path / "runs" / "tcn", dirs_exist_ok=True)
    page = (Path(__file__).parents[2] / "docs" / "results.md").read_text(encoding="utf-8")
    lines = [line for block in re.findall(r"```bash\n(.*?)```", page, re.DOTALL) for line in block.splitlines()]
    commands = [shlex.split(line, comments=True)[1:] for line in lines]
    assert len(commands) == 6
    for words in commands:
        assert "wrote" in project.ask(*words, "--cpu")


@pytest.mark.browser
@pytest.mark.parametrize("dark", [False, True])
def test_pages_ask_for_nothing_say_no_error_and_have_no_violation_of_wcag(
    project: Folder, runs: dict[str, str], browser_page: BrowserPage, dark: bool
) -> None:
    reports = {"b-au": ["au"], "b-expr": ["expr"], "b-both": ["va", "va2"]}
    for out, names in reports.items():
        if not (project.path / out).exists():
            report(project, *(runs[name] for name in names), "--out", out)
    for out in reports:
        shown = browser_page.open(project.path / out / "index.html", 400 if dark else 1280, dark=dark)
        assert shown.evaluate("document.documentElement.scrollWidth <= innerWidth"), out
        assert browser_page.violations() == [], out
        assert browser_page.outside(project.path / out) == []
        assert browser_page.errors == []


@pytest.mark.browser
def test_all_figures_are_there_without_scripts(
    project: Folder, runs: dict[str, str], page_without_scripts: BrowserPage
) -> None:
    report(project, runs["au"], "--out", "plain")
    shown = page_without_scripts.open(project.path / "plain" / "index.html")
    boxes = shown.locator("svg[role=img]")
    assert boxes.count() == 2 + 12 + 12 + 3 + 2
    assert all(boxes.nth(number).bounding_box()["height"] > 100 for number in range(boxes.count()))
    assert not shown.is_visible("#theme")
    assert page_without_scripts.errors == []
