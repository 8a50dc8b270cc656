"""The log of a training, a file in the folder of its run; its lines are also what is printed while it works."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from aupipe.cli.output import echo
from aupipe.cli.signals import say_how_to_continue
from aupipe.cli.train_request import TrainRequest
from aupipe.errors import AupipeError
from aupipe.files import as_argument
from aupipe.train.folder_lock import REQUEST_FILE

if TYPE_CHECKING:
    from aupipe.cli.data import Data
    from aupipe.config import Config


@contextmanager
def training_log(
    out: Path,
    config: Config,
    request: TrainRequest,
    data: Data,
    flagged: Mapping[str, Sequence[str]],
    device: str,
) -> Iterator[Callable[[str], None]]:
    """A log in the folder of a run. What is given to the function is printed on stderr, and is a line of the log.

    ``flagged``: recording -> its faults by the last `aupipe check`.
    """
    from aupipe.extract.executors.extraction_log import about_this_process
    from aupipe.store.run_log import RunLog, log_name

    about = {
        "command": "train",
        "where": device,
        "configuration": config.digest,
        "recipe": request.recipe["name"],
        "task": request.task,
        "seeds": list(request.seeds),
        "features": sorted(data.features.values()),
        "recordings": {"train": len(data.train), "validation": len(data.validation)},
        "damaged": data.damaged,
        "flagged": dict(flagged),
        **about_this_process(),
    }
    with RunLog(str(out / log_name()), **about) as log:

        def tell(line: str) -> None:
            echo(line, err=True)
            log.write("epoch", text=line)

        yield tell


@contextmanager
def unfinished(out: Path, fresh: bool, is_new: bool) -> Iterator[None]:
    """Inside, a training writes ``out``: an interrupt says how to continue, an error before a new one's first epoch
    leaves nothing of it."""
    try:
        yield
    except (AupipeError, OSError):
        if is_new:
            remove_untrained(out, fresh)
        raise
    except KeyboardInterrupt:
        say_how_to_continue(f"to continue: aupipe train --resume {as_argument(out)}")
        raise


def remove_untrained(out: Path, fresh: bool) -> None:
    """Empty the folder of a run in which nothing was trained, and remove it if it is ``fresh``."""
    left = list(out.iterdir())
    if all(item.name == REQUEST_FILE or item.suffix == ".jsonl" for item in left):
        for item in left:
            item.unlink()
        if fresh:
            out.rmdir()
