"""inspect: the content of the store."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from aupipe.cli.completion import RECORDING
from aupipe.cli.options import config_options, existing_store, json_option, media_notes, resolve
from aupipe.cli.output import echo, echo_json
from aupipe.config import Config
from aupipe.dataset import open_dataset
from aupipe.dataset_model import nearest_recording
from aupipe.errors import UsageError

if TYPE_CHECKING:
    from aupipe.store import Store


@click.command()
@click.argument("recording", required=False, type=RECORDING)
@config_options
@json_option
def inspect(recording: str | None, config_file: Path | None, store: Path | None, as_json: bool) -> int:
    """Show the content of the store: shapes, types, sizes and numbers of valid frames.

    With RECORDING, the features of that recording, with the range of their values. The path of its video will do.

    \b
    Example:
      aupipe inspect clips/a.mp4
    """
    config = resolve(config_file, store)
    opened = existing_store(config)
    recording = _stored_name(opened, config, recording) if recording else None
    content = describe_recording(opened, recording) if recording else describe_store(opened)
    if as_json:
        about = {"recording": recording} if recording else {}
        about |= {"store": str(opened.path), "backend": opened.backend, "features": content["rows"]}
        echo_json("recording" if recording else "store", about, indent=1)
        return 0
    echo(content["title"])
    for line in content["lines"]:
        echo(line)
    return 0


def _stored_name(store: Store, config: Config, name: str) -> str:
    """The name of a recording in the store: ``name``, or that of the file of this path; else ``name`` as it is."""
    known = {record.recording for record in store.records()}
    if name in known:
        return name
    try:
        found = open_dataset(config.dataset).within([name]).recordings if Path(name).exists() else ()
    except UsageError:  # no data set here, or not one of its files
        found = ()
    ids = sorted({one for recording in found for one in (recording.id, recording.video_id)} & known)
    if len(ids) > 1:
        raise UsageError(f"{name} is of {', '.join(ids)}: name one of them")
    # A store without a configuration is in the folder of its videos.
    below = Path(os.path.relpath(name, Path(store.path).parent)).as_posix()
    return ids[0] if ids else below if below in known else name


def describe_store(store: Store) -> dict[str, Any]:
    """One row per feature: its encoder, number of recordings, shape and size."""
    from aupipe.extract.planning.features import column_names

    rows: list[dict[str, Any]] = []
    for spec in store.features():
        records = [record for record in store.records(spec.id) if record.state == "done"]
        failed = sum(record.state == "failed" for record in store.records(spec.id))
        damaged = sum(bool(record.damage) for record in records)
        rows.append(
            {
                "feature": spec.id,
                "modality": spec.modality,
                "kind": spec.kind,
                "params": dict(spec.params),
                "weights": spec.weights.name if spec.weights else None,
                "licence": spec.weights.licence if spec.weights else None,
                "recordings": len(records),
                "failed": failed,
                "damaged": damaged,
                "row_shape": list(records[0].shape[1:]) if records else None,
                "columns": list(column_names(spec)),
                "dtype": spec.dtype,
                "frames": sum(record.frames for record in records),
                "valid_frames": sum(record.valid_frames for record in records),
                "bytes": sum(record.nbytes for record in records),
            }
        )
    lines = [f"{'feature':32} {'kind':10} {'row':>12} {'type':8} {'items':>6} {'frames':>10} {'valid':>6} {'MB':>9}"]
    for row in rows:
        shape = "-" if row["row_shape"] is None else "x".join(map(str, row["row_shape"])) or "1"
        share = f"{row['valid_frames'] / row['frames']:.0%}" if row["frames"] else "-"
        lines.append(
            f"{row['feature']:32} {row['kind']:10} {shape:>12} {row['dtype']:8} {row['recordings']:>6} "
            f"{row['frames']:>10,} {share:>6} {row['bytes'] / 1e6:>9.1f}"
            + (f"  {row['damaged']} from damaged media: aupipe status --damaged" if row["damaged"] else "")
        )
    return {"title": f"{store.path} ({store.backend})", "rows": rows, "lines": lines}


def describe_recording(store: Store, recording: str) -> dict[str, Any]:
    """One row per feature of a recording, with the minimum, mean and maximum of its valid values."""
    import numpy as np

    rows = []
    for record in store.records():
        if record.recording != recording:
            continue
        row: dict[str, Any] = {
            "feature": record.feature,
            "state": record.state,
            "shape": list(record.shape),
            "dtype": record.dtype,
            "valid_frames": record.valid_frames,
            "seconds": round(record.seconds, 3),
            "published_utc": record.time_utc,
        }
        if record.state == "done":
            data = np.asarray(store.read(recording, record.feature), dtype=np.float64)
            if record.valid_frames:
                row |= {"min": float(np.nanmin(data)), "mean": float(np.nanmean(data)), "max": float(np.nanmax(data))}
        else:
            row["reason"] = record.reason
        if record.damage:
            row["damage"] = record.damage
        if record.media:
            row["media"] = dict(record.media)
        rows.append(row)
    if not rows:
        names = {record.recording for record in store.records()}
        hint = nearest_recording(recording, names) or " `aupipe store ls` lists what is there"
        raise UsageError(f"no item of {recording!r} in {store.path}.{hint}")
    rows.sort(key=lambda row: row["feature"])
    lines = [f"{'feature':32} {'shape':>18} {'type':8} {'valid':>7} {'min':>10} {'mean':>10} {'max':>10}"]
    for row in rows:
        if row["state"] != "done":
            lines.append(f"{row['feature']:32} {row['state']}: {row['reason']}")
            continue
        numbers = " ".join(f"{row[key]:>10.4g}" if key in row else f"{'-':>10}" for key in ("min", "mean", "max"))
        shape = "x".join(map(str, row["shape"]))
        lines.append(f"{row['feature']:32} {shape:>18} {row['dtype']:8} {row['valid_frames']:>7} {numbers}")
    damage = max((row.get("damage", "") for row in rows), key=len)
    lines += [f"damaged  {damage}"] * bool(damage)
    said = media_notes(record for record in store.records() if record.recording == recording)
    lines += [f"note  {line}" for notes in said.values() for line in notes]
    return {"title": f"{recording} in {store.path}", "rows": rows, "lines": lines}
