"""tune: fit thresholds and smoothing of a trained run, or take those of another."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from aupipe.cli.completion import MODEL
from aupipe.cli.context import SHOT_STARTS, SPLITS, WHERE, open_context
from aupipe.cli.data import select_recordings
from aupipe.cli.options import config_options, device_options, json_option
from aupipe.cli.output import echo, echo_json
from aupipe.cli.overwrite import overwrite_option
from aupipe.errors import UsageError
from aupipe.files import as_argument, refuse_existing, write_file
from aupipe.tables import build

if TYPE_CHECKING:
    from aupipe.train.model import Model
    from aupipe.train.postprocess import Options, PostProcess


@click.command()
@click.argument("run", type=MODEL)
@click.option("--split", type=SPLITS, default="validation", show_default=True, help="Split to fit on.")
@WHERE
@click.option("--held-out", is_flag=True, help="Fit on the held-out predictions of a cross-validation.")
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="threshold, smooth, width, side, aucorr, match_variance, fill, max_gap.",
)
@click.option(
    "--from",
    "source",
    type=click.Path(path_type=Path, exists=True),
    metavar="RUN|FILE",
    help="Fit nothing: take what was fitted for another RUN, or a file of --out.",
)
@click.option("--out", type=click.Path(path_type=Path), help="File to write. Default: postprocess.json in RUN.")
@overwrite_option("an earlier fit")
@SHOT_STARTS
@click.option("--allow-missing", is_flag=True, help="Leave out recordings that lack features.")
@device_options
@config_options
@json_option
def tune(
    run: Path,
    split: str,
    where: tuple[str, ...],
    held_out: bool,
    overrides: tuple[str, ...],
    source: Path | None,
    out: Path | None,
    overwrite: bool,
    cuts_file: Path | None,
    allow_missing: bool,
    gpu: str | None,
    cpu: bool,
    config_file: Path | None,
    store: Path | None,
    as_json: bool,
) -> None:
    """Fit thresholds and smoothing of a RUN or an ensemble on one split, to apply them to another.

    RUN's recipe says what is fitted, and --set changes single values of it. The default of a recipe is a threshold per
    AU, Gaussian smoothing (EXPR), matched variance (VA). Of an ensemble whose members are post-processed, only the
    thresholds are fitted, unless --set adds more.

    \b
    Examples:
      aupipe tune runs/best-folds --held-out --set smooth=gaussian --set threshold=tune --overwrite
      aupipe evaluate runs/best-folds --split validation
      aupipe tune runs/all --from runs/folds      # a model of all data has nothing held out to fit it on
    """
    from aupipe.train.evaluate import evaluate_post
    from aupipe.train.model import load_model
    from aupipe.train.postprocess import fit_postprocess
    from aupipe.train.run import POST_FILE

    model = load_model(run)
    target = out or model.path / POST_FILE
    refuse_existing(target, overwrite)
    use = f"use it with --post {out}" if out else "predict and evaluate use it"
    if source is not None:
        if overrides or held_out or where:
            raise UsageError("--from fits nothing: leave out --set, --held-out and --where")
        fitted = _taken_from(source, model)
        _name_repeated(model, fitted.options)
        _save(model, fitted, out, overwrite)
        if as_json:
            echo_json("postprocess", {"post": fitted.to_json(), "from": str(source)})
        else:
            echo(f"{fitted.describe()}, taken from {source}", f"wrote {target}; {use}")
        return
    options = _options(model, overrides)
    _name_repeated(model, options)
    context = open_context(config_file, store, gpu, cpu, allow_missing, cuts_file)
    selected = select_recordings(context.dataset, model.task.name, None if held_out else split, (), where)
    labels = context.dataset.labels_of(selected, model.task.name)
    predictions = context.predict(model, [item for item in selected if item.id in labels], held_out)
    labels = {name: item for name, item in labels.items() if name in predictions}
    fitted = fit_postprocess(predictions, labels, model.task, options, context.shot_starts)
    _save(model, fitted, out, overwrite)
    scores = evaluate_post(predictions, labels, fitted, context.shot_starts, on_tuned=True)
    if as_json:
        echo_json("postprocess", {"post": fitted.to_json(), "scores": scores.to_json()})
        return
    echo(f"{fitted.describe()}: {scores.metric} {scores.mean:.3f} on the recordings of the fit, which is optimistic")
    if options.smooth != "none" and fitted.options.smooth == "none":
        echo("not smoothed: no width scored better than none")
    echo(f"wrote {target}; {use}")


def _options(model: Model, overrides: Sequence[str]) -> Options:
    """The options of the recipe with the changes of ``--set``; prints those that change nothing.

    Of the recipe, scores of post-processed members get the threshold only: they have had the rest.
    """
    from aupipe.train.idle_settings import idle_overrides, options_in_use
    from aupipe.train.postprocess import DEFAULTS, Options, reshapings
    from aupipe.train.recipe import apply_overrides

    chosen = model.runs[0].recipe.postprocess_for(model.task) or DEFAULTS[model.task.kind]
    if model.member_posts and (left_out := reshapings(chosen, model.task)):
        what = ", ".join(left_out)
        echo(f"aupipe: {model.path}: its members are post-processed: {what} of the recipe is left out", err=True)
        chosen = Options(threshold=chosen.threshold)
    base = asdict(chosen)

    def read(texts: Sequence[str]) -> Options:
        return build(Options, apply_overrides(base, texts), "--set")

    for text in idle_overrides(read, overrides, lambda one: options_in_use(one, model.task)):
        echo(f"aupipe: --set {text} changes nothing: it is so already, or {model.task} does not use it", err=True)
    return read(overrides)


def _name_repeated(model: Model, options: Options) -> None:
    """Print what ``options`` do to scores that members have had done to them already."""
    from aupipe.train.postprocess import reshapings

    done = {name for post in model.member_posts for name in reshapings(post.options, post.task)}
    if repeated := [name for name in reshapings(options, model.task) if name in done]:
        echo(f"aupipe: {model.path}: done twice, to its members and to the whole: {', '.join(repeated)}", err=True)


def _taken_from(source: Path, model: Model) -> PostProcess:
    """What was fitted for another RUN, or is in a file. Raises UsageError where there is none, or of another task."""
    from aupipe.train.model import load_model
    from aupipe.train.postprocess import read_postprocess

    found = load_model(source).post if source.is_dir() else read_postprocess(source)
    if found is None:
        raise UsageError(f"{source} has no post-processing: `aupipe tune {as_argument(source)}` fits one")
    if found.task != model.task:
        raise UsageError(f"{source} is a post-processing for {found.task}, and {model.path} is for {model.task}")
    return found


def _save(model: Model, fitted: PostProcess, out: Path | None, overwrite: bool) -> None:
    from aupipe.train.run import save_postprocess

    if out is None:
        save_postprocess(model, fitted, overwrite)
    else:
        write_file(out, json.dumps(fitted.to_json(), indent=1), overwrite)
