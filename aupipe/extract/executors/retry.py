"""What is tried again when worker processes die or hang, and when that is no video's fault; knows no processes.

A worker that dies takes all its videos in flight with it, and one of them, or none, is the reason. So:

- each of them is tried once more, alone (`Attempt.alone`);
- one that kills again is tried by modality (pictures, sound, words), each part alone: what sound kills costs no visual
  feature, and the reverse;
- a part, or a video with one part only, is to be failed by name when it has killed twice alone: once may be the
  system's or somebody's doing (no memory left, `kill`);
- a video that hangs is known, and is tried by modality at once;
- workers that keep dying on different videos, while nothing succeeds, stop the run, and no video is failed. For that
  what is given up waits (`held`) until a video succeeds, or nothing is left to try.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from aupipe.errors import AupipeError
from aupipe.extract.executors import Attempt
from aupipe.extract.planning.plan import Job
from aupipe.store import ItemRecord

BREAK_AFTER = 3  # deaths in a row, nothing having succeeded between them
PICTURES = ("clock", "detections", "faces", "visual")  # modalities that come and go together


@dataclass(frozen=True)
class GivenUp:
    """What is to be said of the items of an attempt that were not published."""

    attempt: Attempt
    reason: str


@dataclass
class RetryPolicy:
    """The attempts still to be made because of deaths and hangs, and those given up."""

    suspects: deque[Attempt] = field(default_factory=deque)
    held: list[GivenUp] = field(default_factory=list)
    settled: list[GivenUp] = field(default_factory=list)
    published: dict[str, dict[tuple[str, str], ItemRecord]] = field(default_factory=dict)  # by video, while it is open
    _deaths: int = 0  # of workers with several jobs, since the last success
    # Modality -> videos that killed alone, or hung, since its last success.
    _failed_alone: dict[str, list[str]] = field(default_factory=dict)
    _from_back: bool = False

    def note_published(self, record: ItemRecord) -> None:
        """An item that need not be made again."""
        items = self.published.setdefault(record.video_id or record.recording, {})
        items[record.recording, record.feature] = record

    def note_success(self, attempt: Attempt) -> None:
        """A video came through: deaths until now, in the modalities it came through in, were those videos' own.

        Sound that succeeds says nothing of a network for pictures that kills every process.
        """
        published = self.published.get(attempt.job.video_id, {})
        items = [item for item in attempt.job.items if item.requested]
        came = {item.spec.modality for item in items if (item.key, item.spec.id) in published}
        if came == requested(attempt.job):
            self._deaths = 0
        for modality in came:
            self._failed_alone.pop(modality, None)
        self.settled += [each for each in self.held if requested(each.attempt.job) <= came]
        self.held = [each for each in self.held if not requested(each.attempt.job) <= came]

    def settle(self) -> None:
        """Nothing more will be learned: what is held is so."""
        self.settled += self.held
        self.held = []

    def note_death(self, attempts: Sequence[Attempt], reason: str) -> None:
        """A worker died with these in flight. Raises AupipeError when no video is the reason of that."""
        if len(attempts) == 1 and attempts[0].alone:
            self._count(attempts[0], reason)
            if may_be_chance(attempts[0]):
                self.suspects.append(replace(attempts[0], died_alone=True))
                self._from_back = not self._from_back  # its neighbours may be of its kind
            else:
                self._narrow(attempts[0], reason)
            return
        self._deaths += 1
        self.suspects += [replace(attempt, alone=True) for attempt in attempts]
        if self._deaths >= BREAK_AFTER:
            raise _broken(reason, [attempt.job.video_id for attempt in attempts])

    def note_hang(self, attempt: Attempt, reason: str) -> None:
        """This one hangs, and is known by that. Raises AupipeError when too many in a row fail alone."""
        self._count(attempt, reason)
        self._narrow(attempt, reason)

    def _count(self, attempt: Attempt, reason: str) -> None:
        """A failure alone, or a hang, of one video more. Raises AupipeError when they are too many in a row."""
        video = attempt.job.video_id
        for modality in requested(attempt.job):
            failed = self._failed_alone.setdefault(modality, [])
            if video not in failed:
                failed.append(video)
            if len(failed) >= BREAK_AFTER:
                raise _broken(reason, failed)

    def _narrow(self, attempt: Attempt, reason: str) -> None:
        """Try its modalities each alone, or give it up where it has one."""
        parts = by_modality(attempt.job)
        if len(parts) > 1:
            self.suspects.extendleft(Attempt(part, alone=True) for part in reversed(parts))
        else:
            self.held.append(GivenUp(attempt, reason))
            self._from_back = not self._from_back

    def next_suspect(self) -> Attempt:
        """The next suspect, without what has been published of it since; there must be one."""
        first = [attempt for attempt in self.suspects if not attempt.died_alone] or list(self.suspects)
        from_back = self._from_back and len(requested(first[0].job)) == len(requested(first[-1].job))
        attempt = first[-1] if from_back else first[0]  # the parts of one video come first
        self.suspects.remove(attempt)
        return replace(attempt, job=self.without_published(attempt.job))

    def is_open(self, video_id: str) -> bool:
        """Whether anything of a video that is not in flight is still to be tried or said."""
        waiting = [*self.suspects, *(each.attempt for each in (*self.held, *self.settled))]
        return any(attempt.job.video_id == video_id for attempt in waiting)

    def without_published(self, job: Job) -> Job:
        """The job without the items that earlier attempts have published."""
        done = self.published.get(job.video_id, {})
        return replace(job, items=[item for item in job.items if (item.key, item.spec.id) not in done])


def requested(job: Job) -> set[str]:
    """The modalities a job was asked for."""
    return {item.spec.modality for item in job.items if item.requested}


def by_modality(job: Job) -> list[Job]:
    """One job for the pictures, one for the sound, one for the words, as far as those are asked for.

    The clock is in each: whichever comes first makes it, and a part that kills may never have come to it.
    """
    asked = dict.fromkeys(item.spec.modality for item in job.items if item.requested)
    parts = []
    for modality in asked:
        wanted: Iterable[str] = PICTURES if modality == "visual" else ("clock", modality)
        parts.append(replace(job, items=[item for item in job.items if item.spec.modality in wanted]))
    return parts


def may_be_chance(attempt: Attempt) -> bool:
    """Whether the death of a process that had this attempt alone is to be seen once more before it counts."""
    return not attempt.died_alone and len(by_modality(attempt.job)) == 1


def what_comes_next(attempt: Attempt) -> str:
    """What is done about a video whose process died, in words."""
    if not attempt.alone:
        return "it is tried once more, alone, at the end"
    if may_be_chance(attempt):
        return "it is tried alone a last time"
    parts = len(by_modality(attempt.job)) > 1
    return "its pictures, sound and words are tried each alone" if parts else "given up"


def _broken(reason: str, videos: Sequence[str]) -> AupipeError:
    shown = ", ".join(videos[:BREAK_AFTER]) + (f" and {len(videos) - BREAK_AFTER} more" * (len(videos) > BREAK_AFTER))
    return AupipeError(
        f"worker processes keep failing: {reason}; {BREAK_AFTER} times in a row on different videos ({shown}), so the "
        "videos are probably not the reason and none is marked failed: look at memory, GPU, disk and installation, "
        "then run the same command again (if these videos alone do it, take them out)"
    )
