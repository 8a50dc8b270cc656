"""Publishing what other programs computed, as a feature with the provenance "imported"."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

import numpy as np

from aupipe.config import IMPORTED
from aupipe.dataset import label_name
from aupipe.errors import RecordingError, UsageError
from aupipe.imported.files import ARRAYS, PICKLES, TABLES, WHY_NO_PICKLE, ForeignRows, read_file
from aupipe.imported.fitting import fit_rows
from aupipe.listing import is_hidden
from aupipe.sources import source_identity
from aupipe.store import Store
from aupipe.types import FeatureSpec, Recording


@dataclass
class Imported:
    """What came of an import. ``done``: recording -> what was done to fit its rows; ``failed``: recording -> why.

    ``replaced``: recordings of which the store had rows from a file of other content.
    """

    spec: FeatureSpec | None = None
    done: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    dropped: tuple[str, ...] = ()
    replaced: list[str] = field(default_factory=list)


def find_files(folder: Path, recordings: Sequence[Recording]) -> tuple[dict[str, Path], list[Path]]:
    """Recording -> its file in a folder, and the files that are of no recording.

    A file has the recording's name, with or without the suffix of the video, in the same folders or, where no other
    recording has it, alone. Raises UsageError for pickles, for two files of one recording, and where there is none.
    """
    names: dict[str, list[str]] = {}
    for one in recordings:
        for name in {one.id, label_name(one), Path(one.id).name, Path(label_name(one)).name}:
            names.setdefault(name, []).append(one.id)
    found: dict[str, Path] = {}
    others = []
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not is_hidden(path.name))
    if pickle := next((path for path in files if path.suffix.lower() in PICKLES), None):
        raise UsageError(f"{pickle}: {WHY_NO_PICKLE}")
    for path in (path for path in files if path.suffix.lower() in (*ARRAYS, *TABLES)):
        whole = path.relative_to(folder).with_suffix("").as_posix()
        owners = names.get(whole) or names.get(path.stem) or []
        if len(owners) != 1:
            others.append(path)
            continue
        other = found.setdefault(owners[0], path)
        if other != path:
            raise UsageError(f"{other} and {path} are both of {owners[0]}: remove one of them")
    if not found:
        kinds = ", ".join((*ARRAYS, *TABLES))
        example = f"; a recording is named {Path(label_name(recordings[0])).name}" if recordings else ""
        such = f", as {others[0].name}" if others else ""
        raise UsageError(
            f"{folder}: no file ({kinds}) with the name of a recording; {len(others)} with other names{such}{example}"
        )
    return found, others


def spec_of(name: str, first: ForeignRows, clock: FeatureSpec, made_by: str) -> FeatureSpec:
    """The feature: its key has the format, the columns, and by what it was made, in the words of who imports it."""
    columns = first.columns or tuple(f"{name}_{k}" for k in range(first.rows.shape[1]))
    params = {"format": first.format, "columns": _digest("\n".join(columns).encode()), "made_by": made_by}
    return FeatureSpec(
        name, "visual", IMPORTED, 1, params, None, "float32", {"clock": clock.id}, columns if first.columns else ()
    )


def import_files(
    files: Mapping[str, Path],
    recordings: Iterable[Recording],
    store: Store,
    clock: FeatureSpec,
    name: str,
    *,
    key: str = "",
    made_by: str = "",
    uncounted: Mapping[str, str] = MappingProxyType({}),
) -> Imported:
    """Publish a file for each recording, one row per decoded frame; what is damaged or does not fit fails by name.

    ``clock``: its rows are the decoded frames. ``uncounted``: recording -> why the store has no clock of its video.
    Raises UsageError where the store has another feature of this name, and for a wrong ``key`` of the first file.
    """
    found = Imported()
    for recording in recordings:
        if recording.id not in files:
            continue
        path = files[recording.id]
        try:
            if recording.id in uncounted:
                raise RecordingError(f"its frames could not be counted: {uncounted[recording.id]}")
            content = read_file(path, key)
            spec = spec_of(name, content, clock, made_by)
            if found.spec is not None and spec.id != found.spec.id:
                raise RecordingError(f"{path}: {_differ(spec, found.spec, content.dropped)} than the files before it")
            if found.spec is None:
                _refuse_another(store, spec)
            times = np.asarray(store.read(recording.key_for("clock"), clock.id), np.float64).reshape(-1)
            rows, how = fit_rows(content, times)
        except (UsageError, RecordingError) as error:
            if isinstance(error, UsageError) and found.spec is None:
                raise
            found.failed[recording.id] = str(error)
            continue
        source = recording.video or recording.images
        about = {"file": path.name, "sha256": _digest(path.read_bytes()), "notes": [how] if how else []}
        with suppress(KeyError):
            before = store.published(recording.id, spec.id).media.get(IMPORTED, {})
            found.replaced += [recording.id] * (before.get("sha256") != about["sha256"])
        with store.writer(
            recording.id,
            spec,
            frames=len(rows),
            row_shape=rows.shape[1:],
            source=source_identity(source) if source is not None else None,
            video_id=recording.video_id,
        ) as writer:
            writer.append(rows)
            writer.commit(media={IMPORTED: about})
        found.spec, found.done[recording.id], found.dropped = spec, how, content.dropped
    return found


def _differ(spec: FeatureSpec, before: FeatureSpec, dropped: Sequence[str]) -> str:
    """In what two files of one import differ."""
    new, old = spec.columns, before.columns
    more = [name for name in new if name not in old]
    text = [name for name in old if name in dropped]
    less = [name for name in old if name not in (*new, *text)]
    named = (("has", more), ("lacks", less), ("has text in", text))
    words = [f"{what} {', '.join(names[:5])}" for what, names in named if names]
    return "other columns or another format" + (f" ({'; '.join(words)})" if words else "")


def _refuse_another(store: Store, spec: FeatureSpec) -> None:
    for other in store.features():
        if other.name == spec.name and other.id != spec.id:
            raise UsageError(
                f"the store has another feature {other.name!r}, {other.id} (columns, format or --made-by differ): "
                f"choose another --name, or remove that one: aupipe store rm {other.id}"
            )


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
