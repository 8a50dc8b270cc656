"""The state of a training run between two epochs: kept in the file of the run until it has finished.

It holds everything that the next epoch depends on: weights, optimiser, averaged weights, random states, learning-rate
plateau. A run that is killed and resumed therefore ends with exactly the weights of an uninterrupted one, on a CPU and
on a GPU with deterministic algorithms.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from aupipe.errors import DamageError, UsageError
from aupipe.train.heads import named_tensors
from aupipe.train.run import HEAD, Run, run_from
from aupipe.train.run_file import FILE, read_run_file
from aupipe.train.schedule import Plateau

FORMER_FILE = "resume.safetensors"  # of aupipe 0.1.0
STATE = "state."


@dataclass(frozen=True)
class Checkpoint:
    """A ``run`` so far, the ``tensors`` of its state by name, the weights of its best epoch, and other values."""

    run: Run
    tensors: Mapping[str, Tensor]
    weights: dict[str, NDArray[Any]]
    content: Mapping[str, Any]


@dataclass
class TrainState:
    """The objects that training changes. ``rng`` draws the windows of each epoch; ``best`` is a validation score.

    ``average``: None where weights are not averaged. ``weights``: those of the best epoch, on the host.
    """

    head: nn.Module
    optimiser: torch.optim.Optimizer
    average: AveragedModel | None
    rng: np.random.Generator
    plateau: Plateau = field(default_factory=Plateau)
    best: float = -math.inf
    weights: dict[str, NDArray[Any]] = field(default_factory=dict)

    @property
    def scored(self) -> nn.Module:
        """The head that is validated and kept: the averaged one, where there is one."""
        return self.head if self.average is None else self.average.module

    def keep(self, score: float) -> None:
        """Take the present weights as those of the best epoch."""
        self.best = score
        self.weights = {name: value.detach().cpu().numpy().copy() for name, value in named_tensors(self.scored).items()}

    def arrays(self) -> dict[str, NDArray[Any]]:
        """All tensors by name, on the host; those of the optimiser: ``optimiser.<number of the parameter>.<name>``."""
        tensors = {f"head.{name}": value for name, value in named_tensors(self.head).items()}
        if self.average is not None:
            tensors |= {f"average.{name}": value for name, value in named_tensors(self.average).items()}
        for number, entries in self.optimiser.state_dict()["state"].items():
            for name, value in entries.items():
                if value is not None:
                    tensors[f"optimiser.{number}.{name}"] = torch.as_tensor(value)
        device = next(self.head.parameters()).device
        if device.type == "cuda":  # dropout masks are drawn by a generator of the device
            tensors["random.device"] = torch.cuda.get_rng_state(device)
        tensors["random"] = torch.get_rng_state()
        return {STATE + name: value.detach().cpu().numpy() for name, value in tensors.items()}

    def progress(self) -> dict[str, Any]:
        """All other values, as JSON."""
        return {"best": self.best, "rng": self.rng.bit_generator.state, "plateau": self.plateau.to_json()}

    def restore(self, checkpoint: Checkpoint) -> None:
        """Set everything to what `arrays` and `progress` were."""
        content, tensors = checkpoint.content, checkpoint.tensors
        self.best, self.weights = content["best"], checkpoint.weights
        self.rng.bit_generator.state = content["rng"]
        self.plateau = Plateau(**content["plateau"])
        with torch.no_grad():
            for prefix, module in (("head", self.head), ("average", self.average)):
                for name, value in named_tensors(module).items() if module is not None else ():
                    value.copy_(tensors[f"{prefix}.{name}"])
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


def load_checkpoint(folder: Path) -> Checkpoint | None:
    """The unfinished or finished run in a folder, or None; a finished one has no state.

    Raises DamageError where it is not readable, UsageError for an unfinished run of aupipe 0.1.0.
    """
    if (folder / FORMER_FILE).is_file():
        raise UsageError(f"{folder}: begun by an earlier aupipe, which it cannot go on with: train into another folder")
    if not (folder / FILE).is_file():
        return None
    file = read_run_file(folder)
    try:
        tensors = {n.removeprefix(STATE): torch.tensor(v) for n, v in file.tensors.items() if n.startswith(STATE)}
        weights = {name.removeprefix(HEAD): v for name, v in file.tensors.items() if name.startswith(HEAD)}
        return Checkpoint(run_from(file.document["run"], folder), tensors, weights, file.document["progress"])
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise DamageError(f"{folder / FILE}: not readable ({error!r}): train into another folder") from error
