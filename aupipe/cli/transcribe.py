"""transcribe: recognise the words of videos, for text encoders."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from aupipe.cli.inputs import open_inputs, videos_arguments
from aupipe.cli.options import config_options
from aupipe.cli.output import echo, echo_error
from aupipe.cli.signals import draining, exit_code_of_warning, last_words
from aupipe.cli.work import Place, place_options, run_on_scheduler
from aupipe.config import EncoderConfig, FacesConfig
from aupipe.errors import RecordingError, UsageError
from aupipe.local_models import model_folder
from aupipe.quantities import counted

if TYPE_CHECKING:
    from aupipe.extract.encoders.text.recognize import Transcribed, Transcriber

AGAIN = "then run the same command again: transcripts that are written stay"
DRAINING = "aupipe: finishing the videos under way; once more: stop now (transcripts that are written stay)"


@click.command()
@videos_arguments
@click.option(
    "--model", required=True, help="A Whisper model for transformers: a name in the hub's cache, or a folder."
)
@click.option(
    "--language", default="", help="Language code such as en. Default: multilingual models detect it per segment."
)
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Only the first N videos.")
@place_options
@config_options
def transcribe(
    videos: tuple[Path, ...],
    from_list: Path | None,
    model: str,
    language: str,
    limit: int | None,
    place: Place,
    config_file: Path | None,
    store: Path | None,
) -> int:
    """Recognise the words of every video and write them, with their times, to a .json file next to it.

    Text encoders read that file. Videos that have a transcript, in any format, are skipped.

    VIDEOS: folders and files, to process only these; all of the data set where there are none.

    \b
    Examples:
      aupipe transcribe --model openai/whisper-small --gpu 0
      aupipe transcribe --model openai/whisper-small --gpu all --scheduler scheduler.json
    """
    from aupipe.extract.encoders.text.recognize import Transcriber, Whisper
    from aupipe.extract.media.transcript import find_transcript

    config, opener = open_inputs(config_file, store, videos, from_list)
    files = dict.fromkeys(found.video for found in opener().recordings if found.video)
    refuse_shared_transcripts(files)
    wanted = [video for video in list(files)[:limit] if find_transcript(video) is None]
    if not wanted:
        echo(f"nothing to do: transcripts of {counted(len(files), 'video')} are there")
        return 0
    if place.scheduler is None:
        model_folder(model)  # a model that is not here is said before libraries are loaded
    devices = place.devices()
    transcriber = Transcriber(Whisper(model, language), place.device_of_work(devices), config.dataset.streams)
    failed = ended = 0
    with draining(DRAINING) as halted:
        if place.scheduler is not None:
            results = _on_scheduler(place, transcriber, wanted, halted)
        else:
            here = replace(transcriber, device=devices[0])
            results = ((video, here(video)) for video in wanted if not halted())
        with closing(results):
            for video, found in results:
                ended += 1
                failed += bool(found.failure)
                words = f"{found.words:6d} words  {video.with_suffix('.json')}"
                echo(f"FAILED  {found.failure}" if found.failure else words)
    echo(f"done {ended - failed}   failed {failed}" + f"   not reached {len(wanted) - ended}" * (ended < len(wanted)))
    if code := exit_code_of_warning():
        echo("", last_words(code), err=True)
    return code or (RecordingError.exit_code if failed else 0)


def _on_scheduler(
    place: Place, transcriber: Transcriber, videos: Sequence[Path], halted: Callable[[], bool]
) -> Generator[tuple[Path, Transcribed]]:
    """What comes of videos, as they end, on the machines of a scheduler that have the model and see the videos."""
    from aupipe.extract.encoders.text.recognize import Transcribed
    from aupipe.extract.executors.work import Died
    from aupipe.extract.faces.tracking import TrackParams
    from aupipe.extract.planning.features import FeatureSet

    parts: Any = ((EncoderConfig("whisper", "whisper", "text"), transcriber.model),)
    needed = FeatureSet(None, TrackParams(), FacesConfig(), parts)
    by_path = {video.absolute(): video for video in videos}
    asked: dict[str, Any] = {"features": needed, "again": AGAIN, "tell": echo_error, "halted": halted}
    running = run_on_scheduler(place, transcriber, list(by_path), video_of=lambda video: video, **asked)
    with closing(running) as results:
        for path, found in results:
            if isinstance(found, Died):
                found = Transcribed(failure=f"{by_path[path]}: {found.reason}, twice")
            yield by_path[path], found


def refuse_shared_transcripts(videos: Iterable[Path]) -> None:
    """Raises UsageError where two videos without a transcript would get the same file."""
    from aupipe.extract.media.transcript import find_transcript

    taken: dict[Path, Path] = {}
    for video in videos:
        if find_transcript(video) is not None:
            continue
        first = taken.setdefault(video.with_suffix(""), video)
        if first != video:
            raise UsageError(
                f"{first} and {video.name} would share the transcript {video.stem}.json: rename one of them"
            )
