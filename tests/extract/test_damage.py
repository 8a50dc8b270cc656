"""Jobs put what decoding found into the record of every item, also where the rows' clock was stored before."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from aupipe.config import Config, EncoderConfig, FacesConfig
from aupipe.extract.engine.results import JobResult
from aupipe.extract.media.report import MediaReport
from aupipe.extract.planning.features import FeatureSet, build_feature_set
from aupipe.extract.planning.plan import make_plan
from aupipe.store import Store, create_store
from aupipe.types import Recording, SourceIdentity
from tests.extract.mutations import write_clip
from tests.extract.running import run_jobs

HOG, MFCC = EncoderConfig("hog", "hog", "visual"), EncoderConfig("mfcc", "mfcc", "audio")


def parts_of(*encoders: EncoderConfig) -> FeatureSet:
    return build_feature_set(Config(encoders=encoders, faces=FacesConfig(detector="none")))


def run(video: Path, store: Store, parts: FeatureSet, retry_failed: bool = False) -> list[JobResult]:
    plan = make_plan([Recording("a.mp4", video=video)], parts, store, retry_failed=retry_failed)
    return run_jobs(plan.jobs, store, parts)


@pytest.fixture
def cut(tmp_path: Path) -> Path:
    """A video with fewer frames than its table lists."""
    path = write_clip(tmp_path, "mp4")
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    return path


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return create_store(tmp_path / "store", "memory")


def test_an_item_made_later_from_a_stored_clock_carries_the_damage_of_the_picture(cut: Path, store: Store) -> None:
    (first,) = run(cut, store, parts_of(HOG))
    assert any(note.startswith("DAMAGED video: ") for note in first.notes)
    (second,) = run(cut, store, parts_of(HOG, MFCC))
    assert [record.feature.partition("@")[0] for record in second.published] == ["mfcc"]
    records = {record.feature.partition("@")[0]: record for record in store.all_published()}
    assert set(records) == {"clock", "hog", "mfcc"}
    assert records["hog"].damage == records["clock"].damage
    assert records["mfcc"].damage.startswith(records["hog"].damage)  # and what was found in the sound
    assert "frames of 60 missing" in records["mfcc"].damage
    report = MediaReport.from_json(records["mfcc"].media["video"])
    assert report.frames == records["clock"].frames
    assert report.missing == 60 - report.frames - report.undecodable


def test_whole_media_are_damaged_in_no_record(tmp_path: Path, store: Store) -> None:
    (outcome,) = run(write_clip(tmp_path, "mkv_h264"), store, parts_of(HOG, MFCC))
    assert {record.damage for record in outcome.published} == {""}
    assert outcome.notes == []
    assert list(store.damaged()) == []


def test_damage_can_be_a_failure_and_taken_back_under_the_same_keys(cut: Path, store: Store) -> None:
    parts = parts_of(HOG, MFCC)
    (refused,) = run(cut, store, replace(parts, fail_on_damage=True))
    assert not refused.published
    assert len(refused.failed) == 2
    assert all("frames of 60 missing" in record.reason for record in refused.failed)
    assert run(cut, store, parts) == []  # failed before, and left alone
    (kept,) = run(cut, store, parts, retry_failed=True)
    assert {record.feature for record in refused.failed} < {record.feature for record in kept.published}
    other = replace(HOG, name="hog2", params={"cell_px": 16})
    (later,) = run(cut, store, replace(parts_of(HOG, MFCC, other), fail_on_damage=True))
    assert "frames of 60 missing" in later.failed[0].reason  # known from the stored clock


def test_a_clock_recorded_under_the_older_digest_serves_on(tmp_path: Path, store: Store) -> None:
    video = write_clip(tmp_path, "mkv_h264")
    run(video, store, parts_of(HOG))
    content, stat = video.read_bytes(), video.stat()
    ends = content[: 1 << 20] + content[-(1 << 20) :]
    digest = hashlib.sha256(str(len(content)).encode() + ends).hexdigest()
    for record in list(store.all_published()):
        rows, spec = np.array(store.read(record.recording, record.feature)), store.spec(record.feature)
        store.publish(record.recording, spec, rows, source=SourceIdentity(len(content), stat.st_mtime_ns, digest))
    (outcome,) = run(video, store, parts_of(HOG, MFCC))
    assert [record.feature.partition("@")[0] for record in outcome.published] == ["mfcc"]
    assert not outcome.failed


def test_damage_of_the_sound_is_in_the_records_of_sound_alone(tmp_path: Path, store: Store) -> None:
    import av

    path = write_clip(tmp_path, "mp4")
    with av.open(str(path)) as container:
        places = [(packet.pos, packet.size) for packet in container.demux(container.streams.audio[0]) if packet.size]
    data = bytearray(path.read_bytes())
    for start, size in places[8:12]:
        data[start : start + size] = b"\xff" * size
    path.write_bytes(data)
    (outcome,) = run(path, store, parts_of(HOG, MFCC))
    records = {record.feature.partition("@")[0]: record for record in outcome.published}
    assert records["mfcc"].damage.startswith("audio: ")
    assert records["hog"].damage == ""
    (refused,) = run(
        path, create_store(tmp_path / "other", "memory"), replace(parts_of(HOG, MFCC), fail_on_damage=True)
    )
    assert [record.feature.partition("@")[0] for record in refused.failed] == ["mfcc"]
