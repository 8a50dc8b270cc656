"""`aupipe import`: rows of other programs are those of the decoded frames, or are refused by name."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from aupipe.cli import cli
from aupipe.config import IMPORTED, load_config
from aupipe.dataset import open_dataset
from aupipe.errors import RecordingError, UsageError
from aupipe.extract.planning.features import build_feature_set
from aupipe.imported.files import read_file
from aupipe.imported.fitting import fit_rows
from aupipe.sources import source_identity
from aupipe.store import open_store
from aupipe.train.run import load_run
from tests.cli.conftest import Project
from tests.cli.test_json import check_shapes
from tests.cli.test_train import FRAMES, SMALL, Folder, fill
from tests.conftest import write_video

CLOCK_S = 0.8 + np.arange(6) / 25


def openface(frames: list[int], step_s: float = 0.04, success: int = 1, faces: int = 1) -> str:
    """A table as OpenFace's FeatureExtraction writes it, with its spaces; AU01_r is ten times the frame's number."""
    lines = ["frame, face_id, timestamp, confidence, success, gaze_0_x, AU01_r"]
    for frame in frames:
        about = f"{(frame - 1) * step_s:.3f}, 0.98, {success}, 0.5, {frame * 10}"
        lines += [f"{frame}, {face}, {about}" for face in range(faces)]
    return "\n".join(lines) + "\n"


def test_the_rows_of_openface_are_placed_by_its_frame_numbers(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(openface([1, 2, 4, 6]))
    found = read_file(path)
    assert (found.format, found.columns) == ("openface", ("gaze_0_x", "AU01_r"))
    rows, how = fit_rows(found, CLOCK_S)
    np.testing.assert_array_equal(rows[:, 1], [10, 20, np.nan, 40, np.nan, 60])
    assert how == "placed by frame numbers: 2 of 6 frames have no row"
    path.write_text(openface(list(range(1, 7)), success=0))
    assert np.isnan(fit_rows(read_file(path), CLOCK_S)[0]).all()


def test_rows_of_a_constant_rate_are_placed_by_their_times_where_frames_come_at_their_own(tmp_path: Path) -> None:
    """OpenFace on what FFmpeg has doubled to a constant rate: more rows than there are frames."""
    path = tmp_path / "a.csv"
    path.write_text(openface(list(range(1, 11))))  # 10 rows, 25 a second
    own = 0.8 + np.array([0, 0.04, 0.12, 0.16, 0.28, 0.36])
    rows, how = fit_rows(read_file(path), own)
    assert list(rows[:, 1]) == [10, 20, 40, 50, 80, 100]
    assert how == "placed by times: 10 rows for 6 frames"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (openface(list(range(1, 10))), "9 rows, the video has 6 decoded frames, and its frame numbers"),
        (openface(list(range(2, 8))), r"6 rows, .* its frame numbers \(2 to 7\) and times .* remove the column"),
        (openface(list(range(2, 13)), 0.02), "11 rows, .* its frame numbers"),  # their times are as late as they are
        ("frame,a\n" + "".join(f"{k},1\n" for k in range(2, 8)), r"its frame numbers \(2 to 7\) do not fit"),
        ("time,a\n" + "".join(f"{k * 40},1\n" for k in range(6)), r"times \(0.000 to 200.000, expected in seconds\)"),
        ("a,b\n1,2\n3,4\n", "2 rows, the video has 6 decoded frames, and it has no clock that fits"),
        ("time_s,a\n0,1\n0.055,1\n0.2,1\n", "3 rows, the video has 6 decoded frames, and its times"),
        ("frame,a\n2,1\n3,1\n4,1\n", "3 rows, the video has 6"),  # from 0 or from 1? nobody can tell
    ],
)
def test_rows_are_refused_where_their_clock_or_their_number_contradicts_the_video(
    tmp_path: Path, text: str, words: str
) -> None:
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(RecordingError, match=words):
        fit_rows(read_file(tmp_path / "a.csv"), CLOCK_S)


@pytest.mark.parametrize("start_s", [0.8, 0.0])
@pytest.mark.parametrize("frames", [[0, 1, 2, 4, 5], [0, 1, 2, 3, 4], [3, 1, 0, 2, 5, 4]])
def test_rows_at_the_times_of_frames_are_placed_there(tmp_path: Path, start_s: float, frames: list[int]) -> None:
    lines = ["time_s,x", *(f"{start_s + frame / 25:.3f},{frame}" for frame in frames)]
    (tmp_path / "a.csv").write_text("\n".join(lines))
    rows, how = fit_rows(read_file(tmp_path / "a.csv"), CLOCK_S)
    np.testing.assert_array_equal(rows[:, 0], [frame if frame in frames else np.nan for frame in range(6)])
    assert how == f"placed by times: {6 - len(frames)} of 6 frames have no row"


def test_times_that_fit_two_clocks_are_refused(tmp_path: Path) -> None:
    """0.8 s of a video that begins at 0.8 s: its first frame, or that 0.8 s later?"""
    (tmp_path / "a.csv").write_text("time_s,x\n0.8,1\n0.84,2\n0.92,3\n")
    with pytest.raises(RecordingError, match="do not fit"):
        fit_rows(read_file(tmp_path / "a.csv"), 0.8 + np.arange(60) / 25)


def test_times_at_the_frames_confirm_rows_and_a_later_start_is_said(tmp_path: Path) -> None:
    for start_s, note in ((0.0, ""), (0.8, ""), (0.4, "its times begin at 0.400 s: its first row was taken as the")):
        (tmp_path / "a.csv").write_text("time,a\n" + "".join(f"{start_s + k / 25:.3f},{k}\n" for k in range(6)))
        rows, how = fit_rows(read_file(tmp_path / "a.csv"), CLOCK_S)
        assert list(rows[:, 0]) == list(range(6))
        assert (how.startswith(note), bool(how)) == (True, bool(note))


def test_arrays_and_tables_are_read_with_their_names_and_without_what_is_no_number(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.arange(12.0).reshape(6, 2, 1))
    assert read_file(tmp_path / "a.npy").rows.shape == (6, 2)
    np.savez(tmp_path / "a.npz", clip=np.ones((6, 2)), other=np.ones((6, 3)), **{"clip.columns": np.array(["x", "y"])})
    assert read_file(tmp_path / "a.npz", "clip").columns == ("x", "y")
    with pytest.raises(UsageError, match=r"2 arrays of numbers; it has clip, other: name one by --key"):
        read_file(tmp_path / "a.npz")
    feat = "FaceRectX,FaceScore,AU01,anger,input,frame,approx_time\n"
    (tmp_path / "a.csv").write_text(feat + "".join(f"5,0.9,0.{k},0.1,a.mp4,{k},00:00\n" for k in range(6)))
    found = read_file(tmp_path / "a.csv")
    assert (found.format, found.columns) == ("pyfeat", ("FaceRectX", "FaceScore", "AU01", "anger"))
    assert found.dropped == ("input", "approx_time")
    assert fit_rows(found, CLOCK_S)[1] == ""
    (tmp_path / "a.csv").write_text("x,y\n1,2\n,3\nNA,4\n5,inf\n6,7\n8,9\n")
    assert list(np.isnan(read_file(tmp_path / "a.csv").rows).all(axis=1)) == [False, True, True, True, False, False]


def test_files_that_are_no_rows_of_one_face_are_refused_with_the_reason(tmp_path: Path) -> None:
    class Runs:
        def __reduce__(self) -> tuple:
            return (Path.touch, (tmp_path / "ran",))

    (tmp_path / "a.pkl").write_bytes(pickle.dumps(Runs()))
    np.save(tmp_path / "a.npy", np.array([Runs()]), allow_pickle=True)
    (tmp_path / "faces.csv").write_text(openface([1, 2], faces=2))
    (tmp_path / "short.csv").write_text("a,b\n1,2\n3\n")
    for name, words in (
        ("a.pkl", "a pickle runs code when it is read, and such files hold a row for each picture in which a face"),
        ("a.npy", "allow_pickle=False"),
        ("faces.csv", "frame 1 has 2 rows of 2 faces: keep the rows of one face"),
        ("short.csv", "line 3 has 1 fields, the header 2"),
    ):
        with pytest.raises((UsageError, RecordingError), match=words):
            read_file(tmp_path / name)
    assert not (tmp_path / "ran").exists()


def test_imported_features_are_trained_on_reported_and_named_in_the_status(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a store that is filled without decoding: what is imported is used as what was computed is."""
    fill(tmp_path)
    config = load_config(tmp_path / "aupipe.toml")
    recordings = open_dataset(config.dataset).recordings
    store = open_store(tmp_path / "features")
    (tmp_path / "openface").mkdir()
    for one in recordings[1:]:
        (tmp_path / "openface" / f"{Path(one.id).stem}.csv").write_text(openface(list(range(1, FRAMES + 1))))
    folder = Folder(tmp_path)
    with monkeypatch.context() as stopped:  # by Ctrl-C, while frames are counted
        stopped.setattr("aupipe.cli.imports.run_plan", lambda *args, **options: 130)
        stopped.chdir(tmp_path)
        answer = CliRunner().invoke(cli, ["import", "openface", "--name", "of"], standalone_mode=False)
        assert (answer.return_value, "FAILED" in answer.output) == (130, False)
    clock = build_feature_set(config).graph(recordings[0]).clock
    for one in recordings:
        store.publish(one.video_id, clock, np.arange(FRAMES) / 25, source=source_identity(one.video))
    store.close()
    said = folder.ask("import", "openface", "--name", "of", "--made-by", "OpenFace 2.2.0")
    assert f"of {len(recordings) - 1} recordings, 2 named columns" in said
    assert "without a file in openface: 1 recording: " in said
    opened = open_store(tmp_path / "features")
    view = opened["of"]
    assert (view.spec.kind, view.spec.columns) == (IMPORTED, ("gaze_0_x", "AU01_r"))
    assert dict(view.spec.params)["made_by"] == "OpenFace 2.2.0"
    item = view[recordings[1].id]
    assert list(item[:3, 1]) == [10, 20, 30]
    assert len(item.record.media[IMPORTED]["sha256"]) == 64
    assert f"{view.spec.id:32} {len(view):>7} {1:>7}   imported" in folder.ask("status")
    status = json.loads(folder.ask("status", "--json"))
    assert status["features"][view.spec.id] == {"done": len(view), "missing": 1, "imported": True}
    (tmp_path / "openface" / f"{Path(recordings[0].id).stem}.csv").write_text(openface(list(range(1, FRAMES + 1))))
    folder.ask("import", "openface", "--name", "of", "--made-by", "OpenFace 2.2.0")
    folder.ask("train", "--recipe", "tcn", "--feature", "of,hog", *SMALL, "--out", "run")
    assert list(load_run(tmp_path / "run").features) == ["of", "hog"]
    assert "AU1 " in folder.ask("evaluate", "run", "--cpu")
    assert list(load_run(tmp_path / "run").specs["of"].columns) == ["gaze_0_x", "AU01_r"]
    folder.ask("store", "export", "out", "--format", "parquet", "--feature", "of")
    (tmp_path / "openface" / f"{Path(recordings[0].id).stem}.csv").write_text(openface(list(range(1, FRAMES))))
    said = folder.ask("import", "openface", "--name", "of", "--made-by", "OpenFace 2.2.0")
    assert f"replaced, as the files have other content than before: {recordings[0].id}\n" in said
    assert "another feature 'of'" in folder.ask("import", "openface", "--name", "of", code=2)
    assert "has a feature of this name" in folder.ask("import", "openface", "--name", "hog", code=2)


