"""The rows of one recording, from the store and from trained models: what the files of an analysis are written from."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from aupipe.config import EncoderConfig
from aupipe.errors import DamageError
from aupipe.extract.encoders import column_names_of
from aupipe.extract.planning.features import FeatureSet
from aupipe.quantities import counted
from aupipe.report.analysis.columns import Column, clock_columns, distinct, encoder_columns, face_columns
from aupipe.report.faces import read_faces, read_rows
from aupipe.store import Store
from aupipe.train.predictions import Predictions
from aupipe.types import FeatureSpec, Recording

FACES = "face"  # the name of the block of the faces


@dataclass(frozen=True)
class Block:
    """Columns that come from one place: the faces, an encoder (of ``kind``) or a model.

    ``is_classifier``: they are the scores of classes, of which a row shows the one with the highest.
    """

    name: str
    kind: str
    columns: tuple[Column, ...]
    is_classifier: bool = False


@dataclass(frozen=True)
class Layout:
    """What every table of an analysis has, whatever is found in a recording."""

    clock: tuple[Column, ...]
    blocks: tuple[Block, ...]

    @property
    def columns(self) -> list[Column]:
        return [*self.clock, *(column for block in self.blocks for column in block.columns)]


@dataclass(frozen=True)
class Table:
    """``times_s`` float64 (T,); ``values``: name of a block -> (T, D), NaN where there is nothing.

    ``notes``: what a reader must know of this recording, a line each.
    """

    recording: str
    times_s: NDArray[np.float64]
    values: Mapping[str, NDArray[np.floating]]
    notes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.times_s)


def lay_out(
    features: FeatureSet,
    store: Store,
    recordings: Sequence[Recording],
    models: Mapping[str, Sequence[Column]],
    hidden: Collection[str] = (),
) -> Layout:
    """The columns of these recordings. ``models``: the columns of trained models, by their names.

    ``hidden``: names of features that have no columns.
    """
    detector = features.faces.detector
    found: list[Block] = []
    if features.detector is not None:
        found.append(Block(FACES, FACES, tuple(face_columns(detector, features.faces.subject))))
    graph = features.graph(recordings[0])
    for config, encoder in features.encoders:
        if config.name in hidden:
            continue
        own = column_names_of(encoder)
        names = own or _numbered(config, store, graph.named[config.name])
        columns = tuple(encoder_columns(config, names, detector))
        found.append(Block(config.name, config.kind, columns, config.kind == "onnx" and len(own) > 1))
    found += [Block(name, "model", tuple(columns)) for name, columns in models.items()]
    clock = clock_columns()
    _, *named = distinct([("", clock), *((block.name, block.columns) for block in found)])
    blocks = [replace(block, columns=tuple(columns)) for block, columns in zip(found, named, strict=True)]
    return Layout(tuple(clock), tuple(blocks))


def _numbered(config: EncoderConfig, store: Store, spec: FeatureSpec) -> tuple[str, ...]:
    """Names for the columns of an encoder that has none: its own and a number, as many as are stored."""
    known = next(iter(store.all_published(spec.id)), None)
    width = int(np.prod(known.shape[1:])) if known else 0
    return tuple(f"{config.name}_{number}" for number in range(width))


def read_table(
    layout: Layout,
    features: FeatureSet,
    store: Store,
    recording: Recording,
    predictions: Mapping[str, Mapping[str, Predictions]],
) -> Table | str:
    """The table of a recording; why there is none, where its clock is not stored. ``predictions``: by model and id."""
    graph = features.graph(recording)
    clock, why = _stored(store, recording, graph.clock)
    if clock is None:  # the reason stands with the features that were asked for
        tried = (store.record(recording.key_for(spec.modality), spec.id) for spec in graph.named.values())
        return next((record.reason for record in tried if record is not None and record.reason), why)
    times = np.asarray(clock, np.float64).reshape(-1)
    values: dict[str, NDArray[np.floating]] = {}
    notes: list[str] = []
    for block in layout.blocks:
        shape = (len(times), len(block.columns))
        rows, why = _block_rows(block, features, store, recording, predictions)
        if rows is not None and (len(rows), rows.size) != (shape[0], shape[0] * shape[1]):
            why = f"{rows.shape} values are stored, expected {shape}"
            rows = None
        if rows is None:
            notes.append(f"{block.name}: no values: {why}")
            values[block.name] = np.full(shape, np.nan, np.float32)
            continue
        found = rows.reshape(shape)
        values[block.name] = found if found.dtype.itemsize > 2 else found.astype(np.float32)
        if len(times) and np.isnan(values[block.name]).all() and block.columns:
            notes.append(f"{block.name}: no row has values: {_reason(block, graph.named.get(block.name), values)}")
    return Table(recording.id, times, values, tuple(notes))


def _block_rows(
    block: Block,
    features: FeatureSet,
    store: Store,
    recording: Recording,
    predictions: Mapping[str, Mapping[str, Predictions]],
) -> tuple[NDArray | None, str]:
    """The rows of a block, and else why there are none."""
    if block.kind == "model":
        own = predictions[block.name].get(recording.id)
        return (own.scores, "") if own is not None else (None, "features that it reads could not be computed")
    if block.name == FACES:
        return _face_rows(store, features, recording)
    return _stored(store, recording, features.graph(recording).named[block.name])


def _reason(block: Block, spec: FeatureSpec | None, values: Mapping[str, NDArray[np.floating]]) -> str:
    if spec is not None and spec.modality == "audio":
        return "the file has no sound while its pictures are shown"
    if FACES not in values or block.name == FACES:
        return "no face was found"
    found = values[FACES][:, 1] > 0
    if not found.any():
        others = int((values[FACES][:, 0] > 0).sum())
        return f"the subject's face was found in none of {counted(len(found), 'frame')}" + (
            f" (other faces in {others})" if others else ""
        )
    return f"the subject's face was found in {found.sum()} of {counted(len(found), 'frame')}, which gave no values"


def _stored(store: Store, recording: Recording, spec: FeatureSpec) -> tuple[NDArray | None, str]:
    """The rows of a feature, and else why there are none."""
    key = recording.key_for(spec.modality)
    try:
        rows = read_rows(store, recording, spec)
    except DamageError as error:
        return None, str(error)
    record = store.record(key, spec.id) if rows is None else None
    return rows, record.reason if record is not None and record.reason else "nothing was stored for it"


def _face_rows(store: Store, features: FeatureSet, recording: Recording) -> tuple[NDArray | None, str]:
    """(T, 7): faces in the picture, whether the subject's was found, its box and score."""
    try:
        faces = read_faces(store, features, recording)
    except DamageError as error:
        return None, str(error)
    if faces is None:
        spec = features.graph(recording).detections
        return None, _stored(store, recording, spec)[1] if spec is not None else "no detector"
    track = faces.subject
    parts = (faces.every.counts[:, None], track.valid[:, None], track.box, track.score[:, None])
    return np.concatenate([np.asarray(part, np.float32) for part in parts], axis=1), ""
