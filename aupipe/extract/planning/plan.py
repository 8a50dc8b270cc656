"""Which (recording, feature) items are missing, stale or failed, and why; nothing is decoded and no torch is loaded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

from aupipe.errors import UsageError
from aupipe.extract.media.transcript import find_transcript
from aupipe.extract.planning.features import FeatureGraph, FeatureSet
from aupipe.gc_pause import gc_paused
from aupipe.sources import source_changed, source_folder
from aupipe.store import ItemState, Store
from aupipe.types import FeatureSpec, Modality, Recording, SourceIdentity

State = Literal["done", "new", "spec changed", "source changed", "other file", "failed before", "forced"]

Looked = list[tuple[tuple[Path, ...], SourceIdentity, bool]]  # files of a job, an identity they had: is it another?


class Item(NamedTuple):
    """One (recording, feature) of a plan and what is to happen to it; a tuple, because there may be a million."""

    key: str  # the id it is stored under: the recording's, or the video's for what siblings share
    spec: FeatureSpec
    state: State
    reason: str = ""  # of an earlier failure

    @property
    def requested(self) -> bool:
        """False for the clock and the faces, which are made because something else needs them."""
        return self.spec.modality in ("visual", "audio", "text")

    @property
    def todo(self) -> bool:
        return self.state in ("new", "spec changed", "source changed", "forced")


_new_item = partial(tuple.__new__, Item)  # half the time of the class's own: nearly all items of a plan are done


@dataclass
class Job:
    """Everything that is to be made from one video (or image folder): decoded together, published item by item."""

    video_id: str
    recordings: list[Recording]
    items: list[Item] = field(default_factory=list)

    def wants(self, spec: FeatureSpec | None, key: str) -> bool:
        """True when this item is to be made."""
        return spec is not None and any(item.key == key and item.spec.id == spec.id for item in self.items)


@dataclass(frozen=True)
class Plan:
    """Requested items with their states, and the jobs that make the missing ones."""

    parts: FeatureSet
    items: tuple[Item, ...]  # of requested features, done ones included
    jobs: tuple[Job, ...]
    others: tuple[Item, ...] = ()  # what is stored under these ids is of other files

    def refuse_others(self) -> None:
        """Raises UsageError where carrying the plan out would replace what is stored of another file."""
        if not self.others:
            return
        ids = list(dict.fromkeys(item.key for item in self.others))
        more = f" and {len(ids) - 1} more recordings" if len(ids) > 1 else ""
        raise UsageError(
            f"{ids[0]}{more}: {self.others[0].reason}. Give this one another --store; or, where the data set has moved "
            "and changed, --force"
        )

    @property
    def counts(self) -> Counter[str]:
        return Counter(item.state for item in self.items)


def make_plan(
    recordings: Iterable[Recording],
    parts: FeatureSet,
    store: Store | None,
    *,
    retry_failed: bool = False,
    force: bool = False,
) -> Plan:
    """Compare what is asked for with what the store holds; ``store`` is None where there is none yet.

    An item is done when it was published under exactly this spec and its source is still the same file. An item that
    failed before is left alone until its source or spec changes, or ``retry_failed``. An item that was published from
    another file, in another folder, is left alone too unless ``force`` says that it may be replaced (`Plan.others`).
    """
    stored = _Stored(store, retry_failed, force)
    parts = replace(parts, known=tuple(store.features()) if store else ())
    videos: dict[str, list[Recording]] = {}
    items: list[Item] = []
    jobs: list[Job] = []
    with gc_paused():
        for recording in recordings:
            videos.setdefault(recording.video_id, []).append(recording)
        for video_id, siblings in videos.items():
            job = Job(video_id, siblings)
            items += _plan_job(job, parts, stored)
            if job.items:
                jobs.append(job)
    return Plan(parts, tuple(items), tuple(jobs), tuple(stored.others))


def _plan_job(job: Job, parts: FeatureSet, stored: _Stored) -> list[Item]:
    """The items that are asked for of a job's recordings; those to be made are added to the job, and what they need."""
    found: list[Item] = []
    asked: set[tuple[str, tuple[str, ...]]] = set()
    looked: Looked = []
    for recording in job.recordings:
        graph = parts.graph(recording)
        for group in graph.groups:
            key = recording.key_for(group.modality)
            if (key, group.ids) in asked:  # by a sibling
                continue
            asked.add((key, group.ids))
            known = stored.states(key, group.ids)
            if stored.are_done(known, recording, group.modality, looked):
                found += [_new_item((key, spec, "done", "")) for spec in group.specs]
            else:
                states = zip(group.specs, known, strict=True)
                items = [stored.judge(key, spec, state, recording, looked) for spec, state in states]
                found += items
                job.items += [item for item in items if item.todo]
        if job.items:
            _add_inputs(job, recording, graph, stored, looked)
    return found


