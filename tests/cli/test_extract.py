"""`aupipe extract` as a user types it: what is done is done, what fails fails alone, and everything is said."""

from __future__ import annotations

import json
import re
import shlex
import signal
import time
from collections import Counter
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from aupipe.config import Config, FacesConfig
from aupipe.demo import DemoCorpus
from aupipe.errors import UsageError
from aupipe.extract.engine.options import ExecutionOptions
from aupipe.store.maintenance.verify import check
from tests.cli.conftest import HOG, LEVEL, NO_FACES, Project
from tests.cli.test_json import check_shapes
from tests.conftest import write_video
from tests.made import talking, write_talking

FRAMES = {"one.mpg": 24, "other.mp4": 20}  # drawn clips of one person each, with sound
ONE, OTHER = FRAMES


def draw(project: Project, *names: str) -> None:
    for name in names:
        write_talking(project.folder / "videos" / name, number=int(name != ONE), frames=FRAMES[name])


@pytest.mark.parametrize("backend", ["zarr", "hdf5"])
def test_extract_makes_what_was_asked_and_a_second_run_does_nothing(project: Project, backend: str) -> None:
    draw(project, *FRAMES)
    assert project.run("init").code == 0
    answer = project.run("extract", "--cpu", "--backend", backend)
    assert answer.code == 0, answer.err
    assert "done 6   already done 0   failed 0" in answer.out
    assert "stages busy: " in answer.out

    from aupipe.store import open_store

    store = open_store(project.folder / "features")
    assert store.backend == backend
    for record in store.records():
        assert record.state == "done"
        assert record.frames == FRAMES[record.recording]
        assert record.source is not None
        assert "torch" in record.versions
        if not record.feature.startswith("mfcc"):
            assert record.valid_frames == record.frames
    again = project.run("extract", "--cpu")
    assert (again.code, again.out.strip()) == (0, "nothing to do: 6 items stored")
    status = project.run("status")
    assert status.code == 0
    assert "complete" in status.out


def test_modalities_are_extracted_apart_and_only_what_changed_is_made_again(project: Project) -> None:
    draw(project, ONE)
    project.configure(HOG + LEVEL)
    assert "done 1 " in project.run("extract", "--modality", "visual", "--cpu").out
    audio = project.run("extract", "--modality", "audio", "--cpu")
    assert "done 1 " in audio.out
    assert "decoded" not in audio.out  # the clock is stored: sound needs no picture
    assert re.search(r"failed 0   [\d.]+ s of media in [\d.]+ s \([\d.e-]+x real time, cpu\)", audio.out), audio.out

    # a changed parameter is a new feature and says so; the faces are found already
    project.configure(HOG + "cell_px = 28\n")
    assert "1 spec changed" in project.run("extract", "--dry-run").out
    more = project.run("extract", "--cpu", "--json").json()
    assert [row["feature"].partition("@")[0] for row in more if row["message_type"] == "item"] == ["hog"]
    project.configure(HOG + LEVEL)
    assert "nothing to do" in project.run("extract", "--cpu").out  # the old one is still there

    write_talking(project.folder / "videos" / ONE, seed=6)
    assert project.run("extract", "--dry-run").out.count("1 source changed") == 2
    assert "done 2 " in project.run("extract", "--cpu").out
    assert "nothing to do" in project.run("extract", "--cpu").out


def test_the_summary_counts_as_many_items_as_there_are_lines(project: Project) -> None:
    draw(project, ONE)
    (project.folder / "videos" / "broken.mp4").write_text("no video")
    project.configure(HOG + LEVEL)
    *items, summary = project.run("extract", "--cpu", "--json").json()
    parts = Counter((row["feature"].partition("@")[0] in ("hog", "level"), row["state"]) for row in items)
    assert parts[True, "done"] == summary["done"] == 2
    assert parts[True, "failed"] == summary["failed"] == 2
    assert parts[False, "done"] == summary["inputs"] == 3  # the clock, detections and faces
    assert len(items) == summary["done"] + summary["failed"] + summary["inputs"]
    (nothing,) = project.run("extract", "--cpu", "--json").json()
    assert {key: nothing[key] for key in ("done", "already_done", "failed", "failed_before")} == {
        "done": 0,
        "already_done": 2,
        "failed": 0,
        "failed_before": 2,
    }
    assert nothing["inputs"] == 0


