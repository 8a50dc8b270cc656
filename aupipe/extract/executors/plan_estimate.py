"""What carrying out a plan takes: media, bytes in the store, time. Nothing is decoded."""

from __future__ import annotations

import math
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np

from aupipe.extract.encoders import row_shape_of, stored_dtype_of
from aupipe.extract.executors.media_lengths import MediaLength, media_lengths
from aupipe.extract.executors.media_progress import phases_of
from aupipe.extract.faces.face_table import COLUMNS
from aupipe.extract.planning.plan import Job, Plan
from aupipe.store import Store
from aupipe.store.run_log import accounts
from aupipe.types import FeatureSpec

SAMPLED = 50  # stored items of a feature, whose rows are weighed


@dataclass(frozen=True)
class EarlierRun:
    """What an earlier extraction of the same features on this machine has measured.

    ``costs``: phase -> seconds of work for a second of media. ``at_once``: phases of videos that were under way at a
    time, on average. ``start_s``: seconds until the first video was opened.
    """

    utc: str
    where: str
    media_s: float
    costs: Mapping[str, float]
    at_once: float
    start_s: float


@dataclass(frozen=True)
class PlanEstimate:
    """``media_s``, ``size_bytes``: of the videos whose length is known; the others are ``unreadable``, by id.

    ``silent``: ids of videos without sound, of which features of sound are to be made. ``unsized``: names of features
    whose rows have a size that nobody knows before the first item. ``seconds``: None where no earlier run measured
    this.
    """

    media_s: float
    frames: int
    unreadable: tuple[str, ...]
    silent: tuple[str, ...]
    size_bytes: int
    unsized: tuple[str, ...]
    seconds: float | None
    earlier: EarlierRun | None


def estimate(plan: Plan, store: Store | None, device: str = "") -> PlanEstimate:
    """What a plan takes. ``device``: cpu or cuda, where that is given; an earlier run on another is no measure."""
    lengths = media_lengths([job.recordings[0] for job in plan.jobs])
    sizes: dict[str, float | None] = {}  # feature id -> bytes of a row
    size_bytes, frames, media = 0.0, 0, dict[str, float]()
    for job in plan.jobs:
        length = lengths[job.video_id]
        rows = _rows(plan, job, length, store)
        frames += rows
        for phase in phases_of(job) if length else ():
            media[phase] = media.get(phase, 0.0) + length.seconds  # type: ignore[union-attr]
        for item in job.items:
            if item.spec.id not in sizes:
                sizes[item.spec.id] = row_bytes(plan, job, item.spec, store)
            size_bytes += rows * (sizes[item.spec.id] or 0)
    earlier = earlier_run(store, {item.spec.id for item in plan.items if item.todo}, device) if store else None
    known = [length.seconds for length in lengths.values() if length]
    return PlanEstimate(
        sum(known),
        frames,
        tuple(video for video, length in lengths.items() if length is None),
        tuple(job.video_id for job in plan.jobs if _is_silent(job, lengths[job.video_id])),
        round(size_bytes),
        tuple(sorted({feature.partition("@")[0] for feature, size in sizes.items() if size is None})),
        _seconds(media, earlier) if earlier else None,
        earlier,
    )


def _is_silent(job: Job, length: MediaLength | None) -> bool:
    return length is not None and length.silent and any(item.spec.modality == "audio" for item in job.items)


def _rows(plan: Plan, job: Job, length: MediaLength | None, store: Store | None) -> int:
    """The rows of a video: those of its stored clock, else what its header says."""
    first = job.recordings[0]
    record = store.record(first.video_id, plan.parts.graph(first).clock.id) if store else None
    if record is not None and record.state == "done":
        return record.frames
    return length.frames if length else 0


def row_bytes(plan: Plan, job: Job, spec: FeatureSpec, store: Store | None) -> float | None:
    """Bytes of a stored row: as stored items have it, else as its encoder declares; None where nobody knows."""
    records = store.records(spec.id) if store else ()
    done = [record for record in islice(records, SAMPLED) if record.state == "done" and record.frames]
    if done:
        return sum(record.nbytes for record in done) / sum(record.frames for record in done)
    match spec.modality:
        case "clock":
            return 8
        case "detections":
            return 4 * COLUMNS * plan.parts.faces.max_faces
        case "faces":
            return 4 * len(spec.columns)
    encoders = (pair for one in job.recordings for pair in plan.parts.graph(one).encoders)
    return declared_row_bytes(next(encoder for known, encoder in encoders if known.id == spec.id))


def declared_row_bytes(encoder: Any) -> float | None:
    """Bytes of a row as an encoder declares it, before it is loaded; None where it does not."""
    shape = row_shape_of(encoder)
    window = max(1, getattr(encoder, "align_rows", 0))
    return None if shape is None else np.dtype(stored_dtype_of(encoder)).itemsize * math.prod(shape) * window


def earlier_run(store: Store, features: Collection[str], device: str = "") -> EarlierRun | None:
    """Of the logged extractions of exactly these features on this machine, the one that saw the most media."""
    found = []
    for account in accounts(store.path, "extract"):
        about, end = account.about, account.end
        if about["host"] != os.uname().nodename or set(about.get("features", ())) != set(features):
            continue
        phases = {name: one for name, one in end.get("phases", {}).items() if one["media_s"] > 0 and one["seconds"] > 0}
        if not phases or not end["media_s"] or not str(about.get("where", "")).startswith(device):
            continue
        costs = {name: one["seconds"] / one["media_s"] for name, one in phases.items()}
        at_once = sum(one["seconds"] for one in phases.values()) / max(end["working_s"], 1e-3)
        start_s = max(0.0, end["seconds"] - end["working_s"])
        found.append(EarlierRun(about["utc"], str(about.get("where", "")), end["media_s"], costs, at_once, start_s))
    return max(found, key=lambda run: run.media_s, default=None)


def _seconds(media: Mapping[str, float], earlier: EarlierRun) -> float | None:
    """None where a phase is to be done that the earlier run had stored."""
    if not media or media.keys() - earlier.costs.keys():
        return None
    work = sum(media_s * earlier.costs[phase] for phase, media_s in media.items())
    return earlier.start_s + work / earlier.at_once
