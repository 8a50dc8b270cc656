"""init, config, plugins and demo: commands about the project and the installation."""

from __future__ import annotations

import os
from dataclasses import fields
from pathlib import Path

import click

from aupipe.annotations import find_annotations
from aupipe.cli.completion import RECIPE, TASK
from aupipe.cli.options import FiniteRange, json_option, resolve
from aupipe.cli.output import echo, echo_json
from aupipe.cli.overwrite import overwrite_option
from aupipe.cli.recipe_features import add_recipe, configured_by
from aupipe.cli.template import template
from aupipe.config import FILE_NAME, SECTIONS
from aupipe.dataset import VIDEO_FOLDERS, crop_folders, is_frame, walk_videos
from aupipe.errors import UsageError, WeightsMissingError
from aupipe.facs_datasets import PUBLISHED
from aupipe.files import as_argument, write_file
from aupipe.quantities import counted
from aupipe.task_tables import task_table


@click.command()
@click.argument("folder", type=click.Path(path_type=Path), default=".")
@click.option(
    "--recipe",
    type=RECIPE,
    metavar="NAME|FILE",
    help="Write the features of this recipe, or add them to an aupipe.toml.",
)
@click.option("--task", type=TASK, help="With --recipe: the task. Default: all tasks of the recipe's paper.")
@overwrite_option("an aupipe.toml", "--force")
def init(folder: Path, recipe: str | None, task: str | None, overwrite: bool) -> None:
    """Write an aupipe.toml for the data set in FOLDER.

    Recognises the trees of Aff-Wild2, DISFA and BP4D, a folder of videos and folders of images. --recipe adds the
    tables of a recipe's features to an aupipe.toml that is there, at its end; its lines stay as they are.

    \b
    Examples:
      cd /data/Aff-Wild2 && aupipe init
      aupipe init --recipe tcn-transformer --task va
    """
    if not folder.is_dir():
        raise UsageError(f"{folder} is not a folder: name the folder that holds your videos")
    target = folder / FILE_NAME
    if task is not None and recipe is None:
        raise UsageError("--task is for --recipe: `aupipe train --task` chooses the task of a training")
    if recipe is not None and target.is_file() and not overwrite:
        echo(*add_recipe(target, recipe, task))
        return
    if os.path.lexists(target) and not overwrite:
        raise UsageError(f"{target} is there already: edit it, or give --overwrite to replace it")
    options, found = _recognise(folder)
    more, chosen = configured_by(recipe, task) if recipe is not None else ({}, "")
    detector, why = (chosen, f"the detector of recipe {recipe}") if chosen else _detector()
    write_file(target, template(detector=detector, **options | more), overwrite)
    echo(f"wrote {target}: {found}")
    echo(f"faces by {detector}: {why}")
    of_recipe = f"--recipe {as_argument(recipe or '')}" + (f" --task {task}" if task else "")
    echo(f"next: aupipe extract {of_recipe if recipe else '--modality visual'}")


def _detector() -> tuple[str, str]:
    """The detector to configure, and why: YuNet where its weights are found, else the bundled MTCNN."""
    from aupipe.extract.faces.detectors.yunet import YuNet

    yunet = YuNet()
    try:
        weights = yunet.identify_weights()
    except WeightsMissingError:
        faster = f"those of yunet, ten times faster, are not found: aupipe weights pull {yunet.weights_file}"
        return "mtcnn", f"its weights are bundled; {faster}"
    return "yunet", f"{weights.name} is in {os.environ['AUPIPE_WEIGHTS']} (AUPIPE_WEIGHTS)"


def _recognise(folder: Path) -> tuple[dict, str]:
    """Options of `template` for a folder, and a description of what was found."""
    for layout, published in PUBLISHED.items():
        if annotated := published.label_files(folder):
            return {"layout": layout}, f"{layout}: {len(annotated)} annotated recordings"
    crops = crop_folders(folder)
    annotations = find_annotations(folder)
    if annotations or crops:
        tracks = {track for table in annotations.values() for track in table}
        videos = sum(len(walk_videos(folder / name)[0]) for name in VIDEO_FOLDERS)
        complete = bool(crops) and tracks <= {path.name for path in crops}
        found = f"{counted(videos, 'video')}, {counted(len(tracks), 'annotated track')}"
        found += f", crops of {len(crops)}" if crops else ""
        task = next((task for task in ("au", "expr", "va") if task in annotations), "au")
        return {
            "layout": "affwild2",
            "frames": "cropped_aligned" if complete else "video",
            "task": task,
        }, f"an Aff-Wild2 tree: {found}"
    for name in ("videos", *VIDEO_FOLDERS, "."):
        videos = len(walk_videos(folder / name)[0])
        if videos:
            return {"layout": "folder", "videos": name}, f"{counted(videos, 'video')} in {name}/"
    for root, _, files in os.walk(folder):
        if any(is_frame(file) for file in files):
            base = os.path.relpath(os.path.dirname(root), folder) if Path(root) != folder else "."
            return {"layout": "images", "videos": base, "fps": 30.0}, f"images in {base}/, assumed to have 30 frames/s"
    raise UsageError(
        f"no videos, no folders of images and no Aff-Wild2 tree in {folder.resolve()}: name the folder that holds them"
    )


