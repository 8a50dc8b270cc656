"""How much of the media of a run is done, and how long the rest takes, also while a long video is under way.

Every video goes through one to three phases (`aupipe.extract.meter.PHASES`). What a second of media costs in each of
them is measured while the run goes on. How long a video is is known when it is opened; until then it is taken to have
as many seconds a byte as those that are known.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from aupipe.extract.executors.driver import size_of
from aupipe.extract.meter import PHASES, PhasePosition, PhaseTotals
from aupipe.extract.planning.plan import Job, Plan


@dataclass(frozen=True)
class JobMedia:
    """What a run has to do of one video. ``size_bytes``: of its file; 1 where it has none."""

    size_bytes: int = 1
    phases: tuple[str, ...] = PHASES


def job_media(plan: Plan) -> dict[str, JobMedia]:
    """What is to be done of each video of a plan."""
    return {job.video_id: JobMedia(max(1, size_of(job)), phases_of(job)) for job in plan.jobs}


def phases_of(job: Job) -> tuple[str, ...]:
    """The phases a job goes through, by what is missing."""
    missing = {item.spec.modality for item in job.items}
    is_in = {"scan": {"clock", "detections"}, "encode": {"visual"}, "sound": {"audio", "text"}}
    return tuple(phase for phase in PHASES if missing & is_in[phase])


@dataclass(frozen=True)
class MediaState:
    """Where a run stands.

    ``done_s`` of ``total_s`` seconds of media, where a phase of a video counts by what it costs. ``left_s``: how long
    the rest takes; ``is_least``: at least, as a phase is still to come that was never measured, and counts as nothing
    (said until the first video has ended). None where nothing is known yet. ``under_way``: videos, and the share of
    each that is done.
    """

    done_s: float = 0.0
    total_s: float | None = None
    left_s: float | None = None
    is_least: bool = False
    under_way: tuple[tuple[str, float], ...] = ()

    @property
    def share(self) -> float:
        """Of the media, from 0 to 1."""
        return min(1.0, self.done_s / self.total_s) if self.total_s else 0.0


@dataclass
class MediaProgress:
    """What has ended, and what is left.

    ``costs``: phase -> seconds of work for a second of media, as an earlier run has measured.
    """

    videos: Mapping[str, JobMedia]
    costs: Mapping[str, float] = field(default_factory=dict)
    ended_s: float = 0.0  # media of the videos that have ended
    _ended: set[str] = field(default_factory=set)
    _ended_bytes: int = 0  # of those that could be read
    _done_s: dict[str, float] = field(default_factory=dict)  # phase -> media
    _left_bytes: dict[str, int] = field(default_factory=dict)  # phase -> of videos that have not ended; "": of any

    def __post_init__(self) -> None:
        for job in self.videos.values():
            for phase in ("", *job.phases):
                self._left_bytes[phase] = self._left_bytes.get(phase, 0) + job.size_bytes

    def end(self, video: str, media_s: float) -> None:
        """A video has ended. ``media_s``: its length, 0 where nothing of it could be read."""
        job = self.videos.get(video)
        if job is None or video in self._ended:
            return
        self._ended.add(video)
        self.ended_s += media_s
        self._ended_bytes += job.size_bytes if media_s else 0
        for phase in ("", *job.phases):
            self._left_bytes[phase] -= job.size_bytes
            self._done_s[phase] = self._done_s.get(phase, 0.0) + media_s

    def state(
        self, positions: Iterable[PhasePosition], totals: Mapping[str, PhaseTotals], working_s: float
    ) -> MediaState:
        """Where the run stands. ``totals``: of all processes; ``working_s``: since the first phase began."""
        opened: dict[str, dict[str, PhasePosition]] = {}
        for one in positions:
            if one.video in self.videos and one.video not in self._ended:
                opened.setdefault(one.video, {})[one.phase] = one
        lengths = {video: max(one.length_s for one in phases.values()) for video, phases in opened.items()}
        known_s = self.ended_s + sum(lengths.values())
        known_bytes = self._ended_bytes + sum(self.videos[video].size_bytes for video, s in lengths.items() if s)
        per_byte_s = known_s / known_bytes if known_bytes else 0.0
        measured = {name: one.seconds / one.media_s for name, one in totals.items() if one.media_s > 0}
        costs = {**dict.fromkeys(PHASES, 0.0), **self.costs, **measured}
        done_s = {phase: self._done_s.get(phase, 0.0) for phase in self._left_bytes}
        left_s = {phase: size * per_byte_s for phase, size in self._left_bytes.items()}
        longest, under_way = 0.0, []
        for video, phases in opened.items():
            job, length_s = self.videos[video], lengths[video]
            counted_s = job.size_bytes * per_byte_s if length_s else 0.0
            left_s[""] += length_s - counted_s
            did = rest = 0.0
            for phase in job.phases:
                at_s = min(length_s, phases[phase].done_s) if phase in phases else 0.0
                done_s[phase] += at_s
                left_s[phase] += length_s - at_s - counted_s
                did, rest = did + at_s * costs[phase], rest + (length_s - at_s) * costs[phase]
            longest = max(longest, rest)
            under_way.append((video, did / (did + rest) if did else 0.0))
        if not known_bytes:
            return MediaState(under_way=tuple(under_way))
        did = sum(done_s[phase] * cost for phase, cost in costs.items() if phase in done_s)
        rest = sum(left_s[phase] * cost for phase, cost in costs.items() if phase in left_s)
        total_s = self.ended_s + left_s[""]
        at_once = sum(one.seconds for one in totals.values()) / max(working_s, 1e-9)
        return MediaState(
            total_s * did / (did + rest) if did else 0.0,
            total_s,
            max(longest, rest / at_once) if measured and at_once else None,
            not self._ended_bytes and any(left_s.get(phase) and not cost for phase, cost in costs.items()),
            tuple(sorted(under_way, key=lambda pair: -pair[1])),
        )
