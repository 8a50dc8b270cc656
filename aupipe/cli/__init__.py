"""The command line: options in, one library call, summary out. Only this package prints.

Nothing heavy is imported until a command needs it: ``aupipe --help`` loads no torch.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from types import FrameType
from typing import NoReturn

import click

from aupipe import __version__
from aupipe.cli.ensemble import ensemble
from aupipe.cli.extract import extract
from aupipe.cli.look import inspect, status
from aupipe.cli.project import config, demo, init, plugins
from aupipe.cli.score import evaluate, predict, tune
from aupipe.cli.store import store
from aupipe.cli.train import train
from aupipe.cli.transcribe import transcribe
from aupipe.cli.weights import weights
from aupipe.errors import AupipeError, explain

INTERRUPTED = 130
TERMINATED = 143


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
    aupipe, 12 weights missing, 13 damage found, 130 interrupted, 143 terminated (nothing lost).
    """
    level = [logging.WARNING, logging.INFO, logging.DEBUG][min(verbose, 2)]
    logging.basicConfig(level=level, format="%(levelname)s %(message)s", stream=sys.stderr)
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
    # Said before anything reads them: no network during a run, no chatter of libraries on stderr.
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("OPENCV_LOG_LEVEL", "ERROR")
    signal.signal(signal.SIGTERM, _terminated)
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # names that are no UTF-8
    try:
        code = cli.main(prog_name="aupipe", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except AupipeError as error:
        click.echo(f"aupipe: {error}", err=True)
        code = error.exit_code
    except (KeyboardInterrupt, click.Abort):
        click.echo("\naupipe: interrupted; what was published stays, run the same command to go on", err=True)
        code = INTERRUPTED
    except BrokenPipeError:
        code = 0  # somebody read the first lines and went away
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  # so that the interpreter's last flush says nothing
    except OSError as error:
        click.echo(f"aupipe: {explain(error) or error}", err=True)
        code = 1
    sys.exit(code if isinstance(code, int) else 0)


def _terminated(signum: int, frame: FrameType | None) -> None:
    click.echo("\naupipe: terminated; what was published stays, run the same command to go on", err=True)
    sys.exit(TERMINATED)
