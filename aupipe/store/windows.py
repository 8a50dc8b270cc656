"""Windows of several features as a torch dataset, copied from the mapped files into one batch.

::

    windows = cut_windows(store, ["hog", "mfcc"], length=64, hop=32)
    dataset = WindowDataset(store, ["hog", "mfcc"], windows, length=64)
    for batch in torch.utils.data.DataLoader(dataset, batch_size=32, shuffle=True, collate_fn=keep):
        batch["hog"]  # (32, 64, D)

Any `torch.utils.data.DataLoader` takes the dataset, also with worker processes that are forked or spawned, and with or
without ``collate_fn=keep``. Fastest is ``num_workers=0`` with `keep`, or `WindowDataset.gather` into one batch: the
copy runs at the speed of memory, and a worker process adds a second one (measured: with an ordinary worker process,
0.03 of that speed).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from aupipe.errors import UsageError
from aupipe.store.aligned import aligned_items, recordings_of, views_of
from aupipe.store.formats.rows import padding_value
from aupipe.types import Window

if TYPE_CHECKING:
    from aupipe.store.protocol import Store

Batch = dict[str, torch.Tensor]


def cut_windows(
    store: Store, features: Sequence[str], length: int, hop: int | None = None, recordings: Iterable[str] = ()
) -> list[Window]:
    """Windows of ``length`` frames, one every ``hop`` (None: ``length``), that cover each recording.

    The last one of a recording may be shorter; no frame is left out where ``hop <= length``. ``recordings``: their ids;
    () for all that have one of the features. Raises ValueError unless 0 < hop <= length, UsageError for a recording
    that lacks a feature or without features, KeyError for an unknown feature.
    """
    hop = length if hop is None else hop
    if not 0 < hop <= length:
        raise ValueError(f"{length = }, {hop = }: expected 0 < hop <= length")
    views = views_of(store, features)
    if not views:
        raise UsageError("cut_windows: name the features of the windows")
    windows: list[Window] = []
    for recording in list(recordings) or recordings_of(views):
        frames = len(aligned_items(views, recording)[0])
        starts = range(0, max(frames - length + hop, min(frames, 1)), hop)
        windows += [Window(recording, start, min(start + length, frames)) for start in starts]
    return windows


class WindowList(list[Batch]):
    """Windows of one batch, each ``{feature: (length, ...)}``, over the memory of ``batch``: see `keep`."""

    def __init__(self, batch: Batch, size: int) -> None:
        super().__init__({name: rows[k] for name, rows in batch.items()} for k in range(size))
        self.batch = batch


class WindowDataset(torch.utils.data.Dataset[Batch]):
    """Windows of ``length`` frames of some features: one item is ``{feature: (length, ...)}``, a batch has B in front.

    A window that is shorter than ``length`` is followed by rows like invalid ones: NaN, or 0 in a feature of whole
    numbers. Tensors have the dtype of the store, and memory of their own that may be written to. What a video has for
    all its recordings (sound, words) is found by the video.

    Raises ValueError for a window of more than ``length`` frames, UsageError for one of a recording that lacks a
    feature, KeyError for an unknown feature.
    """

    def __init__(self, store: Store, features: Sequence[str], windows: Sequence[Window], length: int) -> None:
        self.store, self.windows, self.length = store, list(windows), length
        if too_long := next((window for window in self.windows if len(window) > length), None):
            raise ValueError(f"{too_long} has {len(too_long)} frames, at most {length} fit")
        views = views_of(store, features)
        self.features = {name: view.spec.id for name, view in zip(features, views, strict=True)}
        self._rows: dict[str, tuple[tuple[int, ...], np.dtype[Any]]] = {}
        self._keys: dict[str, list[str]] = {}  # recording -> the id that each feature is stored under
        for recording in dict.fromkeys(window.recording for window in self.windows):
            items = aligned_items(views, recording)
            self._keys[recording] = [item.record.recording for item in items]
            self._rows = {name: (item.shape[1:], item.dtype) for name, item in zip(features, items, strict=True)}

    def __len__(self) -> int:
        return len(self.windows)

    def allocate(self, size: int) -> Batch:
        """An uninitialised batch of ``size`` windows: ``{feature: (B, length, ...)}``."""
        return {
            name: torch.from_numpy(np.empty((size, self.length, *shape), dtype))
            for name, (shape, dtype) in self._rows.items()
        }

    def gather(self, indices: Sequence[int], out: Batch | None = None) -> Batch:
        """The windows at ``indices``, each feature in one tensor (B, length, ...).

        Each batch is new memory, unless ``out`` is a batch from `allocate`, which is then filled.
        """
        batch = self.allocate(len(indices)) if out is None else out
        windows = [self.windows[index] for index in indices]
        for number, (name, feature) in enumerate(self.features.items()):
            rows = batch[name].numpy()
            for row, window in zip(rows, windows, strict=False):
                key = self._keys[window.recording][number]
                self.store.read_into(row[: len(window)], key, feature, window.start)
                row[len(window) :] = padding_value(rows.dtype)
        return batch

    def __getitem__(self, index: int) -> Batch:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> WindowList:
        """The windows at ``indices``, as a `torch.utils.data.DataLoader` asks for those of a batch."""
        return WindowList(self.gather(indices), len(indices))


def keep(windows: WindowList) -> Batch:
    """A collate function that copies nothing: the windows of a batch are in one tensor already."""
    return windows.batch
