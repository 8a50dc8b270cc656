"""What `aupipe extract` and `aupipe train` do, as functions: ``aupipe.extract(...)`` and ``aupipe.train(...)``.

They run the commands themselves, in this process: the same options, defaults, checks and messages. Results are returned
and not printed; messages go to stderr and to the loggers below ``aupipe``. Errors are those of `aupipe.errors`.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aupipe.errors import UsageError
from aupipe.project import load_run, open_store
from aupipe.registry import nearest

if TYPE_CHECKING:
    import click

    from aupipe.store import Store
    from aupipe.train.model import Model

log = logging.getLogger(__name__)

Paths = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]
Names = str | Sequence[str]


@dataclass(frozen=True)
class Extraction:
    """What `extract` has done.

    ``rows``: the objects that `aupipe extract --json` prints; the last one sums up; of a dry run one object, with
    ``items``. ``exit_code``: that of the command: 0, or 3 where an item that was asked for is not stored.
    """

    path: Path  # of the store
    rows: tuple[Mapping[str, Any], ...] = field(repr=False)
    exit_code: int

    @property
    def store(self) -> Store:
        """The store. Raises NoStoreError where nothing was stored yet."""
        return open_store(self.path)

    @property
    def summary(self) -> Mapping[str, Any]:
        """The numbers of items done, already done and failed, seconds and frames; empty after a dry run.

        Without seconds and frames where nothing was to do.
        """
        return next((row for row in reversed(self.rows) if row["message_type"] == "summary"), {})

    @property
    def failed(self) -> dict[tuple[str, str], str]:
        """(recording, feature id) -> why it failed in this run."""
        return {
            (row["recording"], row["feature"]): row["reason"]
            for row in self.rows
            if row["message_type"] == "item" and row["state"] == "failed"
        }


@dataclass(frozen=True)
class Training:
    """What `train` has trained. ``document``: the object that `aupipe train --json` prints."""

    path: Path  # of the run, or of the ensemble
    document: Mapping[str, Any] = field(repr=False)

    @property
    def model(self) -> Model:
        """The trained run or ensemble."""
        return load_run(self.path)

    @property
    def scores(self) -> Mapping[str, Any] | None:
        """The scores on held-out recordings; None where none were held out. ``document["worth"]`` says what of."""
        scores: Mapping[str, Any] | None = self.document.get("scores")
        return scores


def extract(
    videos: Paths = (),
    *,
    modality: Names = (),
    feature: Names = (),
    recipe: str | os.PathLike[str] | None = None,
    task: str | None = None,
    gpu: int | str | Sequence[int] | None = None,
    cpu: bool = False,
    config: str | os.PathLike[str] | None = None,
    store: str | os.PathLike[str] | None = None,
    dry_run: bool = False,
    retry_failed: bool = False,
    **options: Any,
) -> Extraction:
    """Decode videos, find faces, compute the features that are missing, and store them: `aupipe extract`.

    What is stored already is skipped, so a stopped call continues when it is called again. Videos are processed in
    worker processes. A video that fails does not stop the others: see `Extraction.failed`. Progress is logged by the
    logger ``aupipe.commands``, a line for each item.

    ::

        done = aupipe.extract("clips", feature=["hog", "mfcc"], cpu=True)
        done.store["hog"]["a.mp4"].to_pandas()

    ``videos``: folders and files; () for the whole data set of the configuration. Without a configuration the store is
    ``features`` in the folder of the videos.
    ``modality``: visual, audio or text. ``feature``: names of [[encoder]] tables. () for all.
    ``recipe``, ``task``: exactly the features of a recipe.
    ``gpu``: 0, [0, 1], "cuda:1" or "all"; None: the first GPU, else the CPU. ``cpu``: the CPU.
    ``config``: the configuration file; None: the nearest `aupipe.toml`, from the current folder up.
    ``store``: another store than the configured one.
    ``dry_run``: compute nothing; ``rows`` say what would run, and why. ``retry_failed``: also what failed before.
    ``options``: every other option of `aupipe extract` (``--help``), with ``_`` for ``-``: ``detect_every=5``,
    ``on_missing_audio="mask"``.

    Raises UsageError for what cannot be asked for, WeightsMissingError before anything is decoded, OSError where the
    disk is full.
    """
    from aupipe.cli.extract import STORE
    from aupipe.cli.extract import extract as command

    given: dict[str, Any] = {
        "modality": modality,
        "feature": feature,
        "recipe": recipe,
        "task": task,
        "gpu": gpu,
        "cpu": cpu,
    }
    given |= {"config": config, "store": store, "dry_run": dry_run, "retry_failed": retry_failed}
    rows: list[Mapping[str, Any]] = []

    def take(row: Mapping[str, Any]) -> None:
        rows.append(row)
        if row["message_type"] == "item":
            text = f"{row['state']}  {row['recording']}  {row['feature']}  {row.get('reason', '')}"
            log.log(logging.WARNING if row["state"] == "failed" else logging.INFO, text.rstrip())

    code, meta = _run(command, given | options, _listed(videos), take)
    return Extraction(meta[STORE], tuple(rows), code)


def train(
    recipe: str | os.PathLike[str] | None = None,
    *,
    task: str | None = None,
    feature: Names = (),
    set: Mapping[str, Any] | None = None,
    out: str | os.PathLike[str] | None = None,
    seed: int | Sequence[int] = 0,
    folds: int | str | os.PathLike[str] | None = None,
    dev: float | None = None,
    gpu: int | str | None = None,
    cpu: bool = False,
    config: str | os.PathLike[str] | None = None,
    store: str | os.PathLike[str] | None = None,
    **options: Any,
) -> Training:
    """Train a head on stored features and keep the epoch with the best score on the validation split: `aupipe train`.

    ::

        made = aupipe.train("tcn", task="au", feature=["hog"], set={"epochs": 20})
        made.scores, made.model.runs[0].history

    ``recipe``: its name or file; None: that of the configuration. ``task``: au, expr, va or another label set.
    ``feature``: names of features; () for the recipe's. ``set``: values of the recipe that are replaced, by dotted
    name. ``out``: the folder of the run; None: a new one in ``runs``. ``seed``: several train one run each, and their
    mean. ``folds``: cross-validation by video: the number of folds, or a JSON file. ``dev``: the share of the training
    recordings that the epoch is chosen on. ``gpu``, ``cpu``, ``config``, ``store``: as for `extract`.
    ``options``: every other option of `aupipe train` (``--help``), with ``_`` for ``-``: ``per_feature=True``,
    ``resume="runs/x"``.

    Raises UsageError for what cannot be asked for, and for features that are not stored; NoStoreError;
    DivergedError where the head diverged.
    """
    from aupipe.cli.recipe_features import table_text
    from aupipe.cli.train import train as command

    given: dict[str, Any] = {"recipe": recipe, "task": task, "feature": feature, "out": out, "folds": folds, "dev": dev}
    given |= {"set": [table_text({key: value}) for key, value in (set or {}).items()], "gpu": gpu, "cpu": cpu}
    given |= {"seed": seed, "config": config, "store": store}
    documents: list[Mapping[str, Any]] = []
    _run(command, given | options, (), documents.append)
    (document,) = documents
    return Training(Path(document.get("model") or document["run"]), document)


def _run(
    command: click.Command, values: Mapping[str, Any], words: Sequence[str], take: Callable[[Any], None]
) -> tuple[int, Mapping[str, Any]]:
    """Run a command with these values of its options; its JSON documents go to ``take``.

    Returns its exit code, and the ``meta`` of its context.
    """
    import click

    from aupipe.cli.output import json_given_to

    arguments = [*_to_arguments(command, {**values, "json": True}), *(["--", *words] if words else [])]
    around = click.Context(click.Command(None))  # its ``meta`` is that of the command's own context
    with json_given_to(take):
        try:
            name = f"aupipe {command.name}"
            return command.main(arguments, prog_name=name, standalone_mode=False, parent=around) or 0, around.meta
        except click.ClickException as error:
            raise UsageError(error.format_message()) from None
        except click.Abort:  # what click makes of an interrupt
            raise KeyboardInterrupt from None


def _to_arguments(command: click.Command, values: Mapping[str, Any]) -> list[str]:
    """The words that say these values of options, named by their flags, to a command.

    Raises UsageError for a name that is none of its options.
    """
    flags = {
        opt.lstrip("-").replace("-", "_"): (opt, one) for one in command.params for opt in one.opts if opt[0] == "-"
    }
    words: list[str] = []
    for name, value in values.items():
        if name not in flags:
            known = f"`aupipe {command.name} --help` lists them"
            raise UsageError(f"aupipe.{command.name}() has no option {name!r}.{nearest(name, flags)} {known}")
        flag, option = flags[name]
        if value is None or value is False:
            continue
        if getattr(option, "is_flag", False):
            words.append(flag)
        elif getattr(option, "multiple", False):
            words += [f"{flag}={one}" for one in _listed(value)]
        else:
            words.append(f"{flag}={','.join(_listed(value))}")
    return words


def _listed(value: Any) -> list[str]:
    """One value, or several, as texts."""
    several = isinstance(value, Iterable) and not isinstance(value, str | bytes | os.PathLike)
    return [os.fspath(one) if isinstance(one, os.PathLike) else str(one) for one in (value if several else [value])]
