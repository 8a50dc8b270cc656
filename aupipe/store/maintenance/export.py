"""Out of a store: into a store of the other backend, or into files other programs like better."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from aupipe.errors import DamageError, UsageError
from aupipe.files import refuse_existing
from aupipe.registry import nearest
from aupipe.store import STORES, create_store, fs
from aupipe.store.formats.rows import BLOCK_BYTES
from aupipe.store.keys import recording_key
from aupipe.store.log.journal import writer_name
from aupipe.store.protocol import ItemRecord, Store
from aupipe.store.view import FeatureView, ItemView, feature_view

FORMS = ("npz", "hdf5", "parquet")


def migrate(store: Store, target: str | os.PathLike[str], backend: str) -> Iterator[ItemRecord]:
    """Copy a store into one of another backend, bit for bit, item by item; yields each record as it is there.

    What the target already has is passed over, so a broken-off migration goes on where it stopped. Failures are copied
    too. Raises UsageError for a backend that keeps nothing and for a target that holds other rows of an item, before
    anything is copied, and DamageError when an item is not what was published; nothing is written for it.
    """
    if not STORES.get(backend).persistent:
        raise UsageError(f"backend {backend!r} keeps nothing on disk: migrate to zarr or hdf5")
    with create_store(target, backend) as copy:
        for record in store.all_published():
            if _holds_another(copy, record):
                raise UsageError(
                    f"{target} holds other rows of {record.feature}, recording {record.recording!r}: migrate to a new "
                    "folder"
                )
        for spec in store.features():
            for record in store.all_published(spec.id):
                if _has(copy, record):
                    continue
                with copy.writer(
                    record.recording,
                    spec,
                    frames=record.frames,
                    row_shape=record.shape[1:],
                    source=record.source,
                    versions=record.versions,
                    video_id=record.video_id,
                ) as item:
                    for start, stop in _blocks(record):
                        item.append(store.read(record.recording, spec.id, start, stop))
                    if item.crc32c != record.crc32c:
                        raise DamageError(
                            f"{spec.id}, recording {record.recording!r}: the array is not what was published: "
                            "`aupipe store verify --repair`, then migrate again"
                        )
                    yield item.commit(seconds=record.seconds, damage=record.damage, media=record.media)
            for record in store.records(spec.id):
                there = copy.record(record.recording, spec.id)
                if record.state == "failed" and (there is None or there.state != "failed"):
                    yield copy.fail(record.recording, spec, record.reason, source=record.source, seconds=record.seconds)


def _has(store: Store, record: ItemRecord) -> bool:
    """Can the store read this very array, made from the same source?"""
    try:
        there = store.published(record.recording, record.feature)
    except KeyError:
        return False
    return (there.crc32c, there.shape, there.source) == (record.crc32c, record.shape, record.source)


def _holds_another(store: Store, record: ItemRecord) -> bool:
    """Would publishing this item replace rows that are not its own?"""
    try:
        there = store.published(record.recording, record.feature)
    except KeyError:
        return False
    return (there.crc32c, there.shape) != (record.crc32c, record.shape)


def export(
    store: Store,
    target: str | os.PathLike[str],
    form: str,
    *,
    features: Sequence[str] = (),
    recordings: Sequence[str] = (),
    overwrite: bool = False,
) -> list[str]:
    """Write features (all, or the named ones) of recordings (all, or the named ones). Returns the files made.

    ``npz``: a folder, one file per recording, one array per feature. ``hdf5``: one file, a group per feature, a dataset
    per recording with its name in the attribute ``recording``. ``parquet``: a folder, one file per feature, a row per
    frame with its recording, its number, whether it is valid and its values. Raises UsageError for an unknown form, for
    parquet without pyarrow, and for a target that exists or whose folder does not; ``overwrite`` replaces a file, never
    a folder.
    """
    if form not in FORMS:
        raise UsageError(f"unknown export form {form!r}.{nearest(form, FORMS)} Available: {', '.join(FORMS)}")
    if form == "parquet":
        _pyarrow()
    root = os.path.abspath(target)
    if os.path.lexists(root) and (form != "hdf5" or os.path.isdir(root)):
        raise UsageError(f"{target} exists: choose a new path to export to")
    refuse_existing(Path(root), overwrite)
    if not os.path.isdir(os.path.dirname(root)):
        raise UsageError(f"no folder {os.path.dirname(root)} to export into: make it first")
    views = [feature_view(store, name) for name in features or [spec.id for spec in store.features()]]
    wanted = set(recordings)
    items = [(view, [name for name in view if not wanted or name in wanted]) for view in views]
    missing = wanted - {name for _, names in items for name in names}
    if missing:
        raise UsageError(f"nothing is stored of recording {min(missing)!r}: `aupipe status` lists what is")
    staged = os.path.join(os.path.dirname(root), f".{os.path.basename(root)}.{writer_name()}")
    writers: dict[str, Callable[[str, list[tuple[FeatureView, list[str]]]], None]] = {
        "npz": _to_npz,
        "hdf5": _to_hdf5,
        "parquet": _to_parquet,
    }
    try:
        writers[form](staged, items)
        if overwrite or os.path.isdir(staged):
            fs.rename(staged, root)  # a folder is never renamed onto one that holds something
        elif not fs.link(staged, root):
            raise UsageError(f"{target} is there already: somebody else wrote it meanwhile")
    finally:
        fs.try_remove(staged)
    return [root] if os.path.isfile(root) else [os.path.join(root, name) for name in sorted(os.listdir(root))]


def _names(views: list[FeatureView]) -> dict[str, str]:
    """What each feature is called outside: its name, or its id where names repeat."""
    names = [view.spec.name for view in views]
    return {view.spec.id: view.spec.name if names.count(view.spec.name) == 1 else view.spec.id for view in views}


def _to_npz(folder: str, items: list[tuple[FeatureView, list[str]]]) -> None:
    os.mkdir(folder)
    names = _names([view for view, _ in items])
    for recording in sorted({name for _, names_of in items for name in names_of}):
        of_it = [view[recording] for view, names_of in items if recording in names_of]
        arrays: dict[str, Any] = {names[item.spec.id]: item[:] for item in of_it}
        np.savez(
            os.path.join(folder, f"{recording_key(recording)}.npz"), recording=np.array(_shown(recording)), **arrays
        )


def _to_hdf5(path: str, items: list[tuple[FeatureView, list[str]]]) -> None:
    import h5py

    names = _names([view for view, _ in items])
    with h5py.File(path, "w") as file:
        for view, recordings in items:
            group = file.create_group(names[view.spec.id])
            group.attrs["feature"] = view.spec.id
            for recording in recordings:
                item = view[recording]
                dataset = group.create_dataset(recording_key(recording), item.shape, item.dtype)
                dataset.attrs["recording"] = _shown(recording)
                for start, stop in _blocks(item.record):
                    dataset[start:stop] = item[start:stop]


def _to_parquet(folder: str, items: list[tuple[FeatureView, list[str]]]) -> None:
    arrow, parquet = _pyarrow(), import_module("pyarrow.parquet")
    os.mkdir(folder)
    names = _names([view for view, _ in items])
    for view, recordings in items:
        writer = None
        for recording in recordings:
            item = view[recording]
            for start, stop in _blocks(item.record):
                table = _table(arrow, item, start, stop)
                path = os.path.join(folder, f"{names[view.spec.id]}.parquet")
                writer = writer or parquet.ParquetWriter(path, table.schema)
                writer.write_table(table)
        if writer is not None:
            writer.close()


def _table(arrow: Any, item: ItemView, start: int, stop: int) -> Any:
    """Rows [start, stop) as a table: recording, frame, valid, and the row's values in one list column."""
    rows = item[start:stop]
    flat = np.ascontiguousarray(rows.reshape(len(rows), -1))  # (n, ...) -> (n, D)
    values = arrow.FixedSizeListArray.from_arrays(arrow.array(flat.reshape(-1)), flat.shape[1])
    name = _shown(item.record.recording)
    columns = {
        "recording": arrow.array([name] * len(rows)),
        "frame": arrow.array(np.arange(start, stop)),
        "valid": arrow.array(~np.isnan(flat[:, 0])),
        item.spec.name: values,
    }
    return arrow.table(columns)


def _shown(recording: str) -> str:
    """The name as text that every format takes: bytes that are not UTF-8 become ``\\udcXX``."""
    return recording.encode("utf-8", "backslashreplace").decode()


def _pyarrow() -> Any:
    try:
        return import_module("pyarrow")
    except ImportError:
        raise UsageError("exporting to parquet needs pyarrow: pip install pyarrow") from None


def _blocks(record: ItemRecord) -> Iterator[tuple[int, int]]:
    """Half-open ranges of rows that are a few MiB each."""
    row_bytes = int(np.prod(record.shape[1:], dtype=np.int64)) * np.dtype(record.dtype).itemsize
    step = max(1, 16 * BLOCK_BYTES // row_bytes)
    for start in range(0, record.frames, step):
        yield start, min(start + step, record.frames)
