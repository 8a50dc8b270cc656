"""The item files that are mapped into this process: a bounded number, whatever the number of recordings and stores."""

from __future__ import annotations

import os
import weakref
from collections import OrderedDict
from itertools import count
from threading import RLock

from aupipe.store.formats.protocol import Rows

MAX_MAPS = 16384  # in a process, of all its stores together; Linux allows a process 65,530 mappings of any kind


class _Maps:
    """The mapped rows of all stores in the order of their last use, by (store, recording, feature)."""

    def __init__(self) -> None:
        self.lock = RLock()  # the garbage collector may call `drop_store` in a thread that holds it
        self.rows: OrderedDict[tuple[int, str, str], Rows] = OrderedDict()

    def drop_store(self, store: int) -> None:
        """Remove everything of one store."""
        with self.lock:
            for key in [key for key in list(self.rows) if key[0] == store]:
                self.rows.pop(key, None)


_maps = _Maps()
_stores = count()
os.register_at_fork(after_in_child=_maps.__init__)  # type: ignore[misc]  # a forked child maps files itself


class MapCache:
    """Rows of one store by (recording, feature). Beyond `MAX_MAPS` the least recently used of any store is dropped.

    Safe for threads. An array that was read keeps its own file mapped as long as it lives, in the cache or not.
    """

    def __init__(self) -> None:
        self._store = next(_stores)
        self.dropped = 0  # how often anything was dropped
        weakref.finalize(self, _maps.drop_store, self._store)

    def get(self, recording: str, feature: str) -> Rows | None:
        """The mapped rows of an item, or None."""
        key = (self._store, recording, feature)
        with _maps.lock:
            rows = _maps.rows.get(key)
            if rows is not None:
                _maps.rows.move_to_end(key)
            return rows

    def put(self, recording: str, feature: str, rows: Rows, dropped_before: int) -> None:
        """Keep the mapped rows of an item, unless one was dropped since `dropped` was read, perhaps this one."""
        dropped = None
        with _maps.lock:
            if self.dropped != dropped_before:
                return
            _maps.rows[self._store, recording, feature] = rows
            if len(_maps.rows) > MAX_MAPS:
                _, dropped = _maps.rows.popitem(last=False)
        del dropped  # unmapped here, not while other threads wait

    def drop(self, recording: str, feature: str) -> None:
        """Remove an item, if it is there."""
        with _maps.lock:
            self.dropped += 1
            _maps.rows.pop((self._store, recording, feature), None)

    def clear(self) -> None:
        """Remove all items of this store."""
        with _maps.lock:
            self.dropped += 1
            _maps.drop_store(self._store)
