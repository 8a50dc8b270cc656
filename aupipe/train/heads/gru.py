"""A bidirectional GRU per temporal stream, a linear layer per static one, their outputs concatenated, then an MLP.

Source: Yin et al. 2023, section 3.4; ihp-lab/ABAW5. The released code reads the output at the last, zero-padded step:
the forward state after padding, and a backward state that has read one step. Here both are final states.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from aupipe.errors import UsageError
from aupipe.tables import Layers, Natural, NotNegative, Share, Width
from aupipe.train.context import CLOCK_ERROR_S, Context
from aupipe.train.heads.blocks import MaskedBatchNorm, split_streams


@dataclass(frozen=True)
class Stream:
    """A branch that reads one feature, by name; a feature may have several.

    ``kind``: 'static' is a linear map of the frame to ``width`` columns; 'temporal' the final states (2 ``width``) of
    a GRU over ``context`` frames, and all within ``seconds``, on either side. With neither it is one pass over the
    whole window.
    """

    feature: str
    kind: Literal["static", "temporal"] = "temporal"
    width: Width = 64
    context: Natural = 0
    seconds: NotNegative = 0.0

    @property
    def whole(self) -> bool:
        """Does a GRU read the whole window?"""
        return self.kind == "temporal" and not self.context and not self.seconds


@dataclass(frozen=True)
class GRUConfig:
    """``streams``: those of features that are not given are left out; (): one per feature, of the other keys.

    ``context``: frames on either side that the GRU reads around each frame; 0: one pass over the whole window.
    ``static``: names of features that bypass the GRU through a linear layer to ``static_width`` (older recipes have
    their positions, from 0).
    """

    streams: tuple[Stream, ...] = ()
    context: Natural = 0
    width: Width = 64
    layers: Layers = 2
    static: tuple[Natural | str, ...] = ()
    static_width: Width = 512
    hidden: Width = 512
    dropout: Share = 0.1


class GRUHead(nn.Module):
    """(B, T, D) -> (B, T, K)."""

    Config = GRUConfig
    streams = True

    def __init__(self, config: GRUConfig, dims: tuple[int, ...], targets: int, names: tuple[str, ...]) -> None:
        super().__init__()
        self.dims, self.names = dims, names
        self.parts = _streams(config, names)
        columns = dict(zip(names, dims, strict=True))
        static = [stream.kind == "static" for stream in self.parts]
        self.projects = nn.ModuleList(nn.Linear(columns[one.feature] + 1, one.width) for one in self.parts)
        between = config.dropout if config.layers > 1 else 0.0
        self.grus = nn.ModuleList(
            nn.Identity()
            if bypass
            else nn.GRU(one.width, one.width, config.layers, True, True, between, bidirectional=True)
            for one, bypass in zip(self.parts, static, strict=True)
        )
        together = sum(one.width if bypass else 2 * one.width for one, bypass in zip(self.parts, static, strict=True))
        self.hidden = nn.Linear(together, config.hidden)
        self.norm = MaskedBatchNorm(config.hidden)
        self.dropout = nn.Dropout(config.dropout)
        self.out = nn.Linear(config.hidden, targets)
        self.own_frame = set(names) - {one.feature for one in self.parts if one.kind == "temporal"}
        self.reads = ("scored", "times") if any(one.seconds for one in self.parts) else ("scored",)
        frames = max((one.context for one in self.parts), default=0)
        seconds = max((one.seconds for one in self.parts), default=0.0)
        self.context = None if any(one.whole for one in self.parts) else Context(frames, frames, seconds)

    def forward(self, x: Tensor, mask: Tensor, scored: Tensor | None = None, times: Tensor | None = None) -> Tensor:
        """After the streams: linear, ReLU, batch norm, dropout, linear, as published. Outputs where ``scored`` only."""
        scored = mask if scored is None else scored
        features = dict(zip(self.names, split_streams(x, self.dims), strict=True))
        states = []
        for one, project, gru in zip(self.parts, self.projects, self.grus, strict=True):
            tokens = project(features[one.feature])  # (B, T, d + 1) -> (B, T, width)
            if isinstance(gru, nn.GRU):
                tokens = _along(tokens, mask, gru) if one.whole else _around(tokens, mask, scored, times, gru, one)
            states.append(tokens)
        hidden = self.norm(F.relu(self.hidden(torch.cat(states, dim=-1))), scored)
        out: Tensor = self.out(self.dropout(hidden))
        return out


def _streams(config: GRUConfig, names: tuple[str, ...]) -> list[Stream]:
    """The streams of the features that are given. Raises UsageError for a feature that none reads."""
    if not config.streams:
        if any(isinstance(one, int) and one >= len(names) for one in config.static):
            raise UsageError(f"head 'gru': static = {config.static}, but there are {len(names)} features, from 0")
        static = {names[one] if isinstance(one, int) else one for one in config.static}
        if unknown := sorted(static - set(names)):
            raise UsageError(f"head 'gru': static = {unknown[0]!r} is no feature of {', '.join(names)}")
        return [
            Stream(name, "static", config.static_width)
            if name in static
            else Stream(name, "temporal", config.width, config.context)
            for name in names
        ]
    if config.static or config.context:
        raise UsageError("head 'gru': static and context are of heads without [[head.streams]]: give one or the other")
    if unread := [name for name in names if name not in {one.feature for one in config.streams}]:
        raise UsageError(
            f"head 'gru': no stream reads feature {unread[0]!r}: add [[head.streams]] feature = {unread[0]!r}"
        )
    return [one for one in config.streams if one.feature in names]


def _along(tokens: Tensor, mask: Tensor, gru: nn.GRU) -> Tensor:
    """(B, T, C) -> (B, T, 2C): both directions over the frames of the window, without padding."""
    packed = pack_padded_sequence(tokens, mask.sum(dim=1).cpu(), batch_first=True, enforce_sorted=False)
    states, _ = pad_packed_sequence(gru(packed)[0], batch_first=True, total_length=tokens.shape[1])
    return states


def _around(tokens: Tensor, mask: Tensor, scored: Tensor, times: Tensor | None, gru: nn.GRU, stream: Stream) -> Tensor:
    """(B, T, C) -> (B, T, 2C): the final states of both directions over the context of each scored frame.

    At the ends of a recording there is less of it, because padding is not read.
    """
    batch, frames, _ = tokens.shape
    row, frame = scored.nonzero(as_tuple=True)  # (N,) each
    first, stop = frame - stream.context, frame + stream.context + 1
    if stream.seconds:
        if times is None:
            raise UsageError("head 'gru': a context in seconds needs the times of the frames")
        reach = stream.seconds + CLOCK_ERROR_S
        first = first.minimum(torch.searchsorted(times, times - reach)[row, frame])
        stop = stop.maximum(torch.searchsorted(times, times + reach)[row, frame])
    first, stop = first.clamp(min=0), stop.minimum(mask.sum(dim=1)[row])
    sizes = stop - first
    place = first[:, None] + torch.arange(int(sizes.max()) if len(sizes) else 1, device=tokens.device)  # (N, L)
    around = tokens[row[:, None], place.clamp(max=frames - 1)]  # (B, T, C) -> (N, L, C)
    packed = pack_padded_sequence(around, sizes.cpu(), batch_first=True, enforce_sorted=False)
    last = gru(packed)[1][-2:]  # (2 layers, N, C) -> the last layer's two directions, (2, N, C)
    out = last.new_zeros(batch, frames, 2 * gru.hidden_size)
    out[row, frame] = last.transpose(0, 1).flatten(1)  # (2, N, C) -> (N, 2 C)
    return out
