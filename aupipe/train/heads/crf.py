"""A conditional random field over facial states: which configuration of AUs a face is in, read from the whole window.

A face shows few configurations, dwells in one and moves to another. The head has a table of states, each with the
targets it stands for; every frame says how well each state fits, neighbouring states say how well they follow each
other, and forward-backward sums over all paths.

It starts from what training data say in closed form (`chain_start`): the configurations seen most often, how long they
last, and a linear-Gaussian reading of each feature with noise that carries over from frame to frame. Of that model the
exact posterior has this very form: a fit linear in the features of a frame and its two neighbours and in the state's
targets, and a constant per pair of states (formulas in `chain_start`). Everything is then trained. Real faces are not
linear-Gaussian, so ``channels`` adds a TCN's logits to the field's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from aupipe.tables import Range, Share, Width
from aupipe.train.heads.crf_initialisation import Start, estimate
from aupipe.train.heads.tcn import TemporalConvNet
from aupipe.types import Task

if TYPE_CHECKING:
    from aupipe.train.loader import DeviceBatch

SURE = 5.0  # the logit at which a state starts to show an AU
FLOOR = 1e-25  # neither a frame nor a step rules a state out: one bad frame must not forbid a path
COST = 40.0  # the most a change of state may cost at the start, in nats: float32 holds no more, and nobody is surer


@dataclass(frozen=True)
class CRFConfig:
    """``states``: size of the table. ``stay``: log-odds to keep a state, before data say so.

    ``channels``: widths of a TCN whose logits are added; none: no TCN.
    """

    states: Annotated[int, Range(2, 4096)] = 40
    stay: Annotated[float, Range(-100, 100)] = 3.0
    channels: tuple[Width, ...] = ()
    width: Width = 64
    dropout: Share = 0.2
    input_dropout: Share = 0.0


class CRFHead(nn.Module):
    """(B, T, D) -> (B, T, K)."""

    Config = CRFConfig
    streams = True

    def __init__(self, config: CRFConfig, dims: tuple[int, ...], targets: int) -> None:
        super().__init__()
        self.task: Task = "expr" if targets == 8 else "va" if targets == 2 else "au"
        self.dims, inputs, states = dims, sum(dims) + len(dims), config.states
        self.dropout = nn.Dropout(config.input_dropout)
        self.now = nn.Linear(inputs, targets)  # the fit, from a frame ...
        self.before, self.after = (
            nn.Linear(sum(dims), targets, bias=False) for _ in range(2)
        )  # ... and its neighbours
        for part in (self.now, self.before, self.after):
            nn.init.zeros_(part.weight)
        nn.init.zeros_(self.now.bias)
        self.owner: Tensor
        self.register_buffer("owner", torch.repeat_interleave(torch.tensor(dims)))  # which feature a column is of
        self.beside = ResidualTCN(config, inputs, targets) if config.channels else None
        self.table: Tensor
        self.known: Tensor
        self.register_buffer("table", torch.randn(states, targets))  # what a state shows, for the fit
        self.register_buffer("known", torch.ones(states))  # 0: no such state
        self.shows = nn.Parameter(self.table.clone())  # what a state shows, for the output
        self.bias = nn.Parameter(torch.zeros(len(dims) + 1, states))  # per feature that is there, and always
        self.first = nn.Parameter(torch.zeros(states))
        self.enter = nn.Parameter(torch.zeros(states))
        self.stay = nn.Parameter(torch.full((states,), config.stay))
        self.pairs = nn.Parameter(torch.zeros(targets, targets))  # what a change of targets costs

    def start_from(self, batches: Callable[[], Iterable[DeviceBatch]], task: Task) -> None:
        """Fill table, fits and transitions from the training batches, gone through twice."""
        self.task = task
        self._set(estimate(batches, task, self.dims, len(self.table), self.shows.shape[1]))

    @torch.no_grad()
    def _set(self, start: Start) -> None:
        count = len(start.table)
        self.table.zero_()[:count] = start.table
        self.known.zero_()[:count] = 1.0
        self.shows.copy_(self.table if self.task == "va" else (2 * self.table - 1) * SURE)
        for values in (self.first, self.enter):
            values.zero_()[:count] = start.share.log()
        self.stay[:count] = start.stay
        change = start.table[:, None] - start.table  # (n, n, K)
        worst = torch.einsum("ijk,kl,ijl->ij", change, start.pairs, change).max() / 2
        calm = min(1.0, COST / max(float(worst), 1e-9))  # all evidence is toned down together
        self.now.weight.copy_(calm * start.now)
        for part in (self.before, self.after):
            part.weight.copy_(calm * start.beside[:, : sum(self.dims)])
        self.pairs.copy_(calm * start.pairs)
        each = torch.einsum("sk,fkl,sl->fs", self.table, start.own, self.table)
        self.bias[:-1] = -0.5 * calm * each

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Logits, or values for VA: the expectation over states of what they show."""
        presence = x[..., sum(self.dims) :] * mask[..., None]  # (B, T, F)
        x = self.dropout(x) * mask[..., None]
        fit = self.now(x) + self._beside(x[..., : sum(self.dims)], presence > 0)  # (B, T, D) -> (B, T, K)
        with torch.autocast(x.device.type, enabled=False):  # products of 100 frames need float32
            bias = presence.float() @ self.bias[:-1] + self.bias[-1]
            weight = self.posterior(fit.float() @ self.table.T + bias, mask)  # (B, T, S)
            if self.task == "va":
                out = weight @ self.shows
            elif self.task == "expr":
                out = (weight @ self.shows.softmax(dim=-1)).clamp(min=1e-6).log()
            else:
                out = torch.logit((weight @ self.shows.sigmoid()).clamp(1e-6, 1 - 1e-6))
        return out if self.beside is None else out + self.beside(x, mask)

    def _beside(self, x: Tensor, there: Tensor) -> Tensor:
        """What the neighbours say, (B, T, sum d) -> (B, T, K). One that is missing is taken to be as the frame itself:
        a step from nothing to something would be read as a change of the face."""
        known = F.pad(there, (0, 0, 1, 1))[..., self.owner]  # (B, T, F) -> (B, 1 + T + 1, sum d)
        shifted = F.pad(x, (0, 0, 1, 1))
        before = torch.where(known[:, :-2], shifted[:, :-2], x)
        after = torch.where(known[:, 2:], shifted[:, 2:], x)
        out: Tensor = self.before(before) + self.after(after)
        return out

    def follow(self) -> Tensor:
        """(S, S) how well state j follows state i; a change costs half its square under ``pairs``."""
        cost = self.table @ (self.pairs + self.pairs.T) @ self.table.T / 2
        own = cost.diagonal()
        absent = (1 - self.known) * -1e4
        return torch.diag(self.stay) + self.enter + cost - (own + own[:, None]) / 2 + absent + absent[:, None]

    def posterior(self, fit: Tensor, mask: Tensor) -> Tensor:
        """P(state | window) (B, T, S) from the fits, by forward-backward with both directions in one batch."""
        absent = (1 - self.known) * -1e4
        fit = fit + absent
        each = (fit - fit.amax(dim=-1, keepdim=True)).exp().clamp(min=FLOOR)
        each = torch.where(mask[..., None], each, torch.ones_like(each)).transpose(0, 1)  # (T, B, S)
        follow = self.follow()
        step = (follow - follow.amax()).exp().clamp(min=FLOOR) * self.known * self.known[:, None]  # (S, S)
        steps = torch.stack([step, step.T])
        start = torch.stack([(self.first + absent).softmax(dim=0), self.known / self.known.sum()])[:, None]  # (2, 1, S)
        both = torch.stack([each, each.flip(0)], dim=1).unbind(0)  # T x (2, B, S)
        times = mask.T
        begun = torch.stack([times, times.flip(0)], dim=1)[..., None].unbind(0)  # T x (2, B, 1)
        arrived = start.expand(2, len(mask), -1)
        message = _normal(both[0] * arrived)
        messages, arrivals = [message], [arrived]
        for t in range(1, len(both)):
            # Backwards, padding comes first: the frame behind it begins anew.
            arrived = torch.where(begun[t - 1], torch.bmm(message, steps), start)
            message = _normal(arrived * both[t])
            messages.append(message)
            arrivals.append(arrived)
        # A frame is in what came forwards, and not in what came backwards.
        forwards, backwards = torch.stack(messages)[:, 0], torch.stack(arrivals)[:, 1].flip(0)  # (T, B, S)
        return _normal(forwards * backwards).transpose(0, 1)


def _normal(weight: Tensor) -> Tensor:
    weight = weight + 1e-18  # sums of products of these stay above what float32 can hold
    return weight / weight.sum(dim=-1, keepdim=True)


class ResidualTCN(nn.Module):
    """A TCN and a linear skip whose logits begin at 0; (B, T, D) -> (B, T, K)."""

    def __init__(self, config: CRFConfig, inputs: int, targets: int) -> None:
        super().__init__()
        self.project = nn.Linear(inputs, config.width)
        self.tcn = TemporalConvNet(config.width, config.channels, 5, config.dropout, causal=False)
        self.deep = nn.Linear(config.channels[-1], targets)
        self.skip = nn.Linear(inputs, targets, bias=False)
        for layer in (self.deep, self.skip):
            nn.init.zeros_(layer.weight)
        nn.init.zeros_(self.deep.bias)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """``mask`` (B, T), False at padding."""
        hidden = self.tcn(self.project(x).transpose(1, 2), mask).transpose(1, 2)  # (B, T, D) -> (B, T, C)
        out: Tensor = self.deep(hidden) + self.skip(x)
        return out
