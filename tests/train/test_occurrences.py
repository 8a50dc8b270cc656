"""Intervals of predictions: what they hold, and that ELAN's and Praat's formats are read back as they were."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aupipe.errors import UsageError
from aupipe.tasks import AU_NAMES, EXPR_NAMES, Task
from aupipe.train.occurrence_files import eaf_text, events_table, textgrid_text, tiers_of
from aupipe.train.occurrences import Occurrences, find_occurrences
from aupipe.train.predictions import Predictions

VFR_S = np.cumsum(np.random.default_rng(1).uniform(0.0137, 0.0417, 200)) + 0.852


def of(task: Task | str, scores: np.ndarray, times: np.ndarray | None = None, threshold: float = 0.5) -> Predictions:
    scores = scores.astype(np.float32)
    times = np.arange(len(scores)) / 25 if times is None else times
    names = EXPR_NAMES if task == "expr" else AU_NAMES if task == "au" else task.names
    return Predictions("clip", task, names, scores, np.ones(len(scores), bool), times, threshold)


def dwelling(columns: int, rows: int = 200, seed: int = 0) -> np.ndarray:
    """Scores that stay above or below a threshold for a while."""
    rng = np.random.default_rng(seed)
    return np.repeat(rng.random((rows // 5, columns)), 5, axis=0)


def test_an_interval_lasts_from_its_first_row_until_the_next_row_begins() -> None:
    scores = np.zeros((10, 12))
    scores[2:5, 3] = [0.5, 0.7, 0.9]
    scores[9, 0] = 1.0
    times = np.array([0, 0.1, 0.2, 0.5, 0.6, 1.0, 1.1, 1.2, 1.3, 1.4])
    item = replace(of("au", scores, times), face_found=np.arange(10) != 3)
    first, last = find_occurrences(item).found
    assert (first.label, first.first, first.stop, first.start_s, first.end_s) == ("AU6", 2, 5, 0.2, 1.0)
    assert first.probability == pytest.approx(0.7)
    assert first.face_found == pytest.approx(2 / 3)
    assert (last.label, last.start_s, last.end_s) == ("AU1", 1.4, pytest.approx(1.5))


def test_the_model_s_own_thresholds_decide() -> None:
    item = of("au", np.full((4, 12), 0.4))
    assert find_occurrences(item).found == ()
    low = replace(item, threshold=(0.3, *[0.5] * 11))
    assert [one.label for one in find_occurrences(low).found] == ["AU1"]


def test_gaps_are_closed_before_short_intervals_are_left_out_and_both_are_counted() -> None:
    scores = np.zeros((40, 12))
    scores[[0, 1, 4, 5, 20], 0] = 1  # 2 rows, a gap of 2 rows (80 ms), 2 rows; far away a single one
    found = find_occurrences(of("au", scores), min_duration_s=0.2, max_gap_s=0.08)
    assert [(one.first, one.stop) for one in found.found] == [(0, 6)]
    assert (found.joined, found.left_out) == (1, 1)
    assert [(one.first, one.stop) for one in find_occurrences(of("au", scores)).found] == [(0, 2), (4, 6), (20, 21)]


def test_every_row_shows_one_class_and_classes_share_a_tier() -> None:
    found = find_occurrences(of("expr", dwelling(8), VFR_S))
    assert sum(one.stop - one.first for one in found.found) == 200
    assert [one.first for one in found.found[1:]] == [one.stop for one in found.found[:-1]]
    assert list(tiers_of(found, "expr")) == ["expr"]
    with pytest.raises(UsageError, match="a gap is another class"):
        find_occurrences(of("expr", dwelling(8)), max_gap_s=0.1)


def test_numbers_and_recordings_without_a_clock_have_no_intervals() -> None:
    intensity = Task("intensity", "intensity", ("AU1",), metric="ICC", high=5.0)
    with pytest.raises(UsageError, match="are numbers, which have no intervals"):
        find_occurrences(of(intensity, np.ones((4, 1))))
    with pytest.raises(UsageError, match="clip: the store has no clock of it"):
        find_occurrences(of("au", np.ones((4, 12)), np.full(4, np.nan)))


@given(st.integers(0, 2**16), st.integers(1, 60), st.floats(0.001, 0.3), st.floats(0, 0.3), st.floats(0, 0.3))
def test_intervals_of_a_label_never_touch_and_hold_what_was_decided(
    seed: int, rows: int, step: float, shortest: float, gap: float
) -> None:
    rng = np.random.default_rng(seed)
    times = np.cumsum(rng.uniform(step, 2 * step, rows)) - 0.1
    item = of("au", rng.random((rows, 12)), times)
    found = find_occurrences(item, shortest, gap)
    covered = np.zeros((rows, 12), bool)
    for one in found.found:
        k = AU_NAMES.index(one.label)
        assert one.end_s - one.start_s >= shortest
        assert item.decisions[[one.first, one.stop - 1], k].all()
        assert not covered[max(0, one.first - 1) : one.stop, k].any()
        covered[one.first : one.stop, k] = True
    if not shortest:
        assert covered[item.decisions > 0.5].all()
    if not shortest and not gap:
        assert (covered == (item.decisions > 0.5)).all()


def test_the_table_holds_every_interval() -> None:
    found = find_occurrences(of("au", dwelling(12), VFR_S))
    rows = list(csv.DictReader(events_table({"clips/a.mp4": found}).splitlines()))
    assert len(rows) == len(found.found) > 20
    for row, one in zip(rows, found.found, strict=True):
        assert (row["recording"], row["label"]) == ("clips/a.mp4", one.label)
        assert float(row["start_s"]) == pytest.approx(one.start_s, abs=1e-6)
        assert float(row["end_s"]) == pytest.approx(one.end_s, abs=1e-6)
        assert (int(row["frame"]), int(row["rows"])) == (one.first + 1, one.stop - one.first)


def _times(found: Occurrences, tier: str) -> list[tuple[float, float, str]]:
    return [(one.start_s, one.end_s, one.label) for one in tiers_of(found, "expr")[tier]]


CASES = [("au", 12), ("expr", 8)]


@pytest.mark.parametrize(("task", "columns"), CASES)
def test_elan_s_file_is_read_back_within_a_millisecond(task: str, columns: int, tmp_path: Path) -> None:
    pympi = pytest.importorskip("pympi", reason="pip install pympi-ling")
    found = find_occurrences(of(task, dwelling(columns), VFR_S))
    path = tmp_path / "clip.eaf"
    path.write_text(eaf_text(found, task, tmp_path, tmp_path.parent / "videos" / "a b.ts"), encoding="utf-8")
    read = pympi.Eaf(str(path))
    assert set(read.get_tier_names()) == (set(AU_NAMES) if task == "au" else {"expr"})
    for tier in read.get_tier_names():
        own = sorted(read.get_annotation_data_for_tier(tier))
        expected = _times(found, tier)
        assert len(own) == len(expected)
        for (start, end, text, *_), (start_s, end_s, label) in zip(own, expected, strict=True):
            assert text == label
            assert abs(start / 1000 - start_s) < 1e-3
            assert abs(end / 1000 - end_s) < 1e-3
    (media,) = read.get_linked_files()
    assert media["MEDIA_URL"] == f"file://{tmp_path.parent.as_posix()}/videos/a b.ts"
    assert media["RELATIVE_MEDIA_URL"] == "../videos/a b.ts"
    assert media["MIME_TYPE"] == "video/mp2t"


@pytest.mark.parametrize(("task", "columns"), CASES)
@pytest.mark.parametrize("start_s", [0.0, -0.125])
def test_praat_s_file_is_read_back_within_a_millisecond(
    task: str, columns: int, start_s: float, tmp_path: Path
) -> None:
    textgrid = pytest.importorskip("praatio.textgrid", reason="pip install praatio")
    found = find_occurrences(of(task, dwelling(columns), VFR_S - VFR_S[0] + start_s))
    path = tmp_path / "clip.TextGrid"
    path.write_text(textgrid_text(found, task), encoding="utf-8")
    read = textgrid.openTextgrid(str(path), includeEmptyIntervals=False, reportingMode="error")
    assert list(read.tierNames) == (list(AU_NAMES) if task == "au" else ["expr"])
    for tier in read.tierNames:
        expected = _times(found, tier)
        own = read.getTier(tier).entries
        assert len(own) == len(expected)
        for entry, (begin, end, label) in zip(own, expected, strict=True):
            assert entry.label == label
            assert abs(entry.start - begin) < 1e-3
            assert abs(entry.end - end) < 1e-3


def test_names_with_quotes_and_markup_stay_names(tmp_path: Path) -> None:
    pympi = pytest.importorskip("pympi", reason="pip install pympi-ling")
    textgrid = pytest.importorskip("praatio.textgrid", reason="pip install praatio")
    names = ('say "ah"', "a<b & c")
    found = find_occurrences(of(Task("mine", "multi_label", names), np.ones((4, 2))))
    (tmp_path / "a.eaf").write_text(eaf_text(found, "mine"), encoding="utf-8")
    assert set(pympi.Eaf(str(tmp_path / "a.eaf")).get_tier_names()) == set(names)
    (tmp_path / "a.TextGrid").write_text(textgrid_text(found, "mine"), encoding="utf-8")
    read = textgrid.openTextgrid(str(tmp_path / "a.TextGrid"), includeEmptyIntervals=False)
    assert read.getTier(names[0]).entries[0].label == names[0]


def test_no_time_is_before_0() -> None:
    scores = np.zeros((10, 12))
    scores[0, 0] = scores[1:4, 1] = 1
    text = eaf_text(find_occurrences(of("au", scores, np.arange(10) / 25 - 0.06)), "au")
    assert 'TIME_VALUE="-' not in text
    assert text.count("<ALIGNABLE_ANNOTATION") == 1
