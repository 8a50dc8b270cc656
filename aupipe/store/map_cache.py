"""The items of a store that are mapped into this process."""

from __future__ import annotations

import os
import weakref

from aupipe.store.formats.protocol import Rows

MAX_MAPS = 16384  # of the 65530 mappings Linux allows a process

_caches: weakref.WeakSet[MapCache] = weakref.WeakSet()


def _empty_caches() -> None:
    for cache in list(_caches):
        cache._rows = {}


os.register_at_fork(after_in_child=_empty_caches)  # a forked child maps files itself


class MapCache:
    """Rows by (recording, feature), at most `MAX_MAPS`: then those that were used the longest ago are dropped."""

    def __init__(self) -> None:
        self._rows: dict[tuple[str, str], Rows] = {}
        _caches.add(self)

    def get(self, recording: str, feature: str) -> Rows | None:
        """The mapped rows of an item, or None."""
        key = (recording, feature)
        rows = self._rows.get(key)
        # the dict is kept in the order of use, but only once it is half full
        if rows is not None and len(self._rows) > MAX_MAPS // 2 and self._rows.pop(key, None) is not None:
            self._rows[key] = rows
        return rows

    def put(self, recording: str, feature: str, rows: Rows) -> None:
        """Keep the mapped rows of an item."""
        self._rows[recording, feature] = rows
        if len(self._rows) > MAX_MAPS:
            self._rows.pop(next(iter(self._rows)), None)

    def drop(self, recording: str, feature: str) -> None:
        """Remove an item, if it is there."""
        self._rows.pop((recording, feature), None)

    def clear(self) -> None:
        """Remove all items."""
        self._rows.clear()
