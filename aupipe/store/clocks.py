"""The times of the frames of a data set's recordings, from the clocks in a store."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
from numpy.typing import NDArray

from aupipe.store.protocol import Store
from aupipe.types import FeatureSpec, Recording


def clock_of(store: Store) -> Callable[[Recording], NDArray[np.float64] | None]:
    """A function that gives the times (T,) in s of the frames of a recording; None where they are not stored.

    Of several versions of the clock that a recording has today (its stream, or the ``fps`` of its images), the newest.
    """

    @cache
    def specs() -> list[FeatureSpec]:
        found = [spec for spec in store.features() if spec.modality == "clock"]
        return sorted(found, key=lambda spec: spec.version, reverse=True)

    def times_of(recording: Recording) -> NDArray[np.float64] | None:
        wanted = ("video", recording.streams.video, None) if recording.video else ("images", None, recording.fps)
        for spec in specs():
            if tuple(map(spec.params.get, ("source", "video_stream", "fps"))) != wanted:
                continue
            try:
                rows = store.read(recording.key_for("clock"), spec.id)
            except KeyError:
                continue
            return np.asarray(rows, np.float64).reshape(len(rows), -1)[:, 0]
        return None

    return times_of
