"""A project from Python: its configuration, data set and store. Errors are those of `aupipe.errors`."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aupipe.config import FILE_NAME, Config, find_config, load_config
from aupipe.errors import NoStoreError, UsageError
from aupipe.types import FeatureSpec, Labels, Recording

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from aupipe.dataset_model import Dataset
    from aupipe.store import Store
    from aupipe.train.model import Model


def open_store(path: str | os.PathLike[str] = "features") -> Store:
    """The feature store at ``path``, to read: ``store["hog"]["a.mp4"][100:200]``.

    A name that several stored features have, as of two settings of one encoder, or none, as of an encoder that has been
    renamed, is that of the nearest `aupipe.toml` in the folder of the store or above, where that configures this store.

    Raises NoStoreError when there is none, UsageError when the path holds something else, StoreVersionError when a
    newer aupipe wrote it, DamageError when its ``store.json`` cannot be read.
    """
    from aupipe.store import open_store

    store = open_store(path)
    file = find_config(Path(path).absolute().parent)
    if file is not None:
        store.prefer = _Meaning(partial(_project_of, file, Path(path).absolute()))
    return store


def load_project(path: str | os.PathLike[str] = ".") -> Project:
    """The project in the folder ``path`` or above it, or that of the `aupipe.toml` that ``path`` names.

    Raises UsageError where there is none, and for a file that is not valid.
    """
    given = Path(path)
    file = find_config(given) if given.is_dir() else given
    if file is None:
        raise UsageError(f"no {FILE_NAME} in {given.absolute()} or above: run `aupipe init` there")
    return Project(load_config(file))


def load_run(path: str | os.PathLike[str]) -> Model:
    """The trained model in the folder of a run, or of an ensemble.

    Raises UsageError where there is none, DamageError where it cannot be read.
    """
    from aupipe.train.model import load_model

    return load_model(Path(path))


@dataclass(frozen=True)
class Project:
    """A configuration, its data set and its store."""

    config: Config

    @cached_property
    def dataset(self) -> Dataset:
        """The data set. Raises UsageError where a folder is missing or has no recordings."""
        from aupipe.dataset import open_dataset

        return open_dataset(self.config.dataset, self._times_of)

    def _times_of(self, recording: Recording) -> NDArray[np.float64] | None:
        """The times of its frames in s; None where they are not stored, as before `extract`."""
        try:
            return self._clock(recording)
        except NoStoreError:
            return None

    @cached_property
    def _clock(self) -> Callable[[Recording], NDArray[np.float64] | None]:
        from aupipe.store.clocks import clock_of

        return clock_of(self.store)

    @property
    def recordings(self) -> tuple[Recording, ...]:
        """The recordings of the data set, extracted or not."""
        return self.dataset.recordings

    @cached_property
    def store(self) -> Store:
        """The store. A name that several stored features have is that of the configuration. Raises NoStoreError."""
        from aupipe.cli.options import existing_store

        store: Store = existing_store(self.config)
        store.prefer = meaning = _Meaning(partial(Project, self.config))
        meaning.project = self
        return store

    def labels(self, task: str, split: str | None = None) -> dict[str, Labels]:
        """Recording id -> its annotations, of all annotated recordings or those of a split.

        Row k is of decoded frame k. ``split``: train, validation or test. Raises UsageError for another, and for an
        unknown task.
        """
        if split not in (None, "train", "validation", "test"):
            raise UsageError(f"no split {split!r}: train, validation or test")
        recordings = self.dataset.split(task, split) if split else self.recordings
        self.dataset.task(task)
        return self.dataset.labels_of(recordings, task)


@dataclass
class _Meaning:
    """Which stored feature a project means by a name: `aupipe.store.reader.ItemReader.prefer`.

    What was found is kept, also in other processes, since it takes the list of the data set, which stays here.
    """

    find_project: Callable[[], Project | None]
    found: dict[tuple[str, ...], str] = field(default_factory=dict)  # name, ids of the stored features -> id

    @cached_property
    def project(self) -> Project | None:
        return self.find_project()

    def __call__(self, name: str, stored: Sequence[FeatureSpec]) -> str | None:
        key = (name, *(spec.id for spec in stored))
        if key not in self.found and self.project is not None:
            from aupipe.extract.planning.named import meant_feature

            project = self.project
            chosen = meant_feature(project.config, lambda: project.recordings, name, stored)
            if chosen is not None:
                self.found[key] = chosen
        return self.found.get(key)

    def __reduce__(self) -> tuple[Any, ...]:
        return _Meaning, (self.find_project, self.found)


def _project_of(file: Path, store: Path) -> Project | None:
    """The project of ``file``, where that has the store at this path."""
    try:
        project = Project(load_config(file))
    except UsageError:
        return None
    return project if os.path.realpath(project.config.store.path) == os.path.realpath(store) else None
