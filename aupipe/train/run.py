"""A training run, and its folder: ``head.safetensors`` (`aupipe.train.run_file`), of which ``run.json`` is a readable
copy of the document, and ``postprocess.json``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

from aupipe.documents import read_json
from aupipe.errors import DamageError, UsageError
from aupipe.files import write_file
from aupipe.tasks import Task, task_from_json
from aupipe.train.data import Scaling
from aupipe.train.postprocess import PostProcess
from aupipe.train.recipe import Recipe, recipe_from, unscaled_numbers
from aupipe.train.run_file import FILE, Arrays, read_document, read_run_file, write_run_file
from aupipe.train.scores import Scores
from aupipe.types import FeatureSpec

FORMAT = 3  # 3: nothing was held out, so there are no scores; 1: run.json is not a copy, weights have no checksum
RUN_FILE, POST_FILE = "run.json", "postprocess.json"
MEAN, STD, HEAD = "scaling.mean", "scaling.std", "head."


@dataclass(frozen=True)
class Epoch:
    """One epoch of a run's history; ``score``: the validation score that epochs are compared by, if there is one."""

    epoch: int
    loss: float
    score: float | None
    lr: float
    seconds: float


@dataclass(frozen=True)
class Run:
    """A training run: what was trained on which data, with which result, and the folder of its weights.

    ``scores`` are those of the best epoch on the validation recordings. The epoch was chosen by this score, so it is
    optimistic (docs/training.md, "The score"). None where there were no such recordings: then the last epoch is kept.
    """

    path: Path
    id: str  # also in postprocess.json, so that files of different runs are not mixed
    task: Task
    recipe: Recipe
    features: Mapping[str, str]  # name -> feature id, in the order of the columns
    specs: Mapping[str, FeatureSpec]
    dims: tuple[int, ...]
    seed: int
    best_epoch: int
    scores: Scores | None
    history: tuple[Epoch, ...] = ()
    train: tuple[str, ...] = ()
    validation: tuple[str, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    aux_tasks: tuple[Task, ...] = ()  # in the order of their outputs, which follow those of the task
    data: Mapping[str, str] = field(default_factory=dict)  # digests (`data_identity`); {} in runs of format 1
    finished: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the outputs that are scored and predicted."""
        return self.task.names

    @property
    def outputs(self) -> int:
        """Columns of the output of the head: those of the task, followed by those of the auxiliary tasks."""
        return sum(len(task.names) for task in (self.task, *self.aux_tasks))

    def to_json(self) -> dict[str, Any]:
        """What `run.json` holds."""
        plain = {key: getattr(self, key) for key in ("id", "names", "dims", "seed", "best_epoch", "finished")}
        return {
            "format": FORMAT if self.scores is None else 2,
            "task": self.task.to_json(),
            "aux_tasks": [task.to_json() for task in self.aux_tasks],
            **plain,
            "recipe": {"name": self.recipe.name, **self.recipe.to_json()},
            "features": dict(self.features),
            "specs": {name: spec.to_json() for name, spec in self.specs.items()},
            "scores": self.scores.to_json() if self.scores is not None else None,
            "history": [asdict(epoch) for epoch in self.history],
            "train": self.train,
            "validation": self.validation,
            "versions": dict(self.versions),
            "data": dict(self.data),
        }


def holds_run(folder: Path) -> bool:
    """Whether a folder holds a run, finished or not."""
    return (folder / FILE).is_file() or (folder / RUN_FILE).is_file()


def save_run(
    run: Run, weights: Arrays, scaling: Scaling, state: Arrays | None = None, progress: Mapping[str, Any] | None = None
) -> None:
    """Write the file of a run (`aupipe.train.run_file`), then ``run.json``, a copy of what it says about the run.

    Tensors: ``head.<parameter>``, ``scaling.mean``, ``scaling.std``, and those of ``state``. ``progress``: what else an
    unfinished run needs to go on.
    """
    document = run.to_json()
    tensors = {HEAD + name: value for name, value in weights.items()} | {MEAN: scaling.mean, STD: scaling.std}
    write_run_file(run.path, {"run": document, "progress": dict(progress or {})}, {**tensors, **(state or {})})
    write_file(run.path / RUN_FILE, json.dumps(document, indent=1), overwrite=True)


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
        document = read_document(folder)
        return run_from(read_json(folder / RUN_FILE) if document is None else document["run"], folder)
    except (FileNotFoundError, NotADirectoryError):
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
    recipe, task = recipe_from(tables, tables.pop("name")), task_from_json(content["task"])
    return Run(
        path=folder,
        id=content["id"],
        task=task,
        aux_tasks=tuple(map(task_from_json, content.get("aux_tasks", recipe.aux_tasks_for(task.name)))),
        recipe=recipe,
        features=content["features"],
        specs={name: FeatureSpec.from_json(spec) for name, spec in content["specs"].items()},
        dims=tuple(content["dims"]),
        seed=content["seed"],
        best_epoch=content["best_epoch"],
        scores=Scores.from_json(content["scores"]) if content["scores"] is not None else None,
        history=tuple(Epoch(**epoch) for epoch in content["history"]),
        train=tuple(content["train"]),
        validation=tuple(content["validation"]),
        versions=content["versions"],
        data=content.get("data", {}),
        finished=content["finished"],
    )


def load_weights(run: Run) -> tuple[dict[str, NDArray[Any]], Scaling]:
    """The parameters of the head by name, and the standardisation.

    Raises DamageError where the file of the run is missing, damaged, or of another run.
    """
    file = read_run_file(run.path)
    owner = file.document["run"].get("id") if file.document else file.owner
    if owner != run.id:
        raise DamageError(f"{run.path / FILE}: these weights belong to run {owner}, not {run.id}; train it again")
    if missing := {MEAN, STD} - file.tensors.keys():
        raise DamageError(f"{run.path / FILE}: no tensor {min(missing)!r}; train it again")
    weights = {name.removeprefix(HEAD): value for name, value in file.tensors.items() if name.startswith(HEAD)}
    unscaled = unscaled_numbers(run.recipe, run.features)
    return weights, Scaling(file.tensors[MEAN], file.tensors[STD], **run.recipe.scaling, unscaled=unscaled)
