"""What a `train` command asked for, as a file in its folder: so that it can be gone on with."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aupipe.cli.overwrite import refuse_nonempty
from aupipe.documents import read_json
from aupipe.errors import UsageError
from aupipe.files import write_file
from aupipe.types import Task

if TYPE_CHECKING:
    from aupipe.cli.data import Data
    from aupipe.store import Store

ORDER_FILE = "train.json"  # what was asked for, so that --resume can ask again
SHOWN = 5  # settings in which two orders differ


@dataclass(frozen=True)
class Order:
    """What a command asked to train; ``recipe``: `EnsembleRecipe.to_json`; ``folds``: a number, or fold name ->
    recording ids; ``on``: train or all."""

    recipe: Mapping[str, Any]
    task: Task
    features: tuple[str, ...]
    seeds: tuple[int, ...]
    folds: int | Mapping[str, Sequence[str]] | None
    on: str
    allow_missing: bool
    deterministic: bool
    threads: int
    data: Mapping[str, Any] = field(default_factory=dict)  # `identify_data`; empty in files of an earlier aupipe


def numbers(text: str) -> tuple[int, ...]:
    """``0,1,2`` as numbers."""
    try:
        found = tuple(int(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"--seed {text}: expected whole numbers with commas between, e.g. 0,1,2") from None
    if not all(0 <= seed < 2**32 for seed in found):
        raise UsageError(f"--seed {text}: expected numbers from 0 to {2**32 - 1}")
    if len(set(found)) < len(found):
        raise UsageError(f"--seed {text}: one of them is there twice")
    return found


def folds_of(text: str | None) -> int | dict[str, list[str]] | None:
    """``5`` as a number, else the content of a JSON file."""
    if text is None or text.isdigit():
        return None if text is None else int(text)
    try:
        content = read_json(Path(text))
        return {str(name): [str(one) for one in ids] for name, ids in content.items()}
    except (OSError, json.JSONDecodeError, AttributeError, TypeError) as error:
        raise UsageError(f"--folds {text}: expected a number, or a JSON file {{fold: [ids]}} ({error})") from error


def check_names(features: Sequence[str]) -> None:
    """Raises UsageError for a feature that is asked for twice."""
    if twice := next((name for name in features if features.count(name) > 1), None):
        raise UsageError(f"feature {twice!r} is asked for twice")


def is_finished(out: Path) -> bool:
    """Does the folder hold what a `train` command makes at its end?"""
    from aupipe.train.model import FILE
    from aupipe.train.run import RUN_FILE, load_run

    return (out / FILE).is_file() or ((out / RUN_FILE).is_file() and load_run(out).finished)


def write_order(order: Order, out: Path) -> None:
    """Write it into the folder of a run that begins. Raises UsageError where another has begun there meanwhile."""
    try:
        write_file(out / ORDER_FILE, json.dumps(asdict(order), indent=1))
    except UsageError:
        raise UsageError(f"{out}: another training has just begun there: choose another --out") from None


def read_order(folder: Path) -> Order:
    """What was asked for there. Raises UsageError where nothing was."""
    try:
        content: dict[str, Any] = read_json(folder / ORDER_FILE)
        content |= {key: tuple(content[key]) for key in ("features", "seeds")}
        return Order(**content)
    except FileNotFoundError:
        raise UsageError(f"{folder}: nothing to go on with: no {ORDER_FILE} there") from None
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UsageError(f"{folder / ORDER_FILE}: not readable ({error}): begin anew in another folder") from error


def finished_order(out: Path, order: Order) -> Order | None:
    """What was ordered where the folder is the finished run of this very order; None where it is new or empty.

    Raises UsageError where it is another's, where a run there is unfinished, and where it holds anything else.
    """
    from aupipe.train.ensemble_recipe import ensemble_recipe_from_json

    if not (out / ORDER_FILE).is_file():
        refuse_nonempty(out, " and holds no run of `aupipe train`")
        return None
    before = read_order(out)
    if not is_finished(out):
        raise UsageError(f"{out} holds a run that is not finished: `aupipe train --resume {out}`, or another --out")
    before = replace(before, recipe=ensemble_recipe_from_json(before.recipe).to_json())  # with keys that are new since
    if other := differences(before, order):
        shown = "; ".join(other[:SHOWN]) + (f"; and {len(other) - SHOWN} more" if len(other) > SHOWN else "")
        raise UsageError(f"{out} is a finished run of another order ({shown}): choose another --out")
    return before


def identify_data(data: Data, store: Store) -> dict[str, Any]:
    """What a command works on, in a few words each, so that another data set is told from the same one.

    Feature ids by name; digests of the recordings of both splits, of their stored rows, and of their annotations.
    Raises UsageError for a feature that the store does not have.
    """
    from aupipe.train.data import feature_specs

    everyone = [*data.train, *data.validation]
    keys = {spec.id: spec.modality for spec in feature_specs(store, data.features).values()}
    rows = [_checksum(store, one.key_for(kind), feature) for one in everyone for feature, kind in keys.items()]
    labels = hashlib.sha256()
    for task, table in [("", data.labels), *sorted(data.also.items())]:
        for name, item in sorted(table.items()):
            labels.update(f"{task}\0{name}\0{item.task}\0".encode(errors="surrogateescape"))
            labels.update(item.targets.tobytes() + item.valid.tobytes())
    return {
        "features": dict(data.features),
        "training recordings": _digest(one.id for one in data.train),
        "validation recordings": _digest(one.id for one in data.validation),
        "stored rows": _digest(map(str, rows)),
        "annotations": labels.hexdigest()[:12],
    }


def _checksum(store: Store, recording: str, feature: str) -> int | None:
    try:
        return store.published(recording, feature).crc32c
    except KeyError:
        return None


def _digest(texts: Iterable[str]) -> str:
    return hashlib.sha256("\0".join(texts).encode(errors="surrogateescape")).hexdigest()[:12]


def differences(before: Order, now: Order) -> list[str]:
    """In which of its settings an order is not the other, as ``epochs 5, not 10``."""
    names = ("task", "features", "seeds", "folds", "on", "allow_missing", "deterministic", "threads")
    found = [_unlike(name, getattr(before, name), getattr(now, name)) for name in names]
    if before.recipe["name"] != now.recipe["name"]:
        found.insert(0, _unlike("recipe", before.recipe["name"], now.recipe["name"]))
    else:
        old, new = _settings(before.recipe), _settings(now.recipe)
        found += [_unlike(name, old.get(name), new.get(name)) for name in dict.fromkeys([*old, *new])]
    return [line for line in found if line]


def data_differences(before: Order, now: Order) -> list[str]:
    """In what the data of two orders differ; nothing where one of them does not say."""
    if not before.data or not now.data:
        return []
    return [f"other {name}" for name, value in now.data.items() if before.data.get(name) != value]


def _unlike(name: str, before: Any, now: Any) -> str:
    """``name before, not now``, or nothing where both are the same once written down."""
    if json.dumps(before) == json.dumps(now):
        return ""
    shown = ["none" if value in (None, (), []) else _shown(value) for value in (before, now)]
    return f"{name.replace('_', '-')} {shown[0]}, not {shown[1]}"


def _shown(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ",".join(map(str, value))
    return json.dumps(value) if isinstance(value, dict | bool) else str(value)


def _settings(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Every value of `EnsembleRecipe.to_json`, by a dotted name; of several members behind their names."""
    several = len(recipe["members"]) > 1
    found: dict[str, Any] = {}
    for member in recipe["members"]:
        lead = f"{member['name']}." if several else ""
        found[f"{lead}per_feature"] = member["per_feature"]
        found |= _flat(member["recipe"], lead)
    return found


def _flat(table: Mapping[str, Any], lead: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in table.items():
        found |= _flat(value, f"{lead}{name}.") if isinstance(value, Mapping) else {f"{lead}{name}": value}
    return found
