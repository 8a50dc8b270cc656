"""extract: compute the features that are missing, and store them."""

from __future__ import annotations

from contextlib import ExitStack, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from aupipe.cli.completion import CONFIGURED_FEATURES, RECIPE, TASK
from aupipe.cli.dry_run import show_plan
from aupipe.cli.inputs import open_inputs, videos_arguments
from aupipe.cli.options import (
    FiniteRange,
    config_options,
    device_options,
    given_command,
    json_option,
    open_or_create,
    pick_devices,
    readable_by_option,
    scheduler_options,
    split_list,
)
from aupipe.cli.output import echo, echo_err
from aupipe.cli.overwrite import overwrite_option
from aupipe.cli.recipe_features import narrow_to_recipe
from aupipe.cli.run_report import report_nothing_to_do, run_plan
from aupipe.cli.selection import select, warn_duplicates
from aupipe.config import Config
from aupipe.errors import UsageError
from aupipe.files import refuse_existing

if TYPE_CHECKING:
    from aupipe.extract.engine.options import ExecutionOptions
    from aupipe.extract.executors import Executor

STORE = "aupipe.store"  # in the ``meta`` of the context: the path of the store
# Options of one call, which the command that tries again what failed does not repeat.
ONCE = ("retry_failed", "force", "dry_run", "limit", "profile", "overwrite", "fail_fast", "as_json")


