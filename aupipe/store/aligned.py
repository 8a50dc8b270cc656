"""Several features of a recording side by side, frame for frame, and as one table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from aupipe.errors import UsageError
from aupipe.registry import optional_package
from aupipe.store.adapters import flat_rows
from aupipe.store.reader import ItemReader
from aupipe.store.view import FeatureView, ItemView, feature_view
from aupipe.types import PER_VIDEO


def views_of(store: ItemReader, features: str | Iterable[str]) -> list[FeatureView]:
    """The features of these names, or of the one. Raises KeyError for an unknown one."""
    return [feature_view(store, name) for name in ([features] if isinstance(features, str) else features)]


def stored_items(views: Sequence[FeatureView], recording: str) -> list[ItemView | None]:
    """The items of these features of one recording; what a video has for all its recordings is found by the video."""
    found = [view.get(recording) for view in views]
    if all(item is not None or view.spec.modality not in PER_VIDEO for view, item in zip(views, found, strict=True)):
        return found
    video = next((item.record.video_id for item in found if item is not None and item.record.video_id), "")
    video = video or _video_of(views[0].store, recording)
    return [
        item if item is not None or view.spec.modality not in PER_VIDEO else view.get(video)
        for view, item in zip(views, found, strict=True)
    ]


def _video_of(store: ItemReader, recording: str) -> str:
    """The video that the items of a recording are of; the recording itself where none says."""
    for spec in store.features():
        with suppress(KeyError):
            if video := store.published(recording, spec.id).video_id:
                return video
    return recording


def aligned_items(views: Sequence[FeatureView], recording: str) -> list[ItemView]:
    """`stored_items`, all of which are there.

    Raises UsageError where one is missing, and where they do not have the same number of frames.
    """
    items = []
    for view, item in zip(views, stored_items(views, recording), strict=True):
        if item is None:
            raise UsageError(f"recording {recording!r} has no {view.spec.id} in the store: `aupipe status` says why")
        items.append(item)
    if len({len(item) for item in items}) > 1:
        sizes = ", ".join(f"{item.spec.id} {len(item)}" for item in items)
        raise UsageError(f"recording {recording!r}: the numbers of frames differ ({sizes}): `aupipe status` says why")
    return items


def recordings_of(views: Sequence[FeatureView]) -> list[str]:
    """The recordings that have any of these features; of those that belong to whole videos alone, the videos."""
    own = [view for view in views if view.spec.modality not in PER_VIDEO]
    return sorted({recording for view in own or views for recording in view})


def wide_table(
    store: ItemReader, features: Sequence[str], recordings: Iterable[str] = (), allow_missing: bool = False
) -> Any:
    """See `aupipe.store.protocol.Store.to_frame`."""
    pandas = optional_package("pandas", "to_frame")
    views = views_of(store, features)
    if not views:
        raise UsageError("to_frame: name the features of the table")
    names = [view.spec.name for view in views]
    prefixes = [view.spec.name if names.count(view.spec.name) == 1 else view.spec.id for view in views]
    parts = []
    for recording in list(recordings) or recordings_of(views):
        try:
            items = aligned_items(views, recording)
        except UsageError:
            if not allow_missing:
                raise
            continue
        times = next((times for item in items if (times := item.known_times()) is not None), np.nan)
        table = {"recording": recording, "frame": np.arange(len(items[0])), "time_s": times}
        parts.append(pandas.DataFrame(table, columns=list(table)))
        values = [_named(pandas, item, prefix) for item, prefix in zip(items, prefixes, strict=True)]
        parts[-1] = pandas.concat([parts[-1], *values], axis=1)
    if not parts:
        raise UsageError(f"no recording has all of {', '.join(prefixes)}")
    return pandas.concat(parts, ignore_index=True)


def _named(pandas: Any, item: ItemView, prefix: str) -> Any:
    """The rows of an item as a table; float16, which pandas computes slowly with, as float32."""
    rows = flat_rows(np.array(item, np.float32 if item.dtype == np.float16 else item.dtype))
    table = pandas.DataFrame(rows, columns=[f"{prefix}.{name}" for name in item.columns])
    if item.dtype.kind != "f":  # whole numbers have no NaN
        table[f"{prefix}.valid"] = item.valid
    return table