@click.group()
def config() -> None:
    """Show the configuration."""


@config.command("show")
@click.option("--config", "config_file", type=click.Path(path_type=Path), help="Configuration file.")
@json_option
def show(config_file: Path | None, as_json: bool) -> None:
    """Print every value and where it comes from.

    Precedence: command line, AUPIPE_<SECTION>_<KEY> in the environment, aupipe.toml, default. The configuration is then
    checked as `aupipe extract` checks it before it looks for videos: one that it refuses ends with the same line and
    exit code.

    \b
    Example:
      AUPIPE_STORE_BACKEND=hdf5 aupipe config show
    """
    from aupipe.cli.recipe_features import value_text
    from aupipe.cli.selection import check_config

    found = resolve(config_file)
    values = {
        f"{section}.{field.name}": getattr(getattr(found, section), field.name)
        for section, kind in SECTIONS.items()
        for field in fields(kind)
    }
    values |= {f"detector.{key}": value for key, value in found.detector.items()}
    # Tables such as [[task]] have no key of their own.
    origins = {key: found.origin.get(key, str(found.file) if value else "default") for key, value in values.items()}
    if as_json:
        encoders = [{"name": e.name, "kind": e.kind, "modality": e.modality, **e.params} for e in found.encoders]
        content = {key: {"value": _plain(value), "origin": origins[key]} for key, value in values.items()}
        echo_json("configuration", content | {"encoder": encoders}, indent=1)
        check_config(found)
        return
    width = max(map(len, values))
    for key, value in values.items():
        first, *more = _shown(value)
        echo(f"{key:{width}}  {first:40}  {origins[key]}", *(f"{'':{width}}  {line}" for line in more))
    for encoder in found.encoders:
        params = ", ".join(f"{key} = {value_text(value)}" for key, value in encoder.params.items())
        text = f"{encoder.name}: {encoder.modality} {encoder.kind}" + (f" ({params})" if params else "")
        echo(f"{'encoder':{width}}  {text:40}  {found.origin['encoder']}")
    check_config(found)


def _plain(value: object) -> object:
    """A value as JSON has it; label sets as the tables that they are written as."""
    if isinstance(value, tuple):
        return [task_table(*one) if isinstance(one, tuple) else one for one in value]
    return str(value) if isinstance(value, Path) else value


def _shown(value: object) -> list[str]:
    """A value in lines: lists and label sets as TOML."""
    from aupipe.cli.recipe_features import table_text, value_text

    if value is None or value == ():
        return ["not set"]
    plain = _plain(value)
    if not isinstance(plain, list):
        return [str(plain)]
    if not isinstance(plain[0], dict):
        return [value_text(plain)]
    return [line for table in plain for line in ("[[task]]", *table_text(table).splitlines())]


@click.command()
@json_option
def plugins(as_json: bool) -> None:
    """List encoders, detectors, heads and store backends, with the package each comes from.

    A package adds one with an entry point, for example in the group aupipe.encoders.
    """
    from aupipe.extract.encoders import ENCODERS
    from aupipe.extract.faces import DETECTORS
    from aupipe.store import STORES
    from aupipe.train.heads import HEADS

    registries = (ENCODERS, DETECTORS, HEADS, STORES)
    if as_json:
        content = {registry.noun: {name: registry.origin(name) for name in registry.names()} for registry in registries}
        echo_json("plugins", content, indent=1)
        return
    for registry in registries:
        echo(f"{registry.noun}s")
        for name in registry.names():
            echo(f"  {name:20}  {registry.origin(name)}")


@click.command()
@click.argument("folder", type=click.Path(path_type=Path), default="aupipe-demo")
@click.option("--recordings", default=16, show_default=True, type=click.IntRange(min=3), help="Videos to draw.")
@click.option("--seconds", default=12.0, show_default=True, type=FiniteRange(min=2), help="Length of each video.")
@click.option("--seed", default=0, show_default=True)
def demo(folder: Path, recordings: int, seconds: float, seed: int) -> None:
    """Draw talking faces, extract features, train and score.

    The labelled corpus, its features and the trained heads are written to FOLDER. The demo downloads nothing and takes
    a few minutes on two cores. A stopped demo continues when it is run again.

    \b
    Example:
      aupipe demo /tmp/aupipe-demo
    """
    from aupipe.cli.demo import run_demo

    run_demo(folder, recordings=recordings, seconds=seconds, seed=seed)
