"""VGGish embeddings of 0.96 s of sound."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np

from aupipe.errors import WeightsMissingError
from aupipe.extract.contract import WeightFile
from aupipe.extract.encoders.audio.logmel import at_least
from aupipe.extract.encoders.base import AudioInput, Encode, FrameAlignment, TimeSeries
from aupipe.extract.media.long_arrays import ArrayBuilder, cut
from aupipe.extract.weights import find_weights, identify, is_random, random_seed, random_weights
from aupipe.tables import Range
from aupipe.types import Modality, Waveform, Weights

BATCH = 64  # examples


@dataclass(frozen=True)
class Vggish(FrameAlignment):
    """VGGish of torchvggish: (n, 128), one row per ``hop_s``, timed at the middle of the 0.975 s it covers.

    ``weights``: a file (absolute, or in AUPIPE_WEIGHTS), or ``"random"``.
    ``hop_s``: seconds between rows, a multiple of 0.01; 0.96 is the published one, emotion toolkits use 0.05.
    ``activation``: ``"relu"`` as torchvggish, ``"none"`` as TensorFlow since 2020.
    ``pca``: a file of the published whitening (``vggish_pca_params-970ea276.pth`` or TensorFlow's ``.npz``); then rows
    are the 8-bit values 0 to 255, rounded as torchvggish does. Empty: raw embeddings.
    ``tail``: ``"overlap"`` adds a last row that ends where the sound ends, ``"drop"`` is as published.
    Sound shorter than one example is continued with silence to one.
    """

    weights: str = "vggish-10086976.pth"
    hop_s: Annotated[float, Range(0.01, 3600)] = 0.96
    activation: Literal["relu", "none"] = "relu"
    pca: WeightFile = ""
    tail: Literal["overlap", "drop"] = "overlap"

    modality: ClassVar[Modality] = "audio"
    version: ClassVar[int] = 1
    shareable: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.hop_s < 0.01 or abs(self.hop_s * 100 - round(self.hop_s * 100)) > 1e-6:
            raise ValueError(f"hop_s = {self.hop_s}: must be a multiple of 0.01 s")

    @property
    def reads(self) -> AudioInput:
        return AudioInput(16000)

    @property
    def row_shape(self) -> tuple[int, ...]:
        return (128,)

    @property
    def reach_s(self) -> float:
        return super().reach_s + self.hop_s * (1 + self.align_rows)

    def identify_weights(self) -> Weights:
        own = self.weights
        found = random_weights("vggish", own) if is_random(own) else identify(own)
        if not self.pca:
            return found
        pca = identify(self.pca)
        both = hashlib.sha256(f"{found.sha256} {pca.sha256}".encode()).hexdigest()
        return Weights(f"{found.name} + {pca.name}", both, found.licence)

    def load(self, device: str) -> Encode:
        import torch

        from aupipe.extract.nets.vggish import EXAMPLE, EXAMPLE_SAMPLES, FRAME, HOP, cut_examples, log_mel_blocks

        network = self._network().eval().to(device)
        whiten = self._whitening().eval().to(device) if self.pca else None
        hop = round(self.hop_s * 100)

        def encode(waveform: Waveform) -> TimeSeries:
            samples = at_least(waveform.samples, EXAMPLE_SAMPLES)
            last = 1 + (len(samples) - FRAME) // HOP - EXAMPLE  # where the last example that fits begins
            starts = list(range(0, last + 1, hop))

            def read(start: int, stop: int) -> Any:
                return torch.from_numpy(cut(samples, start, stop)).to(device)

            with torch.inference_mode():
                frames = _Frames(log_mel_blocks(read, len(samples)))
                rows = ArrayBuilder()
                tail = self.tail == "overlap" and starts[-1] != last  # one more, which ends with the sound
                for first in range(0, len(starts) + tail, BATCH):
                    some = starts[first : first + BATCH]
                    batch = []
                    if some:
                        batch.append(cut_examples(frames.between(some[0], some[-1] + EXAMPLE), hop))
                    if tail and first + BATCH > len(starts):
                        batch.append(cut_examples(frames.between(last, last + EXAMPLE)))
                    embedding = network(torch.cat(batch) if len(batch) > 1 else batch[0])
                    rows.append((whiten(embedding) if whiten else embedding).float().cpu().numpy())
            starts += [last] * tail
            times = waveform.start_s + (np.array(starts) * HOP + EXAMPLE_SAMPLES / 2) / waveform.sample_rate
            return TimeSeries(rows.array(), times, EXAMPLE_SAMPLES / waveform.sample_rate)

        return encode

    def _network(self) -> Any:
        from aupipe.extract.nets.vggish import VGGish, adapt_state_dict, random_vggish
        from aupipe.extract.weights.checkpoint import load_into, read_state_dict

        if is_random(self.weights):
            return random_vggish(random_seed(self.weights), self.activation)
        path = find_weights(self.weights)
        network = VGGish(self.activation)
        load_into(network, adapt_state_dict(read_state_dict(path)), str(path))
        return network

    def _whitening(self) -> Any:
        import torch

        from aupipe.extract.nets.vggish import VGGishPCA

        path = find_weights(self.pca)
        arrays = _arrays(path)
        pca = VGGishPCA()
        try:
            vectors, means = (np.asarray(arrays[name], np.float32) for name in ("pca_eigen_vectors", "pca_means"))
            state = {
                "pca_eigen_vectors": torch.from_numpy(vectors.reshape(128, 128)),
                "pca_means": torch.from_numpy(means.reshape(128)),
            }
        except (KeyError, ValueError, TypeError) as error:
            raise WeightsMissingError(f"{path} does not hold the PCA of VGGish: {error}") from error
        pca.load_state_dict(state)
        return pca


class _Frames:
    """Rows of a sequence of blocks, of which those are kept that are still needed."""

    def __init__(self, blocks: Iterator[Any]) -> None:
        self._blocks = blocks
        self._first = 0  # the row that is kept first
        self._kept: Any = None

    def between(self, start: int, stop: int) -> Any:
        """Rows [start, stop), contiguous; rows before ``start`` are never asked for again."""
        import torch

        if self._kept is None:
            self._kept = next(self._blocks)
        while self._first + len(self._kept) < stop:
            past = min(max(0, start - self._first), len(self._kept))
            self._kept = torch.cat([self._kept[past:], next(self._blocks)])
            self._first += past
        return self._kept[start - self._first : stop - self._first]


def _arrays(path: Path) -> Any:
    """The two arrays of a whitening file, by name: TensorFlow's .npz or safetensors."""
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as content:
            return dict(content)
    from aupipe.extract.weights.checkpoint import read_state_dict

    return read_state_dict(path)
