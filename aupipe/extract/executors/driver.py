"""The one loop that runs a plan, whatever the executor: largest jobs first, suspects alone, failures by name."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from aupipe.errors import RecordingError
from aupipe.extract.engine.events import ItemPublished
from aupipe.extract.engine.results import JobResult
from aupipe.extract.executors import (
    Attempt,
    Executor,
    ExecutorEvent,
    JobEnded,
    JobHangs,
    JobReturned,
    WorkerDied,
)
from aupipe.extract.executors.claims import Claims, NoClaims
from aupipe.extract.executors.retry import RetryPolicy, what_comes_next
from aupipe.extract.planning.features import FeatureSet
from aupipe.extract.planning.plan import Job, Plan, make_plan, source_paths
from aupipe.sources import source_identity
from aupipe.store import Store

log = logging.getLogger(__name__)
NO_CLAIMS = NoClaims()


def extract(
    plan: Plan,
    store: Store,
    executor: Executor,
    *,
    halted: Callable[[], bool] = lambda: False,
    on_event: Callable[[ExecutorEvent], None] = lambda event: None,
    claims: Claims = NO_CLAIMS,
) -> Generator[JobResult, None, None]:
    """Run a plan's jobs, yielding what came of each video when that is known.

    A recording that fails, fails alone; whatever is published stays published. What is done about processes that die
    and videos that hang stands in `aupipe.extract.executors.retry`. Once ``halted`` says yes no more jobs are handed
    out, and those under way end. When the caller stops iterating, the executor's processes are killed, and what they
    were writing is as it was before. ``on_event`` is called with everything the executor reports. With ``claims``,
    other runs over the same store make some of the videos; nothing is yielded of those.

    Raises AupipeError for what no recording is the reason of: a full disk, missing weights, workers that cannot start
    or keep dying; UsageError where the plan would replace what is stored of other files, OSError when the store cannot
    be written, before any work.
    """
    plan.refuse_others()
    store.check_writable()
    policy = RetryPolicy()
    jobs, elsewhere = deque(largest_first(plan.jobs)), list[Attempt]()
    videos = {job.video_id: _Video(JobResult(job.video_id)) for job in plan.jobs}
    try:
        while True:
            if not halted():
                while jobs and executor.has_slot(jobs[0].size_bytes):
                    attempt = jobs.popleft()
                    if claims.take(attempt.job.video_id):
                        executor.assign(attempt)
                    else:
                        elsewhere.append(attempt)
                if elsewhere and not (jobs or policy.suspects or executor.busy):
                    inherited, elsewhere = claims.inherit(elsewhere)
                    jobs.extend(inherited)
                    if inherited:
                        continue
                while not jobs and policy.suspects and executor.has_slot(alone=True):
                    suspect = policy.next_suspect()
                    if any(item.requested for item in suspect.job.items):
                        executor.assign(suspect)
                    else:  # another attempt has published all of it
                        yield from videos[suspect.job.video_id].add(JobResult(suspect.job.video_id), policy)
            if not executor.busy and (halted() or not (jobs or policy.suspects)):
                break
            for event in executor.poll():
                on_event(event)
                match event:
                    case ItemPublished(record):
                        policy.note_published(record)
                    case JobEnded(attempt, result):
                        policy.note_success(attempt)
                        yield from videos[attempt.job.video_id].add(result, policy)
                    case JobHangs(attempt, reason):
                        log.warning("%s: %s; the others go on", attempt.job.video_id, reason)
                        policy.note_hang(attempt, reason)
                    case WorkerDied(attempts, reason):
                        for attempt in attempts:
                            log.warning("%s: %s; %s", attempt.job.video_id, reason, what_comes_next(attempt))
                        policy.note_death(attempts, reason)
                    case JobReturned(attempt) if attempt.alone:
                        policy.suspects.appendleft(attempt)
                    case JobReturned(attempt):
                        jobs.appendleft(replace(attempt, job=policy.without_published(attempt.job)))
            yield from _failed(policy, store, videos)
        policy.settle()
        yield from _failed(policy, store, videos)
        for event in executor.shutdown():
            on_event(event)
    finally:
        executor.kill_all()


def largest_first(jobs: Sequence[Job]) -> list[Attempt]:
    """By the bytes of their videos, so that at the end of a run no core waits for a long one; equals stay in order."""
    attempts = [Attempt(job, size_bytes=size_of(job)) for job in jobs]
    return sorted(attempts, key=lambda attempt: attempt.size_bytes, reverse=True)


def still_to_do(store: Store, features: FeatureSet, retry_failed: bool, attempts: Sequence[Attempt]) -> list[Attempt]:
    """Those of some jobs that other runs over the store have not done meanwhile."""
    store.refresh()
    recordings = [recording for attempt in attempts for recording in attempt.job.recordings]
    return largest_first(make_plan(recordings, features, store, retry_failed=retry_failed).jobs)


def size_of(job: Job) -> int:
    """Bytes of a job's video; 0 for images, for work without a video, and for one that cannot be read: it will fail."""
    video = job.recordings[0].video if job.recordings else None
    try:
        return video.stat().st_size if video is not None else 0
    except OSError:
        return 0


@dataclass
class _Video:
    """What came of a video until now; it may be tried several times, and in parts."""

    result: JobResult

    def add(self, result: JobResult, policy: RetryPolicy) -> Iterator[JobResult]:
        """Take in what came of one attempt; yields what came of the whole video when that is known."""
        self.result = self.result + result
        if not policy.is_open(self.result.video_id):
            records = policy.published.pop(self.result.video_id, {})  # those of attempts that ended badly, too
            yield replace(self.result, published=list(records.values()))


def _failed(policy: RetryPolicy, store: Store, videos: Mapping[str, _Video]) -> Iterator[JobResult]:
    """The results of attempts that are given up: what was published counts, the rest is failed by name."""
    while policy.settled:
        given_up = policy.settled.pop(0)
        job = policy.without_published(given_up.attempt.job)
        result = JobResult(job.video_id)
        for item in job.items:
            if item.requested:
                recording = next(r for r in job.recordings if r.key_for(item.spec.modality) == item.key)
                try:
                    source = source_identity(*source_paths(recording, item.spec.modality))
                except RecordingError:  # gone since; whatever comes in its place is another source
                    source = None
                result.failed.append(store.fail(item.key, item.spec, f"{item.key}: {given_up.reason}", source=source))
        yield from videos[job.video_id].add(result, policy)
