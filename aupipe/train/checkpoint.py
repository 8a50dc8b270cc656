"""The state of a training run between two epochs: saved next to its best weights, removed when the run has finished.

It holds everything that the next epoch depends on: weights, optimiser, averaged weights, random states, learning-rate
plateau. A run that is killed and resumed therefore ends with exactly the weights of an uninterrupted one, on a CPU and
on a GPU with deterministic algorithms. The file holds tensors and JSON, nothing that executes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from aupipe.documents import parse_json
from aupipe.errors import DamageError, UsageError
from aupipe.files import write_file
from aupipe.train.ema import EMA
from aupipe.train.heads import named_tensors
from aupipe.train.run import Run, run_from
from aupipe.train.schedule import Plateau

FILE = "resume.safetensors"
METADATA = "standing"  # the key of the JSON document in the file


@dataclass(frozen=True)
class Checkpoint:
    """The content of the file: the ``run`` so far, ``tensors`` by name, and all other values as JSON in ``content``."""

    run: Run
    tensors: Mapping[str, Tensor]
    content: Mapping[str, Any]


@dataclass
class TrainState:
    """The objects that training changes. ``rng`` draws the windows of each epoch; ``best`` is a validation score."""

    head: nn.Module
    optimiser: torch.optim.Optimizer
    ema: EMA
    rng: np.random.Generator
    plateau: Plateau = field(default_factory=Plateau)
    step: int = 0  # optimiser steps done
    best: float = -math.inf

    def save(self, run: Run) -> None:
        """Write the state and the ``run`` so far into the folder of the run; a former file is replaced by renaming."""
        from safetensors.torch import save

        content = {"step": self.step, "best": self.best, "rng": self.rng.bit_generator.state}
        document = json.dumps({"run": run.to_json(), **content, "plateau": self.plateau.to_json()})
        tensors = {name: value.detach().cpu().contiguous().clone() for name, value in self._tensors().items()}
        write_file(run.path / FILE, save(tensors, metadata={METADATA: document}), overwrite=True)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Set everything to what `save` wrote."""
        content, tensors = checkpoint.content, checkpoint.tensors
        self.step, self.best = content["step"], content["best"]
        self.rng.bit_generator.state = content["rng"]
        self.plateau = Plateau(**content["plateau"])
        with torch.no_grad():
            for name, value in named_tensors(self.head).items():
                value.copy_(tensors[f"head.{name}"])
            for name, value in self.ema.values.items():
                value.copy_(tensors[f"average.{name}"])
        entries: dict[int, dict[str, Tensor]] = {}
        for name, value in tensors.items():
            if name.startswith("optimiser."):
                _, number, key = name.split(".", 2)
                entries.setdefault(int(number), {})[key] = value
        self.optimiser.load_state_dict({**self.optimiser.state_dict(), "state": entries})
        torch.set_rng_state(tensors["random"])
        device = next(self.head.parameters()).device
        if device.type == "cuda" and "random.device" in tensors:  # absent where the run began on a CPU
            torch.cuda.set_rng_state(tensors["random.device"], device)

    def _tensors(self) -> dict[str, Tensor]:
        """All tensors by name; those of the optimiser as ``optimiser.<number of the parameter>.<name>``."""
        tensors = {f"head.{name}": value for name, value in named_tensors(self.head).items()}
        tensors |= {f"average.{name}": value for name, value in self.ema.values.items()}
        for number, entries in self.optimiser.state_dict()["state"].items():
            for name, value in entries.items():
                if value is not None:
                    tensors[f"optimiser.{number}.{name}"] = torch.as_tensor(value)
        device = next(self.head.parameters()).device
        if device.type == "cuda":  # dropout masks are drawn by a generator of the device
            tensors["random.device"] = torch.cuda.get_rng_state(device)
        return tensors | {"random": torch.get_rng_state()}


def load_checkpoint(folder: Path) -> Checkpoint | None:
    """What `TrainState.save` wrote into a folder, or None. Raises DamageError where it is not readable."""
    from safetensors import SafetensorError, safe_open

    path = folder / FILE
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            content = parse_json((file.metadata() or {})[METADATA])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
        return Checkpoint(run_from(content.pop("run"), folder), tensors, content)
    except (OSError, SafetensorError, KeyError, ValueError, TypeError, AttributeError) as error:
        raise DamageError(f"{path}: not readable ({error}): remove it to start this run again") from error


def check_same(before: Run, now: Run) -> None:
    """Raise UsageError unless a run is resumed with the arguments it was started with."""
    for what in ("task", "recipe", "features", "seed", "train", "validation", "dims"):
        if getattr(before, what) != getattr(now, what):
            raise UsageError(
                f"{before.path}: started with another {what}; resume with the same arguments, or give another folder"
            )
