"""Voice activity: Silero VAD."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from aupipe.errors import WeightsMissingError
from aupipe.extract.encoders.base import AudioInput, Encode, FrameAlignment, TimeSeries
from aupipe.extract.encoders.image_base import seeded
from aupipe.extract.media.long_arrays import cut
from aupipe.extract.weights import file_sha256, find_weights, is_random, random_weights
from aupipe.types import Modality, Waveform, Weights

FILE = "silero_vad_16k.safetensors"
STEP_S = 0.032


@dataclass(frozen=True)
class Vad(FrameAlignment):
    """Probability of speech, (n, 1), a row per 32 ms.

    ``weights``: ``"package"``, the file inside the installed ``silero-vad`` package (else the same file in
    AUPIPE_WEIGHTS), a file of that format, or ``"random"``. Only the file is used: the package's TorchScript model is
    not run.
    """

    weights: str = "package"

    modality: ClassVar[Modality] = "audio"
    requires: ClassVar[tuple[str, ...]] = ("silero-vad",)
    version: ClassVar[int] = 1
    shareable: ClassVar[bool] = True

    @property
    def reads(self) -> AudioInput:
        return AudioInput(16000)

    @property
    def row_shape(self) -> tuple[int, ...]:
        return (1,)

    def column_names(self) -> tuple[str, ...]:
        return ("speech",)

    def identify_weights(self) -> Weights:
        if is_random(self.weights):
            return random_weights("silero_vad", self.weights)
        path = self._file()
        return Weights(path.name, file_sha256(path), "MIT" if path.name == FILE else "unknown")

    def _file(self) -> Path:
        if self.weights != "package":
            return find_weights(self.weights)
        spec = importlib.util.find_spec("silero_vad")  # finds, and does not import
        for folder in (spec.submodule_search_locations or []) if spec else []:
            path = Path(folder) / "data" / FILE
            if path.is_file():
                return path
        try:
            return find_weights(FILE)
        except WeightsMissingError as error:
            raise WeightsMissingError(f"{error}; or pip install 'silero-vad>=6.2', which carries it") from error

    def _network(self) -> Any:
        from safetensors.torch import load_file

        from aupipe.extract.nets.silero import Silero, adapt_state_dict

        network = seeded(Silero, self.weights)
        if not is_random(self.weights):
            path = self._file()
            try:
                network.load_state_dict(adapt_state_dict(load_file(path)))
            except RuntimeError as error:
                reason = " ".join(str(error).split())
                raise WeightsMissingError(f"{path} does not hold the weights of Silero VAD: {reason}") from error
        return network

    def load(self, device: str) -> Encode:
        import torch

        network = self._network().eval().to(device)

        def encode(waveform: Waveform) -> TimeSeries:
            samples = waveform.samples

            def read(start: int, stop: int) -> Any:
                return torch.from_numpy(cut(samples, start, stop)).to(device)

            with torch.inference_mode():
                blocks = [block.cpu().numpy() for block in network.blocks(read, len(samples))]
            speech = np.concatenate(blocks)[:, None]  # (n, 1)
            times = waveform.start_s + (np.arange(len(speech), dtype=np.float64) + 0.5) * STEP_S
            return TimeSeries(speech, times, STEP_S)

        return encode


def spoken_spans(
    series: TimeSeries,
    *,
    threshold: float = 0.5,
    min_speech_s: float = 0.25,
    min_silence_s: float = 0.1,
    pad_s: float = 0.03,
) -> NDArray[np.float64]:
    """(k, 2) seconds [from, to) of speech, by Silero's rules.

    Speech begins where the probability reaches ``threshold`` and ends where it stays ``0.15`` below it for
    ``min_silence_s``; what is shorter than ``min_speech_s`` does not count; what is left grows by ``pad_s`` each way.
    """
    spans: list[tuple[float, float]] = []
    began: float | None = None
    fell: float | None = None
    edges = series.times_s - STEP_S / 2
    end_s = float(edges[-1] + STEP_S)
    for probability, at in zip(series.data[:, 0].tolist(), edges.tolist(), strict=True):
        if probability >= threshold:
            fell = None
            began = at if began is None else began
        elif began is not None and probability < threshold - 0.15:
            fell = at if fell is None else fell
            if at - fell >= min_silence_s:
                spans.append((began, fell))
                began = fell = None
    if began is not None:
        spans.append((began, end_s))
    low = float(edges[0])
    padded = [(max(low, a - pad_s), min(end_s, b + pad_s)) for a, b in spans if b - a > min_speech_s]
    return np.array(padded, dtype=np.float64).reshape(-1, 2)
