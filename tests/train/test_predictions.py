"""Submission files: exactly the rows of the sample file in its order, or an error and no file."""

import logging
import os
import stat

import numpy as np
import pytest

from aupipe.errors import UsageError
from aupipe.train.labels import NAMES
from aupipe.train.prediction_files import write_abaw, write_csv, write_parquet, write_tracks
from aupipe.train.predictions import Predictions, decide


def predictions(name, scores, task):
    scores = np.asarray(scores, dtype=np.float32)
    seen = np.arange(len(scores)) != 1
    return {name: Predictions(name, task, NAMES[task], scores, seen, np.arange(len(scores)) / 25)}


@pytest.fixture
def au():
    scores = np.full((3, 12), 0.2)
    scores[1] = 0.9
    scores[2, [0, 11]] = 0.5, 0.49
    return predictions("video2_left", scores, "au")


def test_au_rows_are_zeros_and_ones(au, tmp_path):
    write_abaw(au, tmp_path / "au.txt", "au")
    assert (tmp_path / "au.txt").read_text().splitlines() == [
        "image_location,AU1,AU2,AU4,AU6,AU7,AU10,AU12,AU15,AU23,AU24,AU25,AU26",
        "video2_left/00001.jpg,0,0,0,0,0,0,0,0,0,0,0,0",
        "video2_left/00002.jpg,1,1,1,1,1,1,1,1,1,1,1,1",
        "video2_left/00003.jpg,1,0,0,0,0,0,0,0,0,0,0,0",
    ]


def test_expr_is_one_number_under_eight_names(tmp_path):
    write_abaw(predictions("a", np.eye(8)[[3, 7]], "expr"), tmp_path / "expr.txt", "expr")
    assert (tmp_path / "expr.txt").read_text().splitlines() == [
        "image_location,Neutral,Anger,Disgust,Fear,Happiness,Sadness,Surprise,Other",
        "a/00001.jpg,3",
        "a/00002.jpg,7",
    ]


def test_va_is_two_numbers_in_minus_one_to_one(tmp_path):
    write_abaw(predictions("a", [[0.125, -1.5], [2.0, 0.0]], "va"), tmp_path / "va.txt", "va")
    assert (tmp_path / "va.txt").read_text().splitlines() == [
        "image_location,valence,arousal",
        "a/00001.jpg,0.125000,-1.000000",
        "a/00002.jpg,1.000000,0.000000",
    ]


def test_trap_15_ties_of_classes_go_to_the_lower_number_and_of_thresholds_to_yes():
    assert decide(np.full((1, 8), 0.125, np.float32), "expr").tolist() == [[0]]
    assert decide(np.array([[0.5, 0.4999]], np.float32), "au").tolist() == [[1, 0]]


AU_HEADER = "image_location," + ",".join(NAMES["au"])


def sample(tmp_path, rows, header=AU_HEADER):
    file = tmp_path / "sample.txt"
    file.write_text("\n".join([header, *rows]) + "\n")
    return file


def test_a_sample_sets_the_rows_and_their_order(au, tmp_path, caplog):
    file = sample(tmp_path, ["video2_left/00003.jpg,", "video2_left/00001.jpg,0,0,0"])
    with caplog.at_level(logging.WARNING):
        write_abaw(au, tmp_path / "au.txt", "au", sample=file)
    lines = (tmp_path / "au.txt").read_text().splitlines()
    assert [line.partition(",")[0] for line in lines[1:]] == ["video2_left/00003.jpg", "video2_left/00001.jpg"]
    assert lines[1].endswith(",1,0,0,0,0,0,0,0,0,0,0,0")
    assert "1 predicted frames are not in the sample" in caplog.text


def test_rows_of_the_sample_that_were_not_predicted_are_named_and_nothing_is_written(au, tmp_path):
    file = sample(tmp_path, ["video2_left/00003.jpg,", "video2_left/00004.jpg,", "video2/00001.jpg,"])
    with pytest.raises(
        UsageError, match=r"2 of its 3 rows were not predicted, first video2_left/00004.jpg, video2/00001.jpg"
    ):
        write_abaw(au, tmp_path / "au.txt", "au", sample=file)
    assert not (tmp_path / "au.txt").exists()


def test_the_sample_of_another_task_is_refused(au, tmp_path):
    with pytest.raises(UsageError, match="is it the sample of another task"):
        write_abaw(au, tmp_path / "au.txt", "au", sample=sample(tmp_path, [], "image_location,valence,arousal"))


@pytest.mark.parametrize("write", [write_abaw, write_tracks, write_csv, write_parquet])
def test_predictions_are_readable_by_their_owner_alone(au, tmp_path, write):
    if write is write_parquet:
        pytest.importorskip("pyarrow")
    before = os.umask(0o000)
    try:
        write(au, tmp_path / "out", *(["au"] if write in (write_abaw, write_tracks) else []))
    finally:
        os.umask(before)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert [stat.S_IMODE(path.stat().st_mode) for path in files] == [0o600]


def test_a_sample_with_a_row_twice_is_refused(au, tmp_path):
    with pytest.raises(UsageError, match="twice in it: 1 row"):
        write_abaw(au, tmp_path / "au.txt", "au", sample=sample(tmp_path, ["video2_left/00001.jpg,"] * 2))


def test_nan_is_never_written(tmp_path):
    broken = predictions("a", np.full((2, 12), np.nan), "au")
    for write in (write_abaw, write_tracks):
        with pytest.raises(UsageError, match="a: scores hold NaN; nothing was written"):
            write(broken, tmp_path / "out", "au")
    assert list(tmp_path.iterdir()) == []


def test_predictions_of_another_task_are_refused(au, tmp_path):
    with pytest.raises(UsageError, match="predictions are for task 'au', not 'va'"):
        write_abaw(au, tmp_path / "va.txt", "va")


def test_one_file_per_track_reads_like_an_annotation(au, tmp_path):
    write_tracks(au, tmp_path, "au")
    lines = (tmp_path / "video2_left.txt").read_text().splitlines()
    assert lines[0] == ",".join(NAMES["au"])
    assert lines[2] == ",".join("1" * 12)
    assert len(lines) == 4


def test_a_track_name_outside_the_folder_is_refused(tmp_path):
    with pytest.raises(UsageError, match="not a relative recording id"):
        write_tracks(predictions("../outside", np.ones((2, 12)), "au"), tmp_path / "tracks", "au")
    assert list(tmp_path.iterdir()) == []


def test_the_csv_has_every_score_its_time_and_whether_the_face_was_found(au, tmp_path):
    write_csv(au, tmp_path / "scores.csv")
    lines = (tmp_path / "scores.csv").read_text().splitlines()
    assert lines[0] == "recording,frame,pts_s," + ",".join(NAMES["au"]) + ",valid"
    assert lines[2].startswith("video2_left,2,0.040000,0.900000,")
    assert [line[-1] for line in lines[1:]] == ["1", "0", "1"]
