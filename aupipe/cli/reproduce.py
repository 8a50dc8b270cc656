"""reproduce: the rows of a paper's tables, from the videos to the scores beside the paper's."""

from __future__ import annotations

import io
import json
import shlex
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from aupipe.cli.options import config_options, device_options, json_option, require_config, resolve, split_list
from aupipe.cli.output import echo, echo_json
from aupipe.config import Config
from aupipe.documents import read_json
from aupipe.errors import AupipeError, UsageError, WeightsMissingError
from aupipe.files import write_file

if TYPE_CHECKING:
    from aupipe.cli.reproduce_steps import Choices, Step
    from aupipe.train.ensemble_recipe import EnsembleRecipe
    from aupipe.train.reproduction import Reproduction, Row

STARTED = "reproduce.json"  # the choices that a reproduction was begun with


@click.command()
@click.argument("paper", metavar="PAPER")
@click.option("--task", help="Only the rows of this task. Default: all tasks of the paper.")
@click.option("--rows", "ids", multiple=True, metavar="ROW,...", help="Only these rows or tables, by their ids.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder of the reproduction. Default: runs/PAPER.")
@click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Replace a value of every recipe, e.g. epochs=2."
)
@click.option("--weights", type=click.Choice(["random"]), help="random: untrained encoders, for a trial run.")
@click.option("--on-missing-audio", type=click.Choice(["fail", "mask"]), default="fail", show_default=True)
@click.option("--on-missing-text", type=click.Choice(["fail", "mask"]), default="fail", show_default=True)
@click.option(
    "--sample", type=click.Path(path_type=Path, exists=True), help="The organisers' sample file, for submissions."
)
@click.option("--dry-run", is_flag=True, help="Print the commands and the rows; write recipe files alone.")
@device_options
@config_options
@json_option
def reproduce(
    paper: str,
    task: str | None,
    ids: tuple[str, ...],
    out: Path | None,
    overrides: tuple[str, ...],
    weights: str | None,
    on_missing_audio: str,
    on_missing_text: str,
    sample: Path | None,
    dry_run: bool,
    gpu: str | None,
    cpu: bool,
    config_file: Path | None,
    store: Path | None,
    as_json: bool,
) -> int:
    """Reproduce the tables of PAPER: s1 to s5 (docs/papers.md).

    Extracts, trains, fits the post-processing, combines, scores and predicts by the same commands that --dry-run
    prints. Given again, it continues where it stopped. At the end stands each row of the paper's tables with the
    paper's figure, the score here with its interval, and what differs; for a row that cannot be had, why.

    \b
    Examples:
      aupipe reproduce s4 --task expr --dry-run
      aupipe reproduce s4 --task expr --rows t1-expr,t7
    """
    from aupipe.cli.reproduce_steps import Choices, build_steps, runs_of, write_recipes
    from aupipe.dataset import open_dataset
    from aupipe.train.reproduction import load_reproduction

    config = require_config(resolve(config_file, store))
    chosen = load_reproduction(paper)
    rows = chosen.select(task, split_list(ids))
    out = out or (config.file.parent if config.file else Path.cwd()) / "runs" / paper
    dataset = open_dataset(config.dataset)
    columns = {name for one in dataset.recordings for name, _ in one.columns}
    for number, row in enumerate(rows):
        if row.column and row.column not in columns:
            rows[number] = replace(row, model="", submission=False, why=f"the data set has no column {row.column}")
    has_test = all(dataset.split(one, "test") for one in {row.task for row in rows if row.submission})
    masks = [("--on-missing-audio", on_missing_audio), ("--on-missing-text", on_missing_text)]
    choices = Choices(
        overrides,
        weights == "random",
        tuple(part for name, value in masks if value != "fail" for part in (name, value)),
        ("--cpu",) if cpu else ("--gpu", gpu) if gpu is not None else (),
        tuple(
            part
            for name, value in (("--config", config_file), ("--store", store))
            if value
            for part in (name, str(value))
        ),
        sample,
        "test" if has_test else "validation",
    )
    if not dry_run:
        _refuse_other_choices(out, choices)
    recipes = write_recipes(runs_of(chosen, rows), out, choices, config)
    if not dry_run:
        _refuse_missing_weights(config, recipes, choices)
    steps = build_steps(chosen, rows, out, choices)
    for number, step in enumerate(steps, 1):
        echo(f"[{number}/{len(steps)}] {'done: ' * step.done}aupipe {shlex.join(step.arguments)}", err=not dry_run)
        if not dry_run and not step.done and (code := _run(step)):
            echo("aupipe: stopped: the same command continues", err=True)
            return code
    if not has_test and any(step.what == "predict" for step in steps):
        echo("aupipe: the data set has no test split: submissions are of the validation split", err=True)
    _report(
        chosen,
        rows,
        dict(zip((run.name for run in runs_of(chosen, rows)), recipes, strict=True)),
        out,
        choices,
        as_json,
    )
    return 0


def _run(step: Step) -> int:
    """Run the command of a step in this process, as the command line does; its exit code."""
    group = click.get_current_context().find_root().command
    printed = io.StringIO()
    try:
        with redirect_stdout(printed):
            code = group.main(list(step.arguments), prog_name="aupipe", standalone_mode=False)
    except AupipeError as error:
        raise type(error)(f"{step.what}: {error}; then the same command continues") from error
    if step.captures and step.makes is not None:
        step.makes.parent.mkdir(parents=True, exist_ok=True)
        write_file(step.makes, printed.getvalue(), overwrite=True)
    elif printed.getvalue().strip():
        echo(*printed.getvalue().rstrip("\n").split("\n"), err=True)
    return code if isinstance(code, int) else 0