def _add_inputs(job: Job, recording: Recording, graph: FeatureGraph, stored: _Stored, looked: Looked) -> None:
    """The clock, detections and face track that the recording's missing features need and the store does not have."""
    keys = {recording.id, recording.video_id}
    mine = [item for item in job.items if item.key in keys]
    visual = any(item.spec.modality == "visual" for item in mine)
    wanted = [graph.clock] if mine else []
    wanted += [spec for spec in (graph.detections, graph.faces) if spec is not None and visual]
    for spec in wanted:
        key = recording.key_for(spec.modality)
        (known,) = stored.states(key, (spec.id,))
        item = stored.judge(key, spec, known, recording, looked, needed=True)
        if item.todo and not job.wants(spec, key):
            job.items.append(item)


class _Stored:
    """What the store knows, asked once per feature."""

    def __init__(self, store: Store | None, retry_failed: bool, force: bool) -> None:
        self.store, self.retry_failed, self.force = store, retry_failed, force
        self._states: dict[tuple[str, ...], dict[str, tuple[ItemState | None, ...]]] = {}
        self._ids: dict[str, list[str]] = {}  # feature name -> ids
        self.others: list[Item] = []  # found to be of other files
        for spec in store.features() if store else []:
            self._ids.setdefault(spec.name, []).append(spec.id)

    def states(self, key: str, features: tuple[str, ...]) -> tuple[ItemState | None, ...]:
        """What is known of each of these features' items under a key."""
        if features not in self._states:
            self._states[features] = self.store.states(features) if self.store else {}
        return self._states[features].get(key) or (None,) * len(features)

    def are_done(
        self, known: tuple[ItemState | None, ...], recording: Recording, modality: Modality, looked: Looked
    ) -> bool:
        """Would `judge` say of all these items that they are done? Nearly always so, and quick to tell."""
        first = known[0]
        if self.force or first is None or first.state != "done" or known.count(first) < len(known):
            return False
        return not _source_changed(recording, modality, first.source, looked)

    def judge(
        self,
        key: str,
        spec: FeatureSpec,
        known: ItemState | None,
        recording: Recording,
        looked: Looked,
        needed: bool = False,
    ) -> Item:
        """What is to happen to one item, and why; one that others need is tried again."""
        if known is None or known.state == "deleted":
            others = (other for other in self._ids.get(spec.name, ()) if other != spec.id)
            older = any(self.states(key, (other,)) != (None,) for other in others)
            return Item(key, spec, "spec changed" if older else "new")
        if _source_changed(recording, spec.modality, known.source, looked):
            if not self.force and (stored := self._other_folder(key, spec, recording)):
                here = source_folder(source_paths(recording, spec.modality)[0])
                reason = f"the store has it from a file in {stored}, which is not the one in {here}"
                self.others.append(Item(key, spec, "other file", reason))
                return self.others[-1]
            return Item(key, spec, "source changed")
        if self.force:
            return Item(key, spec, "forced")
        if known.state == "failed":
            assert self.store is not None
            record = self.store.record(key, spec.id)
            state: State = "new" if needed or self.retry_failed else "failed before"
            return Item(key, spec, state, record.reason if record else "")
        return Item(key, spec, "done")

    def _other_folder(self, key: str, spec: FeatureSpec, recording: Recording) -> str:
        """The folder of the file that was published under a key, where that is not the recording's; else nothing."""
        assert self.store is not None
        try:
            source = self.store.published(key, spec.id).source
        except KeyError:  # only failures: nothing would be lost
            return ""
        paths = source_paths(recording, spec.modality)
        if source is None or not source.folder or not paths or source.folder == source_folder(paths[0]):
            return ""
        return source.folder


def _source_changed(recording: Recording, modality: Modality, known: SourceIdentity | None, looked: Looked) -> bool:
    """Is what features of this modality are computed from another file by now? ``looked`` saves a second look."""
    paths = source_paths(recording, modality)
    if known is None:  # it failed when there was nothing to read, or while the source was changing
        return all(path.exists() for path in paths) and bool(paths)
    for before, identity, changed in looked:
        if before == paths and identity == known:
            return changed
    changed = source_changed(paths, known)
    looked.append((paths, known, changed))
    return changed


def source_paths(recording: Recording, modality: str) -> tuple[Path, ...]:
    """The files or folders a feature of this modality is computed from, the one that carries the clock among them."""
    paths = [recording.video or recording.images]
    if modality == "visual" and recording.aligned and recording.video:
        paths.append(recording.images)
    if modality == "text" and recording.video:
        paths.append(find_transcript(recording.video))
    return tuple([path for path in paths if path is not None])
