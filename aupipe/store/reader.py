"""What reading needs of a store."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from aupipe.store.records import ItemRecord
from aupipe.types import FeatureSpec

Prefer = Callable[[str, Sequence[FeatureSpec]], str | None]


class ItemReader(Protocol):
    """What a view needs of a store: the part of `aupipe.store.protocol.Store` that lists and reads items.

    ``prefer``: for a name that several features have, or none, since their encoder has been renamed, the id of the one
    that it means, of these specs; None: no one.
    """

    prefer: Prefer | None

    def features(self) -> list[FeatureSpec]:
        """Every feature that the store has a spec of, by id."""
        ...

    def published(self, recording: str, feature: str) -> ItemRecord:
        """The record of the data that `read` returns; a later failure does not change it. Raises KeyError."""
        ...

    def all_published(self, feature: str | None = None) -> Iterator[ItemRecord]:
        """The records of all items that can be read (of one feature), by feature and recording."""
        ...

    def read(self, recording: str, feature: str, start: int = 0, stop: int | None = None) -> NDArray[Any]:
        """Rows [start, stop) in the feature's dtype; a read-only view of the mapped file where the backend can.

        Raises KeyError when there is no such item, IndexError when the range leaves it, DamageError when the file is
        not the one that was published.
        """
        ...

    def read_valid(self, recording: str, feature: str) -> NDArray[np.bool_]:
        """(T,) True for rows that carry data, without reading the rows where the store knows it. Errors as `read`."""
        ...

    def read_times(self, recording: str, feature: str) -> NDArray[np.float64] | None:
        """(T,) the time of each row in s, None where the store does not know it. Errors as `read`."""
        ...
