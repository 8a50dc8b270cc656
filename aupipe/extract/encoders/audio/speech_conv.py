"""Running wav2vec2, HuBERT and WavLM over sound of any length, with the statistics of the whole clip."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from aupipe.errors import UsageError
from aupipe.extract.encoders.audio.sliding import moments, slide
from aupipe.extract.encoders.audio.taps import SpeechSettings, Tap
from aupipe.extract.encoders.base import Encode, ShapedEncode, TimeSeries
from aupipe.extract.media.long_arrays import cut
from aupipe.types import Waveform

BATCH = {"cpu": 1, "cuda": 8}  # chunks at a time
STATISTICS_BLOCK = 1 << 18  # samples the first layer's statistics are gathered from at a time


def conv_encoder(speech: SpeechSettings, network: Any, device: str, dtype: torch.dtype) -> Encode:
    """The encode function of a model with a convolutional front end."""
    config = network.config
    if getattr(config, "add_adapter", False):
        raise UsageError(f"{speech.model}: models with an adapter give rows at other times; they are not supported")
    network = network.to(device=device, dtype=dtype)
    tap = Tap(network.encoder, speech.tap, speech.layer)
    clip_norm = ClipNorm.install(network)
    hop, field = prod(config.conv_stride), receptive_field(config.conv_kernel, config.conv_stride)
    normalizes = speech.normalizes()
    batch = BATCH["cuda" if device.startswith("cuda") else "cpu"]

    def forward(values: Tensor) -> Tensor:
        if speech.tap == "extract_features":
            features = network.feature_extractor(values).transpose(1, 2)  # (B, 512, n) -> (B, n, 512)
            norm = getattr(network.feature_projection, "layer_norm", None)
            return (norm(features) if norm is not None else features).float()
        return tap.take(network(values).last_hidden_state)

    def encode(waveform: Waveform) -> TimeSeries:
        samples = waveform.samples
        mean, variance = moments(samples) if normalizes else (0.0, 1.0)
        scale = 1 / np.sqrt(variance + 1e-7) if normalizes else 1.0

        def prepared(start: int, stop: int) -> Tensor:
            values = (cut(samples, start, stop) - np.float32(mean)) * np.float32(scale)
            return torch.from_numpy(values).to(device=device, dtype=dtype)

        rows = max(1, 1 + (len(samples) - field) // hop)
        rate = waveform.sample_rate
        length = max(1, round(speech.chunk_s * rate / hop))
        # The front end sees the same samples in every chunk: only attention and positions need context.
        context = 0 if speech.tap == "extract_features" else round(speech.context_s * rate / hop)

        def compute(starts: list[int]) -> Any:
            if rows <= length:
                values = prepared(0, len(samples))[None]
                values = nn.functional.pad(values, (0, max(0, field - len(samples))))  # one row at least
            else:
                spans = [(start * hop, (start + length - 1) * hop + field) for start in starts]
                values = torch.stack([prepared(*span) for span in spans])
            return forward(values).cpu().numpy()

        with torch.inference_mode():
            if clip_norm is not None:
                clip_norm.forget()
                if rows > length:
                    clip_norm.gather(prepared, len(samples), network.feature_extractor.conv_layers[0].conv)
            data = slide(rows, length, context, batch, compute)
        times = waveform.start_s + (np.arange(rows) * hop + field / 2) / rate
        return TimeSeries(data, times, field / rate)

    width = config.conv_dim[-1] if speech.tap == "extract_features" else config.hidden_size
    return ShapedEncode(encode, (width,))


def receptive_field(kernels: list[int], strides: list[int]) -> int:
    """Samples that one row of a stack of convolutions covers: 400 for every published model."""
    field, jump = 1, 1
    for kernel, stride in zip(kernels, strides, strict=True):
        field += (kernel - 1) * jump
        jump *= stride
    return field


class ClipNorm(nn.Module):
    """The group norm after the first convolution of "base" models, with statistics of the whole clip.

    `nn.GroupNorm` standardises each channel over the time it is given. In a chunk that would be the chunk's time, and a
    row would depend on where the chunks begin. `gather` computes the statistics of the whole clip beforehand, a block
    at a time; without it this is the norm it stands for.
    """

    def __init__(self, norm: nn.GroupNorm) -> None:
        super().__init__()
        self.norm = norm
        self.scale: Tensor | None = None  # (C, 1)
        self.shift: Tensor | None = None  # (C, 1)

    @classmethod
    def install(cls, network: Any) -> ClipNorm | None:
        """Put one in place of the first layer's group norm; None where the model has none."""
        first = network.feature_extractor.conv_layers[0]
        norm = getattr(first, "layer_norm", None)
        if not isinstance(norm, nn.GroupNorm):
            return None
        first.layer_norm = cls(norm)
        return first.layer_norm

    def forget(self) -> None:
        self.scale = self.shift = None

    def gather(self, prepared: Any, samples: int, conv: nn.Conv1d) -> None:
        """Statistics of ``conv`` over ``prepared(0, samples)``."""
        kernel, stride = conv.kernel_size[0], conv.stride[0]
        rows = 1 + (samples - kernel) // stride
        block = max(1, STATISTICS_BLOCK // stride)
        total = squares = torch.zeros((), dtype=torch.float64)
        for first in range(0, rows, block):
            last = min(first + block, rows)
            values = prepared(first * stride, (last - 1) * stride + kernel)
            found = conv(values[None, None])[0].float()  # (C, last - first)
            total = total + found.sum(dim=1).double().cpu()
            squares = squares + found.square().sum(dim=1).double().cpu()
        mean = total / rows
        deviation = (squares / rows - mean.square()).clamp(min=0).add(self.norm.eps).sqrt()
        weight, bias = self.norm.weight.double().cpu(), self.norm.bias.double().cpu()
        scale = weight / deviation
        self.scale = scale.to(self.norm.weight)[:, None]
        self.shift = (bias - mean * scale).to(self.norm.weight)[:, None]

    def forward(self, values: Tensor) -> Tensor:
        """(B, C, n) -> (B, C, n)."""
        if self.scale is None or self.shift is None:
            return self.norm(values)
        return values * self.scale + self.shift
