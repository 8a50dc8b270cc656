"""transcribe: recognise the words of videos, for text encoders."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import click

from aupipe.cli.inputs import open_inputs, videos_arguments
from aupipe.cli.options import config_options, device_options, pick_devices
from aupipe.cli.output import echo
from aupipe.errors import RecordingError, UsageError
from aupipe.quantities import counted


@click.command()
@videos_arguments
@click.option(
    "--model", required=True, help="A Whisper model for transformers: a name in the hub's cache, or a folder."
)
@click.option(
    "--language", default="", help="Language code such as en. Default: multilingual models detect it per segment."
)
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Only the first N videos.")
@device_options
@config_options
def transcribe(
    videos: tuple[Path, ...],
    from_list: Path | None,
    model: str,
    language: str,
    limit: int | None,
    gpu: str | None,
    cpu: bool,
    config_file: Path | None,
    store: Path | None,
) -> int:
    """Recognise the words of every video and write them, with their times, to a .json file next to it.

    Text encoders read that file. Videos that have a transcript, in any format, are skipped.

    VIDEOS: folders and files, to process only these; all of the data set where there are none.

    \b
    Example:
      aupipe transcribe --model openai/whisper-small --gpu 0
    """
    from aupipe.extract.encoders.text.recognize import Whisper
    from aupipe.extract.encoders.text.recognize import transcribe as write_words
    from aupipe.extract.media.transcript import find_transcript

    config, opener = open_inputs(config_file, store, videos, from_list)
    files = dict.fromkeys(found.video for found in opener().recordings if found.video)
    refuse_shared_transcripts(files)
    wanted = [video for video in list(files)[:limit] if find_transcript(video) is None]
    if not wanted:
        echo(f"nothing to do: transcripts of {counted(len(files), 'video')} are there")
        return 0
    device = pick_devices(gpu, cpu)[0]
    recognize = Whisper(model, language).load(device)
    failed = 0
    for video in wanted:
        try:
            found = write_words(video, video.with_suffix(".json"), recognize, config.dataset.streams)
        except (RecordingError, UsageError) as error:  # UsageError: another process has written a transcript meanwhile
            failed += 1
            echo(f"FAILED  {error}")
        else:
            echo(f"{len(found):6d} words  {video.with_suffix('.json')}")
    echo(f"done {len(wanted) - failed}   failed {failed}")
    return RecordingError.exit_code if failed else 0


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
