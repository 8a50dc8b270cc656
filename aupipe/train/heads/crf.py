"""A linear-chain conditional random field (CRF) whose states are configurations of AUs (or classes, or VA values).

The head has a table of states, each with the targets that it stands for. A unary score rates every state at every
frame, a transition score rates every pair of states of neighbouring frames, and forward-backward sums over all state
sequences of the window (Lafferty et al. 2001). A face shows few configurations of AUs and keeps each for some time.

The parameters are initialised in closed form from the training data (`crf_initialisation`): the most frequent
configurations, how long they last, and a linear-Gaussian model of each feature with noise that is correlated over time.
The exact posterior of that model is such a CRF: unary scores are linear in the features of a frame and its two
neighbours, transition scores are constants. All parameters are then trained. Features of real faces are not
linear-Gaussian, so ``channels`` adds the logits of a TCN to those of the CRF.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from aupipe.tables import Range, Share, Width
from aupipe.tasks import Kind, Task
from aupipe.train.heads.crf_initialisation import Initialisation, estimate
from aupipe.train.heads.tcn import TemporalConvNet

if TYPE_CHECKING:
    from aupipe.train.loader import DeviceBatch

INITIAL_LOGIT = 5.0  # of an AU that a state shows, before training
FLOOR = 1e-25  # the least potential of a frame or a transition, relative to the largest: none forbids a sequence
LARGEST_COST = 40.0  # nats, of a transition before training: float32 holds no larger ratios
ABSENT = -1e4  # score of an unused row of the table


NUMBERS = ("regression", "intensity")  # kinds of tasks whose outputs are no logits


@dataclass(frozen=True)
class CRFConfig:
    """``states``: rows of the table. ``stay``: log-odds of keeping a state, before the data give a value.

    ``channels``: widths of a TCN whose logits are added; (): no TCN.
    """

    states: Annotated[int, Range(2, 4096)] = 40
    stay: Annotated[float, Range(-100, 100)] = 3.0
    channels: tuple[Width, ...] = ()
    width: Width = 64
    dropout: Share = 0.2
    input_dropout: Share = 0.0


class CRFHead(nn.Module):
    """(B, T, D) -> (B, T, K). The registered name is 'chain'; saved runs also contain the names of the parameters."""

    Config = CRFConfig
    streams = True

    def __init__(self, config: CRFConfig, dims: tuple[int, ...], targets: int) -> None:
        super().__init__()
        self.task_kind: Kind = "multi_label"
        self.dims, inputs, states = dims, sum(dims) + len(dims), config.states
        self.dropout = nn.Dropout(config.input_dropout)
        # The projection onto targets, from a frame and from its two neighbours.
        self.now = nn.Linear(inputs, targets)
        self.before, self.after = (nn.Linear(sum(dims), targets, bias=False) for _ in range(2))
        for layer in (self.now, self.before, self.after):
            nn.init.zeros_(layer.weight)
        nn.init.zeros_(self.now.bias)
        self.owner: Tensor
        self.register_buffer("owner", torch.repeat_interleave(torch.tensor(dims)))  # (sum d,) column -> feature
        self.beside = ResidualTCN(config, inputs, targets) if config.channels else None
        self.table: Tensor
        self.known: Tensor
        self.register_buffer("table", torch.randn(states, targets))  # (S, K) targets of a state, for the unary scores
        self.register_buffer("known", torch.ones(states))  # (S,) 0: the row is not used
        self.shows = nn.Parameter(self.table.clone())  # (S, K) targets of a state, for the output
        self.bias = nn.Parameter(torch.zeros(len(dims) + 1, states))  # unary: per present feature, and a constant row
        self.first = nn.Parameter(torch.zeros(states))  # score of the first frame
        self.enter = nn.Parameter(torch.zeros(states))
        self.stay = nn.Parameter(torch.full((states,), config.stay))
        self.pairs = nn.Parameter(torch.zeros(targets, targets))  # the cost of a change of targets, a quadratic form

    def start_from(self, batches: Callable[[], Iterable[DeviceBatch]], task: Task) -> None:
        """Initialise all parameters from the training batches, which are read three times."""
        self.task_kind = task.kind
        self._set(estimate(batches, task, self.dims, len(self.table), self.shows.shape[1]))

    @torch.no_grad()
    def _set(self, start: Initialisation) -> None:
        count = len(start.table)
        self.table.zero_()[:count] = start.table
        self.known.zero_()[:count] = 1.0
        self.shows.copy_(self.table if self.task_kind in NUMBERS else (2 * self.table - 1) * INITIAL_LOGIT)
        for values in (self.first, self.enter):
            values.zero_()[:count] = start.share.log()
        self.stay[:count] = start.stay
        change = start.table[:, None] - start.table  # (n, n, K)
        largest = torch.einsum("ijk,kl,ijl->ij", change, start.pairs, change).max() / 2
        scale = min(1.0, LARGEST_COST / max(float(largest), 1e-9))  # all scores are scaled down together
        self.now.weight.copy_(scale * start.now)
        for layer in (self.before, self.after):
            layer.weight.copy_(scale * start.neighbour[:, : sum(self.dims)])
        self.pairs.copy_(scale * start.pairs)
        each = torch.einsum("sk,fkl,sl->fs", self.table, start.own, self.table)
        self.bias[:-1] = -0.5 * scale * each

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """The expectation of the targets over the posterior of the states: logits, or values for VA."""
        presence = x[..., sum(self.dims) :] * mask[..., None]  # (B, T, F)
        x = self.dropout(x) * mask[..., None]
        projected = self.now(x) + self._neighbours(x[..., : sum(self.dims)], presence > 0)  # (B, T, D) -> (B, T, K)
        with torch.autocast(x.device.type, enabled=False):  # products over 100 frames need float32
            bias = presence.float() @ self.bias[:-1] + self.bias[-1]
            weight = self.posterior(projected.float() @ self.table.T + bias, mask)  # (B, T, S)
            if self.task_kind in NUMBERS:
                out = weight @ self.shows
            elif self.task_kind == "classes":
                out = (weight @ self.shows.softmax(dim=-1)).clamp(min=1e-6).log()
            else:
                out = torch.logit((weight @ self.shows.sigmoid()).clamp(1e-6, 1 - 1e-6))
        return out if self.beside is None else out + self.beside(x, mask)

    def _neighbours(self, x: Tensor, present: Tensor) -> Tensor:
        """The projection of the two neighbouring frames, (B, T, sum d) -> (B, T, K).

        A missing neighbour is replaced by the frame itself; zeros would look like a change of the face.
        """
        known = F.pad(present, (0, 0, 1, 1))[..., self.owner]  # (B, T, F) -> (B, 1 + T + 1, sum d)
        shifted = F.pad(x, (0, 0, 1, 1))
        before = torch.where(known[:, :-2], shifted[:, :-2], x)
        after = torch.where(known[:, 2:], shifted[:, 2:], x)
        out: Tensor = self.before(before) + self.after(after)
        return out

    def transitions(self) -> Tensor:
        """(S, S) the score of state j after state i; a change costs half its square under ``pairs``."""
        cost = self.table @ (self.pairs + self.pairs.T) @ self.table.T / 2
        own = cost.diagonal()
        absent = (1 - self.known) * ABSENT
        return torch.diag(self.stay) + self.enter + cost - (own + own[:, None]) / 2 + absent + absent[:, None]

    def posterior(self, unary: Tensor, mask: Tensor) -> Tensor:
        """P(state | window) (B, T, S) from unary scores (B, T, S): forward-backward, both directions in one batch."""
        absent = (1 - self.known) * ABSENT
        unary = unary + absent
        each = (unary - unary.amax(dim=-1, keepdim=True)).exp().clamp(min=FLOOR)
        each = torch.where(mask[..., None], each, torch.ones_like(each)).transpose(0, 1)  # (T, B, S)
        scores = self.transitions()
        step = (scores - scores.amax()).exp().clamp(min=FLOOR) * self.known * self.known[:, None]  # (S, S)
        steps = torch.stack([step, step.T])
        start = torch.stack([(self.first + absent).softmax(dim=0), self.known / self.known.sum()])[:, None]  # (2, 1, S)
        both = torch.stack([each, each.flip(0)], dim=1).unbind(0)  # T x (2, B, S)
        frames = mask.T
        started = torch.stack([frames, frames.flip(0)], dim=1)[..., None].unbind(0)  # T x (2, B, 1)
        prediction = start.expand(2, len(mask), -1)  # of a frame, from the frames before it in either direction
        message = _normalised(both[0] * prediction)
        messages, predictions = [message], [prediction]
        for t in range(1, len(both)):
            # Backwards, padding comes first: the first frame after it starts from the prior.
            prediction = torch.where(started[t - 1], torch.bmm(message, steps), start)
            message = _normalised(prediction * both[t])
            messages.append(message)
            predictions.append(prediction)
        # The forward message includes the frame itself, the backward prediction does not.
        forwards, backwards = torch.stack(messages)[:, 0], torch.stack(predictions)[:, 1].flip(0)  # (T, B, S)
        return _normalised(forwards * backwards).transpose(0, 1)


def _normalised(weight: Tensor) -> Tensor:
    weight = weight + 1e-18  # keeps sums of products above the least float32
    return weight / weight.sum(dim=-1, keepdim=True)


class ResidualTCN(nn.Module):
    """A TCN and a linear skip connection whose logits are 0 before training; (B, T, D) -> (B, T, K)."""

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
