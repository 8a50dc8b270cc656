"""train, predict, evaluate."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from aupipe.cli.extract import pick_devices
from aupipe.cli.options import (
    config_options,
    device_options,
    existing_store,
    json_option,
    require_config,
    resolve,
    split_list,
)
from aupipe.config import Config
from aupipe.dataset import Dataset, label_name, open_dataset
from aupipe.errors import UsageError
from aupipe.types import Labels, Recording, Task

if TYPE_CHECKING:
    from aupipe.store.base import Store
    from aupipe.train.run import Run

TASKS = ("au", "expr", "va")


@click.command()
@click.option(
    "--recipe", metavar="NAME|FILE", help="What to train, over [train] recipe: baseline, tcn, or a TOML file."
)
@click.option("--task", type=click.Choice(TASKS), help="Over [train] task.")
@click.option("--feature", "features", multiple=True, help="Features to train on; several with commas. Default all.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="A value of the recipe, e.g. epochs=20.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder of the run. Default: runs/<time>-<recipe>-<task>.")
@click.option("--seed", default=0, show_default=True)
@click.option("--threads", default=1, show_default=True, help="Torch threads; more are slower on a busy machine.")
@click.option("--allow-missing", is_flag=True, help="Train without the recordings that lack features.")
@device_options
@config_options
@json_option
def train(
    recipe: str | None,
    task: Task | None,
    features: tuple[str, ...],
    overrides: tuple[str, ...],
    out: Path | None,
    seed: int,
    threads: int,
    allow_missing: bool,
    gpu: str | None,
    cpu: bool,
    config_file: Path | None,
    store: Path | None,
    as_json: bool,
) -> None:
    """Train a head on stored features; the epoch that is best on the validation split is kept.

    \b
    Examples:
      aupipe train --recipe tcn --task au
      aupipe train --recipe baseline --feature hog --set epochs=20
    """
    from aupipe.train.recipe import load_recipe

    config = require_config(resolve(config_file, store, **{"train.recipe": recipe, "train.task": task}))
    chosen = load_recipe(config.train.recipe, overrides)
    out = out or _new_run_folder(config, chosen.name)
    run = train_run(
        config,
        existing_store(config),
        chosen,
        names=split_list(features) or list(config.train.features),
        out=out,
        device=pick_devices(gpu, cpu)[0],
        seed=seed,
        threads=threads,
        allow_missing=allow_missing,
    )
    dataset = open_dataset(config.dataset)
    _show_scores(run, dataset, as_json)


def _new_run_folder(config: Config, recipe: str) -> Path:
    base = config.file.parent if config.file else Path.cwd()
    return base / "runs" / f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{recipe}-{config.train.task}"


def train_run(
    config: Config,
    store: Store,
    recipe: Any,
    *,
    names: Sequence[str],
    out: Path,
    device: str = "cpu",
    seed: int = 0,
    threads: int = 1,
    allow_missing: bool = False,
) -> Run:
    """Train on the configuration's splits and features."""
    from aupipe.extract.plan import build_parts, feature_ids
    from aupipe.train.fit import fit

    dataset = open_dataset(config.dataset)
    task = config.train.task
    splits = {name: dataset.split(task, name) for name in ("train", "validation")}
    for name, found in splits.items():
        if not found:
            where = config.dataset.annotations or config.dataset.root
            raise UsageError(f"no recording of the {name} split has {task} annotations in {where}")
    features = feature_ids(build_parts(config), [*splits["train"], *splits["validation"]], names or recipe.features)
    splits = {name: up_to_date(config, store, found, features, allow_missing) for name, found in splits.items()}
    return fit(
        store,
        train=splits["train"],
        validation=splits["validation"],
        labels=labels_of(dataset, [*splits["train"], *splits["validation"]], task),
        features=features,
        recipe=recipe,
        task=task,
        out=out,
        device=device,
        seed=seed,
        threads=threads,
        allow_missing=allow_missing,
        progress=lambda line: click.echo(line, err=True),
    )


def up_to_date(
    config: Config, store: Store, recordings: list[Recording], features: Mapping[str, str], allow_missing: bool
) -> list[Recording]:
    """The recordings whose stored features are of the files that lie there now.

    Raises UsageError naming those whose source has changed since, or on which extraction failed; ``allow_missing``
    leaves them out instead, and says so. Features that are simply not there yet are for the training part to name.
    """
    from aupipe.extract.plan import build_parts, make_plan

    known = {encoder.name for encoder in config.encoders}
    parts = build_parts(config, names=[name for name in features if name in known])
    stale = {
        item.key: item.state if item.state == "source changed" else f"failed: {item.reason}"
        for item in make_plan(recordings, parts, store).items
        if item.spec.id in features.values() and item.state in ("source changed", "failed before")
    }
    left_out = [r for r in recordings if r.id in stale or r.video_id in stale]
    if left_out and not allow_missing:
        shown = "; ".join(f"{r.id} ({stale.get(r.id) or stale[r.video_id]})" for r in left_out[:5])
        more = f" and {len(left_out) - 5} more" if len(left_out) > 5 else ""
        raise UsageError(f"features of {shown}{more} are not to be trusted: `aupipe extract`, or --allow-missing")
    for recording in left_out:
        why = stale.get(recording.id) or stale[recording.video_id]
        click.echo(f"aupipe: left out {recording.id}: {why}", err=True)
    return [recording for recording in recordings if recording not in left_out]


