"""VGGish (Hershey et al. 2017, ICASSP; released with AudioSet): its log-mel front end, its network, its PCA.

The numbers are those of the released TensorFlow code and of its PyTorch port torchvggish, whose state dict this network
loads as it is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Literal

import torch
from torch import Tensor, nn

SAMPLE_RATE = 16000
FRAME, HOP, FFT = 400, 160, 512  # samples: 25 ms every 10 ms, in a 512-point transform
BANDS, LOW_HZ, HIGH_HZ = 64, 125.0, 7500.0
EXAMPLE = 96  # frames: 0.96 s
EXAMPLE_SAMPLES = (EXAMPLE - 1) * HOP + FRAME  # 15,600: what one example hears
BLOCK = 8192  # frames transformed at a time


def mel_matrix() -> Tensor:
    """(257, 64) float64: triangles that are straight in mel, peak 1, over the bins of the magnitude spectrum.

    The 257 bins are taken to lie evenly on 0 to 8000 Hz and the bin of 0 Hz counts for nothing.
    """

    def mel(hz: Tensor) -> Tensor:
        return 1127.0 * torch.log1p(hz / 700.0)

    bins = mel(torch.linspace(0, SAMPLE_RATE / 2, FFT // 2 + 1, dtype=torch.float64))[:, None]  # (257, 1)
    low, high = mel(torch.tensor([LOW_HZ, HIGH_HZ], dtype=torch.float64)).tolist()
    edges = torch.linspace(low, high, BANDS + 2, dtype=torch.float64)
    left, middle, right = edges[:-2], edges[1:-1], edges[2:]  # (64,) each
    weights = torch.minimum((bins - left) / (middle - left), (right - bins) / (right - middle)).clamp(min=0)
    weights[0] = 0
    return weights


def log_mel_blocks(read: Callable[[int, int], Tensor], length: int) -> Iterator[Tensor]:
    """(n, 64) float32: ln(mel + 0.01) of 16 kHz mono sound, n = 1 + (length - 400) // 160, in blocks of `BLOCK` rows.

    ``read(start, stop)`` gives samples [start, stop) of ``length``, at least 400, as they are needed. Frames are not
    centred and nothing is padded. Computed in float64 where the sound lies.
    """
    rows = 1 + (length - FRAME) // HOP
    for start in range(0, rows, BLOCK):
        stop = min(start + BLOCK, rows)
        yield _log_mel(read(start * HOP, (stop - 1) * HOP + FRAME))


def _log_mel(samples: Tensor) -> Tensor:
    """(b, 64) of all frames of ``samples``."""
    # The periodic window: 400 samples of a raised cosine whose period is 400.
    window = torch.hann_window(FRAME, periodic=True, dtype=torch.float64, device=samples.device)
    frames = samples.unfold(0, FRAME, HOP)  # (b, 400), a view
    spectrum = torch.fft.rfft(frames.double() * window, n=FFT).abs()  # (b, 257)
    return torch.log(spectrum @ mel_matrix().to(samples.device) + 0.01).float()


def cut_examples(frames: Tensor, hop: int = EXAMPLE) -> Tensor:
    """(N, 1, 96, 64) examples, time before mel, from (n, 64) log-mel frames; ``hop`` frames of 10 ms between them.

    An incomplete example at the end is dropped.
    """
    if len(frames) < EXAMPLE:
        return frames.new_zeros(0, 1, EXAMPLE, BANDS)
    return frames.unfold(0, EXAMPLE, hop).transpose(1, 2).unsqueeze(1)  # (N, 64, 96) -> (N, 1, 96, 64)


class VGGish(nn.Module):
    """Examples (N, 1, 96, 64) -> embeddings (N, 128). 72,141,184 parameters.

    ``activation``: torchvggish ends with a ReLU (``"relu"``); TensorFlow's release dropped it in 2020 (``"none"``).
    Both use the same weights.
    """

    def __init__(self, activation: Literal["relu", "none"] = "relu") -> None:
        super().__init__()
        self.activation = activation
        layers: list[nn.Module] = []
        channels = 1
        for step in (64, "pool", 128, "pool", 256, 256, "pool", 512, 512, "pool"):
            if isinstance(step, int):
                layers += [nn.Conv2d(channels, step, 3, padding=1), nn.ReLU()]
                channels = step
            else:
                layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.embeddings = nn.Sequential(
            nn.Linear(512 * 6 * 4, 4096), nn.ReLU(), nn.Linear(4096, 4096), nn.ReLU(), nn.Linear(4096, 128)
        )

    def forward(self, examples: Tensor) -> Tensor:
        maps = self.features(examples)  # (N, 512, 6, 4)
        # TensorFlow's order, channels last: (N, 6, 4, 512) -> (N, 12288)
        embedding = self.embeddings(maps.permute(0, 2, 3, 1).flatten(1))
        return torch.relu(embedding) if self.activation == "relu" else embedding


class VGGishPCA(nn.Module):
    """The whitening and 8-bit steps AudioSet's features were published with: (N, 128) -> (N, 128) in [0, 255].

    ``rounding``: torchvggish rounds and stays float; TensorFlow cuts off (``"truncate"``).
    """

    def __init__(self, rounding: Literal["round", "truncate"] = "round") -> None:
        super().__init__()
        self.rounding = rounding
        self.register_buffer("pca_eigen_vectors", torch.eye(128))
        self.register_buffer("pca_means", torch.zeros(128))

    def forward(self, embedding: Tensor) -> Tensor:
        eigen_vectors, means = self.get_buffer("pca_eigen_vectors"), self.get_buffer("pca_means")
        whitened = (embedding - means) @ eigen_vectors.T  # E (x - mean), x a column
        scaled = (whitened.clamp(-2, 2) + 2) * (255 / 4)
        return torch.round(scaled) if self.rounding == "round" else torch.floor(scaled)


def adapt_state_dict(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A VGGish state dict as this network names it: tcvrick's port calls ``embeddings`` ``fc``."""
    return {
        "embeddings." + name.removeprefix("fc.") if name.startswith("fc.") else name: value
        for name, value in state.items()
    }


def random_vggish(seed: int, activation: Literal["relu", "none"] = "relu") -> VGGish:
    """A network of seeded random numbers, scaled so that its outputs neither vanish nor grow."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        with torch.device("meta"):
            network = VGGish(activation)
        network.to_empty(device="cpu")
        for layer in network.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                fan_in = math.prod(layer.weight.shape[1:])
                nn.init.normal_(layer.weight, std=math.sqrt(2 / fan_in))
                assert layer.bias is not None
                nn.init.zeros_(layer.bias)
    return network