def test_the_command_that_tries_again_what_failed_has_the_options_that_were_given(project: Project) -> None:
    write_video(project.folder / "videos" / "silent $one.mp4", frames=5)
    project.configure("")
    (project.folder / "my.toml").write_text(
        "extends = 'baseline'\nfeatures = ['sound']\n[[encoder]]\nname = 'sound'\nmodality = 'audio'\nkind = 'level'\n"
    )
    given = ("--recipe", "my.toml", "--task", "au", "--cpu", "--weights", "random", "videos/silent $one.mp4")
    own = "'videos/silent $one.mp4' --recipe my.toml --task au --cpu --weights random"
    retry = f"retry: aupipe extract --retry-failed {own}"
    for more in (), ("--fail-fast",):  # tried; failed before
        answer = project.run("extract", *given, *more)
        assert (answer.code, answer.out.splitlines()[-1]) == (3, retry)
    project.configure("[dataset]\non_missing_audio = 'mask'\n")
    again = project.run(*shlex.split(retry)[2:])
    assert (again.code, again.out[:7]) == (0, "done 1 ")


def test_bad_files_fail_by_name_and_the_others_are_finished(project: Project) -> None:
    draw(project, ONE)
    videos = project.folder / "videos"
    (videos / "text.mp4").write_text("no video at all\n" * 20)
    (videos / "empty.mp4").touch()
    (videos / "folder.mp4").mkdir()
    write_video(videos / "sound.mp4", tone_hz=440, video=False)
    write_video(videos / "silent.mp4", frames=5)
    project.configure(NO_FACES + HOG + LEVEL)
    answer = project.run("extract", "--cpu")
    assert answer.code == 3
    assert "done 3 " in answer.out  # two of the good clip, one of the silent one
    for name, reason in (
        ("text.mp4", "is text"),
        ("empty.mp4", "is empty"),
        ("folder.mp4", "is a folder"),
        ("sound.mp4", "no video stream"),
        ("silent.mp4", "no audio stream"),
    ):
        lines = [line for line in answer.out.splitlines() if line.startswith("FAILED") and name in line]
        assert lines, name
        assert all(reason in line for line in lines)
    assert "retry: aupipe extract --retry-failed" in answer.out
    again = project.run("extract", "--cpu")
    assert again.code == 3
    assert "nothing to do: 3 items stored, 9 failed before" in again.out
    (videos / "text.mp4").unlink()
    write_talking(videos / "text.mp4")
    mended = project.run("extract", "--cpu")
    assert "done 2 " in mended.out  # another file of that name: tried without being told to
    assert "text.mp4" not in mended.out


@pytest.mark.parametrize(
    ("config", "arguments", "code", "words"),
    [
        (
            '[[encoder]]\nname="a"\nkind="hogg"\nmodality="visual"\n',
            [],
            2,
            "unknown encoder 'hogg'. Did you mean 'hog'?",
        ),
        ('[faces]\ndetecter="mtcnn"\n', [], 2, "unknown key in [faces] 'detecter'. Did you mean 'detector'?"),
        ('[faces]\ndetector="mtcn"\n', [], 2, "unknown detector 'mtcn'. Did you mean 'mtcnn'?"),
        ("", ["--modality", "visul"], 2, "unknown modality 'visul'. Did you mean 'visual'?"),
        ("", ["--feature", "hug"], 2, "no [[encoder]] is named 'hug'"),
        ("", ["--gpu", "0"], 2, "--cpu"),
        ("", ["--gpu", "zero"], 2, "expected a number"),
        ("", ["--nvdec"], 2, "--nvdec decodes on a GPU"),
        ("", ["--compile"], 2, "--compile is for GPUs"),
        ('[dataset]\nvideos="nowhere"\n', [], 2, "no folder"),
        ('[faces]\ndetector="yunet"\n', [], 12, "face_detection_yunet_2023mar.onnx"),
        ('[[encoder]]\nname="a"\nkind="dan"\nmodality="visual"\nweights="w.pth"\n', [], 12, "w.pth"),
    ],
)
def test_a_wrong_request_stops_before_decoding_with_one_line(
    project: Project, config: str, arguments: list[str], code: int, words: str
) -> None:
    write_video(project.folder / "videos" / "a.mp4", frames=3)
    project.configure(config)
    no_gpu = {"CUDA_VISIBLE_DEVICES": ""}  # whatever this machine has
    answer = project.run(
        "extract", *arguments, *([] if "--gpu" in arguments else ["--cpu"]), **no_gpu, AUPIPE_WEIGHTS=""
    )
    assert answer.code == code, answer.err
    assert words in answer.err
    assert len(answer.err.strip().splitlines()) == 1, answer.err
    assert not (project.folder / "features").exists()


