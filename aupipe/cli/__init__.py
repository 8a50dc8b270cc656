"""The command line: each command reads its options, calls the library and prints a summary.

Only this package prints. Heavy libraries are imported by the command that needs them: ``aupipe --help`` loads no torch.
"""

from __future__ import annotations

import logging
import os
import sys
from typing import NoReturn

import click

from aupipe import __version__
from aupipe.cli.analyse import analyse
from aupipe.cli.check import check
from aupipe.cli.cluster import cluster
from aupipe.cli.doctor import doctor
from aupipe.cli.ensemble import ensemble
from aupipe.cli.extract import extract
from aupipe.cli.imports import import_features
from aupipe.cli.inspect import inspect
from aupipe.cli.look import overlay, preview
from aupipe.cli.output import close_streams, echo, echo_error, echo_traceback, open_streams
from aupipe.cli.predict import predict
from aupipe.cli.project import config, demo, init, plugins
from aupipe.cli.recipes import recipes
from aupipe.cli.report import report
from aupipe.cli.reproduce import reproduce
from aupipe.cli.runs import runs
from aupipe.cli.score import evaluate
from aupipe.cli.signals import catch_signals, exit_now, release_signals, was_signalled
from aupipe.cli.status import status
from aupipe.cli.store import store
from aupipe.cli.train import train
from aupipe.cli.transcribe import transcribe
from aupipe.cli.tune import tune
from aupipe.cli.weights import weights
from aupipe.errors import AupipeError, WeightsMissingError, explain
from aupipe.logs import log_to_stderr


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, "-V", "--version", prog_name="aupipe")
@click.option("-v", "--verbose", count=True, help="Log more to stderr; given twice, log everything.")
def cli(verbose: int) -> None:
    """Extract audio-visual features for facial behaviour into a store, and train on them.

    \b
    Start in the folder that holds your videos:
      aupipe init                                  writes aupipe.toml
      aupipe extract --modality visual --gpu 0     resumes by default
      aupipe extract --modality audio
      aupipe status
      aupipe train --recipe tcn --task au
      aupipe predict RUN --format abaw

    \b
    Exit codes: 0 all done, 1 internal error, 2 usage error, 3 some recordings failed, 10 no store,
    11 store written by a newer aupipe, 12 weights missing, 13 damage found, 14 faults found by
    check --strict, 15 another process works on the store, 130 interrupted, 143 terminated by SIGTERM,
    SIGHUP, SIGUSR1 or SIGUSR2. After 130 and 143, published items stay stored.
    """
    log_to_stderr(logging.WARNING)
    _log(verbose)


def _log(verbose: int) -> None:
    level = [logging.WARNING, logging.INFO, logging.DEBUG][min(verbose, 2)]
    for name in ("", "aupipe"):
        logging.getLogger(name).setLevel(level)
    logging.getLogger("libav").setLevel(logging.CRITICAL if verbose < 2 else logging.DEBUG)


def _log_more(context: click.Context, option: click.Parameter, verbose: int) -> None:
    """-v behind the name of a command."""
    if verbose:
        _log(verbose + context.find_root().params["verbose"])


COMMANDS = (
    init,
    config,
    extract,
    analyse,
    import_features,
    transcribe,
    status,
    inspect,
    check,
    preview,
    overlay,
    store,
    recipes,
    train,
    runs,
    predict,
    evaluate,
    tune,
    ensemble,
    report,
    reproduce,
    cluster,
    weights,
    demo,
    plugins,
    doctor,
)


def _take_verbose(command: click.Command) -> None:
    """Let a command and those below it take -v too: people write it at the end."""
    names = ["-v", "--verbose"]
    command.params.append(click.Option(names, count=True, hidden=True, expose_value=False, callback=_log_more))
    for below in getattr(command, "commands", {}).values():
        _take_verbose(below)


for command in COMMANDS:
    cli.add_command(command)
    _take_verbose(command)


def main() -> NoReturn:
    """Entry point of the console script: runs a command and exits with its exit code."""
    open_streams()
    # Set before a library reads them: no network access, no log lines of libraries on stderr.
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("OPENCV_LOG_LEVEL", "ERROR")
    try:
        catch_signals()
        code = _run()
        if was_signalled():  # a library caught the exception that the signal raised
            exit_now()
        release_signals()
    except (KeyboardInterrupt, click.Abort):
        exit_now()
    if (failure := close_streams()) and not code:  # the output is incomplete
        echo_error(f"writing the output: {failure.strerror}")
        code = 1
    sys.exit(code)


def _in_one_line(said: str, error: click.ClickException) -> str:
    """A message of click as those of aupipe are: without the usage, with the command that prints it."""
    said = " ".join((said[:1].lower() + said[1:].removesuffix(".")).split())
    context = error.ctx if isinstance(error, click.UsageError) else None
    return f"{said}: see `{context.command_path} --help`" if context else said


def _run() -> int:
    """Run the command that the arguments name, print its error on stderr, and return the exit code."""
    try:
        code = cli.main(prog_name="aupipe", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except click.ClickException as error:
        said = error.format_message()
        if said.startswith("Usage: "):  # the help of a group that was given no command
            echo(*said.split("\n"), err=True)
        else:
            echo_error(_in_one_line(said, error))
        return error.exit_code
    except WeightsMissingError as error:
        echo_error(*str(error).split("\n"))
        return error.exit_code
    except AupipeError as error:
        echo_error(str(error))
        return error.exit_code
    except OSError as error:
        echo_error(explain(error) or str(error))
        return 1
    except click.Abort:
        if was_signalled():  # click turns an interrupt into Abort
            raise
        echo_error("no answer on stdin: nothing was done")
        return 1
    except Exception as error:
        if was_signalled():  # a library caught the exception of the signal and raised its own
            return 1
        if (explanation := explain(error)) is not None:
            echo_error(explanation)
        else:
            echo_traceback(error)
        return 1
