"""Where a training run stands after an epoch: written beside its best weights, gone when it has finished.

Everything the next epoch depends on is in it (weights, optimiser, averaged weights, random states, plateau), so that a
run killed and continued ends with the very weights of one that was left alone, on a CPU and on a deterministic GPU.
Nothing in it executes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from aupipe.documents import parse_json
from aupipe.errors import DamageError, UsageError
from aupipe.files import write_file
from aupipe.train.ema import EMA
from aupipe.train.predict import state
from aupipe.train.run import Run, run_from

FILE = "resume.safetensors"


@dataclass(frozen=True)
class TrainState:
    """``tensors`` by name, ``run`` as it was then, and what is neither: step, random generator, plateau."""

    run: Run
    tensors: Mapping[str, Tensor]
    content: Mapping[str, Any]


def save_train_state(run: Run, tensors: Mapping[str, Tensor], content: Mapping[str, Any]) -> None:
    """Write it by renaming."""
    from safetensors.torch import save

    plain = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    document = json.dumps({"run": run.to_json(), **content})
    write_file(run.path / FILE, save(plain, metadata={"standing": document}), overwrite=True)


def load_train_state(folder: Path) -> TrainState | None:
    """What was saved there, or None. Raises DamageError where it is not readable."""
    from safetensors import SafetensorError, safe_open

    path = folder / FILE
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            content = parse_json((file.metadata() or {})["standing"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
        return TrainState(run_from(content.pop("run"), folder), tensors, content)
    except (OSError, SafetensorError, KeyError, ValueError, TypeError, AttributeError) as error:
        raise DamageError(f"{path}: not readable ({error}): remove it to begin anew") from error


def check_same(before: Run, now: Run) -> None:
    """Raises UsageError unless a run is continued with what it was begun with."""
    for what in ("task", "recipe", "features", "seed", "train", "validation", "dims"):
        if getattr(before, what) != getattr(now, what):
            raise UsageError(
                f"{before.path}: begun with another {what}; continue with the same arguments, or give another folder"
            )


def state_tensors(head: torch.nn.Module, optimiser: torch.optim.Optimizer, ema: EMA) -> dict[str, Tensor]:
    """Everything of a saved run that is a tensor, by name; the optimiser's by ``optimiser.<parameter>.<name>``."""
    tensors = {f"head.{name}": value for name, value in state(head).items()}
    tensors |= {f"average.{name}": value for name, value in ema.values.items()}
    for number, entries in optimiser.state_dict()["state"].items():
        for name, value in entries.items():
            if value is not None:
                tensors[f"optimiser.{number}.{name}"] = torch.as_tensor(value)
    device = next(head.parameters()).device
    if device.type == "cuda":  # which draws dropout's masks from a generator of its own
        tensors["random.device"] = torch.cuda.get_rng_state(device)
    return tensors | {"random": torch.get_rng_state()}


def restore_tensors(
    head: torch.nn.Module, optimiser: torch.optim.Optimizer, ema: EMA, tensors: Mapping[str, Tensor]
) -> None:
    """The inverse of `state_tensors`."""
    with torch.no_grad():
        for name, value in state(head).items():
            value.copy_(tensors[f"head.{name}"])
        for name, value in ema.values.items():
            value.copy_(tensors[f"average.{name}"])
    entries: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith("optimiser."):
            _, number, key = name.split(".", 2)
            entries.setdefault(int(number), {})[key] = value
    optimiser.load_state_dict({**optimiser.state_dict(), "state": entries})
    torch.set_rng_state(tensors["random"])
    device = next(head.parameters()).device
    if device.type == "cuda" and "random.device" in tensors:  # not where a run goes on elsewhere than it began
        torch.cuda.set_rng_state(tensors["random.device"], device)
