"""Options several commands share, and what they resolve to."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from aupipe.config import Config, load_config
from aupipe.errors import NoStoreError, UsageError
from aupipe.registry import nearest

if TYPE_CHECKING:
    from aupipe.store import ItemRecord

Command = Callable[..., Any]


def config_options(command: Command) -> Command:
    """``--config`` and ``--store``."""
    options = [
        click.option(
            "--config",
            "config_file",
            type=click.Path(path_type=Path),
            help="Configuration file; by default the nearest aupipe.toml, here or above.",
        ),
        click.option("--store", type=click.Path(path_type=Path), help="Feature store, over [store] path."),
    ]
    return functools.reduce(lambda done, option: option(done), reversed(options), command)


def device_options(command: Command) -> Command:
    """``--gpu`` and ``--cpu``."""
    options = [
        click.option(
            "--gpu", metavar="N", help="GPU to run on: 0, cuda:0, or several as 0,1. Default: the first, else the CPU."
        ),
        click.option("--cpu", is_flag=True, help="Run on the CPU."),
    ]
    return functools.reduce(lambda done, option: option(done), reversed(options), command)


def json_option(command: Command) -> Command:
    """``--json``."""
    return click.option("--json", "as_json", is_flag=True, help="JSON on stdout, for scripts.")(command)


def resolve(config_file: Path | None, store: Path | None = None, **overrides: Any) -> Config:
    """The configuration with the command line laid over it. Raises UsageError for a backend that keeps nothing."""
    from aupipe.store import STORES

    config = load_config(config_file, {"store.path": store} | overrides)
    backend = config.store.backend
    if backend not in STORES or not STORES.get(backend).persistent:
        lasting = [name for name in STORES.names() if STORES.get(name).persistent]
        where = config.origin["store.backend"]
        raise UsageError(
            f"store.backend ({where}) is {backend!r}.{nearest(backend, lasting)} Accepted: {', '.join(lasting)}"
        )
    return config


def require_config(config: Config) -> Config:
    """Raises UsageError where there is no `aupipe.toml`: what follows would run on defaults nobody chose."""
    if config.file is None:
        raise UsageError("no aupipe.toml here or above: run `aupipe init` in the folder that holds your videos")
    return config


def existing_store(config: Config) -> Any:
    """The open store of a configuration. Raises NoStoreError (exit code 10)."""
    from aupipe.store import open_store

    if not config.store.path.exists():
        raise NoStoreError(f"no store at {config.store.path}: `aupipe extract` makes it")
    return open_store(config.store.path)


def failure_lines(failures: Iterable[tuple[str, str, str]]) -> list[str]:
    """One line for each recording and reason, of (recording, feature name, reason), naming every feature it struck."""
    together: dict[tuple[str, str], list[str]] = {}
    for recording, name, reason in failures:
        together.setdefault((recording, reason), []).append(name)
    return [f"{recording}  {', '.join(names)}: {reason}" for (recording, reason), names in together.items()]


def damage_lines(damaged: Iterable[ItemRecord]) -> list[str]:
    """One line for each damaged recording, of the records of its items: the words that say most."""
    words: dict[str, str] = {}
    for record in damaged:
        name = record.video_id or record.recording
        words[name] = max(words.get(name, ""), record.damage, key=len)
    return [f"{name}: {damage}" for name, damage in sorted(words.items())]


def split_list(values: tuple[str, ...]) -> list[str]:
    """``-x a,b -x c`` as [a, b, c]."""
    return [part.strip() for value in values for part in value.split(",") if part.strip()]
