"""Where a chain starts: a linear-Gaussian hidden Markov model of the training data, in closed form.

Per feature, x_t = b + y_t M + n_t with noise that carries over, n_t = phi n_{t-1} + e_t. phi comes from what a first
regression leaves; M and the covariance C of e then from the regression of x_t - phi x_{t-1} on y_t - phi y_{t-1}, which
looks at changes the more the slower the noise is. With P = C^-1 M' and Q = M P, the posterior over states adds up

    evidence    [(1 + phi^2) x_t - phi (x_{t-1} + x_{t+1})] P y
    per state   - (1 - phi)^2 y Q y / 2
    per pair    - phi (y - y') Q (y - y') / 2

which is what `aupipe.train.heads.crf` computes; here its numbers are estimated. C is shrunk towards a multiple of the
identity where frames are few, and an AU's row of M towards 0 by what chance alone would make of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from aupipe.types import Task

if TYPE_CHECKING:
    from aupipe.train.loader import DeviceBatch

RUN = 10  # neighbouring frames say nearly the same: so many count as one


@dataclass(frozen=True)
class Start:
    """``table`` (S, K), ``share`` and ``stay`` (S,); ``now`` and ``beside`` (K, D) taps of the fit; ``pairs`` (K, K),
    ``own`` (F, K, K)."""

    table: Tensor
    share: Tensor
    stay: Tensor
    now: Tensor
    beside: Tensor
    pairs: Tensor
    own: Tensor


def estimate(
    batches: Callable[[], Iterable[DeviceBatch]], task: Task, dims: tuple[int, ...], states: int, targets: int
) -> Start:
    """Gone through three times: moments of features and targets; of neighbours, as read; of what changed."""
    features, width = len(dims), sum(dims) + len(dims)
    starts = [sum(dims[:i]) for i in range(features)]
    streams = list(zip(starts, dims, strict=True))
    rows, same, pairs = [], 0.0, 0.0
    moments = [torch.zeros(1 + targets + dim, 1 + targets + dim, dtype=torch.double) for dim in dims]
    for batch in batches():
        y, kept = _shown(batch, task, targets)
        rows.append(batch.targets[kept].cpu())
        both = kept[:, 1:] & kept[:, :-1]
        same += float((y[:, 1:] == y[:, :-1]).all(dim=-1)[both].sum())
        pairs += float(both.sum())
        for i, (at, dim) in enumerate(streams):
            there = kept & (batch.x[..., sum(dims) + i] > 0)
            moments[i] += _moments(_with_one(y, batch.x[..., at : at + dim])[there])
    table, share = configurations(torch.cat(rows), task, states, targets)

    first = [_read(each, targets, float(each[0, 0])) for each in moments]
    lagged, spread = torch.zeros(features), torch.full((features,), 1e-12)
    for batch in batches():
        y, kept = _shown(batch, task, targets)
        for i, (at, dim) in enumerate(streams):
            there = kept & (batch.x[..., sum(dims) + i] > 0)
            both = there[:, 1:] & there[:, :-1]
            left = (batch.x[..., at : at + dim] - y @ first[i].means.to(y) - first[i].offset.to(y)) @ first[i].taps.to(
                y
            )
            lagged[i] += (left[:, 1:] * left[:, :-1])[both].sum().cpu()
            spread[i] += (left[:, 1:] ** 2)[both].sum().cpu()
    phis = (lagged / spread).clamp(0.0, 0.98).tolist()

    moments, counts = [torch.zeros_like(each) for each in moments], [0.0] * features
    for batch in batches():
        y, kept = _shown(batch, task, targets)
        for i, (at, dim) in enumerate(streams):
            there = kept & (batch.x[..., sum(dims) + i] > 0)
            seen = _with_one(y, batch.x[..., at : at + dim])
            both = there[:, 1:] & there[:, :-1]
            counts[i] += float(both.sum())
            moments[i] += _moments((seen[:, 1:] - phis[i] * seen[:, :-1])[both])

    now, beside = torch.zeros(targets, width), torch.zeros(targets, width)
    cost, own = torch.zeros(targets, targets), torch.zeros(features, targets, targets)
    for i, (phi, (at, dim)) in enumerate(zip(phis, streams, strict=True)):
        reading = _read(moments[i], targets, counts[i])
        square = (reading.means @ reading.taps).float()
        tap = reading.taps.T.float()  # (K, d)
        now[:, at : at + dim], beside[:, at : at + dim] = (1 + phi**2) * tap, -phi * tap
        now[:, sum(dims) + i] = (-((1 - phi) ** 2) * reading.offset @ reading.taps).float()  # where it is there
        cost += phi * square
        own[i] = (1 - phi) ** 2 * square
    # Of neighbours, a share keeps its configuration; some of those drew it anew.
    chance = same / max(pairs, 1.0)
    again = float((share**2).sum())
    rho = min(max((chance - again) / max(1 - again, 1e-6), 0.0), 0.999)
    stay = torch.log1p(rho / ((1 - rho) * share))
    return Start(table, share, stay, now, beside, cost, own)


def configurations(targets: Tensor, task: Task, states: int, columns: int) -> tuple[Tensor, Tensor]:
    """Up to ``states`` rows (n, K) that training targets (N, K), for EXPR (N, 1), show most, and their shares (n,)."""
    if task == "expr":
        counts = torch.bincount(targets[:, 0].long(), minlength=columns)[:columns] + 1.0
        return torch.eye(columns)[:states], (counts / counts.sum())[:states]
    if task == "va":  # a grid over the plane that keeps the places where faces are
        targets = torch.round(targets * 5) / 5
    rows, counts = torch.unique(targets, dim=0, return_counts=True)
    order = torch.argsort(counts, descending=True, stable=True)[:states]
    return rows[order].float(), (counts[order] / counts[order].sum()).float()


def _shown(batch: DeviceBatch, task: Task, targets: int) -> tuple[Tensor, Tensor]:
    """Targets (B, T, K), classes as ones and zeros, and the frames (B, T) in which all are valid."""
    kept = batch.mask & batch.valid.all(dim=-1)
    if task != "expr":
        return batch.targets, kept
    return torch.nn.functional.one_hot(batch.targets[..., 0].long().clamp(0, targets - 1), targets).float(), kept


def _with_one(y: Tensor, x: Tensor) -> Tensor:
    return torch.cat([torch.ones_like(y[..., :1]), y, x], dim=-1)


def _moments(rows: Tensor) -> Tensor:
    """(n, m) -> sums of products (m, m), float64."""
    return (rows.T @ rows).double().cpu()


@dataclass(frozen=True)
class Reading:
    """``means`` M (K, d), ``offset`` b (d,) and ``taps`` P (d, K) of one feature; float64."""

    means: Tensor
    offset: Tensor
    taps: Tensor


def _read(moments: Tensor, targets: int, count: float) -> Reading:
    """Regress a feature on the targets, and turn it round: Fisher's reading of the targets from the feature."""
    u, x = slice(0, 1 + targets), slice(1 + targets, None)
    count = max(count, 1.0)
    # Of targets that follow from each other (classes add up to one), the smallest solution.
    inverse = torch.linalg.pinv(moments[u, u], rtol=1e-6, hermitian=True)
    means = inverse @ moments[u, x]  # (1 + K, d)
    left = (moments[x, x] - means.T @ moments[u, x]) / count  # covariance of what targets do not explain
    dim = len(left)
    shrink = dim / (dim + count / RUN)
    even = left.diagonal().mean().clamp(min=1e-9) * torch.eye(dim, dtype=left.dtype)
    whole = (1 - shrink) * left + (shrink + 1e-6) * even
    shown = means[1:]
    # By chance alone an AU's row would be as large as this.
    chance = inverse.diagonal()[1:] * torch.trace(torch.linalg.solve(whole, left))
    size = (shown * torch.linalg.solve(whole, shown.T).T).sum(dim=1)
    shown = shown * (1 - chance / size.clamp(min=1e-12)).clamp(min=0.0)[:, None]
    return Reading(shown, means[0], torch.linalg.solve(whole, shown.T))
