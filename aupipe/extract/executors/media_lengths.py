"""How long videos are, by their headers, before anything is decoded. A plan shows it; rows are never counted by it.

Headers are read in child processes: a broken file that crashes FFmpeg ends a child alone, and counts as unreadable.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import NamedTuple

from aupipe.child_process import parent_connection, start_child
from aupipe.errors import RecordingError
from aupipe.extract.executors.devices import available_cores
from aupipe.extract.executors.messages import environment_of
from aupipe.types import Recording

EACH = 50  # recordings for which another child is worth starting
MOST = 4  # children
WAIT_S = 30.0  # for one header, and for a child to start


class MediaLength(NamedTuple):
    """Seconds and frames that a header states, or that a folder of images has. ``silent``: a video without sound."""

    seconds: float
    frames: int
    silent: bool = False


def media_lengths(recordings: Sequence[Recording]) -> dict[str, MediaLength | None]:
    """Video id -> its length; None where it cannot be read, or does not say."""
    children = max(1, min(MOST, available_cores(), len(recordings) // EACH))
    with ThreadPoolExecutor(children) as pool:
        parts = pool.map(_ask, (recordings[first::children] for first in range(children)))
        return {recording.video_id: found for part in parts for recording, found in part}


def _ask(recordings: Sequence[Recording]) -> list[tuple[Recording, MediaLength | None]]:
    """The length of each recording, in their order. Where a child dies or hangs, another one reads on."""
    found: list[tuple[Recording, MediaLength | None]] = []
    while len(found) < len(recordings):
        process, connection = start_child("aupipe.extract.executors.media_lengths", environment_of())
        try:
            for recording in recordings[len(found) :]:
                answer = None
                with suppress(OSError, EOFError):
                    connection.send(recording)
                    if connection.poll(WAIT_S):
                        answer = connection.recv()
                        found.append((recording, None if answer == () else MediaLength(*answer)))
                if answer is None:
                    found.append((recording, None))
                    break
        finally:
            process.kill()
            process.wait()
            connection.close()
    return found


def read_length(recording: Recording) -> MediaLength | None:
    """The length of a recording by its header. Raises RecordingError for a file that cannot be opened."""
    from aupipe.extract.media.container import open_media
    from aupipe.extract.media.images import image_length
    from aupipe.extract.media.streams import pick_stream, stated_length_s

    if recording.video is None:
        if recording.images is None or not recording.fps:
            return None
        frames = image_length(recording.images)
        return MediaLength(frames / recording.fps, frames)
    with open_media(recording.video) as container:
        stream = pick_stream(container, recording.video, "video", recording.streams.video)
        if stream is None or not (seconds := stated_length_s(container, stream)):
            return None
        rate = float(stream.average_rate or 0)
        return MediaLength(seconds, stream.frames or round(seconds * rate), not container.streams.audio)


def main() -> None:
    """Entry point of a child."""
    connection = parent_connection()
    with suppress(EOFError, OSError):  # the other side is gone
        while True:
            try:
                found = read_length(connection.recv())
            except RecordingError:
                found = None
            connection.send(tuple(found or ()))


if __name__ == "__main__":
    main()
