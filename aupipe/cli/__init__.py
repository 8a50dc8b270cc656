"""The command line: options in, one library call, summary out. Only this package prints.

Nothing heavy is imported until a command needs it: ``aupipe --help`` loads no torch.
"""

from __future__ import annotations

import io
import logging
import os
import sys
from typing import NoReturn

import click

from aupipe import __version__
from aupipe.cli.ends import asked_to_end, catch_signals, end_now, release_signals
from aupipe.cli.ensemble import ensemble
from aupipe.cli.extract import extract
from aupipe.cli.look import inspect, status
from aupipe.cli.output import close_streams, echo, echo_error, echo_traceback, open_streams
from aupipe.cli.project import config, demo, init, plugins
from aupipe.cli.score import evaluate, predict, tune
from aupipe.cli.store import store
from aupipe.cli.train import train
from aupipe.cli.transcribe import transcribe
from aupipe.cli.weights import weights
from aupipe.errors import AupipeError, explain
from aupipe.logs import log_to_stderr


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, "-V", "--version", prog_name="aupipe")
@click.option("-v", "--verbose", count=True, help="More of what happens, on stderr; twice for everything.")
def cli(verbose: int) -> None:
    """Audio-visual features for facial behaviour: extracted once, stored, trained on many times.

    \b
    Begin in the folder that holds your videos:
      aupipe init                                  writes aupipe.toml
      aupipe extract --modality visual --gpu 0     resumes by default
      aupipe extract --modality audio
      aupipe status
      aupipe train --recipe tcn --task au
      aupipe predict RUN --format abaw

    \b
    Exit codes: 0 all done, 1 internal error, 2 usage, 3 some recordings failed, 10 no store, 11 store of a newer
    aupipe, 12 weights missing, 13 damage found, 130 interrupted, 143 terminated by SIGTERM,
    SIGHUP, SIGUSR1 or SIGUSR2 (nothing lost).
    """
    level = [logging.WARNING, logging.INFO, logging.DEBUG][min(verbose, 2)]
    log_to_stderr(level)
    logging.getLogger("aupipe").setLevel(level)
    logging.getLogger("libav").setLevel(logging.CRITICAL if verbose < 2 else logging.DEBUG)


COMMANDS = (
    init,
    config,
    extract,
    transcribe,
    status,
    inspect,
    store,
    train,
    predict,
    evaluate,
    tune,
    ensemble,
    weights,
    demo,
    plugins,
)
for command in COMMANDS:
    cli.add_command(command)


def main() -> NoReturn:
    """Entry point of the console script: runs a command and ends the process with its exit code."""
    open_streams()
    # Said before anything reads them: no network during a run, no chatter of libraries on stderr.
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("OPENCV_LOG_LEVEL", "ERROR")
    try:
        catch_signals()
        code = _run()
        if asked_to_end():  # what the signal raised was lost on its way
            end_now()
        release_signals()
    except (KeyboardInterrupt, click.Abort):
        end_now()
    if (failure := close_streams()) and not code:  # what was asked for is not all there
        echo_error(f"writing the output: {failure.strerror}")
        code = 1
    sys.exit(code)


def _run() -> int:
    """Run the command the arguments name; what went wrong is said on stderr. The exit code."""
    try:
        code = cli.main(prog_name="aupipe", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except click.ClickException as error:
        said = io.StringIO()
        error.show(said)
        echo(*said.getvalue().rstrip("\n").split("\n"), err=True)
        return error.exit_code
    except AupipeError as error:
        echo_error(str(error))
        return error.exit_code
    except OSError as error:
        echo_error(explain(error) or str(error))
        return 1
    except click.Abort:
        if asked_to_end():  # so click calls an interrupt
            raise
        echo_error("nobody answered, and nothing was done")
        return 1
    except Exception as error:
        if asked_to_end():  # a library took the signal for an error of its own
            return 1
        if (foreseen := explain(error)) is not None:
            echo_error(foreseen)
        else:
            echo_traceback(error)
        return 1
