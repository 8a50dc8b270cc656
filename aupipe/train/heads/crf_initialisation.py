"""The initial parameters of a CRF head: a linear-Gaussian hidden Markov model of the training data, in closed form.

Per feature, x_t = b + y_t M + n_t with targets y and autoregressive noise n_t = phi n_{t-1} + e_t. phi is estimated
from the residuals of a first regression; M and the covariance C of e then from the regression of x_t - phi x_{t-1} on
y_t - phi y_{t-1}, which weights changes the more the slower the noise is. With P = C^-1 M' and Q = M P, the log
posterior of a state sequence is, up to a constant, the sum of

    per frame   [(1 + phi^2) x_t - phi (x_{t-1} + x_{t+1})] P y
    per state   - (1 - phi)^2 y Q y / 2
    per pair    - phi (y - y') Q (y - y') / 2

which are the scores of `aupipe.train.heads.crf`. C is shrunk towards a multiple of the identity where frames are few,
and the row of M of an AU towards 0 by the size that it would have by chance.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from aupipe.tasks import Task

if TYPE_CHECKING:
    from aupipe.train.loader import DeviceBatch

CORRELATED_FRAMES = 10  # neighbouring frames are similar: so many count as one independent frame


@dataclass(frozen=True)
class Initialisation:
    """``table`` (S, K) targets of the states, their ``share`` of frames and log-odds to ``stay`` (S,).

    ``now`` and ``neighbour`` (K, D): weights of a frame and of each neighbour. ``pairs`` (K, K): cost of a change.
    ``own`` (F, K, K): cost of a state per feature.
    """

    table: Tensor
    share: Tensor
    stay: Tensor
    now: Tensor
    neighbour: Tensor
    pairs: Tensor
    own: Tensor


def estimate(
    batches: Callable[[], Iterable[DeviceBatch]], task: Task, dims: tuple[int, ...], states: int, targets: int
) -> Initialisation:
    """Read the batches three times: for moments of features and targets, for phi, and for moments of changes."""
    features, width = len(dims), sum(dims) + len(dims)
    starts = [sum(dims[:i]) for i in range(features)]
    streams = list(zip(starts, dims, strict=True))
    rows, same, pairs = [], 0.0, 0.0
    moments = [torch.zeros(1 + targets + dim, 1 + targets + dim, dtype=torch.double) for dim in dims]
    for batch in batches():
        y, kept = _targets(batch, task, targets)
        rows.append(batch.targets[kept].cpu())
        both = kept[:, 1:] & kept[:, :-1]
        same += float((y[:, 1:] == y[:, :-1]).all(dim=-1)[both].sum())
        pairs += float(both.sum())
        for i, (start, dim) in enumerate(streams):
            present = kept & (batch.x[..., sum(dims) + i] > 0)
            moments[i] += _moments(_with_one(y, batch.x[..., start : start + dim])[present])
    table, share = configurations(torch.cat(rows), task, states, targets)

    first = [_regress(each, targets, float(each[0, 0])) for each in moments]
    lagged, variance = torch.zeros(features), torch.full((features,), 1e-12)
    for batch in batches():
        y, kept = _targets(batch, task, targets)
        for i, (start, dim) in enumerate(streams):
            present = kept & (batch.x[..., sum(dims) + i] > 0)
            both = present[:, 1:] & present[:, :-1]
            residual = batch.x[..., start : start + dim] - y @ first[i].means.to(y) - first[i].offset.to(y)
            residual = residual @ first[i].weights.to(y)
            lagged[i] += (residual[:, 1:] * residual[:, :-1])[both].sum().cpu()
            variance[i] += (residual[:, 1:] ** 2)[both].sum().cpu()
    phis = (lagged / variance).clamp(0.0, 0.98).tolist()

    moments, counts = [torch.zeros_like(each) for each in moments], [0.0] * features
    for batch in batches():
        y, kept = _targets(batch, task, targets)
        for i, (start, dim) in enumerate(streams):
            present = kept & (batch.x[..., sum(dims) + i] > 0)
            joint = _with_one(y, batch.x[..., start : start + dim])
            both = present[:, 1:] & present[:, :-1]
            counts[i] += float(both.sum())
            moments[i] += _moments((joint[:, 1:] - phis[i] * joint[:, :-1])[both])

    now, neighbour = torch.zeros(targets, width), torch.zeros(targets, width)
    cost, own = torch.zeros(targets, targets), torch.zeros(features, targets, targets)
    for i, (phi, (start, dim)) in enumerate(zip(phis, streams, strict=True)):
        model = _regress(moments[i], targets, counts[i])
        square = (model.means @ model.weights).float()
        weights = model.weights.T.float()  # (K, d)
        now[:, start : start + dim], neighbour[:, start : start + dim] = (1 + phi**2) * weights, -phi * weights
        now[:, sum(dims) + i] = (-((1 - phi) ** 2) * model.offset @ model.weights).float()  # the presence column
        cost += phi * square
        own[i] = (1 - phi) ** 2 * square
    # The share of frames that keep the configuration of the frame before includes those that draw it again by chance.
    kept_share = same / max(pairs, 1.0)
    chance = float((share**2).sum())
    rho = min(max((kept_share - chance) / max(1 - chance, 1e-6), 0.0), 0.999)
    stay = torch.log1p(rho / ((1 - rho) * share))
    return Initialisation(table, share, stay, now, neighbour, cost, own)


def configurations(targets: Tensor, task: Task, states: int, columns: int) -> tuple[Tensor, Tensor]:
    """The up to ``states`` most frequent rows (n, K) of training targets (N, K), for EXPR (N, 1); their shares (n,)."""
    if task.kind == "classes":
        counts = torch.bincount(targets[:, 0].long(), minlength=columns)[:columns] + 1.0
        return torch.eye(columns)[:states], (counts / counts.sum())[:states]
    if not task.whole:  # a grid of eleven numbers each, of which the most frequent points are kept
        steps = 10 / (task.high - task.low)
        targets = torch.round(targets * steps) / steps
    rows, counts = torch.unique(targets, dim=0, return_counts=True)
    order = torch.argsort(counts, descending=True, stable=True)[:states]
    return rows[order].float(), (counts[order] / counts[order].sum()).float()


def _targets(batch: DeviceBatch, task: Task, targets: int) -> tuple[Tensor, Tensor]:
    """Targets (B, T, K), classes one-hot, and the frames (B, T) in which all of them are valid."""
    kept = batch.mask & batch.valid.all(dim=-1)
    if task.kind != "classes":
        return batch.targets, kept
    return torch.nn.functional.one_hot(batch.targets[..., 0].long().clamp(0, targets - 1), targets).float(), kept


def _with_one(y: Tensor, x: Tensor) -> Tensor:
    """[1, y, x] side by side."""
    return torch.cat([torch.ones_like(y[..., :1]), y, x], dim=-1)


def _moments(rows: Tensor) -> Tensor:
    """(n, m) -> sums of products (m, m), float64."""
    return (rows.T @ rows).double().cpu()


@dataclass(frozen=True)
class LinearModel:
    """``means`` M (K, d), ``offset`` b (d,) and ``weights`` P (d, K) of one feature; float64."""

    means: Tensor
    offset: Tensor
    weights: Tensor


def _regress(moments: Tensor, targets: int, count: float) -> LinearModel:
    """Regress a feature on the targets, and invert it: Fisher's linear discriminant of each target."""
    u, x = slice(0, 1 + targets), slice(1 + targets, None)
    count = max(count, 1.0)
    # One-hot classes add up to one, so the regression has many solutions: the smallest is taken.
    inverse = torch.linalg.pinv(moments[u, u], rtol=1e-6, hermitian=True)
    means = inverse @ moments[u, x]  # (1 + K, d)
    residual = (moments[x, x] - means.T @ moments[u, x]) / count  # covariance that the targets do not explain
    dim = len(residual)
    shrinkage = dim / (dim + count / CORRELATED_FRAMES)
    identity = residual.diagonal().mean().clamp(min=1e-9) * torch.eye(dim, dtype=residual.dtype)
    covariance = (1 - shrinkage) * residual + (shrinkage + 1e-6) * identity
    effects = means[1:]
    # The squared size that the row of an AU would have by chance.
    chance = inverse.diagonal()[1:] * torch.trace(torch.linalg.solve(covariance, residual))
    size = (effects * torch.linalg.solve(covariance, effects.T).T).sum(dim=1)
    effects = effects * (1 - chance / size.clamp(min=1e-12)).clamp(min=0.0)[:, None]
    return LinearModel(effects, means[0], torch.linalg.solve(covariance, effects.T))