@pytest.mark.parametrize("faces", [FacesConfig(detector="none"), FacesConfig(detect_every=3)])
def test_decoding_on_a_gpu_is_refused_where_it_would_do_nothing(
    monkeypatch: pytest.MonkeyPatch, faces: FacesConfig
) -> None:
    module = import_module("aupipe.cli.extract")
    monkeypatch.setattr(module, "pick_devices", lambda gpu, cpu: ["cuda:0"])
    with pytest.raises(UsageError, match="--nvdec: with --no-face or --detect-every"):
        module._devices("0", False, ExecutionOptions(nvdec=True), Config(faces=faces))
    assert module._devices("0", False, ExecutionOptions(nvdec=True, compiled=True), Config()) == ["cuda:0"]


def test_init_takes_the_bundled_detector_where_yunet_cannot_be_had_and_says_why(project: Project) -> None:
    write_video(project.folder / "videos" / "a.mp4", frames=3)
    answer = project.run("init", AUPIPE_WEIGHTS="")
    assert answer.code == 0
    assert 'detector = "mtcnn"' in (project.folder / "aupipe.toml").read_text()
    assert "faces by mtcnn: its weights are bundled; those of yunet" in answer.out
    assert "are not found: aupipe weights pull face_detection_yunet_2023mar.onnx" in answer.out


@pytest.mark.assets
def test_init_takes_yunet_where_its_weights_can_be_had(project: Project, assets: Path) -> None:
    write_video(project.folder / "videos" / "a.mp4", frames=3)
    answer = project.run("init", AUPIPE_WEIGHTS=str(assets / "weights"))
    assert answer.code == 0
    assert "faces by yunet: face_detection_yunet_2023mar.onnx is in" in answer.out
    assert 'detector = "yunet"' in (project.folder / "aupipe.toml").read_text()


def test_without_a_configuration_it_says_what_to_do(project: Project) -> None:
    answer = project.run("extract", "--cpu")
    assert answer.code == 2
    assert "aupipe init" in answer.err
    assert project.run("status").code == 2
    project.configure("")
    write_video(project.folder / "videos" / "a.mp4", frames=3)
    assert project.run("status").code == 10


def test_a_killed_run_goes_on_and_ends_with_the_same_arrays(
    project: Project, tmp_path_factory: pytest.TempPathFactory, arrays
) -> None:
    draw(project, *FRAMES)
    for seed, name in enumerate(("third.mp4", "fourth.avi", "silent.mp4")):
        write_talking(project.folder / "videos" / name, seed=seed, silent=name == "silent.mp4")
    project.configure(HOG + LEVEL)
    undisturbed = tmp_path_factory.mktemp("whole") / "features"
    assert project.run("extract", "--cpu", "--store", undisturbed).code == 3  # one has no sound
    store = project.folder / "features"
    for _ in range(2):
        process = project.start("extract", "--cpu")
        deadline = time.monotonic() + 60
        before = len(list(store.glob("*/items/*/*")))
        while process.poll() is None and len(list(store.glob("*/items/*/*"))) < before + 4:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert project.run("extract", "--cpu").code == 3
    assert arrays(store) == arrays(undisturbed)

    from aupipe.store import open_store

    assert check(open_store(store)).damage == []  # type: ignore[arg-type]


