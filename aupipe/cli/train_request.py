"""The request of a `train` command, kept as a file in the folder of its run, so that the run can be resumed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aupipe.cli.overwrite import refuse_nonempty
from aupipe.documents import read_json
from aupipe.errors import UsageError
from aupipe.files import as_argument, write_file
from aupipe.train.folder_lock import REQUEST_FILE, lock_folder, refuse_running

if TYPE_CHECKING:
    from aupipe.cli.data import Data
    from aupipe.config import Config
    from aupipe.store import Store
    from aupipe.tasks import Task

SHOWN = 5  # differences in an error message


@dataclass(frozen=True)
class TrainRequest:
    """The settings of a `train` command.

    ``recipe``: `EnsembleRecipe.to_json`. ``folds``: a number, or fold name -> recording ids; ``only``: names of those
    that are trained, () for all. ``on``: train or all. ``dev``: the development share of the recordings, or 0.
    ``where``: conditions that recordings fulfil. ``recipe_file``: the recipe's file, for messages; '': none was given.
    ``sweep``: the points of a search (`Point.to_json`).
    """

    recipe: Mapping[str, Any]
    task: str
    features: tuple[str, ...]
    seeds: tuple[int, ...]
    folds: int | Mapping[str, Sequence[str]] | None
    on: str
    allow_missing: bool
    deterministic: bool
    threads: int
    only: tuple[str, ...] = ()
    dev: float = 0.0
    where: tuple[str, ...] = ()
    data: Mapping[str, Any] = field(default_factory=dict)  # `identify_data`; empty in files of an earlier aupipe
    recipe_file: str = ""
    sweep: tuple[Mapping[str, Any], ...] = ()


def parse_seeds(text: str) -> tuple[int, ...]:
    """The value of ``--seed``: ``0,1,2`` as numbers. Raises UsageError for anything else."""
    try:
        found = tuple(int(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"--seed {text}: expected whole numbers separated by commas, such as 0,1,2") from None
    if not all(0 <= seed < 2**32 for seed in found):
        raise UsageError(f"--seed {text}: expected numbers from 0 to {2**32 - 1}")
    if len(set(found)) < len(found):
        raise UsageError(f"--seed {text}: a number is repeated")
    return found


def parse_folds(text: str | None) -> int | dict[str, list[str]] | None:
    """The value of ``--folds``: a number, or the content of a JSON file. Raises UsageError for anything else."""
    if text is None:
        return None
    if text.isdecimal():
        if int(text) < 2:
            raise UsageError(f"--folds {text}: give 2 or more; without --folds the validation split is held out")
        return int(text)
    try:
        content = read_json(Path(text))
        return {str(name): [str(one) for one in ids] for name, ids in content.items()}
    except (OSError, json.JSONDecodeError, AttributeError, TypeError) as error:
        why = getattr(error, "strerror", "") or error
        raise UsageError(f"--folds {text}: expected a number, or a JSON file {{fold: [ids]}} ({why})") from error


def refuse_repeated(features: Sequence[str]) -> None:
    """Raises UsageError for a feature that is named twice."""
    if twice := next((name for name in features if features.count(name) > 1), None):
        raise UsageError(f"feature {twice!r} is named twice")


def is_finished(out: Path) -> bool:
    """Whether a folder holds the result of a finished `train` command."""
    from aupipe.train.model import FILE
    from aupipe.train.run import holds_run, load_run

    return (out / FILE).is_file() or (holds_run(out) and load_run(out).finished)


def write_request(request: TrainRequest, out: Path) -> None:
    """Write a request into the folder of a new run. Raises UsageError where another run has just begun there."""
    try:
        write_file(out / REQUEST_FILE, json.dumps(asdict(request), indent=1))
    except UsageError:
        raise UsageError(f"{out}: another training has just begun there: choose another --out") from None


def read_request(folder: Path) -> TrainRequest:
    """The request of the run in a folder. Raises UsageError where there is none, or it is not readable."""
    try:
        content: dict[str, Any] = read_json(folder / REQUEST_FILE)
        content |= {key: tuple(content.get(key, ())) for key in ("features", "seeds", "only", "where", "sweep")}
        return TrainRequest(**content)
    except FileNotFoundError:
        raise UsageError(f"{folder}: nothing to resume: it has no {REQUEST_FILE}") from None
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UsageError(f"{folder / REQUEST_FILE}: not readable ({error}): train into another folder") from error


def resumed_request(folder: Path) -> TrainRequest:
    """`read_request` of a run that is to go on. Raises UsageError, too, where another process trains it."""
    request = read_request(folder)
    if not is_finished(folder):
        refuse_running(folder)
    return request


def refuse_other_content(out: Path | None) -> None:
    """Raises UsageError for a folder that is not empty, and in which no training has begun."""
    if out is not None and not (out / REQUEST_FILE).is_file():
        refuse_nonempty(out, " and holds no run of `aupipe train`")


def find_finished(out: Path, request: TrainRequest, extend: bool = False) -> TrainRequest | None:
    """The request of the finished run in ``out``, where it equals ``request``; None where the folder is new or empty.

    ``extend``: its sweep may differ. Raises UsageError for a finished run with other settings, an unfinished run, and a
    folder with other content.
    """
    from aupipe.train.ensemble_recipe import ensemble_recipe_from_json

    refuse_other_content(out)
    if not (out / REQUEST_FILE).is_file():
        return None
    before = read_request(out)
    if not is_finished(out):
        refuse_running(out)
        resume = f"`aupipe train --resume {as_argument(out)}`"
        raise UsageError(f"{out} holds a run that is not finished: {resume}, or another --out")
    before = replace(
        before, recipe=ensemble_recipe_from_json(before.recipe).to_json()
    )  # adds keys that its version did not have
    if other := differences(before, replace(request, sweep=before.sweep) if extend else request):
        shown = "; ".join(other[:SHOWN]) + (f"; and {len(other) - SHOWN} more" if len(other) > SHOWN else "")
        raise UsageError(f"{out} is a finished run with other settings ({shown}): choose another --out")
    return before


def extended_request(out: Path | None, before: TrainRequest | None, request: TrainRequest, task: Task) -> TrainRequest:
    """``request`` with the points of the finished search in ``out`` besides its own; ``before``: what that was asked.

    Raises UsageError where there is no search, and for points that do not fit to it (`merge_points`).
    """
    from aupipe.train.sweep import merge_points, point_from_json

    if before is None or not before.sweep or not request.sweep:
        of = f", not {out}" if out else ": give --sweep and --out"
        raise UsageError(f"--extend adds values of --sweep to a finished search, which --out names{of}")
    own, more = ([point_from_json(content) for content in each.sweep] for each in (before, request))
    return replace(request, sweep=tuple(point.to_json() for point in merge_points(own, more, task)))


def reopen_search(request: TrainRequest, out: Path) -> None:
    """Make the finished search in ``out`` an unfinished one of ``request``; what it has trained is kept."""
    from aupipe.train.model import FILE

    if list(read_request(out).sweep) == json.loads(json.dumps(request.sweep)):
        return
    with lock_folder(out):
        (out / FILE).unlink()  # first: without it the search of before is resumed
        write_file(out / REQUEST_FILE, json.dumps(asdict(request), indent=1), overwrite=True)


def identify_data(data: Data, store: Store) -> dict[str, Any]:
    """A description of the training data, to detect that it has changed: feature ids by name, and digests of the rest.

    Raises UsageError for a feature that the store does not have.
    """
    from aupipe.train import data_identity

    given = (data.train, data.validation, data.features, data.labels, data.aux_labels)
    digests = data_identity.identify_data(store, *given)
    return {"features": dict(data.features), **digests}


def differences(before: TrainRequest, now: TrainRequest) -> list[str]:
    """The settings in which two requests differ, as ``epochs 5, not 10``."""
    names = (
        "task",
        "features",
        "seeds",
        "folds",
        "only",
        "on",
        "dev",
        "where",
        "allow_missing",
        "deterministic",
        "threads",
    )
    found = [_difference(name, getattr(before, name), getattr(now, name)) for name in names]
    found.append(_difference("sweep", *(swept(request) for request in (before, now))))
    if before.recipe["name"] != now.recipe["name"]:
        found.insert(0, _difference("recipe", before.recipe["name"], now.recipe["name"]))
    else:
        old, new = _settings(before.recipe), _settings(now.recipe)
        found += [_difference(name, old.get(name), new.get(name)) for name in dict.fromkeys([*old, *new])]
    return [line for line in found if line]


def swept(request: TrainRequest) -> list[str]:
    """The values of each swept setting of a request, as ``optimiser.lr=0.0001,0.0003``."""
    found: dict[str, dict[str, None]] = {}
    for point in request.sweep:
        for key, value in point["settings"].items():
            found.setdefault(key, {})[value if isinstance(value, str) else json.dumps(value)] = None
    return [f"{key}={','.join(values)}" for key, values in found.items()]


def data_differences(before: TrainRequest, now: TrainRequest) -> list[str]:
    """The parts of the data in which two requests differ; empty where one of them does not state its data."""
    if not before.data or not now.data:
        return []
    return [f"other {name}" for name, value in now.data.items() if before.data.get(name) != value]


def refuse_other_data(begun: TrainRequest | None, now: TrainRequest, out: Path | None, remedy: str) -> None:
    """Raises UsageError where the run in ``out`` was begun on other data."""
    if begun is not None and (other := data_differences(begun, now)):
        raise UsageError(f"{out} was begun on other data ({'; '.join(other)}): {remedy}")


def _difference(name: str, before: Any, now: Any) -> str:
    """``name before, not now``, or an empty string where both are the same as JSON."""
    if json.dumps(before) == json.dumps(now):
        return ""
    shown = ["none" if value in (None, (), []) else _shown(value) for value in (before, now)]
    return f"{name.replace('_', '-')} {shown[0]}, not {shown[1]}"


def _shown(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ",".join(map(str, value))
    return json.dumps(value) if isinstance(value, dict | bool) else str(value)


def _settings(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Every value of `EnsembleRecipe.to_json` by dotted name; of several members with the member's name in front."""
    from aupipe.train.recipe_tables import flatten

    several = len(recipe["members"]) > 1
    found: dict[str, Any] = {}
    for member in recipe["members"]:
        prefix = f"{member['name']}." if several else ""
        found[f"{prefix}per_feature"] = member["per_feature"]
        found |= flatten(member["recipe"], prefix)
    return found


def new_run_folder(config: Config, recipe: str) -> Path:
    """Create a new folder for a run, also where several commands start in the same second."""
    base = config.file.parent if config.file else Path.cwd()
    name = f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{recipe}-{config.train.task}"
    for number in count(1):
        out = base / "runs" / (name if number == 1 else f"{name}-{number}")
        out.parent.mkdir(exist_ok=True)
        try:
            out.mkdir()
        except FileExistsError:
            continue
        return out
    raise AssertionError