def labels_of(dataset: Dataset, recordings: Sequence[Recording], task: Task) -> dict[str, Labels]:
    """Annotations by recording id; recordings without any are left out."""
    found = {recording.id: dataset.labels(recording, task) for recording in recordings}
    return {name: labels for name, labels in found.items() if labels is not None}


def _show_scores(run: Run, dataset: Dataset, as_json: bool) -> None:
    from aupipe.train.evaluate import always_positive

    if as_json:
        click.echo(json.dumps({"run": str(run.path), "best_epoch": run.best_epoch, "scores": run.scores.to_json()}))
        return
    labels = labels_of(dataset, dataset.select(run.validation), run.task)
    trivial = {"always 1" if run.task == "au" else "constant": always_positive(labels, run.task)}
    click.echo(run.scores.table(trivial, name=run.recipe.name))
    click.echo(f"run: {run.path} (best epoch {run.best_epoch}, chosen on these very recordings)")
    click.echo(f"next: aupipe predict {run.path}")


def _split_or_ids(dataset: Dataset, task: Task, split: str | None, ids: Sequence[str]) -> list[Recording]:
    if ids and split:
        raise UsageError("give recordings or --split, not both")
    if ids:
        return dataset.select(ids)
    if split:
        found = dataset.split(task, split)
        if not found:
            raise UsageError(f"no recording in the {split} split of task {task}")
        return found
    return list(dataset.recordings)


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("recordings", nargs=-1)
@click.option("--split", type=click.Choice(["train", "validation", "test"]), help="Instead of naming recordings.")
@click.option("--format", "form", type=click.Choice(["csv", "abaw", "tracks"]), default="csv", show_default=True)
@click.option("--sample", type=click.Path(path_type=Path, exists=True), help="The organisers' sample file, for abaw.")
@click.option("--out", type=click.Path(path_type=Path), help="File (csv, abaw) or folder (tracks). Default: in RUN.")
@click.option("--allow-missing", is_flag=True, help="Leave out recordings that lack features.")
@config_options
def predict(
    run: Path,
    recordings: tuple[str, ...],
    split: str | None,
    form: str,
    sample: Path | None,
    out: Path | None,
    allow_missing: bool,
    config_file: Path | None,
    store: Path | None,
) -> None:
    """Per-frame predictions of a trained RUN: csv, the challenge's submission file (abaw), or one file per track.

    \b
    Examples:
      aupipe predict runs/20260101-120000-tcn-au --split validation
      aupipe predict runs/... --split test --format abaw --sample CVPR_6th_ABAW_AU_test_set_sample.txt
    """
    from aupipe.train.predict import predict as predict_run
    from aupipe.train.predictions import write_abaw, write_csv, write_tracks
    from aupipe.train.run import load_run

    config = require_config(resolve(config_file, store))
    loaded = load_run(run)
    dataset = open_dataset(config.dataset)
    chosen = _split_or_ids(dataset, loaded.task, split, recordings)
    opened = existing_store(config)
    chosen = up_to_date(config, opened, chosen, loaded.features, allow_missing)
    predictions = predict_run(loaded, opened, chosen, allow_missing=allow_missing)
    default = {"csv": "predictions.csv", "abaw": "submission.txt", "tracks": "predictions"}[form]
    out = out or loaded.path / default
    named = {label_name(recording): predictions[recording.id] for recording in chosen if recording.id in predictions}
    if form == "csv":
        write_csv(predictions, out)
    elif form == "abaw":
        write_abaw(named, out, loaded.task, sample)
    else:
        write_tracks(named, out, loaded.task)
    frames = sum(len(item) for item in predictions.values())
    click.echo(f"wrote {out}: {frames:,} frames of {len(predictions)} recordings")


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--split", type=click.Choice(["train", "validation", "test"]), default="validation", show_default=True)
@config_options
@json_option
def evaluate(run: Path, split: str, config_file: Path | None, store: Path | None, as_json: bool) -> None:
    """Score a trained RUN as the challenge does: pooled over all annotated frames, each counted once.

    \b
    Example:
      aupipe evaluate runs/20260101-120000-tcn-au --split validation
    """
    from aupipe.train.evaluate import always_positive
    from aupipe.train.evaluate import evaluate as score
    from aupipe.train.predict import predict as predict_run
    from aupipe.train.run import load_run

    config = require_config(resolve(config_file, store))
    loaded = load_run(run)
    dataset = open_dataset(config.dataset)
    chosen = _split_or_ids(dataset, loaded.task, split, ())
    labels = labels_of(dataset, chosen, loaded.task)
    if not labels:
        raise UsageError(f"the {split} split of task {loaded.task} has no annotations here")
    opened = existing_store(config)
    chosen = up_to_date(config, opened, [r for r in chosen if r.id in labels], loaded.features, False)
    predictions = predict_run(loaded, opened, chosen)
    scores = score(predictions, labels, loaded.task)
    if as_json:
        click.echo(json.dumps(scores.to_json()))
        return
    trivial = {"always 1" if loaded.task == "au" else "constant": always_positive(labels, loaded.task)}
    click.echo(scores.table(cast(Mapping[str, Any], trivial), name=loaded.recipe.name))
