"""`aupipe analyse` as somebody runs it who has videos and nothing else: named columns, true times, intervals."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pandas
import pytest

from aupipe.config import load_config
from aupipe.dataset import open_dataset
from aupipe.errors import WeightsMissingError
from aupipe.extract.encoders.visual.blendshapes import NAMES
from aupipe.extract.planning.features import build_feature_set
from aupipe.report.analysis import picture, table_files
from aupipe.report.analysis.columns import FEATURES, Column, clock_columns
from aupipe.report.analysis.table import Block, Layout, Table
from aupipe.report.analysis.tiers import Tiers
from aupipe.sources import source_identity
from aupipe.store import open_store
from aupipe.tasks import AU_NAMES
from tests.cli.conftest import Answer, Project
from tests.cli.test_json import check_shapes
from tests.cli.test_train import FRAMES as TRAINED_FRAMES
from tests.cli.test_train import SMALL, Folder, fill
from tests.made import spoken_s, talking, write_media
from tests.made_bundle import write_bundle
from tests.test_listing import write_frames

PAGE = Path(__file__).parents[2] / "docs" / "analyse.md"
DATA = Path(__file__).parents[1] / "extract" / "data"
CLASSES = ["red", "green", "blue", "dark", "bright"]
FACES = ["face_count", "face_subject", "face_x1_px", "face_y1_px", "face_x2_px", "face_y2_px", "face_score"]
FRAMES = {"talks.mkv": 40, "silent/grey.mp4": 12}
TABLES = ("out.csv", "out.parquet", "out.xlsx")


def times_of(video: Path) -> np.ndarray:
    """(T,) what ffprobe shows as pts_time of each frame."""
    with av.open(str(video)) as container:
        return np.array([float(frame.pts * frame.time_base) for frame in container.decode(video=0)])


def environment(**more: str) -> dict[str, str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith("AUPIPE_")}
    return own | {"OMP_NUM_THREADS": "1", **more}


@pytest.fixture(scope="module")
def analysed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Answer]:
    """A folder with a clip of variable frame rate that begins late, one without face and sound, and their analysis."""
    root = tmp_path_factory.mktemp("analyse")
    pictures, sound = talking(frames=40)
    times = 0.8 + np.cumsum(np.where(np.arange(40) % 3, 0.04, 0.06)) - 0.06
    write_media(root / "clips" / "talks.mkv", pictures[:, ::2, ::2], sound, times_s=times, sound_start_s=0.8)
    write_media(root / "clips" / "silent" / "grey.mp4", np.full((12, 96, 128, 3), 128, np.uint8))
    write_bundle(root / "made.task")
    shutil.copy(DATA / "mean_colour.onnx", root)
    tables = ['name = "mesh"\nkind = "blendshapes"\nweights = "made.task"']
    tables.append(f'name = "colour"\nkind = "onnx"\nweights = "mean_colour.onnx"\nsize_px = 32\nclasses = {CLASSES}')
    text = "\n".join(f'[[encoder]]\nmodality = "visual"\n{table}' for table in tables)
    (root / "mine.toml").write_text(text.replace("'", '"'))
    outs = [word for name in (*TABLES, "out.eaf", "out.TextGrid") for word in ("--out", name)]
    project = Project(root, environment(XDG_CACHE_HOME=str(root / "cache")))
    return root, project.run("analyse", "clips", "--cpu", "--classifier", "mine.toml", "--threshold", "0.3", *outs)


def test_a_table_has_named_columns_and_a_row_per_frame_at_the_times_of_the_file(analysed: tuple[Path, Answer]) -> None:
    root, answer = analysed
    assert answer.code == 0, answer.out + answer.err
    table = pandas.read_csv(root / "out.csv")
    assert list(table.columns[:10]) == ["recording", "frame", "time_s", *FACES]
    assert {*NAMES, *CLASSES, "roll_rad", "speech", "level_dbfs"} <= set(table.columns)
    for name, frames in FRAMES.items():
        own = table[table.recording == name]
        assert list(own.frame) == list(range(1, frames + 1))
        np.testing.assert_allclose(own.time_s, times_of(root / "clips" / name), atol=1e-6)
    talks, grey = (table[table.recording == name] for name in FRAMES)
    assert talks.time_s.iloc[0] == pytest.approx(0.8)
    assert (talks.face_count == 1).mean() > 0.8
    assert talks[[*NAMES, *CLASSES]].notna().all(axis=1).equals(talks.face_subject == 1)
    assert (grey.face_count == 0).all()
    assert grey[[*NAMES, *CLASSES, "speech", "level_dbfs", "face_x1_px"]].isna().all(axis=None)


def test_every_format_of_a_table_has_the_same_values(analysed: tuple[Path, Answer]) -> None:
    root, _ = analysed
    frames = {
        "csv": pandas.read_csv(root / "out.csv"),
        "parquet": pandas.read_parquet(root / "out.parquet"),
        "xlsx": pandas.read_excel(root / "out.xlsx"),
    }
    for table in frames.values():
        assert list(table.columns) == list(frames["csv"].columns)
        assert list(table.recording) == list(frames["csv"].recording)
        numbers = [one.drop(columns="recording").to_numpy(dtype=float) for one in (table, frames["csv"])]
        np.testing.assert_allclose(*numbers, rtol=2e-5, atol=1e-6)
    assert all((root / name).stat().st_mode & 0o077 == 0 for name in TABLES)


def test_measurements_and_guesses_are_told_apart_with_what_was_trained_on(analysed: tuple[Path, Answer]) -> None:
    root, answer = analysed
    about = pandas.read_csv(root / "out.columns.csv").set_index("column")
    assert list(about.index) == list(pandas.read_csv(root / "out.csv", nrows=1).columns)
    assert set(about.index[about.kind == "measurement"]) == {"recording", "frame", "time_s", "level_dbfs"}
    guesses = about[about.kind == "guess"]
    assert guesses.trained_on.notna().all()
    assert "WIDER FACE" in guesses.trained_on["face_x1_px"]
    assert "not known here" in guesses.trained_on["red"]
    sheet = pandas.read_excel(root / "out.xlsx", sheet_name="columns").set_index("column")
    assert sheet.kind.equals(about.kind)
    assert "measurements: recording, frame, time_s, level_dbfs" in answer.out
    guessed = int((about.kind == "guess").sum())
    short = f"guesses of networks: the other {guessed}: out.columns.csv says of which, trained on what"
    measured, others, mesh, colour = answer.out.splitlines()[-4:]
    assert (measured[:13], others) == ("measurements:", short)
    assert mesh.startswith("guesses of blendshapes made.task: _neutral, ")  # classifiers were asked for: all is said
    assert colour.startswith(
        "guesses of onnx mean_colour.onnx: red, green, blue, dark and 1 more; trained on not known"
    )


def test_what_guesses_the_columns_of_every_analysis_is_printed_on_request(analysed: tuple[Path, Answer]) -> None:
    root, _ = analysed
    asked = ("analyse", "clips", "--cpu", "--no-picture")
    said = Folder(root).ask(*asked, "--out", "all.csv", "-v")
    assert "guesses of detector mtcnn: face_count; trained on faces of WIDER FACE" in said
    assert "or download Google's MediaPipe face landmarker bundle" in said
    said = Folder(root).ask(*asked, "--out", "short.csv", "--out", "short.xlsx")
    assert said.splitlines()[-1].startswith("guesses of networks: the other 29: short.columns.csv says of which")
    assert "or download" not in said
    said = Folder(root).ask(*asked, "--out", "short.eaf")
    assert said.splitlines()[-1] == "tiers are guesses of networks (-v: of which, trained on what)"


def test_what_cannot_be_computed_is_named_with_what_to_do_and_the_rest_is_given(analysed: tuple[Path, Answer]) -> None:
    root, answer = analysed
    assert "not computed: blendshapes: " in answer.out
    assert "face_landmarker_v2_with_blendshapes.task" in answer.out
    assert "note  silent/grey.mp4: speech: no row has values: the file has no sound" in answer.out.replace(
        "vad", "speech"
    )
    assert "silent/grey.mp4: mesh: no row has values: the subject's face was found in none of 12 frames" in answer.out
    assert re.search(
        r"eye distances,guess,.*eye_left is the person's right eye", (root / "out.columns.csv").read_text()
    )
    assert f"rows are kept in {root / 'clips' / 'features'}" in answer.err


def test_intervals_are_read_by_elan_and_praat(analysed: tuple[Path, Answer]) -> None:
    from praatio import textgrid
    from pympi import Elan

    root, _ = analysed
    document = Elan.Eaf(root / "out-talks.eaf")
    tiers = document.get_tier_names()
    assert {"face", "speech", "AU12 (mouthSmile)", "AU26 (jawOpen)", "classes (colour)"} <= set(tiers)
    table = pandas.read_csv(root / "out.csv")
    talks = table[table.recording == "talks.mkv"].reset_index()
    ((begin, _, word),) = document.get_annotation_data_for_tier("speech")
    spoken = spoken_s(root / "clips" / "talks.mkv")
    assert word == "speech"
    assert abs(begin / 1000 - spoken[0]) < 0.3
    smile = talks[["mouthSmileLeft", "mouthSmileRight"]].mean(axis=1)
    edges = [*talks.time_s, talks.time_s.iloc[-1] + talks.time_s.diff().median()]
    active = smile >= 0.3
    shown = sum(edges[k + 1] - edges[k] for k in np.flatnonzero(active))
    marked = document.get_annotation_data_for_tier("AU12 (mouthSmile)")
    assert sum(stop - start for start, stop, _ in marked) / 1000 == pytest.approx(shown, abs=0.002 * (len(marked) + 1))
    assert document.get_linked_files()[0]["RELATIVE_MEDIA_URL"] == "clips/talks.mkv"
    assert "guess of blendshapes made.task" in (root / "out-talks.eaf").read_text()
    grid = textgrid.openTextgrid(str(root / "out-talks.TextGrid"), includeEmptyIntervals=False)
    assert set(grid.tierNames) == set(tiers) - {"default"}
    (praat,) = grid.getTier("speech").entries
    assert praat.start == pytest.approx(begin / 1000, abs=0.001)
    events = pandas.read_excel(root / "out.xlsx", sheet_name="events")
    assert (events.recording == "talks.mkv").all()
    assert set(events.tier) >= {"face", "speech", "classes (colour)"}


def test_each_video_has_a_picture_of_one_page(analysed: tuple[Path, Answer]) -> None:
    import cv2

    root, _ = analysed
    for name in ("out-talks.png", "out-silent_grey.png"):
        drawn = cv2.imread(str(root / name))
        height, width, _ = drawn.shape
        assert height / width == pytest.approx(2**0.5, rel=0.01)
        assert (drawn < 128).any(axis=2).mean() > 0.005


def test_a_panel_without_values_says_why_and_has_no_scale(monkeypatch: pytest.MonkeyPatch) -> None:
    figures = []
    monkeypatch.setattr(picture.Figure, "savefig", lambda figure, *_, **__: figures.append(figure))
    level = Block("level", "level", (Column("level_dbfs", "dB of full scale", "measurement", "a formula"),))
    notes = ("level: no row has values: the file has no sound",)
    table = Table("a.mp4", np.arange(2) / 25, {"level": np.full((2, 1), np.nan, np.float32)}, notes)
    picture.draw_picture(Layout(tuple(clock_columns()), (level,)), table, Tiers("a.mp4", {}, {}, 0.08))
    panel = figures[0].axes[0]
    assert [text.get_text() for text in panel.texts] == ["no row has values: the file has no sound"]
    assert not len(panel.get_yticks())


def test_a_second_call_computes_nothing_and_says_it_all_as_json(analysed: tuple[Path, Answer]) -> None:
    root, _ = analysed
    project = Project(root, environment(XDG_CACHE_HOME=str(root / "cache")))
    store = open_store(root / "clips" / "features")
    before = {(record.recording, record.feature): record.revision for record in store.records()}
    arguments = ("analyse", "clips", "--classifier", "mine.toml", "--no-picture")
    refused = project.run(*arguments, "--out", "out.csv")
    assert refused.code == 2
    assert "out.csv is there already" in refused.err
    answer = project.run(*arguments, "--out", "again.csv", "--json")
    assert answer.code == 0, answer.err
    (summary,) = check_shapes("analyse", answer.out)  # no item was made
    assert summary["message_type"] == "analysis"
    assert summary["rows"] == FRAMES
    assert "face_landmarker" in summary["not_computed"]["blendshapes"]
    assert [Path(path).name for path in summary["files"]] == ["again.csv", "again.columns.csv"]
    assert {column["kind"] for column in summary["columns"]} == {"measurement", "guess"}
    assert any("face was found in none" in line for line in summary["recordings"]["silent/grey.mp4"])
    assert (root / "again.csv").read_bytes() == (root / "out.csv").read_bytes()
    store.refresh()
    assert {(record.recording, record.feature): record.revision for record in store.records()} == before


def test_a_workbook_of_more_rows_than_a_sheet_holds_is_refused_before_anything_is_written(
    analysed: tuple[Path, Answer], monkeypatch: pytest.MonkeyPatch
) -> None:
    root, _ = analysed
    before = sorted(root.iterdir())
    monkeypatch.setattr(table_files, "XLSX_ROWS", 52)  # its header and the 52 rows do not fit
    said = Folder(root).ask("analyse", "clips", "--cpu", "--out", "long.xlsx", code=2)
    assert "52 rows and 33 columns; a sheet of .xlsx holds 51 and 16,384: use .csv or .parquet" in said
    assert sorted(root.iterdir()) == before


def test_what_cannot_be_written_or_found_is_refused_before_anything_is_decoded(tmp_path: Path) -> None:
    write_media(tmp_path / "a.mp4", np.full((6, 96, 128, 3), 128, np.uint8))
    (tmp_path / "frames").mkdir()
    (tmp_path / "frames" / "00001.png").touch()
    (tmp_path / "none.toml").write_text("[store]\n")
    (tmp_path / "lacks.toml").write_text('[[encoder]]\nname = "x"\nmodality = "visual"\nkind = "dan"\n')
    folder = Folder(tmp_path)
    for arguments, words in (
        ((), "name the videos, or folders of them: aupipe analyse clip.mp4"),
        (("b.mp4",), "no file or folder b.mp4"),
        (
            ("a.mp4", "--out", "a.cvs"),
            "--out a.cvs: unknown suffix. Did you mean '.csv'? Accepted: .csv, .parquet",
        ),
        (("a.mp4", "--out", "a.mp4/there/a.csv"), "a.mp4 is no folder"),
        (("frames",), "no videos in frames (1 file); numbered images need a frame rate: `aupipe init`"),
        (("a.mp4", "--out", "a.csv", "--out", "a.csv"), "--out a.csv is named twice"),
        (("a.mp4", "--classifier", "happiness"), "--classifier happiness: no trained run, no .toml file and no"),
        (("a.mp4", "--classifier", "none.toml"), "none.toml: it has no [[encoder]] table"),
        (("a.mp4", "--detector", "yunnet"), "Did you mean 'yunet'"),
    ):
        assert words in folder.ask("analyse", *arguments, code=2), arguments
    with pytest.raises(WeightsMissingError, match="affecnet8_epoch5_acc0"):
        folder.ask("analyse", "a.mp4", "--classifier", "lacks.toml")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mp4", "frames", "lacks.toml", "none.toml"]


def test_the_line_that_says_how_to_try_again_works_as_printed_and_names_no_option_of_another_command(
    tmp_path: Path,
) -> None:
    whole = write_media(
        tmp_path / "bad" / "a.mkv", np.random.default_rng(0).integers(0, 255, (30, 96, 128, 3), np.uint8)
    )
    whole.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    (tmp_path / "bad" / "b.mp4").write_bytes(b"no video" * 100)
    (tmp_path / "bad" / "notes.txt").touch()
    folder = Folder(tmp_path)
    out = ("--out", "new/bad.csv", "--out", "new/bad.eaf")
    said = folder.ask("analyse", "bad", "--cpu", "--detector", "none", "--no-picture", *out)
    assert (tmp_path / "new" / "bad.csv").exists()
    assert "aupipe: not videos: 1 file (1 .txt)" in said
    assert "damaged  a.mkv" in said
    assert "--on-damage" not in said
    assert "aupipe status" not in said
    assert "left out b.mp4: decode: bad/b.mp4 is text" in said
    (retry,) = re.findall(r"retry: aupipe (.*)", said)
    assert "wrote new/bad.csv" in folder.ask(*shlex.split(retry))


def test_numbered_images_of_a_project_are_analysed_without_looking_for_sound(tmp_path: Path) -> None:
    write_frames(tmp_path / "clip")
    (tmp_path / "aupipe.toml").write_text('[dataset]\nlayout = "images"\nvideos = "."\nfps = 25\n')
    said = Folder(tmp_path).ask("analyse", "clip", "--cpu", "--detector", "none", "--no-picture", "--out", "a.csv")
    assert "not computed: level: images have no sound" in said
    assert "no audio" not in said
    table = pandas.read_csv(tmp_path / "a.csv")
    np.testing.assert_allclose(table.time_s, np.arange(len(table)) / 25, atol=1e-6)


@pytest.mark.slow
def test_a_broken_video_is_left_out_by_name_and_the_others_are_given(project: Project) -> None:
    write_media(project.folder / "videos" / "a.mp4", np.full((6, 96, 128, 3), 128, np.uint8))
    (project.folder / "videos" / "b.mp4").write_bytes(b"no video" * 100)
    answer = project.run("analyse", "videos", "--cpu", "--no-picture")
    assert answer.code == 3, answer.err
    assert "left out b.mp4: " in answer.out
    assert "FAILED  b.mp4" in answer.out
    assert set(pandas.read_csv(project.folder / "analysis.csv").recording) == {"a.mp4"}
    (project.folder / "videos" / "a.mp4").unlink()
    alone = project.run("analyse", "videos/b.mp4", "--cpu", "--no-picture", "--out", "b.csv")
    assert alone.code == 3
    assert "b.mp4 could not be analysed: " in alone.err
    assert not (project.folder / "b.csv").exists()


def test_a_name_that_begins_with_an_equals_sign_is_no_formula(tmp_path: Path) -> None:
    layout = Layout(tuple(clock_columns()), ())
    with table_files.open_table(tmp_path / "a.xlsx", layout, False, lambda: [("recording",)]) as append:
        append(Table("=1+1.mp4", np.arange(2) / 25, {}, ()))
    assert list(pandas.read_excel(tmp_path / "a.xlsx").recording) == ["=1+1.mp4"] * 2


@pytest.mark.assets
def test_three_real_clips_have_the_times_of_their_frames_and_52_named_blendshapes(
    assets: Path, project: Project
) -> None:
    from pympi import Elan

    names = ["single_face_smile_mp3.mp4", "face_then_noface_vfr_hevc.mov", "hamilton_lowlight_multiface_speech.mp4"]
    for name in names:
        (project.folder / "videos" / name).symlink_to(assets / "videos" / name)
    (project.folder / "fer.toml").write_text(
        '[[encoder]]\nname = "fer"\nmodality = "visual"\nkind = "onnx"\nweights = "fer2013_mini_xception.onnx"\n'
        'size_px = 64\nchannels = "grey"\ncrop = "square"\n'
        'classes = ["angry", "disgust", "fear", "happy", "sad", "surprise", "neutral"]\n'
    )
    outs = [word for name in ("a.csv", "a.xlsx", "a.eaf") for word in ("--out", name)]
    answer = project.run(
        *("analyse", "videos", "--cpu", "--detector", "yunet", "--classifier", "fer.toml", *outs),
        AUPIPE_WEIGHTS=str(assets / "weights"),
    )
    assert answer.code == 0, answer.out + answer.err
    table = pandas.read_csv(project.folder / "a.csv")
    assert set(NAMES) <= set(table.columns)
    for name in names:
        own = table[table.recording == name]
        np.testing.assert_allclose(own.time_s, times_of(assets / "videos" / name), atol=1e-6)
    smile = table[table.recording == names[0]]
    assert (smile[["happy", "sad", "neutral"]].idxmax(axis=1) == "happy").mean() > 0.5
    assert smile[["mouthSmileLeft", "mouthSmileRight"]].to_numpy().mean() > 0.3
    assert "FER-2013" in answer.out
    assert len(pandas.read_excel(project.folder / "a.xlsx")) == len(table)
    document = Elan.Eaf(project.folder / "a-hamilton_lowlight_multiface_speech.eaf")
    speech = document.get_annotation_data_for_tier("speech")
    assert sum(stop - start for start, stop, _ in speech) > 7000
    smiling = Elan.Eaf(project.folder / "a-single_face_smile_mp3.eaf").get_annotation_data_for_tier("AU12 (mouthSmile)")
    assert sum(stop - start for start, stop, _ in smiling) > 500


@pytest.mark.slow
def test_every_command_of_the_page_works_as_it_stands(analysed: tuple[Path, Answer]) -> None:
    """In one process: each of them would load torch anew."""
    root, _ = analysed
    text = PAGE.read_text(encoding="utf-8")
    lines = [line for block in re.findall(r"```bash\n(.*?)```", text, re.DOTALL) for line in block.splitlines()]
    commands = [shlex.split(line, comments=True)[1:] for line in lines]
    (table,) = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    write_media(root / "clip.mp4", np.full((6, 96, 128, 3), 128, np.uint8))
    names = str(CLASSES).replace("'", '"')  # of the network that is there
    (root / "emotions.toml").write_text(re.sub(r"classes = .*", f"classes = {names}", table).replace("grey", "rgb"))
    shutil.copy(DATA / "mean_colour.onnx", root / "emotion.onnx")
    (root / "aupipe.toml").write_text('[dataset]\nvideos = "clips"\n[store]\npath = "clips/features"\n')
    (root / "openface").mkdir()
    np.save(root / "openface" / "talks.npy", np.ones((FRAMES["talks.mkv"], 4)))
    code = (
        "import sys, json\nfrom aupipe.cli import cli\nfor words in json.load(sys.stdin):\n"
        "    print(words, flush=True)\n    assert not cli.main(words, standalone_mode=False)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code],
        input=json.dumps(commands),
        cwd=root,
        env=environment(XDG_CACHE_HOME=str(root / "cache")),
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    written = {path.name for path in root.iterdir()}
    files = ("analysis.csv", "analysis.columns.csv", "analysis.png", "results.xlsx", "results-talks.eaf")
    assert written >= {*files, "clip.parquet"}


def test_a_trained_run_guesses_too_and_one_of_other_features_is_refused_before_anything_is_decoded(
    tmp_path: Path,
) -> None:
    """On a store that is filled without decoding: its own features are not columns, its scores and intervals are."""
    fill(tmp_path)
    config = load_config(tmp_path / "aupipe.toml")
    known = tuple(one for one in FEATURES if one.kind != "blendshapes")
    parts = build_feature_set(replace(config, encoders=known))
    store = open_store(tmp_path / "features")
    shapes = {"faces": (15,), "detections": (8, 17), "geometry": (21,), "vad": (1,), "level": (1,)}
    for one in open_dataset(config.dataset).recordings:
        graph, source = parts.graph(one), source_identity(one.video)
        store.publish(one.video_id, graph.clock, np.arange(TRAINED_FRAMES) / 25, source=source)
        for spec in (graph.detections, graph.faces, *(spec for spec, _ in graph.encoders)):
            rows = np.full((TRAINED_FRAMES, *shapes[spec.name]), 0.5, np.float32)
            store.publish(one.key_for(spec.modality), spec, rows, source=source)
    store.close()
    folder = Folder(tmp_path)
    folder.ask("train", "--recipe", "tcn", "--feature", "hog", *SMALL, "--out", "run")
    said = folder.ask("analyse", "videos/v0.mp4", "videos/clip0.mp4", "--cpu", "--classifier", "run", "--out", "a.csv")
    table = pandas.read_csv(tmp_path / "a.csv")
    assert set(AU_NAMES) <= set(table.columns)
    assert not any(name.startswith("hog") for name in table.columns)
    folder.ask("predict", "run", "v0", "--cpu", "--out", "p.csv")
    own = table[table.recording == "v0"].reset_index()
    np.testing.assert_allclose(own[list(AU_NAMES)], pandas.read_csv(tmp_path / "p.csv")[list(AU_NAMES)], atol=1e-5)
    assert "guesses of the trained model run" in said
    assert "note  clip0: run was TRAINED on a recording of this name" in said
    assert "note  v0: run was TRAINED" not in said
    said = folder.ask("analyse", "videos", "--cpu", "--classifier", "run", "--detector", "none", code=2)
    assert "it was trained on hog@" in said
    assert "which is not computed here" in said