@click.command()
@videos_arguments
@click.option(
    "--modality",
    "modalities",
    multiple=True,
    help="visual, audio or text; several separated by commas. Default: all.",
)
@click.option("--feature", "features", multiple=True, type=CONFIGURED_FEATURES, help="Only these, separated by commas.")
@click.option("--recipe", type=RECIPE, help="Exactly this recipe's features; tables of aupipe.toml go first.")
@click.option("--task", type=TASK, help="With --recipe: the task. Default: all tasks of the recipe's paper.")
@device_options
@scheduler_options
@config_options
@click.option("--backend", help="Backend of a new store: zarr or hdf5.")
@readable_by_option("a new store")
@click.option(
    "--workers",
    type=click.IntRange(min=0),
    default=0,
    metavar="N",
    help="Videos decoded in parallel, per device. Default: by the number of cores.",
)
@click.option(
    "--batch-size",
    default="auto",
    metavar="N",
    help="Faces per batch of an encoder; auto measures it. Changes speed and memory, never the features.",
)
@click.option("--nvdec", is_flag=True, help="Decode H.264, HEVC, VP8 and VP9 on the GPU, to the same pixels.")
@click.option("--compile", "compiled", is_flag=True, help="Compile the encoders with torch.compile (GPU only).")
@click.option("--no-face", is_flag=True, help="Detect no faces: encode the central square of each frame.")
@click.option(
    "--detect-every",
    type=click.IntRange(min=1),
    metavar="N",
    help="Detect faces in every Nth frame and interpolate between, never across a cut. Default: [faces] detect_every.",
)
@click.option(
    "--profile",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write the steps of every stage, with times, as a Chrome trace.",
)
@overwrite_option("FILE of --profile")
@click.option("--share", is_flag=True, help="Divide the videos with other runs over this store, on any machine.")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Only the first N recordings.")
@click.option("--dry-run", is_flag=True, help="Print how much would run, and how long; compute nothing.")
@click.option("--retry-failed", is_flag=True, help="Also process the items that failed before.")
@click.option(
    "--force", is_flag=True, help="Compute every item again; the stored one is replaced when the new one is published."
)
@click.option(
    "--stall-timeout",
    type=FiniteRange(min=1, max=1e7),
    default=600.0,
    metavar="S",
    show_default=True,
    help="Fail a video without progress for S seconds; audio has S seconds for each 30 s of sound.",
)
@click.option("--fail-fast", is_flag=True, help="Stop at the first recording that fails.")
@click.option(
    "--on-missing-audio",
    type=click.Choice(["fail", "mask"]),
    help="Without sound: fail, or store rows that are all invalid. Default: [dataset] on_missing_audio, else fail.",
)
@click.option(
    "--on-missing-text",
    type=click.Choice(["fail", "mask"]),
    help="Without words: fail, or store rows that are all invalid. Default: [dataset] on_missing_text, else fail.",
)
@click.option(
    "--on-damage",
    type=click.Choice(["fail", "keep"]),
    help="Damaged videos: keep the rows that can be decoded, or fail. Default: [dataset] on_damage, else keep.",
)
@click.option("--weights", type=click.Choice(["random"]), help="random: untrained encoders, for tests and benchmarks.")
@json_option
def extract(
    videos: tuple[Path, ...],
    from_list: Path | None,
    modalities: tuple[str, ...],
    features: tuple[str, ...],
    recipe: str | None,
    task: str | None,
    gpu: str | None,
    cpu: bool,
    scheduler: str | None,
    worker_timeout: float,
    tls_ca: Path | None,
    tls_cert: Path | None,
    tls_key: Path | None,
    config_file: Path | None,
    store: Path | None,
    backend: str | None,
    readable_by: str | None,
    workers: int,
    batch_size: str,
    nvdec: bool,
    compiled: bool,
    no_face: bool,
    detect_every: int | None,
    profile: Path | None,
    overwrite: bool,
    share: bool,
    limit: int | None,
    dry_run: bool,
    retry_failed: bool,
    force: bool,
    stall_timeout: float,
    fail_fast: bool,
    on_missing_audio: str | None,
    on_missing_text: str | None,
    on_damage: str | None,
    weights: str | None,
    as_json: bool,
) -> int:
    """Decode videos, detect faces, compute features and store them.

    Items that are stored already are skipped, so that a stopped run continues when it is started again.

    VIDEOS: folders and files of the configured data set, to process only these; or of any other place.

    \b
    Examples:
      aupipe extract --modality visual --gpu 0
      aupipe extract --modality audio
      aupipe extract clips/a.mp4
      aupipe extract --from-list mine.txt
      aupipe extract --recipe tcn-transformer --task va --dry-run
      aupipe extract --retry-failed
      aupipe extract --cpu --profile trace.json    # open it in chrome://tracing or Perfetto
      aupipe extract --scheduler scheduler.json --gpu all
    """
    from aupipe.extract.engine.options import ExecutionOptions
    from aupipe.extract.executors.claims import remove_ended
    from aupipe.extract.planning.plan import make_plan

    retry = given_command("aupipe extract --retry-failed", leave_out=ONCE)
    if force and share:
        raise UsageError("--force cannot tell what other runs have made again: leave out --share")
    options = ExecutionOptions(
        workers, _batch_size(batch_size), nvdec, compiled, trace=profile is not None, stall_s=stall_timeout
    )
    if profile is not None and not profile.absolute().parent.is_dir():  # before the run, not after hours
        raise UsageError(f"--profile {profile}: there is no folder {profile.absolute().parent}; make it first")
    if profile is not None:
        refuse_existing(profile, overwrite)
    overrides: dict[str, Any] = {"store.backend": backend, "faces.detect_every": detect_every}
    overrides |= {"store.readable_by": readable_by, "dataset.on_missing_audio": on_missing_audio}
    overrides |= {"dataset.on_missing_text": on_missing_text, "dataset.on_damage": on_damage}
    if no_face:
        overrides["faces.detector"] = "none"
    config, opener = open_inputs(config_file, store, videos, from_list, **overrides)
    click.get_current_context().meta[STORE] = config.store.path
    wanted = split_list(features)
    if recipe is not None:
        config, wanted = narrow_to_recipe(config, recipe, task, wanted)
    elif task is not None:
        raise UsageError("--task is for --recipe: without one, features are those of aupipe.toml")
    if weights == "random":
        from aupipe.extract.planning.random_weights import with_random_weights

        echo("aupipe: --weights random: encoders are untrained, their features have no meaning", err=True)
        config = with_random_weights(config)
    if gpu is not None and not dry_run and scheduler is None:
        devices = _devices(gpu, cpu, options, config)  # before the plan is made: it does not depend on it
    recordings, feature_set = select(config, opener, split_list(modalities), wanted, limit)
    warn_duplicates(recordings, feature_set)
    feature_set = replace(
        feature_set,
        mask_missing_audio=config.dataset.on_missing_audio == "mask",
        mask_missing_text=config.dataset.on_missing_text == "mask",
        fail_on_damage=config.dataset.on_damage == "fail",
    )
    with ExitStack() as stack:
        connection = None
        if scheduler is not None and not dry_run:
            from aupipe.extract.executors.cluster.connection import SchedulerOptions, connected

            # Before the plan is made: a run that waits here for another one finds its items stored.
            there = SchedulerOptions(scheduler, tls_ca, tls_cert, tls_key, worker_timeout)
            connection = stack.enter_context(connected(there, echo_err))
        opened = open_or_create(config, create=False)
        plan = make_plan(recordings, feature_set, opened, retry_failed=retry_failed, force=force)
        if dry_run:
            show_plan(plan, recordings, opened, "cpu" if cpu else "cuda" if gpu else "", as_json)
            return 0
        if opened is not None:
            remove_ended(opened.path / "runs")
            for spec in {item.spec.id: item.spec for item in plan.items if item.state == "done"}.values():
                with suppress(OSError):  # a store that can only be read
                    opened.name_columns(spec)
        plan.refuse_others()
        if not plan.jobs:
            return report_nothing_to_do(plan, as_json, retry)
        if gpu is None and connection is None:
            devices = _devices(gpu, cpu, options, config)
        opened = opened or open_or_create(config, create=True)
        assert opened is not None
        if connection is not None:
            from aupipe.extract.executors.cluster.connection import dask_executor

            machines = dask_executor(connection, plan.parts, opened.path, gpu, cpu, options)
            executor: Executor = stack.enter_context(machines)
            where = f"Dask at {connection.address}"
        else:
            from aupipe.extract.executors.local import local_executor

            executor, where = local_executor(plan.parts, opened.path, devices, options, share), ", ".join(devices)
        claims = None
        if share:
            from aupipe.extract.executors.claims import FileClaims
            from aupipe.extract.executors.driver import still_to_do

            replan = partial(still_to_do, opened, feature_set, retry_failed)
            claims = stack.enter_context(FileClaims(opened.path / "runs", replan))
        digest = config.digest
        return run_plan(plan, opened, executor, where, fail_fast, as_json, profile, overwrite, claims, digest, retry)


def _devices(gpu: str | None, cpu: bool, options: ExecutionOptions, config: Config) -> list[str]:
    """The devices to run on. Raises UsageError for an option that they do not support."""
    devices = pick_devices(gpu, cpu)
    if devices == ["cpu"] and options.nvdec:
        raise UsageError("--nvdec decodes on a GPU, and this run is on the CPU: leave it out")
    if options.nvdec and (config.faces.detector == "none" or config.faces.detect_every > 1):
        raise UsageError("--nvdec: with --no-face or --detect-every frames are decoded on the CPU: leave it out")
    if devices == ["cpu"] and options.compiled:
        raise UsageError("--compile is for GPUs, and this run is on the CPU: leave it out")
    return devices


def _batch_size(text: str) -> int:
    """The value of ``--batch-size``; 0 for ``auto``."""
    if text == "auto":
        return 0
    if not (text.isascii() and text.isdigit()) or not 0 < int(text) <= 65536:
        raise UsageError(f"--batch-size {text}: expected a number of faces such as 64, or auto")
    return int(text)
