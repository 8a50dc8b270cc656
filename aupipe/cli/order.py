"""What a `train` command asked for, as a file in its folder: so that it can be gone on with."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from aupipe.documents import read_json
from aupipe.errors import UsageError
from aupipe.types import Task

ORDER_FILE = "train.json"  # what was asked for, so that --resume can ask again


@dataclass(frozen=True)
class Order:
    """What a command asked to train; ``recipe``: `Committee.to_json`; ``folds``: a number, or fold name -> recording
    ids; ``on``: train or all."""

    recipe: Mapping[str, Any]
    task: Task
    features: tuple[str, ...]
    seeds: tuple[int, ...]
    folds: int | Mapping[str, Sequence[str]] | None
    on: str
    allow_missing: bool
    deterministic: bool
    threads: int


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


def write_order(order: Order, out: Path) -> None:
    """Write it into the folder of the run."""
    from aupipe.train.run import replace_file

    replace_file(out / ORDER_FILE, json.dumps(asdict(order), indent=1).encode())


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
