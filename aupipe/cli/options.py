"""Options that several commands share, and what they resolve to: configuration, store, devices."""

from __future__ import annotations

import functools
import logging
import math
import shlex
from collections.abc import Callable, Container, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from aupipe.cli.output import echo
from aupipe.config import Config, StoreConfig, load_config
from aupipe.errors import NoStoreError, UsageError
from aupipe.files import as_argument
from aupipe.local_models import configure_weights
from aupipe.registry import nearest

if TYPE_CHECKING:
    from aupipe.store import ItemRecord, Store

Command = Callable[..., Any]


class FiniteRange(click.FloatRange):
    """A `click.FloatRange`, which nan and, without a limit, inf pass, of finite numbers alone."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        found = super().convert(value, param, ctx)
        if not math.isfinite(found):
            self.fail(f"{value} is not a finite number", param, ctx)
        return found


def with_options(command: Command, options: Sequence[Callable[[Command], Command]]) -> Command:
    """A command with options, or groups of them, which ``--help`` lists in this order."""
    return functools.reduce(lambda done, option: option(done), reversed(options), command)


def config_options(command: Command) -> Command:
    """``--config`` and ``--store``."""
    options = [
        click.option(
            "--config",
            "config_file",
            type=click.Path(path_type=Path),
            help="Configuration file. Default: the nearest aupipe.toml in this folder or above.",
        ),
        click.option("--store", type=click.Path(path_type=Path), help="Feature store. Default: [store] path."),
    ]
    return with_options(command, options)


def device_options(command: Command) -> Command:
    """``--gpu`` and ``--cpu``."""
    options = [
        click.option(
            "--gpu",
            metavar="N",
            help="GPU to run on: 0, cuda:0, several as 0,1, or all. Default: the first GPU, else the CPU.",
        ),
        click.option("--cpu", is_flag=True, help="Run on the CPU."),
    ]
    return with_options(command, options)


def interval_options(command: Command) -> Command:
    """``--min-duration`` and ``--max-gap``."""
    options = [
        click.option(
            "--min-duration",
            type=FiniteRange(0),
            default=0.0,
            metavar="SECONDS",
            help="Of intervals: leave out shorter ones.",
        ),
        click.option(
            "--max-gap",
            type=FiniteRange(0),
            default=0.0,
            metavar="SECONDS",
            help="Of intervals: join those of a label with at most this gap between them, before --min-duration.",
        ),
    ]
    return with_options(command, options)


def scheduler_options(command: Command) -> Command:
    """``--scheduler``, how long to wait for it, and the files of TLS."""
    options = [
        click.option(
            "--scheduler",
            metavar="ADDRESS|FILE",
            help="Run on the workers of this Dask scheduler: tcp://host:8786, or the file it has written.",
        ),
        click.option(
            "--worker-timeout",
            type=FiniteRange(min=1, max=1e7),
            default=600.0,
            metavar="S",
            show_default=True,
            help="With --scheduler: stop after S seconds without its file, or without a Dask worker that takes part.",
        ),
        click.option("--tls-ca", type=click.Path(path_type=Path), metavar="FILE", help="TLS: the authority's file."),
        click.option("--tls-cert", type=click.Path(path_type=Path), metavar="FILE", help="TLS: the certificate."),
        click.option("--tls-key", type=click.Path(path_type=Path), metavar="FILE", help="TLS: its key."),
    ]
    return with_options(command, options)


def readable_by_option(what: str) -> Callable[[Command], Command]:
    """``--readable-by``."""
    return click.option(
        "--readable-by",
        type=click.Choice(["owner", "group", "all"]),
        help=f"Who may read {what}. Default: [store] readable_by, else you alone.",
    )


def json_option(command: Command) -> Command:
    """``--json``."""
    return click.option("--json", "as_json", is_flag=True, help="JSON on stdout, for scripts.")(command)


def resolve(config_file: Path | None, store: Path | None = None, **overrides: Any) -> Config:
    """The configuration with the options of the command line. Raises UsageError for an unknown backend."""
    from aupipe.store import STORES

    config = load_config(config_file, {"store.path": store} | overrides)
    configure_weights(config.weights)
    backend = config.store.backend
    if backend not in STORES:
        where = config.origin["store.backend"]
        raise UsageError(
            f"store.backend ({where}) is {backend!r}.{nearest(backend, STORES.names())} "
            f"Accepted: {', '.join(STORES.names())}"
        )
    return config


def require_config(config: Config) -> Config:
    """Raises UsageError where there is no `aupipe.toml`, instead of running on defaults."""
    if config.file is None:
        raise UsageError(
            "no aupipe.toml in this folder or above: run `aupipe init` in the folder that holds your videos"
        )
    return config


def existing_store(config: Config, command: str = "") -> Any:
    """The open store of a configuration. Raises NoStoreError (exit code 10), with the command that makes one."""
    from aupipe.store import open_store

    if not config.store.path.exists():
        raise NoStoreError(f"no store at {config.store.path}: `{command or 'aupipe extract'}` creates it")
    opened = open_store(config.store.path)
    _refuse_other_backend(opened, config)
    return opened


def _refuse_other_backend(opened: Store, config: Config) -> None:
    """Raises UsageError where the backend that is asked for is another one than that of the store.

    That of the file is not asked for of a store that is named elsewhere, nor is the default: `aupipe init` writes it.
    """
    by, place = (config.origin.get(f"store.{key}", "default") for key in ("backend", "path"))
    if opened.backend == config.store.backend or by == "default":
        return
    if by == str(config.file) and (place not in ("default", by) or config.store.backend == StoreConfig.backend):
        return
    copy = f"aupipe store migrate NEW --backend {config.store.backend} --store {as_argument(config.store.path)}"
    raise UsageError(
        f'{config.store.path} is a {opened.backend} store, and backend = "{config.store.backend}" ({by}): set '
        f'"{opened.backend}", or `{copy}` makes another'
    )


def open_or_create(config: Config, create: bool) -> Store | None:
    """The store of a configuration; where there is none, a new one if ``create``, else None.

    Raises UsageError where another backend is asked for than the store has (`_refuse_other_backend`).
    """
    from aupipe.store import create_store, open_store
    from aupipe.store.documents import STORE_FILE
    from aupipe.store.permissions import warn_of_mode

    if (config.store.path / STORE_FILE).exists() or (config.store.path.exists() and not create):
        try:
            opened = open_store(config.store.path)
        except NoStoreError:  # its folder is there; another run may be about to create it
            return None
        warn_of_mode(config.store.path, config.store.readable_by)
        _refuse_other_backend(opened, config)
        return opened
    return create_store(config.store.path, config.store.backend, config.store.readable_by) if create else None


def pick_devices(gpu: str | None, cpu: bool) -> list[str]:
    """The devices to run on; a default is printed."""
    from aupipe.extract.executors.devices import choose_devices

    devices = choose_devices(gpu, cpu)
    if gpu is None and not cpu:
        text = "cpu (torch sees no GPU)" if devices == ["cpu"] else devices[0]
        echo(f"aupipe: running on {text}", err=True)
    return devices


def given_command(begin: str, leave_out: Container[str]) -> str:
    """``begin`` with the arguments that the running command was given, but for the options named in ``leave_out``."""
    context = click.get_current_context()
    words: list[str] = []
    arguments: list[str] = []
    for one in context.command.params:
        name, value = one.name or "", context.params.get(one.name or "")
        if name in leave_out or not one.expose_value:
            continue
        if context.get_parameter_source(name) is not ParameterSource.COMMANDLINE:
            continue
        each = value if isinstance(value, tuple) else (value,)
        if isinstance(one, click.Option) and one.is_flag:
            words.append(one.opts[0])
        elif isinstance(one, click.Option):
            words += [word for item in each for word in (one.opts[0], str(item))]
        else:
            arguments += map(str, each)
    if any(word.startswith("-") for word in arguments):  # none of them is an option
        words, arguments = [*words, "--", *arguments], []
    return " ".join([begin, *map(shlex.quote, [*arguments, *words])])


def failure_lines(failures: Iterable[tuple[str, str, str]]) -> list[str]:
    """One line per recording and reason, in their order, with all its features, from (recording, feature, reason)."""
    names_of: dict[tuple[str, str], list[str]] = {}
    for recording, name, reason in failures:
        names_of.setdefault((recording, reason), []).append(name)
    return [f"{recording}  {', '.join(names)}: {reason}" for (recording, reason), names in sorted(names_of.items())]


def damage_lines(damaged: Iterable[ItemRecord]) -> list[str]:
    """One line per damaged recording, from the records of its items: the longest description."""
    longest: dict[str, str] = {}
    for record in damaged:
        name = record.video_id or record.recording
        longest[name] = max(longest.get(name, ""), record.damage, key=len)
    return [f"{name}: {damage}" for name, damage in sorted(longest.items())]


def media_notes(records: Iterable[ItemRecord]) -> dict[str, list[str]]:
    """Video -> what decoding found in its streams that is odd and no damage, from the records of its items."""
    found: dict[str, dict[str, None]] = {}
    for record in records:
        for stream, report in record.media.items():
            for note in report.get("notes", ()):
                found.setdefault(record.video_id or record.recording, {})[f"{stream}: {note}"] = None
    return {name: list(notes) for name, notes in sorted(found.items())}


def split_list(values: tuple[str, ...]) -> list[str]:
    """``-x a,b -x c`` as [a, b, c]."""
    return [part.strip() for value in values for part in value.split(",") if part.strip()]


def is_verbose() -> bool:
    """Whether -v was given."""
    return logging.getLogger("aupipe").isEnabledFor(logging.INFO)


UNITS_S = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def duration(context: click.Context, option: click.Parameter, value: str | None) -> float | None:
    """``90s``, ``30m``, ``1h`` or ``2d`` in seconds; None where the option was not given."""
    if value is None:
        return None
    number, unit = value[:-1], UNITS_S.get(value[-1:])
    if unit is None or not number.isdecimal():
        raise click.BadParameter(f"{value!r}: expected a time such as 90s, 30m, 1h or 2d")
    return int(number) * unit


def share(context: click.Context, option: click.Parameter, value: str | None) -> float:
    """``5%`` or ``0.05`` as 0.05."""
    if value is None:
        return 1.0
    try:
        found = float(value.removesuffix("%")) / (100 if value.endswith("%") else 1)
    except ValueError:
        found = -1.0
    if not 0 <= found <= 1:
        raise click.BadParameter(f"{value!r}: expected a share such as 5% or 0.05")
    return found
