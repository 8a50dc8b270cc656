"""How much of the media of a run is done, and how long the rest takes."""

from __future__ import annotations

import pytest

from aupipe.extract.executors.media_progress import JobMedia, MediaProgress
from aupipe.extract.meter import Meter, PhasePosition, PhaseTotals

HOUR = 3600.0


def at(video: str, done_s: float, phase: str = "scan", length_s: float = HOUR) -> PhasePosition:
    return PhasePosition(video, phase, done_s, length_s)


def test_the_time_left_moves_inside_an_hour_long_video() -> None:
    progress = MediaProgress({"a": JobMedia(1000, ("scan",))})
    assert progress.state([], {}, 0.0).left_s is None
    left = []
    for minutes in (1, 2, 30, 59):  # twice as fast as it plays
        totals = {"scan": PhaseTotals(minutes * 60, minutes * 30)}
        state = progress.state([at("a", minutes * 60)], totals, minutes * 30)
        assert state.share == pytest.approx(minutes / 60)
        assert not state.is_least
        left.append(state.left_s)
    assert left == pytest.approx([59 * 30, 58 * 30, 30 * 30, 30])


def test_a_phase_that_was_never_measured_makes_it_a_lower_bound_unless_an_earlier_run_has() -> None:
    videos = {"a": JobMedia(1000, ("scan", "encode"))}
    positions, totals = [at("a", HOUR / 2)], {"scan": PhaseTotals(HOUR / 2, 600.0)}
    state = MediaProgress(videos).state(positions, totals, 600.0)
    assert (state.left_s, state.is_least) == (pytest.approx(600.0), True)
    assert state.share == pytest.approx(0.5)
    costs = {"scan": 0.1, "encode": 1.0}  # of an earlier run; this one's own scan goes before
    state = MediaProgress(videos, costs).state(positions, totals, 600.0)
    assert (state.left_s, state.is_least) == (pytest.approx(600.0 + HOUR), False)
    assert state.share == pytest.approx(600 / (1200 + HOUR))


def test_videos_that_were_not_opened_are_as_long_as_their_bytes_say() -> None:
    progress = MediaProgress({name: JobMedia(size, ("scan",)) for name, size in {"a": 100, "b": 300}.items()})
    progress.end("a", 60.0)
    state = progress.state([], {"scan": PhaseTotals(60.0, 30.0)}, 30.0)
    assert (state.done_s, state.total_s, state.left_s) == pytest.approx((60.0, 240.0, 90.0))
    state = progress.state([at("b", 0.0, length_s=500.0)], {"scan": PhaseTotals(60.0, 30.0)}, 30.0)
    assert state.total_s == pytest.approx(560.0)  # its header says so


def test_a_video_that_cannot_be_read_is_no_media() -> None:
    progress = MediaProgress({name: JobMedia(100, ("scan",)) for name in "ab"})
    progress.end("a", 0.0)
    progress.end("b", 60.0)
    assert progress.state([], {"scan": PhaseTotals(60.0, 30.0)}, 30.0).total_s == pytest.approx(60.0)


def test_the_longest_video_under_way_is_the_least_that_is_left() -> None:
    progress = MediaProgress({"a": JobMedia(100, ("scan",)), "b": JobMedia(1, ("scan",))})
    positions = [at("a", 100.0, length_s=1000.0), at("b", 100.0, length_s=110.0)]
    state = progress.state(positions, {"scan": PhaseTotals(200.0, 200.0)}, 100.0)  # two at a time
    assert state.left_s == pytest.approx(900.0)
    assert state.under_way[0] == ("b", pytest.approx(100 / 110))


def test_a_snapshot_says_how_far_each_video_is_and_what_a_phase_took() -> None:
    meter, where = Meter(), [0.0]
    with meter.job("a"):
        with meter.phase("a", "scan", lambda: (where[0], 10.0)):
            where[0] = 4.0
            assert meter.snapshot().under_way == (PhasePosition("a", "scan", 4.0, 10.0),)
            where[0] = 10.0
        where[0] = 0.0  # what its reader does later is no part of the phase
        assert meter.snapshot().under_way == (PhasePosition("a", "scan", 10.0, 10.0),)
    found = meter.snapshot()
    assert found.under_way == ()
    assert found.phases["scan"].media_s == 10.0
    assert found.phases["scan"].seconds > 0