def damage(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def test_damaged_files_fail_by_name(tmp_path: Path) -> None:
    (tmp_path / "empty.npy").write_bytes(b"")
    np.save(tmp_path / "cut.npy", np.ones((6, 3)))
    np.savez(tmp_path / "cut.npz", np.ones((6, 3)))
    for name in ("cut.npy", "cut.npz"):
        damage(tmp_path / name)
    np.savez_compressed(tmp_path / "bits.npz", np.random.default_rng(0).random((600, 3)))
    content = bytearray((tmp_path / "bits.npz").read_bytes())
    content[100:400] = b"\xff" * 300
    (tmp_path / "bits.npz").write_bytes(content)
    (tmp_path / "empty.csv").write_bytes(b"")
    for name in ("empty.npy", "cut.npy", "cut.npz", "bits.npz", "empty.csv"):
        with pytest.raises(RecordingError, match=name):
            read_file(tmp_path / name)


def test_damaged_files_and_videos_fail_by_name_and_the_others_are_imported(project: Project) -> None:
    """Videos without a clock are decoded; the reasons of all that fails are told."""
    project.configure('[dataset]\nvideos = "videos"\n')
    made = project.folder / "made"
    made.mkdir()
    for name, frames in (("a clip", 20), ("b", 24), ("c", 20), ("d", 20)):
        write_video(project.folder / "videos" / f"{name}.mp4", frames)
        np.save(made / f"{name}.npy", np.ones((20, 3)))
    damage(made / "c.npy")
    (project.folder / "videos" / "d.mp4").write_bytes(b"no video")
    (made / "stranger.npy").write_bytes(b"")
    answer = project.run("import", "made", "--name", "made", "--json")
    assert answer.code == 3, answer.err
    summary = check_shapes("import", answer.out)[-1]
    assert summary["done"] == 1
    assert "20 rows, the video has 24 decoded frames" in summary["failed"]["b.mp4"]
    assert "c.npy: cannot be read: " in summary["failed"]["c.mp4"]
    assert "its frames could not be counted: decode: " in summary["failed"]["d.mp4"]
    assert summary["no_recording"] == ["made/stranger.npy"]
    store = open_store(project.folder / "features")
    assert list(store["made"]) == ["a clip.mp4"]
    assert "level" not in {spec.name for spec in store.features()}
