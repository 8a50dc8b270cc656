"""What `aupipe inspect` shows."""

from __future__ import annotations

from typing import Any

import numpy as np

from aupipe.errors import UsageError
from aupipe.registry import nearest
from aupipe.store.base import Store


def describe_store(store: Store) -> dict[str, Any]:
    """A row per feature: what makes it, how many recordings have it, its shape and size."""
    rows: list[dict[str, Any]] = []
    for spec in store.features():
        records = [record for record in store.records(spec.id) if record.state == "done"]
        failed = sum(record.state == "failed" for record in store.records(spec.id))
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
                "row_shape": list(records[0].shape[1:]) if records else None,
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
        )
    return {"title": f"{store.path} ({store.backend})", "rows": rows, "lines": lines}


def describe_recording(store: Store, recording: str) -> dict[str, Any]:
    """A row per feature of one recording, with the range and mean of its valid numbers."""
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
        rows.append(row)
    if not rows:
        names = {record.recording for record in store.records()}
        raise UsageError(f"nothing of {recording!r} in {store.path}.{nearest(recording, names)}")
    rows.sort(key=lambda row: row["feature"])
    lines = [f"{'feature':32} {'shape':>18} {'type':8} {'valid':>7} {'min':>10} {'mean':>10} {'max':>10}"]
    for row in rows:
        if row["state"] != "done":
            lines.append(f"{row['feature']:32} {row['state']}: {row['reason']}")
            continue
        numbers = " ".join(f"{row[key]:>10.4g}" if key in row else f"{'-':>10}" for key in ("min", "mean", "max"))
        shape = "x".join(map(str, row["shape"]))
        lines.append(f"{row['feature']:32} {shape:>18} {row['dtype']:8} {row['valid_frames']:>7} {numbers}")
    return {"title": f"{recording} in {store.path}", "rows": rows, "lines": lines}