def _refuse_other_choices(out: Path, choices: Choices) -> None:
    """Raise UsageError where ``out`` was begun with other choices, which would stay in what is done already."""
    file = out / STARTED
    if file.is_file() and (before := read_json(file)) != choices.to_json():
        shown = ", ".join(f"{name} {before.get(name)}" for name in choices.to_json())
        raise UsageError(f"{out} was begun with {shown}: give the same, or another --out")
    out.mkdir(parents=True, exist_ok=True)
    write_file(file, json.dumps(choices.to_json()), overwrite=True)


def _refuse_missing_weights(config: Config, recipes: Sequence[EnsembleRecipe], choices: Choices) -> None:
    """Raise WeightsMissingError, naming all files of encoders and heads, before anything is computed."""
    from aupipe.cli.recipe_features import with_encoders
    from aupipe.dataset import open_dataset
    from aupipe.extract.planning.features import build_feature_set
    from aupipe.train.heads import require_weights

    encoders = {one.name: one for recipe in recipes for one in recipe.encoders}
    names = list(dict.fromkeys([*encoders, *(name for recipe in recipes for name in recipe.features)]))
    features = build_feature_set(with_encoders(config, encoders.values(), warn=False), names=names)
    missing: dict[str, None] = {}
    for recipe in recipes:
        head = recipe.members[0].recipe.head
        try:
            if not choices.random:
                require_weights(head.kind, head.params)
        except WeightsMissingError as error:
            missing[str(error)] = None
    for recording in open_dataset(config.dataset).recordings if names else ():
        try:
            features.graph(recording)
        except WeightsMissingError as error:
            missing[str(error)] = None
    if missing:
        raise WeightsMissingError("; ".join(missing))


def _report(
    paper: Reproduction,
    rows: Sequence[Row],
    recipes: Mapping[str, EnsembleRecipe],
    out: Path,
    choices: Choices,
    as_json: bool,
) -> None:
    """Print the rows: the paper's figure, the score here, its interval, and what differs."""
    notes: dict[str, int] = {}  # text -> its number
    found = [_row(paper, row, recipes, out, choices) for row in rows]
    if as_json:
        echo_json({"paper": paper.name, "cite": paper.cite, "rows": found}, indent=1)
        return
    width = max((len(row["row"]) for row in found), default=0)
    echo(f"{paper.cite}: {paper.title}")
    table = None
    for row in found:
        if (row["table"], row["task"]) != table:
            table = row["table"], row["task"]
            echo(
                "",
                f"table {row['table']} ({row['task']})",
                f"  {'row':{width}}  paper   ours   95%             differs",
            )
        marks = ", ".join(str(notes.setdefault(text, len(notes) + 1)) for text in row["differs"])
        ours = "" if row["ours"] is None else f"{row['ours']:.3f}"
        interval = "" if row["interval"] is None else "{:.3f} to {:.3f}".format(*row["interval"])
        figure = "" if row["paper"] is None else f"{row['paper']:.3f}"
        echo(f"  {row['row']:{width}}  {figure:5}  {ours:5}  {interval:14}  {row['why'] or marks}".rstrip())
    echo("", *(f"{number:3}  {text}" for text, number in notes.items()))
    echo(f"files: {out}")


def _row(
    paper: Reproduction, row: Row, recipes: Mapping[str, EnsembleRecipe], out: Path, choices: Choices
) -> dict[str, Any]:
    """One row of the report."""
    from aupipe.cli.reproduce_steps import run_folder, scores_file
    from aupipe.tasks import OFFICIAL
    from aupipe.train.recipe_paper import departures, read_paper
    from aupipe.train.run import holds_run, load_run

    said: dict[str, Any] = {}
    differs = [row.note] if row.note else []
    own = row.chosen or bool(row.fold)
    if row.model and own and holds_run(run_folder(out, row)):
        scores = load_run(run_folder(out, row)).scores
        said = scores.to_json() if scores is not None else {}
        differs.append("the epoch was chosen on the recordings that are scored")
    elif row.model and not own and scores_file(out, row).is_file():
        said = json.loads(scores_file(out, row).read_text(encoding="utf-8"))
    differs += said.get("caveats", ())
    if said.get("tuned_on_itself"):
        differs.append("thresholds or smoothing were fitted on the recordings that are scored")
    if choices.random and row.model:
        differs.append("the weights of encoders are random")
    for run in paper.runs_of(row.model) if row.model else ():
        about = read_paper(run.recipe, OFFICIAL[run.task])
        if about is not None:
            # What a row of an ablation changes is no departure from the paper.
            says = {key: said for key, said in about.says.items() if not _is_changed(key, run.changes)}
            recipe = recipes[run.name].members[0].recipe
            differs += departures(recipe, replace(about, says=says), run.task, unstated=False)
    differs += [f"--set {change}" for change in choices.overrides if row.model]
    each = [value / 100 if max(row.each) > 1 else value for value in row.each]
    spread = said.get("spread") or {}
    return {
        "id": row.id,
        "table": row.table,
        "row": row.row,
        "task": row.task,
        "paper": row.share,
        "paper_each": each,
        "ours": said.get("mean"),
        "ours_each": said.get("values", []),
        "interval": spread.get("interval"),
        "differs": list(dict.fromkeys(differs)),
        "why": row.why or ("" if said else "not computed"),
    }


def _is_changed(key: str, changes: Mapping[str, Any]) -> bool:
    """Does a run change this value of its recipe, or the whole head that it belongs to?"""
    first, _, rest = key.partition(".")
    table = changes.get(first)
    return table is not None and (not rest or "kind" in table or rest.partition(".")[0] in table)
