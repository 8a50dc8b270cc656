"""What each run of a `train` command is trained on and what it holds out, and what the score is then worth."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from aupipe.cli.data import Data
from aupipe.cli.train_request import TrainRequest
from aupipe.errors import UsageError
from aupipe.files import as_argument
from aupipe.registry import nearest

if TYPE_CHECKING:
    from aupipe.train.crossval import Fold


def check_split_options(request: TrainRequest, is_search: bool) -> None:
    """Raise UsageError for options of a request that contradict each other."""
    if is_search and request.folds is None:
        raise UsageError("--sweep needs --folds, of which it holds out each: give --folds 5")
    if is_search and request.only:
        raise UsageError("--sweep holds out each of the --folds: leave out --fold")
    if request.folds is not None and len(request.seeds) > 1 and not is_search:
        raise UsageError("--folds and several --seed cannot be combined")
    if request.folds is not None and request.dev:
        raise UsageError("--folds and --dev cannot be combined: each fold holds out its own part")
    if request.only and request.folds is None:
        raise UsageError("--fold needs --folds, of which it names some")


def needed_splits(request: TrainRequest) -> tuple[str, ...]:
    """The splits that must have recordings."""
    own_validation = request.folds is None and not request.dev and request.on == "train"
    return ("train", "validation") if own_validation else ("train",)


def divide(data: Data, request: TrainRequest) -> list[tuple[Fold, int]]:
    """The training and held-out recordings of each run, with its seed. Raises UsageError for an unknown --fold."""
    from aupipe.train.crossval import Fold, custom_folds, development_split, group_folds

    recordings = data.train + (data.validation if request.on == "all" else [])
    first = request.seeds[0]
    if request.folds is None:
        fold = Fold("", tuple(data.train), tuple(data.validation))
        if request.dev:
            fold = development_split(recordings, request.dev, first)
        elif request.on == "all":
            fold = Fold("", tuple(recordings), ())
        several = len(request.seeds) > 1
        return [(replace(fold, name=f"seed{seed}" if several else ""), seed) for seed in request.seeds]
    if isinstance(request.folds, int):
        frames = {name: len(labels) for name, labels in data.labels.items()}
        folds = group_folds(recordings, request.folds, first, frames)
    else:
        folds = custom_folds(recordings, request.folds)
    known = [fold.name for fold in folds]
    if unknown := next((name for name in request.only if name not in known), None):
        raise UsageError(f"--fold {unknown}: no such fold.{nearest(unknown, known)} Folds: {', '.join(known)}")
    return [(fold, first) for fold in folds if not request.only or fold.name in request.only]


@dataclass(frozen=True)
class Worth:
    """What the score is worth that a training ends with; ``unused``: the validation split is left for a test."""

    text: str
    unused: bool = False

    def next_command(self, model: Path) -> str:
        """The line that names the command to go on with."""
        return f"next: aupipe {'evaluate' if self.unused else 'predict'} {as_argument(model)}"


def leaves_validation(data: Data, request: TrainRequest) -> bool:
    """Whether a training with folds, or with development recordings, leaves the validation split for a test."""
    return bool(data.validation) and request.on == "train"


def describe_worth(data: Data, request: TrainRequest, held_out: int, weighed: bool = False) -> Worth:
    """``held_out``: the number of recordings that were held out; ``weighed``: they chose weights too."""
    chose = f"chose the epoch{' and the weights' if weighed else ''}"
    if not held_out:
        total = len(data.train) + len(data.validation)
        return Worth(
            f"no score: all {total} recordings were trained on for all epochs of the recipe; none was held out"
        )
    if request.folds is None and not request.dev:
        return Worth(f"its recordings {chose}, so it is optimistic: an unbiased one needs --dev, --folds, or others")
    unused = leaves_validation(data, request)
    rest = "the validation split was not used" if unused else "an unbiased score needs other recordings"
    what = f"development recordings (--dev {request.dev:g})" if request.dev else "held-out recordings"
    part = f" of {', '.join(request.only)} alone" if request.only else ""
    return Worth(f"the score is of {held_out} {what}{part}, which {chose}; {rest}", unused)
