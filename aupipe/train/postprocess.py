"""Post-processing of scores before they are submitted: fitted on one split, applied to another. numpy only.

In this order: frames without a face, smoothing, AUcorr, then thresholds (AU) or variance matching (VA). Smoothing,
AUcorr and thresholds are fitted together, because a threshold fitted before AUcorr does not fit the scores after it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from aupipe.documents import read_json
from aupipe.errors import DamageError, UsageError
from aupipe.quantities import counted
from aupipe.tables import Natural, Positive, Share
from aupipe.tasks import AU_NAMES, Task, as_task, task_from_json
from aupipe.train.labels import check_labels, scored_rows
from aupipe.train.predictions import Predictions, decide
from aupipe.train.smoothing import box, gaussian, interpolate, segments, smooth
from aupipe.train.statistics import from_statistics, statistics
from aupipe.train.thresholds import best_thresholds, pool_frames
from aupipe.types import Labels

log = logging.getLogger(__name__)

# p24 <- (p24 + p4) / 2, p26 <- (p26 + p1 + p2) / 3, from the scores before: Yin et al. 2023 (ABAW5, USC).
AUCORR = (("AU24", ("AU4",)), ("AU26", ("AU1", "AU2")))

SIGMAS = {"multi_label": (0.0, 1.0, 2.0, 3.0, 5.0)}  # frames
OTHER_SIGMAS = (0.0, 3.0, 10.0, 25.0, 50.0)  # of other kinds of tasks


@dataclass(frozen=True)
class Options:
    """What is done; 'tune': the value with the best score on the tuning split is taken.

    ``threshold`` of AU scores: one number, one for each, or 'tune'. ``smooth``: 'none', 'gaussian' with a sigma of
    ``width`` frames, or 'average' over ``width`` frames (`aupipe.train.smoothing.box` explains ``side``). ``aucorr``:
    the mean of an AU with its partners in `AUCORR`. ``match_variance``: numbers get the mean and the variance of the
    labels.
    ``fill``: frames without a face keep the scores of the 'model', or are interpolated. ``max_gap``: so many frames
    without a face do not interrupt the smoothing.
    """

    threshold: Share | tuple[Share, ...] | Literal["tune"] = 0.5
    smooth: Literal["none", "gaussian", "average"] = "none"
    width: Positive | Literal["tune"] = "tune"
    side: Literal["", "left", "right"] = ""
    aucorr: Literal["off", "on", "tune"] = "off"
    match_variance: bool = False
    fill: Literal["model", "interpolate"] = "model"
    max_gap: Natural = 0


def reshapings(options: Options, task: Task) -> tuple[str, ...]:
    """What changes scores, in words: everything but thresholds. Done to members and again to the whole, it is twice."""
    done = {
        "interpolation of frames without a face": options.fill == "interpolate",
        "smoothing": options.smooth != "none" and bool(options.width),
        "AUcorr": options.aucorr != "off" and task.kind == "multi_label",
        "variance matching": options.match_variance and not task.whole,
    }
    return tuple(name for name, is_done in done.items() if is_done)


# What `aupipe tune` fits where a recipe has no [postprocess] table.
DEFAULTS = {
    "multi_label": Options(threshold="tune"),
    "classes": Options(smooth="gaussian"),
    "regression": Options(smooth="gaussian", match_variance=True),
    "intensity": Options(smooth="gaussian", match_variance=True),
}


@dataclass(frozen=True)
class PostProcess:
    """Fitted options: nothing is left to tune. ``tuned_on``: ids of the recordings that they were fitted on, if any."""

    task: Task
    options: Options
    threshold: tuple[float, ...] = ()  # of a multi-label task
    gain: tuple[float, ...] = ()  # of numbers: scores become gain * score + offset
    offset: tuple[float, ...] = ()
    tuned_on: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "task", as_task(self.task))

    def to_json(self) -> dict[str, Any]:
        """A JSON object."""
        return asdict(self) | {"task": self.task.to_json()}

    def describe(self) -> str:
        """One line: what is done, and how many recordings it was fitted on."""
        options, parts = self.options, []
        if options.fill == "interpolate":
            parts.append("frames without a face interpolated")
        if options.smooth != "none" and options.width:
            parts.append(f"smoothed ({options.smooth}, {options.width} frames)")
        if options.aucorr == "on":
            parts.append("AUcorr")
        if self.threshold:
            low, high = min(self.threshold), max(self.threshold)
            parts.append(f"threshold {low:.2f}" if low == high else f"thresholds {low:.2f} to {high:.2f}")
        if self.gain:
            parts.append("variance matched")
        source = f", fitted on {counted(len(self.tuned_on), 'recording')}" if self.tuned_on else ""
        return f"post-processing: {', '.join(parts) or 'none'}{source}"

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> PostProcess:
        """The inverse of `to_json`."""
        plain: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in content.items()}
        options: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in plain.pop("options").items()}
        return cls(**plain | {"options": Options(**options), "task": task_from_json(plain["task"])})


def read_postprocess(path: Path) -> PostProcess:
    """The post-processing in a file of `aupipe tune`. Raises UsageError for no file, DamageError for other content."""
    try:
        content = read_json(path)
        return PostProcess.from_json({key: value for key, value in content.items() if key != "run"})
    except FileNotFoundError:
        raise UsageError(f"{path}: no such file: `aupipe tune` writes one") from None
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DamageError(f"{path}: not readable as a post-processing ({error!r})") from error


def fit_postprocess(
    predictions: Mapping[str, Predictions],
    labels: Mapping[str, Labels],
    task: Task | str,
    options: Options,
    shot_starts: Mapping[str, Sequence[int]] | None = None,
) -> PostProcess:
    """Fit what ``options`` leave to 'tune' by the official score on these recordings.

    ``shot_starts``: recording id -> first frames of shots. Raises UsageError where no recording has a valid label.
    """
    task = as_task(task)
    if isinstance(options.threshold, tuple) and len(options.threshold) != len(task.names):
        count = len(task.names)
        raise UsageError(f"threshold: {len(options.threshold)} numbers, expected one, {count}, or 'tune'")
    names = [name for name in predictions if name in labels]
    for name in names:
        check_labels(labels[name], task, name)
    tuned = tuple(sorted(names)) if is_tuned(options, task) else ()
    if not tuned:
        return PostProcess(task, options, _fixed(options, task) if task.kind == "multi_label" else ())
    if not any(scored_rows(labels[name]).any() for name in names):
        raise UsageError(f"post-processing: no annotated frame in the {counted(len(names), 'recording')} to tune it on")
    widths: Sequence[float] = (0.0,) if options.smooth == "none" else (options.width,)  # type: ignore[assignment]
    if options.smooth != "none" and options.width == "tune":
        sigmas = SIGMAS.get(task.kind, OTHER_SIGMAS)
        widths = sigmas if options.smooth == "gaussian" else tuple(2 * s + 1 for s in sigmas)
    pairs = ("off", "on") if options.aucorr == "tune" and task.kind == "multi_label" else (options.aucorr,)
    found: list[tuple[float, PostProcess]] = []
    for width, pair in product(widths, pairs):
        chosen = replace(options, width=float(width), aucorr=pair)  # type: ignore[arg-type]
        if options.width == "tune" and width == (1 if options.smooth == "average" else 0):
            chosen = replace(chosen, smooth="none", width="tune")  # a filter of one tap
        post = PostProcess(task, chosen, tuned_on=tuned)
        shaped = _shaped(post, {n: predictions[n] for n in names}, shot_starts or {})
        found.append(_finish(post, *pool_frames(shaped, labels)))
    return max(found, key=lambda pair: pair[0])[1]  # of equal scores the first: the least smoothing


def fit_where_possible(
    predictions: Mapping[str, Predictions], labels: Mapping[str, Labels], task: Task | str, options: Options
) -> PostProcess | None:
    """As `fit_postprocess`; None, with a warning, where something is to be tuned and no recording was held out."""
    if predictions or not is_tuned(options, as_task(task)):
        return fit_postprocess(predictions, labels, task, options)
    log.warning("no recording was held out, so the post-processing of the recipe was not fitted")
    return None


def _fixed(options: Options, task: Task) -> tuple[float, ...]:
    """The given thresholds, one for each name; there is nothing to tune."""
    given = options.threshold
    return given if isinstance(given, tuple) else (float(given),) * len(task.names)


def is_tuned(options: Options, task: Task) -> bool:
    """Is anything left to fit on annotated recordings?"""
    if options.smooth != "none" and options.width == "tune":
        return True
    if task.kind == "multi_label":
        return options.threshold == "tune" or options.aucorr == "tune"
    return not task.whole and options.match_variance


def _finish(
    post: PostProcess, scores: NDArray[Any], targets: NDArray[Any], valid: NDArray[np.bool_]
) -> tuple[float, PostProcess]:
    """The score on the tuning split, and ``post`` with its thresholds or its affine map."""
    task = post.task
    if task.kind == "multi_label":
        best, f1 = best_thresholds(scores, targets > 0.5, valid)
        if post.options.threshold == "tune":
            return float(f1.mean()), replace(post, threshold=tuple(float(value) for value in best))
        post = replace(post, threshold=_fixed(post.options, task))
    elif not task.whole and post.options.match_variance:
        x, y = (np.ma.masked_array(each, ~valid) for each in (scores, targets))
        gain = y.std(axis=0).filled(1.0) / np.maximum(x.std(axis=0).filled(1.0), 1e-8)
        offset = y.mean(axis=0).filled(0.0) - gain * x.mean(axis=0).filled(0.0)
        post = replace(post, gain=tuple(map(float, gain)), offset=tuple(map(float, offset)))
        scores = gain * scores + offset
    decided = decide(scores, task, post.threshold or 0.5)
    return float(from_statistics(statistics(targets, decided, valid, task), task).mean()), post


def apply_postprocess(
    post: PostProcess, predictions: Mapping[str, Predictions], shot_starts: Mapping[str, Sequence[int]] | None = None
) -> dict[str, Predictions]:
    """The post-processed predictions, of AUs with the thresholds of ``post``.

    Raises UsageError for predictions of another task.
    """
    for item in predictions.values():
        if item.task != post.task:
            raise UsageError(
                f"{item.recording}: predictions for {item.task.name!r}, post-processing for {post.task.name!r}"
            )
    shaped = _shaped(post, predictions, shot_starts or {})
    if post.threshold:
        return {name: replace(item, threshold=post.threshold) for name, item in shaped.items()}
    if not post.gain:
        return shaped
    gain, offset = np.array(post.gain), np.array(post.offset)
    return {
        name: replace(
            item, scores=np.clip(gain * item.scores + offset, post.task.low, post.task.high).astype(np.float32)
        )
        for name, item in shaped.items()
    }


def _shaped(
    post: PostProcess, predictions: Mapping[str, Predictions], shot_starts: Mapping[str, Sequence[int]]
) -> dict[str, Predictions]:
    """Scores after interpolation, smoothing and AUcorr; each recording by itself."""
    options = post.options
    shaped = {}
    for name, item in predictions.items():
        starts = shot_starts.get(name, ())
        if options.fill == "interpolate":
            item = replace(item, scores=interpolate(item, starts))
        if options.smooth != "none":
            width = float(options.width)
            taps = gaussian(width) if options.smooth == "gaussian" else box(round(width), options.side)
            segment = segments(item, starts, options.max_gap)
            item = replace(item, scores=smooth(item.scores, segment, taps))
        if options.aucorr == "on" and post.task.kind == "multi_label":
            item = replace(item, scores=aucorr(item.scores, post.task.names))
        shaped[name] = item
    return shaped


def aucorr(scores: NDArray[Any], names: Sequence[str] = AU_NAMES) -> NDArray[np.float32]:
    """Scores (T, K) in which each AU of `AUCORR` is the mean of its own and its partners' scores before.

    An AU that is not among ``names``, or whose partners are not, is left as it is.
    """
    mixed = np.array(scores, dtype=np.float32)
    for name, partners in AUCORR:
        if {name, *partners} <= set(names):
            columns = [names.index(name), *(names.index(partner) for partner in partners)]
            mixed[:, columns[0]] = scores[:, columns].mean(axis=1)
    return mixed
