"""Parts of a recording page: series as the script gets them, hours, where to look, and texts without folders."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path

import numpy as np
import pytest

from aupipe.report import recording_page
from aupipe.report.packing import MISSING, Mark, cut_rows, pack_faces, pack_panel, quantise
from aupipe.report.panels import Panel, levels_db, resample, task_panels
from aupipe.report.recording_page import RecordingView, render_recording
from aupipe.report.redaction import without_folders
from aupipe.report.stretches import find_stretches, longest
from aupipe.report.video_file import rising
from aupipe.tasks import OFFICIAL, Task
from aupipe.train.predictions import Predictions
from aupipe.types import Labels, Waveform
from tests.report.test_overlay import nobody


def unpack(text: str, kind: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), kind)


def test_a_series_comes_back_within_one_step_and_what_is_missing_stays_missing() -> None:
    values = np.array([-80, -12.5, np.nan, 0, 40], np.float32)
    found = quantise(values, -80.0, 0.0)
    assert found[2] == MISSING
    assert np.abs(found[[0, 1, 3]] / 65534 * 80 - 80 - values[[0, 1, 3]]).max() < 80 / 65534
    assert found[4] == 65534


def predicted(task: Task, scores: np.ndarray, threshold: float | tuple[float, ...] = 0.5) -> Predictions:
    count = len(scores)
    return Predictions("a", task, task.names, scores, np.ones(count, bool), np.arange(count) / 25, threshold)


def test_marks_say_what_is_labelled_and_decided_at_the_thresholds_of_each_au() -> None:
    task = Task("two", "multi_label", ("AU1", "AU2"))
    labels = Labels(
        task, task.names, np.array([[1, 0], [1, 1], [0, 0]], np.float32), np.array([[1, 1], [1, 1], [0, 1]], bool)
    )
    scores = np.array([[0.3, 0.8], [0.1, 0.95], [0.9, 0.2]], np.float32)
    panels = task_panels(3, labels, predicted(task, scores, (0.25, 0.9)))
    both = Mark.LABELLED | Mark.PREDICTED
    marks = [unpack(pack_panel(panel, slice(0, 3))["marks"], "u1").tolist() for panel in panels]
    assert marks[0] == [both | Mark.ACTIVE | Mark.DECIDED, both | Mark.ACTIVE, Mark.PREDICTED | Mark.DECIDED]
    assert marks[1] == [both, both | Mark.ACTIVE | Mark.DECIDED, both]
    assert [panel.threshold for panel in panels] == [0.25, 0.9]
    assert [(one.first, one.stop, one.what) for one in find_stretches(None, panels)] == [
        (1, 2, "AU1 labelled active, not predicted")
    ]


def test_a_class_is_decided_by_the_highest_probability_and_numbers_have_their_label_as_a_curve() -> None:
    expr = OFFICIAL["expr"]
    labels = Labels(expr, expr.names, np.array([[3.0], [0.0]]), np.array([[True], [False]]))
    scores = np.full((2, 8), 0.1, np.float32)
    scores[:, 4] = 0.3
    panels = task_panels(2, labels, predicted(expr, scores))
    assert [panel.labels.tolist() for panel in panels[:4]] == [[0, -1], [0, -1], [0, -1], [1, -1]]
    assert {one.what for one in find_stretches(None, panels)} == {
        "Fear labelled, not predicted",
        "Happiness predicted, labelled another class",
    }
    va = OFFICIAL["va"]
    numbers = Labels(va, va.names, np.array([[0.5, -0.5], [0, 0]], np.float32), np.array([[1, 1], [0, 0]], bool))
    valence, arousal = task_panels(2, numbers, predicted(va, np.array([[0.4, 0.4], [0.4, 0.4]], np.float32)))
    assert valence.target[0] == 0.5
    assert np.isnan(valence.target[1])
    assert (valence.low, valence.high) == (-1.0, 1.0)
    assert [one.what for one in find_stretches(None, [valence, arousal])] == ["arousal far from its label"]


def test_labels_of_fewer_or_more_rows_than_there_are_frames_stay_at_their_rows() -> None:
    task = Task("one", "multi_label", ("AU1",))
    for count in (3, 8):
        labels = Labels(task, task.names, np.ones((count, 1), np.float32), np.ones((count, 1), bool))
        (panel,) = task_panels(5, labels, None)
        assert panel.labels.tolist() == [1] * min(count, 5) + [-1] * max(0, 5 - count)


def test_a_heat_strip_is_resampled_by_time_and_not_by_row() -> None:
    times = np.concatenate([np.arange(10) * 0.1, 1 + np.arange(100) * 0.01])  # a second at 10, a second at 100 frames/s
    rows = np.where(times < 1, 0.0, 1.0)[:, None].astype(np.float32)
    rows[0] = np.nan
    strip = resample(times, 2.0, rows)[0]
    known = strip[~np.isnan(strip)]
    assert np.isnan(strip).sum() == pytest.approx(len(strip) * 0.05, abs=2)  # the first row is shown for 0.1 s
    assert np.mean(known < 0.5) == pytest.approx(0.9 / 1.9, abs=0.01)


def test_the_level_of_sound_is_that_of_the_moment_in_which_a_row_is_shown() -> None:
    times = np.arange(50) / 25
    samples = np.zeros(48_000, np.float32)  # one second, from 0.5 s on; loud in its second half
    samples[24_000:] = 0.5
    level = levels_db(times, Waveform(samples, 48_000, 0.5))
    assert np.isnan(level[times < 0.45]).all()
    assert np.isnan(level[times > 1.53]).all()
    assert (level[(times > 0.55) & (times < 0.9)] == -80).all()
    assert level[(times > 1.05) & (times < 1.4)] == pytest.approx(20 * np.log10(0.5), abs=0.01)


def test_times_that_rise_keep_theirs_and_equal_ones_are_told_apart() -> None:
    times = np.array([0.0, 0.04, 0.04, 0.08])
    assert rising(np.arange(5) / 25).tolist() == (np.arange(5) / 25).tolist()
    found = rising(times)
    assert (np.diff(found) > 0).all()
    assert np.abs(found - times).max() < 1e-3


def test_boxes_of_pictures_of_another_size_lie_in_the_first_one() -> None:
    faces = nobody(np.arange(2) / 25)
    faces.subject.box[:] = [[10, 20, 30, 40], [20, 40, 60, 80]]
    faces.subject.score[:] = 0.9
    row = np.zeros(17, np.float32)
    every = type(faces.every)(np.array([1, 1]), np.stack([row, row]))
    every.rows[:, :4] = faces.subject.box
    every.rows[:, 15:] = [[100, 200], [200, 400]]
    packed = pack_faces(type(faces)(faces.times_s, faces.subject, every), (200, 100), slice(0, 2))
    track = unpack(packed["track"], "<i2").reshape(2, 14) / packed["parts"]
    assert track[:, :4].tolist() == [[10, 20, 30, 40], [10, 20, 30, 40]]
    assert len(unpack(packed["others"], "<i2")) == 0


def test_hours_of_a_long_recording_are_pages_of_their_own_below_a_strip_of_the_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert cut_rows(np.arange(100) / 25, 10.0, 120) == [slice(0, 100)]
    monkeypatch.setattr(recording_page, "MOST_ROWS", 1000)
    monkeypatch.setattr(recording_page, "PART_S", 20.0)
    times = np.arange(1250) / 25
    files = render_recording(RecordingView("long", times, nobody(times), []))
    assert list(files) == ["index.html", "part-2.html", "part-3.html"]
    firsts = []
    for number, html in enumerate(files.values()):
        data = json.loads(re.search(r'id="data">(.*?)</script>', html)[1])
        firsts.append((data["first"], data["count"], data["end"]))
        assert data["rows"] == 1250
        assert unpack(data["pts"], "<f8")[0] == times[data["first"]]
        assert '<rect class="nobody" x="0" y="0" width="1000"' in html
        links = re.findall(r'<li><a href="([^"]*)">', html)
        assert links == [file for place, file in enumerate(files) if place != number]
        assert f'href="#row={data["first"]}"' in html
    assert firsts == [(0, 500, 20.0), (500, 500, 40.0), (1000, 250, pytest.approx(50.0))]


def test_of_many_places_to_look_at_jumps_and_the_longest_are_listed_in_their_order() -> None:
    values = np.zeros(1000, bool)
    values[::2] = True
    panel = Panel("AU1", "au", 0, 1, labels=np.ones(1000, np.int8), decided=values)
    found = find_stretches(None, [panel])
    assert len(found) == 500
    kept = longest(found, 30)
    assert len(kept) == 30
    assert [one.first for one in kept] == sorted(one.first for one in kept)


def test_texts_of_pages_have_no_folder_of_this_machine(tmp_path: Path) -> None:
    clean = without_folders([tmp_path / "my data"])
    assert clean(f"{tmp_path}/my data/a/b.txt, line 3: bad") == "a/b.txt, line 3: bad"
    assert clean(f"{Path.home()}/x/y.mp4 has changed") in ("x/y.mp4 has changed", "y.mp4 has changed")
    assert clean("/mnt/disk7/corpus/v.mp4: damaged") == "v.mp4: damaged"
    assert clean("3/4 of clips/a.mp4 at 25.0/s") == "3/4 of clips/a.mp4 at 25.0/s"
