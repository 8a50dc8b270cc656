"""Examples from the store, and their standardisation. numpy only.

An example holds no rows: those of a window are read when a batch is made (`aupipe.train.batch`). So the memory that is
taken does not depend on how long the recordings are.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aupipe.errors import DamageError, RecordingError, UsageError
from aupipe.store import Store
from aupipe.store.view import ItemView, feature_view
from aupipe.tasks import Task
from aupipe.train.labels import blank_labels, match
from aupipe.train.mirror import mirror_order, symmetric_rows
from aupipe.types import PER_VIDEO, FeatureSpec, Labels, Recording

# A column that is almost constant in training would otherwise have huge values in other recordings.
CLIP = 10.0  # standard deviations
BLOCK_ROWS = 1024  # read at a time where a whole recording is gone through


@dataclass(frozen=True)
class Example:
    """One recording: ``arrays[i]`` (T, ...) reads feature i from the store, ``present`` (T, F) where it has a row.

    ``labels`` have T rows; ``surplus``: by how many the annotation was longer. ``face_found`` (T,): the face was found.
    ``aux_labels``: those of auxiliary tasks, in their order. ``mirrored``: `mirror_order` of each feature whose rows
    are made symmetric.
    """

    recording: str
    arrays: tuple[ItemView, ...]
    present: NDArray[np.bool_]
    face_found: NDArray[np.bool_]
    labels: Labels | None = None
    surplus: int = 0
    aux_labels: tuple[Labels, ...] = ()
    mirrored: tuple[NDArray[np.intp] | None, ...] = ()

    def __len__(self) -> int:
        return len(self.present)

    @cached_property
    def dims(self) -> tuple[int, ...]:
        """Columns of each feature; rows of several dimensions are flattened."""
        return tuple(int(np.prod(array.shape[1:])) for array in self.arrays)

    @cached_property
    def targets(self) -> NDArray[np.float32]:
        """(T, K) targets of the task, followed by those of the auxiliary tasks; K = 0 without labels."""
        return np.column_stack([np.zeros((len(self), 0), np.float32), *(item.targets for item in self._annotations)])

    @cached_property
    def valid(self) -> NDArray[np.bool_]:
        """(T, K) True where ``targets`` are annotated."""
        return np.column_stack([np.zeros((len(self), 0), bool), *(item.valid for item in self._annotations)])

    @property
    def _annotations(self) -> tuple[Labels, ...]:
        return self.aux_labels if self.labels is None else (self.labels, *self.aux_labels)

    @cached_property
    def times(self) -> NDArray[np.float64]:
        """(T,) time of each frame in s. Raises UsageError where no feature has times."""
        for array in self.arrays:
            with suppress(KeyError):
                return array.pts_s
        raise UsageError(
            f"{self.recording}: no clock is stored for its features, which a context in seconds needs: extract it "
            "again, or give the context in frames"
        )

    @cached_property
    def nearest(self) -> NDArray[np.intp]:
        """(T, F) the nearest frame in which the feature has a row, the earlier of two; -1 where it has none at all."""
        found = np.full(self.present.shape, -1, np.intp)
        frames = np.arange(len(self))
        for i in range(self.present.shape[1]):
            known = np.flatnonzero(self.present[:, i])
            if len(known):
                after = known[np.minimum(np.searchsorted(known, frames), len(known) - 1)]
                before = known[np.maximum(np.searchsorted(known, frames, side="right") - 1, 0)]
                found[:, i] = np.where(abs(frames - before) <= abs(after - frames), before, after)
        return found

    @cached_property
    def means(self) -> tuple[NDArray[np.float32], ...]:
        """(d,) mean of each feature over the present rows of this recording."""
        found = []
        for i, dim in enumerate(self.dims):
            total = np.zeros(dim)
            for start, stop in blocks(len(self)):
                rows = read_rows(self, i, start, stop)[self.present[start:stop, i]]
                total += rows.sum(axis=0, dtype=np.float64)
            found.append((total / max(1, int(self.present[:, i].sum()))).astype(np.float32))
        return tuple(found)


@dataclass(frozen=True)
class Scaling:
    """``mean`` and ``std`` (D,) of the features over the present rows of the training split alone.

    Before that, ``center`` times the recording's own mean is subtracted, because neutral faces of different people
    differ by more than expressions do. This needs the whole recording and no labels; 0 subtracts nothing.

    ``clip``: values beyond so many standard deviations are set to that many; 0: none is. ``absent``: what stands for a
    frame without a row: 'zero', or 'nearest': the nearest row of that feature (its presence is 0 in either case).
    ``unscaled``: numbers of the features that the head reads as they are stored; their mean is 0 and their std 1.
    """

    mean: NDArray[np.float32]
    std: NDArray[np.float32]
    center: float = 0.0
    clip: float = CLIP
    absent: str = "zero"
    unscaled: frozenset[int] = frozenset()


def feature_specs(store: Store, features: Mapping[str, str]) -> dict[str, FeatureSpec]:
    """The spec of each feature id. Raises UsageError for an id the store does not know."""
    specs = {}
    for name, feature_id in features.items():
        try:
            specs[name] = store.spec(feature_id)
        except KeyError:
            raise UsageError(
                f"feature {name!r} ({feature_id}) is not in the store: `aupipe extract --feature {name}` computes it"
            ) from None
    if not specs:
        raise UsageError("no features given: give at least one")
    return specs


def refuse_duplicates(features: Mapping[str, str]) -> None:
    """Raise UsageError where two features (name -> id) are the same numbers, which a head would read twice."""
    named: dict[str, str] = {}
    for name, feature_id in features.items():
        key = feature_id.rpartition("@")[2]
        first = named.setdefault(key, name)
        if first != name:
            raise UsageError(
                f"features {first!r} and {name!r} are the same numbers (key {key}): give one of them, --feature {first}"
            )


def load_examples(
    store: Store,
    recordings: Sequence[Recording],
    features: Mapping[str, str],
    labels: Mapping[str, Labels] | None = None,
    allow_missing: bool = False,
    aux_labels: Sequence[tuple[Task, Mapping[str, Labels]]] = (),
    command: str = "",
    symmetric: bool = False,
) -> list[Example]:
    """The recordings as examples, with labels if ``labels`` is given. No rows are kept in memory.

    ``aux_labels``: labels of auxiliary tasks; for a recording without them all rows are invalid. ``command``: what
    makes the features; '': their names are given to `aupipe extract`. ``symmetric``: see `aupipe.train.mirror`.

    Raises UsageError listing the recordings that lack a feature (or labels), unless ``allow_missing`` leaves them out;
    RecordingError where the features of a recording have different lengths.
    """
    specs = feature_specs(store, features)
    views = {name: feature_view(store, features[name]) for name in specs}
    examples, missing, lacked = [], [], dict[str, None]()
    for recording in recordings:
        arrays, lacking = [], []
        for name, spec in specs.items():
            try:
                arrays.append(views[name][recording.key_for(spec.modality)])
            except KeyError:
                lacked[name] = None
                lacking.append(name + _failure(store, recording.key_for(spec.modality), features[name]))
        if labels is not None and recording.id not in labels:
            lacking.append("labels")
        if lacking:
            missing.append(f"{recording.id} ({', '.join(lacking)})")
            continue
        lengths = {name: len(array) for name, array in zip(specs, arrays, strict=True)}
        if len(set(lengths.values())) > 1:
            raise RecordingError(
                f"{recording.id}: features of different lengths {lengths}, but each has one row per decoded frame: "
                "extract them again from one version of the video"
            )
        examples.append(_example(recording.id, arrays, list(specs.values()), labels, aux_labels, symmetric))
    if missing and not allow_missing:
        listed = "; ".join(missing[:20]) + (f"; and {len(missing) - 20} more" if len(missing) > 20 else "")
        names = " --feature " * bool(lacked) + ",".join(lacked)
        raise UsageError(
            f"incomplete recordings, {len(missing)} of {len(recordings)}: {listed}. "
            f"`{(lacked and command) or f'aupipe extract{names}'}` computes what is missing; "
            "--allow-missing leaves them out"
        )
    return examples


def _failure(store: Store, recording: str, feature: str) -> str:
    record = store.record(recording, feature)
    return f": failed, {record.reason}" if record is not None and record.state == "failed" else ""


def _example(
    recording: str,
    arrays: Sequence[ItemView],
    specs: Sequence[FeatureSpec],
    labels: Mapping[str, Labels] | None,
    aux_labels: Sequence[tuple[Task, Mapping[str, Labels]]],
    symmetric: bool,
) -> Example:
    frames = len(arrays[0])
    present = np.stack([array.valid for array in arrays], axis=1)  # F x (T,) -> (T, F)
    # Audio has rows without a face: only features of a person tell whether the face was found.
    personal = [spec.modality not in PER_VIDEO for spec in specs]
    face_found = np.all(present[:, personal], axis=1) if any(personal) else np.any(present, axis=1)
    matched, surplus = match(labels[recording], frames, recording) if labels is not None else (None, 0)
    aux = tuple(
        match(known.get(recording) or blank_labels(task, frames), frames, recording)[0] for task, known in aux_labels
    )
    mirrored = tuple(map(mirror_order, specs, (array.shape for array in arrays))) if symmetric else ()
    return Example(recording, tuple(arrays), present, np.asarray(face_found), matched, surplus, aux, mirrored)


def common_dims(examples: Sequence[Example]) -> tuple[int, ...]:
    """Columns of each feature, which all recordings share. Raises DamageError naming a recording that differs."""
    for example in examples:
        if example.dims != examples[0].dims:
            other = f"{examples[0].recording} has {examples[0].dims}; run `aupipe store verify`"
            raise DamageError(f"{example.recording}: features of {example.dims} columns, {other}")
    return examples[0].dims


def fit_scaling(examples: Sequence[Example], center: float = 0.0, unscaled: frozenset[int] = frozenset()) -> Scaling:
    """Mean and standard deviation of each column over the present rows of these recordings, after centring.

    Computed in float64 relative to the mean of the first recording, so that large means cost no precision. Constant
    columns, and features that are never present, get std 1. Raises DamageError for infinite values.
    """
    dims = common_dims(examples)
    means, stds = [], []
    for i, dim in enumerate(dims):
        if i in unscaled:
            means.append(np.zeros(dim))
            stds.append(np.ones(dim))
            continue
        shift: NDArray[np.float64] | None = None
        total, square, count = np.zeros(dim), np.zeros(dim), 0
        for example in examples:
            for start, stop in blocks(len(example)):
                present = example.present[start:stop, i]
                rows = read_rows(example, i, start, stop, center)[present].astype(np.float64)  # (n, d)
                if not len(rows):
                    continue
                shift = rows.mean(axis=0) if shift is None else shift
                rows -= shift
                total += rows.sum(axis=0)
                square += np.einsum("nd,nd->d", rows, rows)
                count += len(rows)
            if not np.isfinite(square).all():
                raise DamageError(f"{example.recording}: feature {i + 1} is infinite; run `aupipe store verify`")
        offset = total / max(count, 1)
        std = np.sqrt(np.maximum(square / max(count, 1) - offset**2, 0.0))
        means.append(offset if shift is None else shift + offset)
        stds.append(np.where(std > 1e-6, std, 1.0))
    mean, std = (np.concatenate(values).astype(np.float32) for values in (means, stds))
    return Scaling(mean, std, center, unscaled=unscaled)


def read_rows(example: Example, i: int, start: int, stop: int, center: float = 0.0) -> NDArray[np.float32]:
    """Rows [start, stop) of feature i as a float32 copy (n, d), minus ``center`` times the recording's mean."""
    return centred_rows(example, i, example.arrays[i][start:stop], center)


def centred_rows(example: Example, i: int, rows: NDArray[Any], center: float) -> NDArray[np.float32]:
    """Rows (n, ...) of feature i as a float32 copy (n, d), minus ``center`` times the recording's mean."""
    flat: NDArray[np.float32] = rows.reshape(len(rows), -1).astype(np.float32)
    flat = symmetric_rows(flat, example.mirrored[i] if example.mirrored else None)
    if center:
        flat -= np.float32(center) * example.means[i]
    return flat


def blocks(frames: int) -> Iterator[tuple[int, int]]:
    """Half-open ranges of at most `BLOCK_ROWS` rows that together are [0, frames)."""
    for start in range(0, frames, BLOCK_ROWS):
        yield start, min(start + BLOCK_ROWS, frames)


def columns(dims: Sequence[int], unscaled: Collection[int] = ()) -> int:
    """D: all feature columns but those of ``unscaled`` features, and one presence column per feature."""
    return sum(dim for i, dim in enumerate(dims) if i not in unscaled) + len(dims)
