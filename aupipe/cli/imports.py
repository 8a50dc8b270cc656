"""import: features that other programs have computed, into the store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from aupipe.cli.options import config_options, given_command, json_option, open_or_create, require_config, resolve
from aupipe.cli.output import echo, echo_json
from aupipe.cli.run_report import STOPPED, run_plan
from aupipe.config import NO_DETECTOR, Config
from aupipe.dataset import open_dataset
from aupipe.encoder_tables import RESERVED_NAMES, EncoderConfig
from aupipe.errors import RecordingError, UsageError
from aupipe.quantities import counted, first_of
from aupipe.types import FEATURE_NAME

if TYPE_CHECKING:
    from aupipe.store import Store
    from aupipe.types import FeatureSpec, Recording

# A plan makes a clock only for what is computed on it: this is the cheapest. Under a name that no user's feature has.
COUNTER = EncoderConfig("import-level", "level", "audio")


@click.command("import")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--name", required=True, help="Name of the feature in the store.")
@click.option("--key", default="", metavar="ARRAY", help="Of .npz files with several arrays: the one to import.")
@click.option("--made-by", default="", metavar="TEXT", help='Program and version, for the record: "OpenFace 2.2.0".')
@config_options
@json_option
def import_features(
    folder: Path, name: str, key: str, made_by: str, config_file: Path | None, store: Path | None, as_json: bool
) -> int:
    """Import a file per video from FOLDER: .npy, .npz, .csv, also of OpenFace and py-feat.

    A file has the name of its video. It must have a row for every decoded frame; where it has not, frame numbers and
    times in the file place its rows, and what cannot be placed is refused by name. The feature is then used by its
    name, as in `aupipe train --feature`.

    \b
    Examples:
      aupipe import openface --name openface --made-by "OpenFace 2.2.0"
      aupipe import clip-features --name clip --key embedding
    """
    from aupipe.imported.publish import find_files, import_files

    config = require_config(resolve(config_file, store))
    if not FEATURE_NAME.fullmatch(name):
        raise UsageError(f"--name {name}: use a-z, 0-9, '_', '.', '-', at most 64 characters")
    if name in (*RESERVED_NAMES, COUNTER.name, *(one.name for one in config.encoders)):
        raise UsageError(f"--name {name}: aupipe or {config.file} has a feature of this name: choose another")
    if not folder.is_dir():
        raise UsageError(f"no folder {folder}")
    recordings = list(open_dataset(config.dataset).recordings)
    files, others = find_files(folder, recordings)
    wanted = [one for one in recordings if one.id in files]
    opened, clock, uncounted, code = _with_clocks(config, wanted, as_json)
    if code in STOPPED:
        return code
    found = import_files(files, wanted, opened, clock, name, key=key, made_by=made_by, uncounted=uncounted)
    without = [one.id for one in recordings if one.id not in files]
    if as_json:
        about: dict[str, Any] = {"feature": found.spec.id if found.spec else None}
        about |= {"done": len(found.done), "fitted": {one: how for one, how in found.done.items() if how}}
        about |= {"failed": found.failed, "no_file": without, "no_recording": list(map(str, others))}
        about |= {"dropped_columns": found.dropped, "replaced": found.replaced}
        echo_json("import", about)
        return RecordingError.exit_code if found.failed else 0
    if found.spec:
        columns = f", {len(found.spec.columns)} named columns" if found.spec.columns else ""
        of = counted(len(found.done), "recording")
        echo(f"imported {found.spec.id} of {of}{columns}: aupipe train --feature {name}")
    for one, how in found.done.items():
        if how:
            echo(f"note  {one}: {how}")
    if found.replaced:
        echo(f"replaced, as the files have other content than before: {first_of(found.replaced)}")
    if found.dropped:
        echo(f"columns that are no numbers were left out: {', '.join(found.dropped)}")
    for one, reason in found.failed.items():
        echo(f"FAILED  {one}: {reason}")
    if without:
        echo(f"without a file in {folder}: {counted(len(without), 'recording')}: {first_of(without)}")
    if others:
        shown = first_of([str(path) for path in others])
        echo(f"of no recording, or of several: {counted(len(others), 'file')}: {shown}")
    return RecordingError.exit_code if found.failed else 0


def _with_clocks(
    config: Config, recordings: Sequence[Recording], as_json: bool
) -> tuple[Store, FeatureSpec, dict[str, str], int]:
    """The store with the clocks of these recordings, and the feature that those are; recording -> why it has none; and
    the exit code of decoding. Videos without a clock are decoded, and those that are other files by now."""
    from aupipe.extract.engine.options import ExecutionOptions
    from aupipe.extract.executors.local import local_executor
    from aupipe.extract.planning.features import build_feature_set
    from aupipe.extract.planning.plan import make_plan

    counter = next((one for one in config.encoders if one.kind == COUNTER.kind), COUNTER)
    bare = replace(config, encoders=(counter,), faces=replace(config.faces, detector=NO_DETECTOR), detector={})
    features = replace(build_feature_set(bare), mask_missing_audio=True)
    opened = open_or_create(config, create=True)
    assert opened is not None
    clocks = {one.id: features.graph(one).clock for one in recordings}
    if len({clock.id for clock in clocks.values()}) > 1:
        raise UsageError("videos and folders of images have other clocks: import their features by a name each")
    clock = next(iter(clocks.values()))
    missing = _without_clock(opened, recordings, clock)
    plan = make_plan(missing, features, opened, retry_failed=True)
    plan.refuse_others()
    code = 0
    if plan.jobs:
        echo(f"aupipe: decoding {counted(len(plan.jobs), 'video')} to count frames", err=True)
        executor = local_executor(plan.parts, opened.path, ["cpu"], ExecutionOptions(), False)
        retry = given_command("aupipe import", leave_out=("as_json",))
        code = run_plan(plan, opened, executor, "cpu", as_json=as_json, configuration=bare.digest, retry=retry)
    records = ((item.key, opened.record(item.key, item.spec.id)) for item in plan.items)
    reasons = {key: record.reason for key, record in records if record is not None and record.reason}
    without = _without_clock(opened, missing, clock)
    return opened, clock, {one.id: reasons.get(one.key_for("audio"), "aupipe extract --force") for one in without}, code


def _without_clock(store: Store, recordings: Sequence[Recording], clock: FeatureSpec) -> list[Recording]:
    """Those whose clock is not stored, or is of a file that has changed since."""
    from aupipe.extract.planning.plan import source_paths
    from aupipe.sources import source_changed

    known = {record.recording: record.source for record in store.all_published(clock.id)}

    def is_missing(one: Recording) -> bool:
        key = one.key_for(clock.modality)
        source = known.get(key)
        return key not in known or (source is not None and source_changed(source_paths(one, clock.modality), source))

    return [one for one in recordings if is_missing(one)]