def test_an_interrupt_ends_with_130_and_nothing_lost(project: Project) -> None:
    draw(project, *FRAMES)
    for number in range(14):  # more than the worker process holds
        write_video(project.folder / "videos" / f"{number}.mp4", frames=60, tone_hz=300)
    project.configure(NO_FACES + HOG + LEVEL)
    process = project.start("extract", "--cpu", "--workers", "1")
    while not list((project.folder / "features").glob("*/items/*/*")):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert b"interrupted" in err
    assert project.run("extract", "--cpu").code == 0


def test_two_people_in_one_video_share_its_sound_and_are_told_apart(project: Project, corpus: DemoCorpus) -> None:
    project.configure(f'[dataset]\nlayout="affwild2"\nroot="{corpus.root}"\n{HOG}{LEVEL}')
    answer = project.run("extract", "--cpu")
    assert answer.code == 0, answer.err
    assert "done 7 " in answer.out  # hog of four people, level of three videos

    from aupipe.store import open_store
    from aupipe.types import FaceTrack

    store = open_store(project.folder / "features")
    faces = next(spec.id for spec in store.features() if spec.name == "faces")
    left, right = (FaceTrack.from_rows(store.read(f"demo-003_{side}", faces)) for side in ("left", "right"))
    assert left.valid.all()
    assert right.valid.all()
    assert (left.box[:, 2] < right.box[:, 0]).all()
    level = next(spec.id for spec in store.features() if spec.name == "level")
    assert sorted(record.recording for record in store.records(level)) == ["demo-001", "demo-002", "demo-003"]


def write_crops(folder: Path, rows: Sequence[int]) -> None:
    """Aligned crops as Aff-Wild2 has them: one numbered image for each of some frames of a clip."""
    import cv2

    pictures, _ = talking()
    folder.mkdir(parents=True)
    for row in rows:
        cv2.imwrite(str(folder / f"{row + 1:05d}.jpg"), cv2.resize(pictures[row, :, 32:288, ::-1], (112, 112)))


def test_aligned_crops_are_used_as_they_are_and_missing_numbers_stay_missing(project: Project) -> None:
    root = project.folder / "tree"
    write_talking(root / "videos" / "talk.mp4")
    present = [2, 3, 4, 9, 10, 22]
    write_crops(root / "cropped_aligned" / "talk", present)
    geometry = HOG.replace("hog", "geometry")
    project.configure(f'[dataset]\nlayout="affwild2"\nroot="tree"\nframes="cropped_aligned"\n{HOG}{geometry}')
    answer = project.run("extract", "--cpu")
    assert answer.code == 3
    assert "geometry needs landmarks, and cropped_aligned images carry none" in answer.out

    import cv2

    from aupipe.extract.encoders.visual.hog import Hog
    from aupipe.store import open_store

    store = open_store(project.folder / "features")
    assert not [spec for spec in store.features() if spec.modality in ("detections", "faces")]
    hog = next(spec.id for spec in store.features() if spec.name == "hog")
    rows = store.read("talk", hog)
    assert len(rows) == 24
    np.testing.assert_array_equal(~np.isnan(rows[:, 0]), [row in present for row in range(24)])
    picture = cv2.imread(str(root / "cropped_aligned" / "talk" / "00003.jpg"))[..., ::-1]
    expected = Hog().load("cpu")(np.ascontiguousarray(picture)[None])[0]
    np.testing.assert_allclose(rows[2], expected, atol=1e-3)


