"""A training run on disk: ``head.safetensors`` (weights and standardisation) and ``run.json`` (everything else)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from aupipe.documents import read_json
from aupipe.errors import DamageError, UsageError
from aupipe.files import write_file
from aupipe.train.data import Scaling
from aupipe.train.evaluate import Scores
from aupipe.train.postprocess import PostProcess
from aupipe.train.recipe import Recipe, recipe_from
from aupipe.types import FeatureSpec, Task

FORMAT = 1
RUN_FILE, POST_FILE = "run.json", "postprocess.json"
MEAN, STD, HEAD = "scaling.mean", "scaling.std", "head."


@dataclass(frozen=True)
class Epoch:
    """One epoch of a run's history; ``score``: the validation score that epochs are compared by."""

    epoch: int
    loss: float
    score: float
    lr: float
    seconds: float


@dataclass(frozen=True)
class Run:
    """A training run: what was trained on which data, with which result, and the folder of its weights.

    ``scores`` are those of the best epoch on the validation recordings. The epoch was chosen by this score, so it is
    optimistic (docs/training.md, "The score").
    """

    path: Path
    id: str  # also in head.safetensors, so that files of different runs are not mixed
    task: Task
    names: tuple[str, ...]
    recipe: Recipe
    features: Mapping[str, str]  # name -> feature id, in the order of the columns
    specs: Mapping[str, FeatureSpec]
    dims: tuple[int, ...]
    seed: int
    best_epoch: int
    scores: Scores
    history: tuple[Epoch, ...] = ()
    train: tuple[str, ...] = ()
    validation: tuple[str, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    finished: bool = False

    def to_json(self) -> dict[str, Any]:
        """What `run.json` holds."""
        plain = {key: getattr(self, key) for key in ("id", "task", "names", "dims", "seed", "best_epoch", "finished")}
        return {
            "format": FORMAT,
            **plain,
            "recipe": {"name": self.recipe.name, **self.recipe.to_json()},
            "features": dict(self.features),
            "specs": {name: spec.to_json() for name, spec in self.specs.items()},
            "scores": self.scores.to_json(),
            "history": [asdict(epoch) for epoch in self.history],
            "train": self.train,
            "validation": self.validation,
            "versions": dict(self.versions),
        }


def save_run(run: Run) -> None:
    """Write ``run.json``; a former one is replaced by renaming."""
    write_file(run.path / RUN_FILE, json.dumps(run.to_json(), indent=1), overwrite=True)


def save_weights(path: Path, run_id: str, weights: Mapping[str, NDArray[Any]], scaling: Scaling) -> None:
    """Write ``head.safetensors``: ``head.<parameter>``, ``scaling.mean``, ``scaling.std``."""
    from safetensors.numpy import save

    tensors = {HEAD + name: np.array(value, order="C") for name, value in weights.items()}
    tensors |= {MEAN: scaling.mean, STD: scaling.std}
    write_file(path / "head.safetensors", save(tensors, metadata={"run": run_id}), overwrite=True)


class ModelFolder(Protocol):
    """A run or an ensemble, as far as a post-processing is saved for it."""

    @property
    def path(self) -> Path: ...

    @property
    def id(self) -> str: ...


def save_postprocess(model: ModelFolder, post: PostProcess, overwrite: bool = True) -> None:
    """Write ``postprocess.json`` into the folder it was fitted for. Raises UsageError where it may not be replaced."""
    content = {"run": model.id, **post.to_json()}
    write_file(model.path / POST_FILE, json.dumps(content, indent=1), overwrite)


def load_postprocess(model: ModelFolder) -> PostProcess | None:
    """The post-processing that was fitted for this run or ensemble, or None.

    Raises DamageError where it is not readable, or was fitted for another one.
    """
    path = model.path / POST_FILE
    if not path.is_file():
        return None
    try:
        content = read_json(path)
        owner = content.pop("run")
        post = PostProcess.from_json(content)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DamageError(f"{path}: not readable ({error!r}); train it again") from error
    if owner != model.id:
        raise DamageError(f"{path}: fitted for run {owner}, this is {model.id}; train it again")
    return post


def load_run(path: str | Path) -> Run:
    """The run in a folder, or the one whose ``run.json`` is given.

    Raises UsageError where there is none or one of a newer format, DamageError where it is not readable.
    """
    folder = Path(path).parent if Path(path).name == RUN_FILE else Path(path)
    try:
        return run_from(read_json(folder / RUN_FILE), folder)
    except FileNotFoundError:
        raise UsageError(f"{folder}: no {RUN_FILE} there: give the folder that `aupipe train` wrote") from None
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DamageError(f"{folder / RUN_FILE}: not readable as a run ({error!r}); train it again") from error


def run_from(content: Mapping[str, Any], folder: Path) -> Run:
    """The inverse of `Run.to_json`.

    Raises UsageError for a newer format; KeyError, TypeError, ValueError or AttributeError for other content.
    """
    if content["format"] > FORMAT:
        raise UsageError(f"{folder}: a run of format {content['format']}, newer than {FORMAT}: update aupipe")
    tables = dict(content["recipe"])
    return Run(
        path=folder,
        id=content["id"],
        task=content["task"],
        names=tuple(content["names"]),
        recipe=recipe_from(tables, tables.pop("name")),
        features=content["features"],
        specs={name: FeatureSpec.from_json(spec) for name, spec in content["specs"].items()},
        dims=tuple(content["dims"]),
        seed=content["seed"],
        best_epoch=content["best_epoch"],
        scores=Scores.from_json(content["scores"]),
        history=tuple(Epoch(**epoch) for epoch in content["history"]),
        train=tuple(content["train"]),
        validation=tuple(content["validation"]),
        versions=content["versions"],
        finished=content["finished"],
    )


def load_weights(run: Run) -> tuple[dict[str, NDArray[Any]], Scaling]:
    """The parameters of the head by name, and the standardisation.

    Raises DamageError where ``head.safetensors`` is missing, damaged, or of another run.
    """
    from safetensors import SafetensorError, safe_open

    path = run.path / "head.safetensors"
    try:
        with safe_open(path, framework="np") as file:
            owner = (file.metadata() or {}).get("run")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
        scaling = Scaling(tensors.pop(MEAN), tensors.pop(STD), run.recipe.center)
    except (OSError, SafetensorError, KeyError, ValueError, TypeError) as error:
        raise DamageError(f"{path}: not readable as a run's weights ({error}); train it again") from error
    if owner != run.id:
        raise DamageError(f"{path}: these weights belong to run {owner}, run.json to {run.id}; train it again")
    return {name.removeprefix(HEAD): value for name, value in tensors.items()}, scaling
