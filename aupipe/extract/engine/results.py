"""What came of one job, and how an error becomes the failure of some items."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

from aupipe.errors import AupipeError, DamageError, RecordingError, is_exhausted, named
from aupipe.store import ItemRecord

log = logging.getLogger(__name__)


@dataclass
class JobResult:
    """What came of one job: records published and failed, warnings.

    ``published`` is empty where the records have travelled before, as `ItemPublished` events.
    """

    video_id: str
    frames: int = 0
    media_s: float = 0.0  # from the first frame to the last
    faces: dict[str, int] = field(default_factory=dict)  # recording -> frames with the subject's face
    published: list[ItemRecord] = field(default_factory=list)
    failed: list[ItemRecord] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def __add__(self, other: JobResult) -> JobResult:
        """What came of two attempts at one video, one after the other."""
        return JobResult(
            self.video_id,
            max(self.frames, other.frames),
            max(self.media_s, other.media_s),
            self.faces | other.faces,
            self.published + other.published,
            self.failed + other.failed,
            list(dict.fromkeys(self.notes + other.notes)),
            self.seconds + other.seconds,
        )


class SourceChangedError(RecordingError):
    """A source is not the file it was when the run was planned, or when this job began; the next run tries again."""


def is_of_the_recording(error: BaseException) -> bool:
    """False for what no recording is the reason of: a full disk, missing weights, too little memory."""
    if isinstance(error, RecordingError | DamageError):
        return True
    return isinstance(error, Exception) and not isinstance(error, AupipeError | OSError) and not is_exhausted(error)


def describe(error: BaseException) -> str:
    """One line for the user: the stage and the reason; an error nobody foresaw is logged whole."""
    if isinstance(error, AupipeError):
        words = " ".join(str(error).split())
    else:
        log.info("unforeseen error", exc_info=error)
        words = named(error)
    stage = getattr(error, "stage", "")
    return f"{stage}: {words}" if stage else words
