"""A conditional random field over facial states: which configuration of AUs a face is in, read from the whole window.

A face shows few configurations, dwells in one and moves to another. The head has a table of states, each with the
targets it stands for; every frame says how well each state fits, neighbouring states say how well they follow each
other, and forward-backward sums over all paths. The table starts from the configurations seen most often in the
training labels (`start_from`); its outputs are then learned with everything else.

Why this form: if targets are a function of a Markov chain's state and features are linear-Gaussian given the state,
with AR(1) noise, the exact posterior is of this form. A frame's fit is then linear in the features of it and its two
neighbours and linear in the state's targets; the rest is a constant per pair of states (`specs/training.md` 6). Real
faces are not that, so ``channels`` can put a TCN beside the linear map.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from aupipe.errors import UsageError
from aupipe.train.heads.blocks import MaskedBatchNorm
from aupipe.train.heads.tcn import TemporalConvNet
from aupipe.types import Task

SURE = 5.0  # the logit at which a state starts to show an AU
FLOOR = 1e-12  # a frame never rules a state out: one bad frame must not forbid a path


@dataclass(frozen=True)
class ChainConfig:
    """``states``: size of the table. ``kernel_size``: frames a fit is read from. ``stay``: log-odds to keep a state.

    ``changes``: a fit also reads what changed since the frame before, scaled to be as large as the features: under
    noise that hardly moves, a small change is the evidence, and without the scale it is not found.

    ``channels``: widths of a TCN beside the linear map; none: no TCN.
    """

    states: int = 40
    kernel_size: int = 3
    stay: float = 3.0
    changes: bool = True
    channels: tuple[int, ...] = ()
    width: int = 64
    dropout: float = 0.2
    input_dropout: float = 0.0


class ChainHead(nn.Module):
    """(B, T, D) -> (B, T, K)."""

    Config = ChainConfig
    streams = True

    def __init__(self, config: ChainConfig, dims: tuple[int, ...], targets: int) -> None:
        super().__init__()
        if config.kernel_size % 2 == 0:
            raise UsageError(f"head 'chain': kernel_size = {config.kernel_size} must be odd, or fits shift by a half")
        self.task: Task = "expr" if targets == 8 else "va" if targets == 2 else "au"
        states = config.states
        self.dropout = nn.Dropout(config.input_dropout)
        self.dims, inputs = dims, sum(dims) + len(dims)
        self.scale = MaskedBatchNorm(sum(dims), affine=False) if config.changes else None
        read = inputs + (sum(dims) if config.changes else 0)
        self.fit = nn.Conv1d(read, targets, config.kernel_size, padding=config.kernel_size // 2)
        nn.init.zeros_(self.fit.weight)
        self.project = nn.Linear(inputs, config.width) if config.channels else None
        self.tcn = (
            TemporalConvNet(config.width, config.channels, 5, config.dropout, causal=False) if config.channels else None
        )
        self.deep = nn.Linear(config.channels[-1], targets, bias=False) if config.channels else None
        self.table: Tensor
        self.known: Tensor
        self.register_buffer("table", torch.randn(states, targets))  # what a state shows, for the fit
        self.register_buffer("known", torch.ones(states))  # 0: no such state
        self.shows = nn.Parameter(self.table.clone())  # what a state shows, for the output
        self.bias = nn.Parameter(torch.zeros(states))
        self.first = nn.Parameter(torch.zeros(states))
        self.enter = nn.Parameter(torch.zeros(states))
        self.stay = nn.Parameter(torch.full((states,), config.stay))
        self.pairs = nn.Parameter(torch.zeros(targets, targets))

    def start_from(self, targets: NDArray[Any], task: Task) -> None:
        """Fill the table from the valid training ``targets`` (N, K), for EXPR (N, 1)."""
        self.task = task
        rows, shares = _configurations(targets, task, len(self.table), self.shows.shape[1])
        count = len(rows)
        with torch.no_grad():
            self.table[:count] = torch.from_numpy(rows)
            self.table[count:] = 0.0
            self.known.zero_()[:count] = 1.0
            self.shows.copy_(self.table if task == "va" else (2 * self.table - 1) * SURE)
            for start in (self.first, self.enter):
                start.zero_()[:count] = torch.from_numpy(np.log(shares))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Logits, or values for VA: the expectation over states of what they show."""
        there = mask[..., None]
        x = self.dropout(x) * there  # (B, T, D); the kernel must not read padding
        read = x if self.scale is None else torch.cat([x, self.scale(self._changes(x), mask) * there], dim=-1)
        fit = self.fit(read.transpose(1, 2)).transpose(1, 2)  # (B, T, D) -> (B, T, K)
        if self.tcn is not None and self.project is not None and self.deep is not None:
            fit = fit + self.deep(self.tcn(self.project(x).transpose(1, 2), mask).transpose(1, 2))
        with torch.autocast(x.device.type, enabled=False):  # products of 100 frames need float32
            weight = self.posterior(fit.float() @ self.table.T + self.bias, mask)  # (B, T, S)
            if self.task == "va":
                return weight @ self.shows
            if self.task == "expr":
                return (weight @ self.shows.softmax(dim=-1)).clamp(min=1e-6).log()
            return torch.logit((weight @ self.shows.sigmoid()).clamp(1e-6, 1 - 1e-6))

    def _changes(self, x: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, D - F) since the frame before; 0 where the feature is missing in either."""
        columns = sum(self.dims)
        presence = x[..., columns:].repeat_interleave(torch.tensor(self.dims, device=x.device), dim=-1)
        both = presence[:, 1:] * presence[:, :-1]
        return F.pad((x[:, 1:, :columns] - x[:, :-1, :columns]) * both, (0, 0, 1, 0))

    def posterior(self, fit: Tensor, mask: Tensor) -> Tensor:
        """P(state | window) (B, T, S) from the fits, by forward-backward with both directions in one batch."""
        absent = (1 - self.known) * -1e4
        fit = fit + absent
        states = fit.shape[-1]
        each = (fit - fit.amax(dim=-1, keepdim=True)).exp().clamp(min=FLOOR)
        each = torch.where(mask[..., None], each, torch.ones_like(each)).transpose(0, 1)  # (T, B, S)
        follow = torch.diag(self.stay) + self.enter + self.table @ self.pairs @ self.table.T
        follow = follow + absent + absent[:, None]
        step = (follow - follow.logsumexp(dim=(0, 1))).exp() * states  # (S, S)
        steps = torch.stack([step, step.T])
        start = torch.stack([(self.first + absent).softmax(dim=0), self.known / self.known.sum()])[:, None]  # (2, 1, S)
        both = torch.stack([each, each.flip(0)], dim=1).unbind(0)  # T x (2, B, S)
        times = mask.T
        begun = torch.stack([times, times.flip(0)], dim=1)[..., None].unbind(0)  # T x (2, B, 1)
        message = _normal(both[0] * start)
        messages = [message]
        for t in range(1, len(both)):
            # Backwards, padding comes first: the frame behind it begins anew.
            arrived = torch.where(begun[t - 1], torch.bmm(message, steps), start)
            message = _normal(arrived * both[t])
            messages.append(message)
        passed = torch.stack(messages)  # (T, 2, B, S)
        return _normal(passed[:, 0] * passed[:, 1].flip(0) / each).transpose(0, 1)


def _normal(weight: Tensor) -> Tensor:
    return F.normalize(weight, p=1.0, dim=-1, eps=1e-30)


def _configurations(
    targets: NDArray[Any], task: Task, states: int, columns: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Up to ``states`` rows (n, K) that training labels show most, and their shares (n,)."""
    if task == "expr":
        shares = np.bincount(targets[:, 0].astype(np.int64), minlength=columns)[:columns] + 1.0
        return np.eye(columns, dtype=np.float32)[:states], (shares / shares.sum()).astype(np.float32)[:states]
    if task == "va":  # a grid over the plane that keeps the places where faces are
        targets = np.round(targets * 5) / 5
    rows, counts = np.unique(targets, axis=0, return_counts=True)
    order = np.argsort(-counts, kind="stable")[:states]
    return rows[order].astype(np.float32), (counts[order] / counts.sum()).astype(np.float32)
