"""Copy a store into one of another backend."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from functools import partial

from aupipe.errors import DamageError, NoStoreError, UsageError
from aupipe.store.api import STORES, create_store
from aupipe.store.documents import read_backend
from aupipe.store.formats.rows import row_blocks
from aupipe.store.protocol import Store
from aupipe.store.records import ItemRecord
from aupipe.store.writer import StagedItem


def migrate(store: Store, target: str | os.PathLike[str], backend: str) -> Iterator[ItemRecord]:
    """Copy a store into one of another backend, bit for bit, item by item; yields the record of each copy.

    Items that the target has already are skipped, so that a migration that was interrupted can be run again. Failures
    are copied too. Raises UsageError for an unknown backend, and for a target that has another backend or other rows of
    an item, before anything is copied. Raises DamageError when an item is not what was published, which is then not
    copied.
    """
    STORES.get(backend)  # `create_store` knows one more, which keeps nothing
    with contextlib.suppress(NoStoreError):
        if (other := read_backend(target)) != backend:
            raise UsageError(f"{target} is a {other} store: migrate to a new folder, or to the backend {other}")
    with create_store(target, backend) as copy:
        for record in store.all_published():
            there = _published(copy, record)
            if there is not None and (there.crc32c, there.shape) != (record.crc32c, record.shape):
                raise UsageError(
                    f"{target} holds other rows of {record.feature}, recording {record.recording!r}: migrate to a new "
                    "folder"
                )
        # clocks first: items get their times from them
        for spec in sorted(store.features(), key=lambda spec: spec.modality != "clock"):
            for record in store.all_published(spec.id):
                there = _published(copy, record)
                if there is not None and (there.crc32c, there.source) == (record.crc32c, record.source):
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
                    assert isinstance(item, StagedItem)
                    item.read_times = partial(store.read_times, record.recording, spec.id)
                    valid = store.read_valid(record.recording, spec.id)
                    for start, stop in row_blocks(record.shape, record.dtype):
                        item.append(store.read(record.recording, spec.id, start, stop), valid[start:stop])
                    if item.crc32c != record.crc32c:
                        raise DamageError(
                            f"{spec.id}, recording {record.recording!r}: the array is not what was published: "
                            "`aupipe store verify --repair`, then migrate again"
                        )
                    yield item.commit(seconds=record.seconds, damage=record.damage, media=record.media)
            for record in store.records(spec.id):
                newest = copy.record(record.recording, spec.id)
                if record.state == "failed" and (newest is None or newest.state != "failed"):
                    yield copy.fail(record.recording, spec, record.reason, source=record.source, seconds=record.seconds)


def _published(store: Store, record: ItemRecord) -> ItemRecord | None:
    try:
        return store.published(record.recording, record.feature)
    except KeyError:
        return None
