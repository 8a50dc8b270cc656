"""Windows of several features as a torch dataset, copied from the mapped files into one batch.

Use it with ``num_workers=0`` and ``collate_fn=windows.keep``: the copy runs at the speed of memory, and a worker
process adds a second copy (measured: with an ordinary worker process, 0.03 of that speed).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from aupipe.store.formats.rows import padding_value
from aupipe.store.view import feature_view
from aupipe.types import Window

if TYPE_CHECKING:
    from aupipe.store.protocol import Store

Batch = dict[str, torch.Tensor]


class WindowDataset(torch.utils.data.Dataset[Batch]):
    """Windows of ``length`` frames of some features: one item is ``{feature: (length, ...)}``, a batch has B in front.

    A window that is shorter than ``length`` is followed by rows like invalid ones: NaN, or 0 in a feature of whole
    numbers. Each batch is new memory, unless ``out`` is a batch from `allocate`, which is then filled.
    """

    def __init__(self, store: Store, features: Sequence[str], windows: Sequence[Window], length: int) -> None:
        self.store, self.windows, self.length = store, list(windows), length
        self.features = {name: feature_view(store, name).spec.id for name in features}
        if too_long := next((window for window in self.windows if len(window) > length), None):
            raise ValueError(f"{too_long} has {len(too_long)} frames, at most {length} fit")
        self._rows: dict[str, tuple[tuple[int, ...], np.dtype[Any]]] = {}
        for name, feature in self.features.items():
            if self.windows:
                record = store.published(self.windows[0].recording, feature)
                self._rows[name] = record.shape[1:], np.dtype(record.dtype)

    def __len__(self) -> int:
        return len(self.windows)

    def allocate(self, size: int) -> Batch:
        """An uninitialised batch of ``size`` windows: ``{feature: (B, length, ...)}``."""
        return {
            name: torch.from_numpy(np.empty((size, self.length, *shape), dtype))
            for name, (shape, dtype) in self._rows.items()
        }

    def __getitem__(self, index: int) -> Batch:
        return {name: batch[0] for name, batch in self.__getitems__([index]).items()}

    def __getitems__(self, indices: Sequence[int], out: Batch | None = None) -> Batch:
        """The windows at ``indices``, each feature in one tensor (B, length, ...)."""
        batch = self.allocate(len(indices)) if out is None else out
        windows = [self.windows[index] for index in indices]
        for name, feature in self.features.items():
            rows = batch[name].numpy()
            for row, window in zip(rows, windows, strict=False):
                self.store.read_into(row[: len(window)], window.recording, feature, window.start)
                row[len(window) :] = padding_value(rows.dtype)
        return batch


def keep(batch: Batch) -> Batch:
    """A collate function that returns its argument, as `WindowDataset` makes whole batches."""
    return batch
