"""By how many frames labels are late against signals of the face: correlation at every shift.

A column of the labels y and its signal s, shifted by a lag, have the correlation r(lag). The linear regression of y on
s gains -log(1 - r^2) / 2 nats per frame over a constant (Gaussian errors). The mean gain over the columns, those with a
negative r counted as none, is the score of a lag; it peaks more sharply than the mean correlation. numpy only.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MAX_LAG_S = 1.6
LEAST_FRAMES = 60  # that a column must have beside its signal
LEAST_GAIN = 0.02  # nats per frame that a lag must gain over none
LEAST_EVIDENCE = 4.0  # nats in all, by as many frames as are independent: a likelihood ratio of 55
GRADUAL_EVIDENCE = 8.0  # of predictions of what changes gradually, or of one class of several
LEAST_LAG = 2  # frames
LEAST_FIT = 0.25
LEAST_CROSSINGS = 4  # of a column and its mean: one event alone coincides with something at some lag
PARTS = 2  # of a recording, each of which must confirm a lag


@dataclass(frozen=True)
class LagEstimate:
    """``lag``: frames by which labels are late (early where negative), 0 unless it is sure. ``fit`` and ``fit_at_0``:
    how well labels go with signals at the best lag and as they are, as a correlation (0 to 1). ``evidence``: the gain
    of the best lag over none, in nats, over the independent frames of all columns."""

    lag: int
    best_lag: int
    fit: float
    fit_at_0: float
    evidence: float

    @property
    def told(self) -> int | None:
        """``lag``; None where another lag than 0 is the best, but not surely."""
        return self.lag if self.lag or not self.best_lag else None


def estimate_lag(
    targets: NDArray[np.floating],
    valid: NDArray[np.bool_],
    signals: NDArray[np.floating],
    fps: float,
    learned: bool = False,
    least_evidence: float = LEAST_EVIDENCE,
) -> LagEstimate | None:
    """The lag of ``targets`` (T, K), where ``valid`` (T, K), against ``signals`` (T, K), NaN where there is none.

    None where no column varies for long enough. A lag is sure where it is `LEAST_LAG` frames or more and not the
    largest that was tried, gains `LEAST_GAIN` over none and ``least_evidence`` in all, fits by `LEAST_FIT`, and gains
    something in each part of the recording that can tell. ``learned``: signals are predictions, which are wrong now and
    then; columns in which hardly anything happens are then left out.
    """
    if learned:
        valid = valid & _changes_often(targets, valid)
    frames = min(len(targets), len(signals))
    most = min(round(MAX_LAG_S * fps), frames // 4)
    lags = np.arange(-most, most + 1)
    sums = _sums(targets[:frames], valid[:frames], signals[:frames], most)
    whole = _gains(sums.sum(axis=1))  # (L, parts, 6, K) -> (L,)
    if whole is None:
        return None
    best = int(np.argmax(whole))
    gains, usable = _column_gains(sums.sum(axis=1))
    independent = _independent_frames(targets[:frames], valid[:frames], signals[:frames])
    evidence = float(((gains[best] - gains[most]) * independent)[usable].sum())
    parts = [of_part for part in range(PARTS) if (of_part := _gains(sums[:, part])) is not None]
    sure = (
        LEAST_LAG <= abs(lags[best]) < most
        and whole[best] - whole[most] >= LEAST_GAIN
        and evidence >= least_evidence
        and fit_of(whole[best]) >= LEAST_FIT
        and all(of_part[best] > of_part[most] for of_part in parts)
    )
    lag = int(lags[best])
    return LagEstimate(lag if sure else 0, lag, fit_of(whole[best]), fit_of(whole[most]), evidence)


def fit_at_0(targets: NDArray[np.floating], valid: NDArray[np.bool_], signals: NDArray[np.floating]) -> float | None:
    """How well labels (T, K) go with signals (T, K) as they are, as a correlation; None where that cannot be told."""
    frames = min(len(targets), len(signals))
    gains = _gains(_sums(targets[:frames], valid[:frames], signals[:frames], 0).sum(axis=1))
    return None if gains is None else fit_of(gains[0])


def fit_of(gain: float) -> float:
    """The correlation at which one column gains so many nats."""
    return float(np.sqrt(1 - np.exp(-2 * gain)))


def _sums(
    targets: NDArray[np.floating], valid: NDArray[np.bool_], signals: NDArray[np.floating], most: int
) -> NDArray[np.float64]:
    """(L, parts, 6, K): n and the sums of y, s, yy, ss, ys, for every lag from -``most`` to ``most``.

    Labels of row t + lag meet signals of row t, which says the part. All are correlations of two series: by FFT.
    """
    frames = len(targets)
    seen = ~np.isnan(signals)
    s = np.where(seen, signals - np.nanmean(np.where(seen.any(axis=0), signals, 0), axis=0), 0.0)  # exact for large s
    y = np.where(valid, targets, 0.0).astype(np.float64)
    size = 1 << int(np.ceil(np.log2(max(frames + most, 2))))
    of_labels = np.fft.rfft(np.stack([valid.astype(np.float64), y, y * y]), size, axis=1)  # (3, F, K)
    part = np.arange(frames) * PARTS // max(frames, 1)
    at = np.arange(-most, most + 1) % size
    found = []
    for number in range(PARTS):
        here = seen & (part == number)[:, None]
        of_signals = np.conj(np.fft.rfft(np.stack([here.astype(np.float64), s * here, s * s * here]), size, axis=1))
        pairs = ((0, 0), (1, 0), (0, 1), (2, 0), (0, 2), (1, 1))  # n, y, s, yy, ss, ys
        found.append([np.fft.irfft(of_labels[a] * of_signals[b], size, axis=0)[at] for a, b in pairs])
    return np.moveaxis(np.array(found), 2, 0)  # (parts, 6, L, K) -> (L, parts, 6, K)


def _gains(sums: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """(L,) the mean gain over the columns of sums (L, 6, K); None where no column varies."""
    gains, usable = _column_gains(sums)
    return gains[:, usable].mean(axis=1) if usable.any() else None


def _column_gains(sums: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """(L, K) the gain of every column at every lag, and (K,) which columns vary for long enough at all of them."""
    n, y, s, yy, ss, ys = np.moveaxis(sums, 1, 0)  # (L, K) each
    count = np.maximum(n, 1)
    var_y, var_s = yy / count - (y / count) ** 2, ss / count - (s / count) ** 2
    usable = ((n >= LEAST_FRAMES) & (var_y > 1e-6) & (var_s > 1e-12)).all(axis=0)
    r = (ys / count - y * s / count**2) / np.sqrt(np.maximum(var_y * var_s, 1e-30))
    return -0.5 * np.log(1 - np.clip(r, 0, 0.999) ** 2), usable


def _changes_often(targets: NDArray[np.floating], valid: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(K,) whether each column crosses its mean so often that several things happen in it."""
    mean = np.where(valid, targets, 0).sum(axis=0) / np.maximum(valid.sum(axis=0), 1)
    high = (targets > mean) & valid
    crossings: NDArray[np.int64] = (high[1:] != high[:-1]).sum(axis=0)
    return crossings >= LEAST_CROSSINGS


def _independent_frames(
    targets: NDArray[np.floating], valid: NDArray[np.bool_], signals: NDArray[np.floating]
) -> NDArray[np.float64]:
    """(K,) how many independent frames the correlation of two smooth series is worth (Bartlett, 1935).

    The frames that both have, by 1 + 2 times the sum of the products of their autocorrelations.
    """
    size = 1 << int(np.ceil(np.log2(max(2 * len(targets), 2))))
    shapes = []
    for series, here in ((targets, valid), (signals, ~np.isnan(signals))):
        count = np.maximum(here.sum(axis=0), 1)
        centred = np.where(here, series - np.where(here, series, 0).sum(axis=0) / count, 0)
        power = np.abs(np.fft.rfft(centred, size, axis=0)) ** 2
        covariance = np.fft.irfft(power, size, axis=0)[: len(targets)]
        shapes.append(covariance / np.maximum(covariance[0], 1e-30))
    products = shapes[0][1:] * shapes[1][1:]
    ended = np.cumsum(products < 0.02, axis=0) > 0  # what follows is the noise of the estimate
    both = (valid & ~np.isnan(signals)).sum(axis=0)
    found: NDArray[np.float64] = both / (1 + 2 * np.where(ended, 0, products).sum(axis=0))
    return found
