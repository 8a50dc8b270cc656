"""What a head is trained on, and how: the arguments of `aupipe.train.fit.fit`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from aupipe.errors import UsageError
from aupipe.tasks import OFFICIAL, Task, as_task
from aupipe.train.recipe import Recipe
from aupipe.types import Labels, Recording


@dataclass(frozen=True)
class FitData:
    """The recordings of both splits, their annotations, and the features of each.

    ``labels``: recording id -> annotations. ``features``: name -> feature id in the store. ``aux_labels``: labels of
    each auxiliary task of the recipe; a recording without them trains the other tasks only. ``command``: what makes
    the features, for a message; '': `aupipe extract` with their names.
    """

    train: Sequence[Recording]
    validation: Sequence[Recording]
    labels: Mapping[str, Labels]
    features: Mapping[str, str]
    aux_labels: Mapping[str, Mapping[str, Labels]] = field(default_factory=dict)
    command: str = ""

    def aux_tasks(self, names: Iterable[str]) -> tuple[Task, ...]:
        """The label sets of auxiliary tasks, from their labels; official ones where there are none.

        Raises UsageError for a task of one's own without labels.
        """
        found = {name: next((item.task for item in self.aux_labels.get(name, {}).values()), None) for name in names}
        if unknown := next((name for name, task in found.items() if task is None and name not in OFFICIAL), None):
            raise UsageError(f"aux_tasks.{unknown}: no recording has labels for it: check the annotation folder")
        return tuple(task or as_task(name) for name, task in found.items())


@dataclass(frozen=True)
class FitConfig:
    """How a head is trained.

    The same data, recipe, seed and threads give the same run on a CPU; with ``deterministic`` also on a GPU, where
    operations without a deterministic implementation then raise. More threads seldom make such small heads faster
    (docs/training.md, "Speed"). ``compiled``: the head runs through torch.compile. ``allow_missing``: recordings that
    lack features or labels are left out. ``memory_limit``: bytes that the standardised features may take on the device,
    else they are streamed; None: half of what is free.
    """

    recipe: Recipe
    task: Task  # the name of an official task is taken for the task
    seed: int = 0
    device: str = "cpu"
    threads: int = 1
    allow_missing: bool = False
    deterministic: bool = False
    compiled: bool = False
    memory_limit: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "task", as_task(self.task))