def test_a_folder_of_image_folders_needs_a_frame_rate_and_then_works(project: Project) -> None:
    write_crops(project.folder / "images" / "someone", (0, 1, 4))
    text = '[dataset]\nlayout="images"\nvideos="images"\n' + NO_FACES + HOG
    project.configure(text)
    answer = project.run("extract", "--cpu")
    assert answer.code == 3
    assert "set [dataset] fps" in answer.out
    project.configure(text.replace('videos="images"', 'videos="images"\nfps=30.0'))
    assert project.run("extract", "--cpu").code == 0

    from aupipe.store import open_store

    store = open_store(project.folder / "features")
    clock = next(spec.id for spec in store.features() if spec.name == "clock" and spec.params.get("fps"))
    np.testing.assert_allclose(store.read("someone", clock), np.arange(5) / 30)


def test_random_weights_say_that_they_mean_nothing(project: Project) -> None:
    draw(project, OTHER)
    encoder = '[[encoder]]\nname="net"\nkind="dan"\nmodality="visual"\n'
    project.configure(NO_FACES + encoder)
    assert project.run("extract", "--cpu").code == 12
    answer = project.run("extract", "--cpu", "--weights", "random")
    assert answer.code == 0, answer.err
    assert "have no meaning" in answer.err


def test_json_is_one_object_a_line_with_the_stages_of_the_run_and_inspect_knows_every_feature(project: Project) -> None:
    draw(project, OTHER)
    project.configure("")
    nowhere = project.run("extract", "--cpu", "--profile", "none/trace.json")
    assert (nowhere.code, "no folder" in nowhere.err) == (2, True)
    answer = project.run("extract", "--cpu", "--json", "--profile", "trace.json")
    assert answer.code == 0, answer.err
    *rows, summary = check_shapes("extract", answer.out)
    assert (summary["message_type"], summary["done"]) == ("summary", 3)
    assert {row["state"] for row in rows} == {"done"}
    stages = summary["stages"]
    assert list(stages) == ["load", "decode", "detect", "align", "encode", "write", "sound"]
    assert stages["decode"]["frames"] == stages["detect"]["frames"] == summary["frames"] > 0
    assert 0 < sum(stage["cpu_s"] for stage in stages.values()) < summary["cpu_s"]
    events = json.loads((project.folder / "trace.json").read_text())["traceEvents"]
    assert {event["name"] for event in events} == set(stages)
    assert {event["ph"] for event in events} == {"X"}
    shown = project.run("inspect", OTHER)
    assert shown.code == 0
    for name in ("hog@", "geometry@", "mfcc@", "faces@", "detections@", "clock@"):
        assert name in shown.out
    assert project.run("inspect").code == 0
    missing = project.run("inspect", "othr.mp4")
    assert missing.code == 2
    assert "Did you mean" in missing.err


@pytest.mark.assets
@pytest.mark.slow
@pytest.mark.parametrize(
    "faces", ['detector = "mtcnn"\ndetect_every = 5', 'detector = "yunet"'], ids=["mtcnn", "yunet"]
)
def test_all_twenty_clips_are_done_or_failed_with_a_reason(
    project: Project, assets: Path, clips: dict[str, int], faces: str
) -> None:
    project.environment["AUPIPE_WEIGHTS"] = str(assets / "weights")
    (project.folder / "videos").rmdir()
    (project.folder / "videos").symlink_to(assets / "videos")
    project.configure(f"[faces]\n{faces}\n")
    rows = project.run("extract", "--cpu", "--json").json()
    items = [row for row in rows if row["message_type"] == "item"]
    for row in items:
        assert row["state"] == "done" or "no audio stream" in row["reason"]
        if row["state"] == "done":
            assert row["frames"] == clips[row["recording"]]
    hogs = {row["recording"]: row for row in items if row["feature"].startswith("hog")}
    assert set(hogs) == set(clips)
    assert {name for name in clips if "no_audio" in name or "scripted" in name} == {
        row["recording"] for row in items if row["state"] == "failed"
    }
    for name in (
        "film_leader_speech_no_face.avi",
        "nasa_multistream_speech_no_face.mp4",
        "unknown_duration_black.webm",
    ):
        assert hogs[name]["valid_frames"] == 0
    assert project.run("extract", "--cpu").out.startswith("nothing to do: 56 items stored, 4 failed before")
