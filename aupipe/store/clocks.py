"""The times of the frames of a data set's recordings, from the clocks in a store."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from aupipe.store.protocol import Store
from aupipe.types import Recording


def clock_of(store: Store) -> Callable[[Recording], NDArray[np.float64] | None]:
    """A function that gives the times (T,) in s of the frames of a recording; None where they are not stored."""

    def times_of(recording: Recording) -> NDArray[np.float64] | None:
        source = "video" if recording.video else "images"
        for spec in reversed(store.features()):
            same = spec.params.get("source") == source and spec.params.get("video_stream") == recording.streams.video
            if spec.modality != "clock" or not same:
                continue
            try:
                rows = store.read(recording.key_for("clock"), spec.id)
            except KeyError:
                continue
            return np.asarray(rows, np.float64).reshape(len(rows), -1)[:, 0]
        return None

    return times_of
