"""openSMILE's eGeMAPS, where the package is installed."""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from aupipe.errors import UsageError
from aupipe.extract.encoders.audio.logmel import at_least
from aupipe.extract.encoders.base import AudioInput, Encode, FrameAlignment, ShapedEncode, TimeSeries
from aupipe.types import Modality, Waveform

INSTALL = "pip install 'aupipe[egemaps]' (openSMILE, audEERING research licence: no commercial products)"
WINDOW_S = 0.02
SHORTEST_S = 0.1  # openSMILE's longest analysis window is 60 ms, and its rows are smoothed over three


@dataclass(frozen=True)
class Egemaps(FrameAlignment):
    """Low-level descriptors of openSMILE: (n, 25) for eGeMAPSv02, one row per 10 ms.

    The optional package `opensmile` computes them; its licence allows research and no commercial products.
    Row i is timed at 0.01 + 0.01 i s, the middle of its 20 ms; pitch is computed over 60 ms, and values are smoothed
    over three rows. Sound below 0.1 s is continued with silence.
    """

    feature_set: Literal["eGeMAPSv02", "eGeMAPSv01b", "GeMAPSv01b"] = "eGeMAPSv02"

    modality: ClassVar[Modality] = "audio"
    requires: ClassVar[tuple[str, ...]] = ("opensmile",)
    version: ClassVar[int] = 1

    @property
    def reads(self) -> AudioInput:
        return AudioInput(16000)

    def identify_weights(self) -> None:
        if importlib.util.find_spec("opensmile") is None:  # asked when planning: better now than after decoding
            raise UsageError(f"encoder egemaps needs openSMILE: {INSTALL}")

    def column_names(self) -> tuple[str, ...]:
        """openSMILE's own names. Raises UsageError where the package is not installed."""
        return tuple(self._open().feature_names)

    def _open(self) -> Any:
        self.identify_weights()
        opensmile = importlib.import_module("opensmile")
        return opensmile.Smile(opensmile.FeatureSet[self.feature_set], opensmile.FeatureLevel.LowLevelDescriptors)

    def load(self, device: str) -> Encode:
        smile = self._open()

        def encode(waveform: Waveform) -> TimeSeries:
            samples = at_least(waveform.samples, round(SHORTEST_S * waveform.sample_rate))
            table = smile.process_signal(samples, waveform.sample_rate)
            starts_s = table.index.get_level_values("start").total_seconds().to_numpy()
            rows = np.ascontiguousarray(table.to_numpy(), dtype=np.float32)
            return TimeSeries(rows, waveform.start_s + starts_s + WINDOW_S / 2, WINDOW_S)

        return ShapedEncode(encode, (len(smile.feature_names),))
