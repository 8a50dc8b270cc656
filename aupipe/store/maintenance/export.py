"""Write features to files for other programs: npz, HDF5, CSV, Parquet or WebDataset."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aupipe.errors import UsageError
from aupipe.files import refuse_existing
from aupipe.registry import nearest, optional_package
from aupipe.store import fs
from aupipe.store.adapters import flat_rows
from aupipe.store.formats.hdf5 import MAX_NAMES
from aupipe.store.formats.rows import row_blocks
from aupipe.store.keys import name_as_text, recording_key
from aupipe.store.maintenance.webdataset import write_shards
from aupipe.store.permissions import folder_mode, set_modes
from aupipe.store.processes import writer_name
from aupipe.store.protocol import Store
from aupipe.store.view import FeatureView, ItemView, feature_view
from aupipe.types import PER_VIDEO

FIXED = ("recording", "frame", "time_s", "valid")  # what an export has of every feature

Selection = list[tuple[FeatureView, list[str]]]  # features, and the recordings of each


def export(
    store: Store,
    target: str | os.PathLike[str],
    format: str,
    *,
    features: Sequence[str] = (),
    recordings: Sequence[str] = (),
    overwrite: bool = False,
    readable_by: str = "owner",
) -> list[str]:
    """Write features (all, or the named ones) of recordings (all, or the named ones). Returns the files made.

    ``readable_by``: who may read them: ``owner``, ``group`` or ``all``.

    ``npz``: a folder, one file per recording, one array per feature, and its column names as ``<feature>.columns``.
    ``hdf5``: one file, a group per feature with the attribute ``columns`` (of up to `MAX_NAMES`), a dataset per
    recording with its name in the attribute ``recording``. ``parquet``: a folder, one file per feature, a row per frame
    with its recording, its number, its time in s (null where that is not known), whether it is valid, and its values:
    a column each where they have names of their own, else one list; Hugging Face `datasets` reads it (docs/store.md).
    ``csv``: the same as text, ``valid`` as 0 or 1, a column for each value (``hog.0`` where it has no name of its own);
    fields without data are empty, and numbers are as short as the stored type needs to be read back exactly.
    ``webdataset``: a folder of shards, a sample per recording (`aupipe.store.maintenance.webdataset`); of a person it
    has the sound of the video too.

    Raises UsageError for an unknown format, for Parquet without pyarrow, for a name of no feature or of several, and
    for a target that exists or whose folder does not; ``overwrite`` replaces a file, never a folder.
    """
    if format not in WRITERS:
        raise UsageError(f"unknown export format {format!r}.{nearest(format, WRITERS)} Available: {', '.join(WRITERS)}")
    if format == "parquet":
        _pyarrow()
    root = os.path.abspath(target)
    if os.path.lexists(root) and (format != "hdf5" or os.path.isdir(root)):
        raise UsageError(f"{target} exists: choose a new path to export to")
    refuse_existing(Path(root), overwrite)
    if not os.path.isdir(os.path.dirname(root)):
        raise UsageError(f"no folder {os.path.dirname(root)} to export into: make it first")
    try:
        views = [feature_view(store, name) for name in features or [spec.id for spec in store.features()]]
    except KeyError as error:  # no such feature, or several of that name
        raise UsageError(error.args[0]) from None
    wanted = set(recordings)
    items = [(view, [name for name in view if not wanted or name in wanted]) for view in views]
    missing = wanted - {name for _, names in items for name in names}
    if missing:
        raise UsageError(f"nothing is stored of recording {min(missing)!r}: `aupipe status` lists what is")
    staged = os.path.join(os.path.dirname(root), f".{os.path.basename(root)}.{writer_name()}")
    folder_mode(readable_by)
    try:
        _make_private(staged, format)
        WRITERS[format](staged, items)
        set_modes(staged, readable_by)
        if overwrite or os.path.isdir(staged):
            fs.rename(staged, root)  # fails for a folder onto a folder with content
        elif not fs.link(staged, root):
            raise UsageError(f"{target} exists: another process wrote it meanwhile")
    finally:
        fs.try_remove(staged)
    return [root] if os.path.isfile(root) else [os.path.join(root, name) for name in sorted(os.listdir(root))]


def _make_private(path: str, format: str) -> None:
    """Make the file or folder of an export, which nobody else may read while it is written."""
    if format == "hdf5":
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    else:
        os.mkdir(path, 0o700)


def _names(views: list[FeatureView]) -> dict[str, str]:
    """The name of each feature in the files: its own, or its id where that is the name of something else too."""
    names = [*FIXED, *(view.spec.name for view in views)]
    return {view.spec.id: view.spec.name if names.count(view.spec.name) == 1 else view.spec.id for view in views}


def _to_npz(folder: str, items: Selection) -> None:
    names = _names([view for view, _ in items])
    for recording in sorted({name for _, names_of in items for name in names_of}):
        of_it = [view[recording] for view, names_of in items if recording in names_of]
        arrays: dict[str, Any] = {names[item.spec.id]: item[:] for item in of_it}
        arrays |= {f"{names[i.spec.id]}.columns": np.array(i.spec.columns) for i in of_it if i.spec.columns}
        name = np.array(name_as_text(recording))
        np.savez(os.path.join(folder, f"{recording_key(recording)}.npz"), recording=name, **arrays)


def _to_hdf5(path: str, items: Selection) -> None:
    import h5py

    names = _names([view for view, _ in items])
    with h5py.File(path, "w") as file:
        for view, recordings in items:
            group = file.create_group(names[view.spec.id])
            group.attrs["feature"] = view.spec.id
            if 0 < len(view.spec.columns) <= MAX_NAMES:
                group.attrs["columns"] = list(view.spec.columns)
            for recording in recordings:
                item = view[recording]
                dataset = group.create_dataset(recording_key(recording), item.shape, item.dtype)
                dataset.attrs["recording"] = name_as_text(recording)
                for start, stop in row_blocks(item.shape, item.dtype):
                    dataset[start:stop] = item[start:stop]


def _to_csv(folder: str, items: Selection) -> None:
    names = _names([view for view, _ in items])
    for view, recordings in items:
        name = names[view.spec.id]
        with open(os.path.join(folder, f"{name}.csv"), "x", newline="", encoding="utf-8") as file:
            lines = csv.writer(file)
            for number, recording in enumerate(recordings):
                item = view[recording]
                if number == 0:
                    own = _has_own_names(item)
                    lines.writerow([*FIXED, *(item.columns if own else [f"{name}.{c}" for c in item.columns])])
                valid, times = item.valid, item.known_times()
                for start, stop in row_blocks(item.shape, item.dtype):
                    rows = np.where(valid[start:stop, None], flat_rows(item[start:stop]).astype(str), "")
                    for k, values in enumerate(rows, start):
                        time_s = "" if times is None else float(times[k])
                        lines.writerow([name_as_text(recording), k, time_s, int(valid[k]), *values])


def _has_own_names(item: ItemView) -> bool:
    """Whether the values of a row have names, all different and none of them one of `FIXED`."""
    columns = item.spec.columns
    return item.shape[1:] == (len(columns),) and len({*FIXED, *columns}) == len(FIXED) + len(columns)


def _to_parquet(folder: str, items: Selection) -> None:
    arrow, parquet = _pyarrow(), import_module("pyarrow.parquet")
    names = _names([view for view, _ in items])
    for view, recordings in items:
        writer = None
        for recording in recordings:
            item = view[recording]
            times = item.known_times()
            for start, stop in row_blocks(item.shape, item.dtype):
                table = _table(arrow, item, names[view.spec.id], times, start, stop)
                path = os.path.join(folder, f"{names[view.spec.id]}.parquet")
                writer = writer or parquet.ParquetWriter(path, table.schema)
                writer.write_table(table)
        if writer is not None:
            writer.close()


def _table(arrow: Any, item: ItemView, name: str, times: NDArray[np.float64] | None, start: int, stop: int) -> Any:
    """Rows [start, stop) as a table: those of `FIXED`, and the row's values; ``name``: of the feature."""
    rows = item[start:stop]
    flat = np.ascontiguousarray(rows.reshape(len(rows), -1))  # (n, ...) -> (n, D)
    columns = {
        "recording": arrow.array([name_as_text(item.record.recording)] * len(rows)),
        "frame": arrow.array(np.arange(start, stop)),
        "time_s": arrow.nulls(len(rows), arrow.float64()) if times is None else arrow.array(times[start:stop]),
        "valid": arrow.array(item.valid[start:stop]),
    }
    if _has_own_names(item):
        named = zip(item.spec.columns, flat.T, strict=True)
        return arrow.table(columns | {column: arrow.array(np.ascontiguousarray(values)) for column, values in named})
    values = arrow.FixedSizeListArray.from_arrays(arrow.array(flat.reshape(-1)), flat.shape[1])
    return arrow.table(columns | {name: values})


def _pyarrow() -> Any:
    return optional_package("pyarrow", "exporting to parquet")


def _to_webdataset(folder: str, items: Selection) -> None:
    views = [view for view, _ in items]
    chosen = {name for view, names in items for name in names if view.spec.modality not in PER_VIDEO}
    chosen = chosen or {name for _, names in items for name in names}
    write_shards(folder, views, _names(views), sorted(chosen))


WRITERS: dict[str, Callable[[str, Selection], None]] = {
    "npz": _to_npz,
    "hdf5": _to_hdf5,
    "csv": _to_csv,
    "parquet": _to_parquet,
    "webdataset": _to_webdataset,
}
