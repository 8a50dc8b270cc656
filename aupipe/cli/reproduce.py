"""reproduce: the rows of a paper's tables, from the videos to the scores beside the paper's."""

from __future__ import annotations

import hashlib
import io
import json
import shlex
import shutil
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from aupipe.cli.completion import TASK
from aupipe.cli.options import config_options, json_option, require_config, resolve, split_list
from aupipe.cli.output import echo
from aupipe.cli.recipe_features import with_encoders
from aupipe.cli.signals import say_how_to_continue
from aupipe.cli.work import Place, place_options
from aupipe.config import Config
from aupipe.dataset import Dataset, open_dataset
from aupipe.documents import read_json
from aupipe.errors import AupipeError, UsageError, WeightsMissingError
from aupipe.files import write_file
from aupipe.tasks import OFFICIAL

if TYPE_CHECKING:
    from aupipe.cli.reproduce_steps import Choices, Step
    from aupipe.train.ensemble_recipe import EnsembleRecipe
    from aupipe.train.reproduction import Reproduction, Row

STARTED = "reproduce.json"  # the choices that a reproduction was begun with


@click.command()
@click.argument("paper", metavar="PAPER")
@click.option("--task", type=TASK, help="Only the rows of this task. Default: all tasks of the paper.")
@click.option("--rows", "ids", multiple=True, metavar="ROW,...", help="Only these rows or tables, by their ids.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder of the reproduction. Default: runs/PAPER.")
@click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Replace a value of every recipe, e.g. epochs=2."
)
@click.option("--weights", type=click.Choice(["random"]), help="random: untrained encoders, for a trial run.")
@click.option("--on-missing-audio", type=click.Choice(["fail", "mask"]), help="As of extract.")
@click.option("--on-missing-text", type=click.Choice(["fail", "mask"]), help="As of extract.")
@click.option(
    "--sample", type=click.Path(path_type=Path, exists=True), help="The organisers' sample file, for submissions."
)
@click.option("--dry-run", is_flag=True, help="Print the commands and the rows; write recipe files alone.")
@place_options
@config_options
@json_option
def reproduce(
    paper: str,
    task: str | None,
    ids: tuple[str, ...],
    out: Path | None,
    overrides: tuple[str, ...],
    weights: str | None,
    on_missing_audio: str | None,
    on_missing_text: str | None,
    sample: Path | None,
    dry_run: bool,
    place: Place,
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
      aupipe reproduce s5 --task au --gpu all --scheduler scheduler.json
    """
    from aupipe.cli.reproduce_report import report
    from aupipe.cli.reproduce_steps import Choices, build_steps, runs_of, write_recipes
    from aupipe.train.reproduction import load_reproduction

    config = require_config(resolve(config_file, store))
    chosen = load_reproduction(paper)
    rows = chosen.select(task, split_list(ids))
    out = out or (config.file.parent if config.file else Path.cwd()) / "runs" / paper
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out} is a file: choose another folder")
    dataset = open_dataset(config.dataset)
    for number, row in enumerate(rows):
        if why := _lacks(dataset, chosen, row):
            rows[number] = replace(row, model="", submission=False, why=why)
    if sample is not None:
        _refuse_sample(sample, {row.task for row in rows if row.submission})
    has_test = all(dataset.split(one, "test") for one in {row.task for row in rows if row.submission})
    masks = [
        ("--on-missing-audio", on_missing_audio, config.dataset.on_missing_audio),
        ("--on-missing-text", on_missing_text, config.dataset.on_missing_text),
    ]
    choices = Choices(
        overrides,
        weights == "random",
        tuple(part for name, given, own in masks if "mask" in (given, own) for part in (name, given or own)),
        place,
        tuple(
            part
            for name, value in (("--config", config_file), ("--store", store))
            if value
            for part in (name, str(value))
        ),
        sample,
        "test" if has_test else "validation",
    )
    with _nothing_left(out):
        if not dry_run:
            tasks = dict.fromkeys(row.task for row in rows)
            _refuse_other_choices(out, choices.to_json() | {"store": str(config.store.path)}, _digests(dataset, tasks))
        recipes = write_recipes(runs_of(chosen, rows), out, choices, config)
        if not dry_run:
            _refuse_missing_weights(config, recipes, choices)
    steps = build_steps(chosen, rows, out, choices)
    for number, step in enumerate(steps, 1):
        echo(
            f"[{number}/{len(steps)}] {'done: ' * step.done}aupipe {shlex.join(step.arguments)}",
            err=as_json or not dry_run,
        )
        if not dry_run and not step.done and (code := _run(step)):
            echo("aupipe: stopped: the same command continues", err=True)
            return code
    if not ids and (further := chosen.optional(task)):
        echo(f"aupipe: rows with trained encoders: --rows {','.join(further)}", err=True)
    if not has_test and any(step.what == "predict" for step in steps):
        echo("aupipe: the data set has no test split: submissions are of the validation split", err=True)
    report(
        chosen,
        rows,
        dict(zip((run.name for run in runs_of(chosen, rows)), recipes, strict=True)),
        out,
        choices,
        config,
        as_json,
    )
    return 0


@contextmanager
def _nothing_left(out: Path) -> Iterator[None]:
    """Inside, a reproduction is begun in ``out``: an error leaves nothing of a new one."""
    made = [folder for folder in (out, *out.parents) if not folder.exists()]
    try:
        yield
    except AupipeError:
        if made:
            shutil.rmtree(out, ignore_errors=True)
        with suppress(OSError):  # a folder that others have begun to use
            for folder in made[1:]:
                folder.rmdir()
        raise


def _lacks(dataset: Dataset, paper: Reproduction, row: Row) -> str:
    """What the data set lacks of the columns that a row needs; '' where it has them."""
    if row.column and row.column not in dataset.columns:
        return f"the data set has no column {row.column}"
    for column, value in paper.conditions_of(row.model) if row.model else ():
        if value not in dataset.columns.get(column, ()):
            return f"no recording has {column} = {value!r}"
    return ""


def _refuse_sample(sample: Path, tasks: Collection[str]) -> None:
    """Raise UsageError, before anything is computed, for a sample file that is not of the one task of submissions."""
    from aupipe.train.prediction_files import sample_rows

    if len(tasks) > 1:
        raise UsageError(f"--sample is of one task, and the rows are of {', '.join(sorted(tasks))}: give --task too")
    for task in tasks:
        sample_rows(sample, OFFICIAL[task])


def _run(step: Step) -> int:
    """Run the command of a step in this process, as the command line does; its exit code."""
    group = click.get_current_context().find_root().command
    printed = io.StringIO()
    try:
        with redirect_stdout(printed):
            code = group.main(list(step.arguments), prog_name="aupipe", standalone_mode=False)
    except AupipeError as error:
        raise type(error)(f"{step.what}: {error}; then the same command continues") from error
    except (KeyboardInterrupt, click.Abort):  # click turns one into the other
        say_how_to_continue("the same command continues")  # not that of the step
        raise
    if step.captures and step.makes is not None:
        step.makes.parent.mkdir(parents=True, exist_ok=True)
        write_file(step.makes, printed.getvalue(), overwrite=True)
    elif printed.getvalue().strip():
        echo(*printed.getvalue().rstrip("\n").split("\n"), err=True)
    return code if isinstance(code, int) else 0


def _refuse_other_choices(out: Path, choices: Mapping[str, object], data: Mapping[str, str]) -> None:
    """Raise UsageError where ``out`` was begun with other choices or data, which what is done already would keep."""
    file = out / STARTED
    before = read_json(file) if file.is_file() else {}
    if any(before.get(name, value) != value for name, value in choices.items()):
        shown = ", ".join(f"{name} {before[name]}" for name in choices if name in before)
        raise UsageError(f"{out} was begun with {shown}: give the same, or another --out")
    known = before.get("data", {})
    trained = (out / "runs").is_dir()  # before that, a video that fails may be replaced
    if trained and any(known.get(task, digest) != digest for task, digest in data.items()):
        raise UsageError(f"{out} was begun on other videos or annotations: give another --out")
    out.mkdir(parents=True, exist_ok=True)
    write_file(file, json.dumps({**choices, "data": {**known, **data}}), overwrite=True)


def _digests(dataset: Dataset, tasks: Iterable[str]) -> dict[str, str]:
    """Task -> digest of the recordings, the sizes of their videos, and their labels."""
    found = {}
    for task in tasks:
        digest = hashlib.sha256()
        for one in dataset.recordings:
            size = one.video.stat().st_size if one.video else 0
            digest.update(f"{one.id}\0{size}\0".encode(errors="surrogateescape"))
            if (labels := dataset.labels(one, task)) is not None:
                digest.update(labels.targets.tobytes() + labels.valid.tobytes())
        found[task] = digest.hexdigest()[:12]
    return found


def _refuse_missing_weights(config: Config, recipes: Sequence[EnsembleRecipe], choices: Choices) -> None:
    """Raise WeightsMissingError, naming all files of encoders and heads, before anything is computed."""
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
            missing |= dict.fromkeys(error.lines)
    for recording in open_dataset(config.dataset).recordings if names else ():
        try:
            features.graph(recording)
        except WeightsMissingError as error:
            missing |= dict.fromkeys(error.lines)
    if missing:
        raise WeightsMissingError(*missing)
