"""What is to be made, and why."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from aupipe.config import Config, EncoderConfig, FacesConfig
from aupipe.extract.executors.driver import largest_first
from aupipe.extract.planning.features import FeatureSet, build_feature_set, feature_ids
from aupipe.extract.planning.plan import Plan, make_plan
from aupipe.sources import source_identity
from aupipe.store import Store, create_store
from aupipe.types import Recording

CONFIG = Config(encoders=(EncoderConfig("hog", "hog", "visual"), EncoderConfig("mfcc", "mfcc", "audio")))


@pytest.fixture
def recording(tmp_path: Path) -> Recording:
    video = tmp_path / "a.mp4"
    video.write_bytes(b"one")
    return Recording("a.mp4", video=video)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return create_store(tmp_path / "features", "memory")


def publish(store: Store, recording: Recording, parts: FeatureSet) -> None:
    """Every feature of a recording, as an extraction would leave it."""
    graph = parts.graph(recording)
    assert recording.video is not None
    source = source_identity(recording.video)
    for spec in (graph.clock, graph.detections, graph.faces, *(spec for spec, _ in graph.encoders)):
        if spec is not None:
            store.publish(recording.key_for(spec.modality), spec, np.ones((3, 2), np.float32), source=source)


def states(plan: Plan) -> dict[str, str]:
    return {item.spec.name: item.state for item in plan.items}


def job_names(plan: Plan) -> list[list[str]]:
    return [sorted(item.spec.name for item in job.items) for job in plan.jobs]


def test_everything_is_new_without_a_store_and_needs_clock_and_faces(recording: Recording) -> None:
    plan = make_plan([recording], build_feature_set(CONFIG), None)
    assert states(plan) == {"hog": "new", "mfcc": "new"}
    assert job_names(plan) == [["clock", "detections", "faces", "hog", "mfcc"]]


def test_sound_alone_needs_no_faces(recording: Recording) -> None:
    plan = make_plan([recording], build_feature_set(CONFIG, ["audio"]), None)
    assert job_names(plan) == [["clock", "mfcc"]]


def test_what_is_published_is_done(recording: Recording, store: Store) -> None:
    parts = build_feature_set(CONFIG)
    publish(store, recording, parts)
    plan = make_plan([recording], parts, store)
    assert states(plan) == {"hog": "done", "mfcc": "done"}
    assert plan.jobs == ()
    assert job_names(make_plan([recording], parts, store, force=True)) == [
        ["clock", "detections", "faces", "hog", "mfcc"]
    ]


def test_another_parameter_is_another_feature_and_reuses_the_faces(recording: Recording, store: Store) -> None:
    publish(store, recording, build_feature_set(CONFIG))
    finer = replace(CONFIG, encoders=(EncoderConfig("hog", "hog", "visual", {"cell_px": 8}),))
    plan = make_plan([recording], build_feature_set(finer), store)
    assert states(plan) == {"hog": "spec changed"}
    assert job_names(plan) == [["hog"]]


@pytest.mark.parametrize(
    "faces",
    [FacesConfig(subject="left"), FacesConfig(detect_px=320), FacesConfig(min_score=0.5), FacesConfig(max_faces=2)],
)
def test_whatever_changes_the_face_changes_every_visual_feature_and_no_other(
    recording: Recording, store: Store, faces: FacesConfig
) -> None:
    publish(store, recording, build_feature_set(CONFIG))
    plan = make_plan([recording], build_feature_set(replace(CONFIG, faces=faces)), store)
    assert states(plan) == {"hog": "spec changed", "mfcc": "done"}
    detected_again = faces.subject == "largest"
    assert job_names(plan) == [["detections"] * detected_again + ["faces", "hog"]]


def test_another_source_makes_everything_anew(recording: Recording, store: Store) -> None:
    parts = build_feature_set(CONFIG)
    publish(store, recording, parts)
    assert recording.video is not None
    recording.video.write_bytes(b"two, longer")
    plan = make_plan([recording], parts, store)
    assert states(plan) == {"hog": "source changed", "mfcc": "source changed"}
    assert job_names(plan) == [["clock", "detections", "faces", "hog", "mfcc"]]


def test_what_failed_is_left_alone_until_it_is_retried_or_its_source_changes(
    recording: Recording, store: Store
) -> None:
    parts = build_feature_set(CONFIG)
    publish(store, recording, parts)
    mfcc = feature_ids(parts, [recording])["mfcc"]
    assert recording.video is not None
    store.fail("a.mp4", store.spec(mfcc), "no audio stream", source=source_identity(recording.video))
    plan = make_plan([recording], parts, store)
    assert [(item.state, item.reason) for item in plan.items if item.spec.name == "mfcc"] == [
        ("failed before", "no audio stream")
    ]
    assert plan.jobs == ()
    assert job_names(make_plan([recording], parts, store, retry_failed=True)) == [["mfcc"]]
    recording.video.write_bytes(b"mended")
    assert states(make_plan([recording], parts, store))["mfcc"] == "source changed"


def test_two_tracks_of_a_video_are_one_job_and_share_what_is_the_videos(tmp_path: Path) -> None:
    video = tmp_path / "v.mp4"
    video.write_bytes(b"v")
    tracks = [Recording(f"v_{side}", video=video, video_id="v", subject=side) for side in ("left", "right")]
    plan = make_plan(tracks, build_feature_set(CONFIG), None)
    (job,) = plan.jobs
    assert sorted((item.key, item.spec.name) for item in job.items) == [
        ("v", "clock"),
        ("v", "detections"),
        ("v", "mfcc"),
        ("v_left", "faces"),
        ("v_left", "hog"),
        ("v_right", "faces"),
        ("v_right", "hog"),
    ]
    assert len(plan.items) == 3


def test_siblings_share_a_job_and_their_sound_wherever_they_stand(recording: Recording) -> None:
    left = replace(recording, id="a_left", video_id="a")
    other = replace(recording, id="b", video_id="b")
    right = replace(recording, id="a_right", video_id="a")
    plan = make_plan([left, other, right], build_feature_set(CONFIG), None)
    assert [(item.key, item.spec.name) for item in plan.items] == [
        ("a_left", "hog"),
        ("a", "mfcc"),
        ("a_right", "hog"),
        ("b", "hog"),
        ("b", "mfcc"),
    ]
    assert [[one.id for one in job.recordings] for job in plan.jobs] == [["a_left", "a_right"], ["b"]]


def test_a_file_is_looked_at_once_for_all_of_its_features(
    recording: Recording, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = build_feature_set(CONFIG)
    publish(store, recording, parts)
    looks = []
    monkeypatch.setattr("aupipe.extract.planning.plan.source_changed", lambda paths, known: bool(looks.append(paths)))
    assert states(make_plan([recording], parts, store)) == {"hog": "done", "mfcc": "done"}
    assert looks == [(recording.video,)]


def test_the_largest_videos_are_begun_first_and_equals_stay_in_order(tmp_path: Path) -> None:
    """Or one core would be left with a long one at the end of a run."""
    recordings = []
    for name, size in (("a", 5), ("b", 9), ("c", 5), ("gone", None)):
        video = tmp_path / f"{name}.mp4"
        if size is not None:
            video.write_bytes(bytes(size))
        recordings.append(Recording(name, video=video))
    plan = make_plan(recordings, build_feature_set(CONFIG), None)
    attempts = largest_first(plan.jobs)
    assert [attempt.job.video_id for attempt in attempts] == ["b", "a", "c", "gone"]
    assert [attempt.size_bytes for attempt in attempts] == [9, 5, 5, 0]
