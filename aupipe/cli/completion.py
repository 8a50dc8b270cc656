"""Types of arguments whose values a shell completes: recordings, features, recipes, label sets and trained models.

What is completed is read from the configuration that the line names, or the nearest one; where that fails, nothing is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from aupipe.config import Config, load_config
from aupipe.dataset import open_dataset
from aupipe.encoder_tables import RESERVED_NAMES
from aupipe.errors import AupipeError
from aupipe.logs import printable
from aupipe.tasks import OFFICIAL


class Name(click.ParamType):
    """A text that is completed from what ``find`` gives; ``listed``: several may be separated by commas."""

    def __init__(self, find: Callable[[Config], Iterable[str]], listed: bool = False, name: str = "text") -> None:
        self.find = find
        self.listed = listed
        self.name = name  # in --help, in capitals

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return click.STRING.convert(value, param, ctx)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        before, comma, last = incomplete.rpartition(",") if self.listed else ("", "", incomplete)
        return [CompletionItem(f"{before}{comma}{name}") for name in _found(self.find, ctx) if name.startswith(last)]


class ModelPath(click.Path):
    """The folder of a trained run or ensemble: those in ``runs`` are completed, and where none fits, any folder."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        found = [name for name in _found(_models, ctx) if name.startswith(incomplete)]
        return [CompletionItem(name) for name in found] or [CompletionItem(incomplete, type="dir")]


def _found(find: Callable[[Config], Iterable[str]], context: click.Context) -> list[str]:
    with suppress(AupipeError, OSError):
        given = {name: context.params.get(name) for name in ("config_file", "store")}
        config = load_config(given["config_file"], {"store.path": given["store"]})
        return [name for name in dict.fromkeys(find(config)) if name == printable(name)]
    return []


def _recordings(config: Config) -> Iterable[str]:
    return (one.id for one in open_dataset(config.dataset).recordings)


def _configured(config: Config) -> Iterable[str]:
    return (encoder.name for encoder in config.encoders)


def _stored(config: Config) -> list[str]:
    """Names of stored features, then their ids: the folders of the store."""
    ids = sorted(path.name for path in config.store.path.iterdir() if "@" in path.name)
    return [*(name for one in ids if (name := one.partition("@")[0]) not in RESERVED_NAMES), *ids]


def _usable(config: Config) -> Iterable[str]:
    """Names of configured features, and of stored ones, such as imported ones."""
    stored = _stored(config) if config.store.path.is_dir() else []
    return [*_configured(config), *(name for name in stored if "@" not in name)]


def _recipes(config: Config) -> Iterable[str]:
    from aupipe.train.recipe_tables import recipe_names

    return recipe_names()


def _tasks(config: Config) -> Iterable[str]:
    return [*OFFICIAL, *(task.name for task, _ in config.dataset.tasks)]


def _models(config: Config) -> Iterable[str]:
    from aupipe.train.model_listing import model_folders

    base = config.file.parent if config.file else Path.cwd()
    here = Path.cwd()
    for folder in model_folders(base / "runs"):
        yield str(folder.relative_to(here) if folder.is_relative_to(here) else folder)


RECORDING = Name(_recordings)
CONFIGURED_FEATURES = Name(_configured, listed=True)
FEATURES = Name(_usable, listed=True)
STORED_FEATURE = Name(_stored)
STORED_FEATURES = Name(_stored, listed=True)
RECIPE = Name(_recipes, name="name|file")
TASK = Name(_tasks)
MODEL = ModelPath()
