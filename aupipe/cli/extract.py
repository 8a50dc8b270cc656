"""extract."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from aupipe.cli.options import (
    config_options,
    device_options,
    failure_lines,
    json_option,
    require_config,
    resolve,
    split_list,
)
from aupipe.cli.output import echo, echo_json
from aupipe.cli.overwrite import overwrite_option
from aupipe.cli.running import counts, run_plan
from aupipe.config import Config
from aupipe.dataset import part_of
from aupipe.errors import UsageError
from aupipe.files import refuse_existing

if TYPE_CHECKING:
    from aupipe.extract.engine.options import ExecutionOptions
    from aupipe.extract.planning.features import FeatureSet
    from aupipe.extract.planning.plan import Item, Plan
    from aupipe.store import Store
    from aupipe.types import Recording

MODALITIES = ("visual", "audio", "text")


@click.command()
@click.argument("videos", type=click.Path(path_type=Path), required=False)
@click.option(
    "--modality", "modalities", multiple=True, help="visual, audio or text; several with commas. Default all."
)
@click.option("--feature", "features", multiple=True, help="Only these [[encoder]] names; several with commas.")
@device_options
@config_options
@click.option("--backend", help="zarr or hdf5, for a new store.")
@click.option(
    "--workers",
    type=click.IntRange(min=0),
    default=0,
    metavar="N",
    help="Videos decoded at once, per device. Default: by the cores.",
)
@click.option(
    "--batch-size",
    default="auto",
    metavar="N",
    help="Faces an encoder gets at once; auto finds it. Speed and memory only: never part of a feature's identity.",
)
@click.option("--nvdec", is_flag=True, help="Decode H.264, HEVC, VP8 and VP9 on the GPU, to the same pixels.")
@click.option("--compile", "compiled", is_flag=True, help="Run the encoders through torch.compile, on a GPU.")
@click.option("--no-face", is_flag=True, help="Encode whole pictures: no detection, the middle square of each frame.")
@click.option(
    "--detect-every",
    type=click.IntRange(min=1),
    metavar="N",
    help="Look for faces in every Nth frame and draw straight lines between, never across a cut. Over the file's 1.",
)
@click.option("--profile", type=click.Path(path_type=Path), metavar="FILE", help="Write what every stage did when.")
@overwrite_option("FILE of --profile")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Only the first N recordings.")
@click.option("--dry-run", is_flag=True, help="Say what would run and why, and stop.")
@click.option("--retry-failed", is_flag=True, help="Try again what failed before.")
@click.option("--force", is_flag=True, help="Make everything anew; the old stays until the new is published.")
@click.option(
    "--stall-timeout",
    type=click.FloatRange(min=1, max=1e7),
    default=600.0,
    metavar="S",
    show_default=True,
    help="Give a video up that makes no progress for so many seconds; for sound, for each 30 s of it.",
)
@click.option("--fail-fast", is_flag=True, help="Stop at the first recording that fails.")
@click.option(
    "--on-missing-audio",
    type=click.Choice(["fail", "mask"]),
    default="fail",
    show_default=True,
    help="Videos without sound fail by name, or get rows that are all invalid; never zeros.",
)
@click.option(
    "--on-damage",
    type=click.Choice(["fail", "keep"]),
    default="keep",
    show_default=True,
    help="Damaged videos keep the rows that can be decoded, and are listed; or fail by name.",
)
@click.option("--weights", type=click.Choice(["random"]), help="random: untrained encoders, for tests and benchmarks.")
@json_option
def extract(
    videos: Path | None,
    modalities: tuple[str, ...],
    features: tuple[str, ...],
    gpu: str | None,
    cpu: bool,
    config_file: Path | None,
    store: Path | None,
    backend: str | None,
    workers: int,
    batch_size: str,
    nvdec: bool,
    compiled: bool,
    no_face: bool,
    detect_every: int | None,
    profile: Path | None,
    overwrite: bool,
    limit: int | None,
    dry_run: bool,
    retry_failed: bool,
    force: bool,
    stall_timeout: float,
    fail_fast: bool,
    on_missing_audio: str,
    on_damage: str,
    weights: str | None,
    as_json: bool,
) -> int:
    """Decode, find faces, encode, store. What is stored already is left alone, so a stopped run goes on where it was.

    VIDEOS: a folder of the configured data set, to take its videos alone; or any other folder of videos.

    \b
    Examples:
      aupipe extract --modality visual --gpu 0
      aupipe extract --modality audio
      aupipe extract --dry-run
      aupipe extract --retry-failed
      aupipe extract --cpu --profile trace.json    # open it in chrome://tracing or Perfetto
    """
    from aupipe.extract.engine.options import ExecutionOptions
    from aupipe.extract.planning.plan import make_plan

    if math.isnan(stall_timeout):
        raise UsageError("--stall-timeout nan: expected a number of seconds")
    means = ExecutionOptions(workers, _batch_size(batch_size), nvdec, compiled, stall_s=stall_timeout)
    if profile is not None and not profile.absolute().parent.is_dir():  # said now, not after hours
        raise UsageError(f"--profile {profile}: there is no folder {profile.absolute().parent}; make it first")
    if profile is not None:
        refuse_existing(profile, overwrite)
    selected: Path | None = None
    overrides: dict[str, Any] = {"store.backend": backend, "faces.detect_every": detect_every}
    if no_face:
        overrides["faces.detector"] = "none"
    config = resolve(config_file, store, **overrides)
    if videos is None:
        require_config(config)
    elif config.file is not None and videos.is_dir() and part_of(videos, config.dataset):
        selected = videos
    else:
        overrides |= {"dataset.videos": videos, "dataset.layout": "folder"}
        config = resolve(config_file, store, **overrides)
    if videos is not None and config.file is None and store is None:
        # Recordings go by their path in the folder: two folders in one store would overwrite each other.
        config = resolve(None, videos / "features", **overrides)
    if weights == "random":
        config = _with_random_weights(config)
    if gpu is not None and not dry_run:
        devices = _devices(gpu, cpu, means, config)  # before anything else: the answer does not depend on the data
    recordings, parts = requested(config, split_list(modalities), split_list(features), limit, selected)
    _name_twins(recordings, parts)
    parts = replace(parts, mask_missing_audio=on_missing_audio == "mask", fail_on_damage=on_damage == "fail")
    opened = open_or_create(config, create=False)
    plan = make_plan(recordings, parts, opened, retry_failed=retry_failed, force=force)
    if dry_run:
        _show_plan(plan, as_json)
        return 0
    plan.refuse_others()
    if not plan.jobs:
        return _nothing_to_do(plan, as_json)
    if gpu is None:
        devices = _devices(gpu, cpu, means, config)
    opened = opened or open_or_create(config, create=True)
    assert opened is not None
    return run_plan(plan, opened, devices, means, fail_fast, as_json, profile, overwrite)


def _devices(gpu: str | None, cpu: bool, means: ExecutionOptions, config: Config) -> list[str]:
    """The devices to run on. Raises UsageError for what these have not."""
    devices = pick_devices(gpu, cpu)
    if devices == ["cpu"] and means.nvdec:
        raise UsageError("--nvdec decodes on a GPU, and this runs on the processor: leave it out")
    if means.nvdec and (config.faces.detector == "none" or config.faces.detect_every > 1):
        raise UsageError("--nvdec: whole pictures, and frames of --detect-every, are decoded on the host: leave it out")
    if devices == ["cpu"] and means.compiled:
        raise UsageError("--compile is for GPUs; on the processor encoders run by faster routes: leave it out")
    return devices


def _batch_size(text: str) -> int:
    """0 for ``auto``."""
    if text == "auto":
        return 0
    if not (text.isascii() and text.isdigit()) or not 0 < int(text) <= 65536:
        raise UsageError(f"--batch-size {text}: expected a number of faces such as 64, or auto")
    return int(text)


def _with_random_weights(config: Config) -> Config:
    """The configuration with every encoder that has weights untrained, under a name of its own."""
    echo("aupipe: --weights random: encoders are untrained, their features mean nothing", err=True)
    from dataclasses import fields

    from aupipe.extract.encoders import ENCODERS

    def has_weights(kind: str) -> bool:
        encoder = ENCODERS.get(kind)
        if getattr(encoder, "file_is_network", False):
            return False  # without its file there is no network to leave untrained: it keeps what it has
        return "weights" in {f.name for f in fields(encoder)}

    encoders = tuple(
        replace(encoder, params={**encoder.params, "weights": "random"}) if has_weights(encoder.kind) else encoder
        for encoder in config.encoders
    )
    return replace(config, encoders=encoders)


def _name_twins(recordings: list[Recording], parts: FeatureSet) -> None:
    """Say where two features are the same numbers: harmless, but made and kept twice."""
    named: dict[str, str] = {}
    for spec, _ in parts.graph(recordings[0]).encoders if recordings else ():
        twin = named.setdefault(spec.key, spec.name)
        if twin != spec.name:
            echo(f"aupipe: features {twin!r} and {spec.name!r} are the same numbers: one is enough", err=True)


def pick_devices(gpu: str | None, cpu: bool) -> list[str]:
    """The devices to run on; what was not asked for is said."""
    from aupipe.extract.executors.devices import choose_devices

    devices = choose_devices(gpu, cpu)
    if gpu is None and not cpu:
        said = "cpu (torch sees no GPU)" if devices == ["cpu"] else devices[0]
        echo(f"aupipe: running on {said}", err=True)
    return devices


def requested(
    config: Config, modalities: list[str], features: list[str], limit: int | None, within: Path | None = None
) -> tuple[list[Recording], FeatureSet]:
    """The recordings of the data set, or of those in a folder of it, and the features asked for."""
    from aupipe.dataset import open_dataset
    from aupipe.extract.planning.features import build_feature_set
    from aupipe.registry import nearest

    for modality in modalities:
        if modality not in MODALITIES:
            raise UsageError(
                f"unknown modality {modality!r}.{nearest(modality, MODALITIES)} Known: {', '.join(MODALITIES)}"
            )
    parts = build_feature_set(config, modalities, features)
    if not parts.encoders:
        asked = [*(f"modality {name}" for name in modalities), *(f"name {name}" for name in features)]
        wanted = f" of {' and '.join(asked)}" if asked else ""
        raise UsageError(f"{config.file or 'the defaults'}: no [[encoder]]{wanted}; add one, or ask for another")
    dataset = open_dataset(config.dataset)
    if within is not None:
        dataset = dataset.within(within)
    if dataset.ignored:
        kinds = Counter(path.suffix or "no suffix" for path in dataset.ignored)
        names = ", ".join(f"{count} {suffix}" for suffix, count in kinds.most_common(5))
        echo(f"aupipe: {len(dataset.ignored)} files in the folder are no videos ({names})", err=True)
    recordings = list(dataset.recordings)
    return recordings[:limit] if limit else recordings, parts


def open_or_create(config: Config, create: bool) -> Store | None:
    from aupipe.store import create_store, open_store

    if config.store.path.exists():
        opened = open_store(config.store.path)
        said_now = config.origin.get("store.backend", "default") not in ("default", str(config.file))
        if said_now and opened.backend != config.store.backend:
            raise UsageError(
                f"{config.store.path} is a {opened.backend} store, asked for is {config.store.backend}: "
                f"`aupipe store migrate NEW --backend {config.store.backend}` copies it"
            )
        return opened
    return create_store(config.store.path, config.store.backend) if create else None


def _show_plan(plan: Plan, as_json: bool) -> None:
    """What would run and why."""
    if as_json:
        for item in plan.items:
            row = {"message_type": "plan", "recording": item.key, "feature": item.spec.id, "state": item.state}
            echo_json(row | ({"reason": item.reason} if item.reason else {}))
        return
    by_feature: dict[str, Counter[str]] = {}
    for item in plan.items:
        by_feature.setdefault(item.spec.id, Counter())[item.state] += 1
    for feature, states in by_feature.items():
        echo(f"{feature:32}  " + ", ".join(f"{count} {state}" for state, count in states.most_common()))
    for item in plan.items:
        if item.state != "done":
            echo(f"  {item.state:15} {item.spec.name:12} {item.key}" + f"  {item.reason}" * bool(item.reason))
    echo(f"would decode {len(plan.jobs)} videos; nothing was done (--dry-run)")


def _nothing_to_do(plan: Plan, as_json: bool) -> int:
    failed = [item for item in plan.items if item.state == "failed before"]
    if as_json:
        echo_json({"message_type": "summary", "done": 0, **counts(plan), "failed": len(failed)})
    else:
        counted = f", {len(failed)} failed before:" if failed else ""
        echo(f"nothing to do: {plan.counts['done']} items are stored{counted}", *_failed_before(failed))
    return 3 if failed else 0


def _failed_before(failed: list[Item]) -> list[str]:
    if not failed:
        return []
    lines = failure_lines((item.key, item.spec.name, item.reason) for item in failed)
    shown = [f"  {line}" for line in lines[:10]]
    more = [f"  ... and {len(lines) - 10} more: aupipe status --failed"] if len(lines) > 10 else []
    return [*shown, *more, "retry: aupipe extract --retry-failed"]
