"""The pages of `aupipe report data` in a browser: what a person sees, clicks and presses."""

from __future__ import annotations

import base64
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from aupipe.extract.encoders.visual.blendshapes import NAMES
from aupipe.extract.faces.face_table import FaceTable
from aupipe.report.checks.corpus import CorpusReport
from aupipe.report.checks.facts import Facts
from aupipe.report.checks.judge import judge
from aupipe.report.faces import RecordingFaces
from aupipe.report.index_page import order_of, render_index
from aupipe.report.page import write_page
from aupipe.report.panels import OF_FACE, Panel, blendshape_heat
from aupipe.report.recording_page import RecordingView, render_recording
from aupipe.report.stretches import find_stretches
from aupipe.tasks import AU_NAMES
from aupipe.types import FaceTrack
from tests.report.conftest import BrowserPage
from tests.report.made_report import Made, make, project_in, regular, row_of, variable

pytestmark = pytest.mark.browser

COUNT = 120
RECORDINGS = {
    "even": Made(regular(COUNT), others=range(10, 40), nobody=range(60, 100), labels=np.tile([1, 0] * 6, (COUNT, 1))),
    "uneven": Made(variable(COUNT), nobody=range(30, 70), sound_from=1.0),
    "late": Made(regular(COUNT, 0.852), sound_from=None),
}


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = make(tmp_path_factory.mktemp("report"), RECORDINGS)
    answer = project_in(root).run("report", "data", "--pages", "all")
    assert answer.code == 0, answer.err
    return root / "reports" / "data"


def page_of(report: Path, name: str) -> Path:
    (found,) = report.glob(f"rec/{name}-*/index.html")
    return found


def made_view(count: int, panels: bool = True) -> RecordingView:
    """A recording of so many rows with every panel there can be, without a video."""
    rng = np.random.default_rng(0)
    times = np.arange(count) / 30
    face = np.full((count, 15), 0.9, np.float32)
    face[:, :14] = rng.integers(0, 300, (count, 14))
    gone = (np.arange(count) // 500) % 5 == 1
    face[gone] = np.nan
    every = FaceTable((~gone).astype(np.int64), np.concatenate([face, np.full((count, 2), 360)], axis=1)[~gone])
    faces = RecordingFaces(times, FaceTrack.from_rows(face), every)
    wave = (0.5 + 0.5 * np.sin(np.arange(count) / 50)).astype(np.float32)
    measured = [Panel(name, OF_FACE, 0.0, 1.0, wave) for name in ("score", "height", "faces", "sound", "speech")]
    for number, name in enumerate(AU_NAMES):
        labels = ((np.arange(count) + 40 * number) // 200 % 3 == 0).astype(np.int8)
        values = np.roll(wave, 30 * number)
        measured.append(Panel(name, "au", 0.0, 1.0, values, threshold=0.5, labels=labels, decided=values > 0.5))
    rows = rng.random((count, 52)).astype(np.float32)
    return RecordingView(
        "long", times, faces, measured, lambda part, end: blendshape_heat(times[part], end, rows[part]), (640, 360)
    )


def say(page: Any) -> int:
    """The row that the page says it is on."""
    return int(page.get_attribute("#timeline", "aria-valuenow"))


def shown_row(page: Any) -> int:
    """The row whose picture the browser shows, read off its pixels."""
    page.evaluate("() => document.getElementById('boxes').style.visibility = 'hidden'")
    page.evaluate("() => document.getElementById('video').controls = false")
    picture = cv2.imdecode(np.frombuffer(page.locator("#video").screenshot(), np.uint8), cv2.IMREAD_COLOR)
    return row_of(picture)


def wait_for(what: Any, seconds: float = 3.0) -> bool:
    """Whether it becomes true in time."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if what():
            return True
        time.sleep(0.02)
    return bool(what())


def canvas(page: Any, name: str) -> np.ndarray:
    """(H, W, 4) the pixels of a canvas, RGBA."""
    data = page.evaluate(f"document.getElementById('{name}').toDataURL()").partition(",")[2]
    picture = cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_UNCHANGED)
    return cv2.cvtColor(picture, cv2.COLOR_BGRA2RGBA)


def dark_column(page: Any) -> float:
    """Where the middle of the cursor's dark column is, in pixels of the page, from the left of the plot."""
    pixels = canvas(page, "cursor").astype(int)
    ratio = page.evaluate("devicePixelRatio")
    dark = (pixels[5, :, 3] > 100) & (pixels[5, :, :3].sum(axis=1) < 300)
    assert dark.any()
    weights = dark * pixels[5, :, 3]
    return float(((np.arange(len(dark)) + 0.5) * weights).sum() / weights.sum() / ratio)


def expected_column(page: Any, times: np.ndarray, row: int, low: float, high: float) -> float:
    """The same from the clock alone."""
    width = page.evaluate("document.getElementById('plot').getBoundingClientRect().width")
    return (times[row] - low) / (high - low) * width


def end_of(times: np.ndarray) -> float:
    return float(times[-1] + np.median(np.diff(times)))


@pytest.mark.parametrize("name", RECORDINGS)
def test_the_row_that_is_shown_is_the_row_that_was_asked_for(
    browser_page: BrowserPage, report: Path, name: str
) -> None:
    page = browser_page.open(page_of(report, name))
    page.wait_for_function("document.getElementById('video').readyState >= 2")
    rng = np.random.default_rng(1)
    for row in [0, COUNT - 1, *rng.integers(0, COUNT, 21)]:
        page.evaluate(f"location.hash = '#row={row}'")
        assert wait_for(lambda row=row: page.get_attribute("#screen", "data-shown") == str(row)), (name, row)
        assert say(page) == row
        assert wait_for(lambda row=row: shown_row(page) == row, 1.0), (name, row, shown_row(page))
    assert browser_page.errors == []


def test_pages_ask_for_nothing_but_their_own_folder_and_have_no_errors(browser_page: BrowserPage, report: Path) -> None:
    for path in (report / "index.html", *report.glob("rec/*/index.html")):
        page = browser_page.open(path)
        page.wait_for_function("document.documentElement.dataset.ready")
        assert browser_page.outside(report) == []
        assert browser_page.errors == []
    assert any(url.endswith("video.mp4") for url in browser_page.requests)


@pytest.mark.parametrize("dark", [False, True])
def test_pages_have_no_violation_of_wcag_a_and_aa(browser_page: BrowserPage, report: Path, dark: bool) -> None:
    for path in (report / "index.html", page_of(report, "even")):
        browser_page.open(path, dark=dark)
        assert browser_page.violations() == []


@pytest.mark.slow  # it measures seconds, which a busy machine has more of
@pytest.mark.parametrize(("count", "megabytes", "seconds"), [(10_000, 1.5, 2.0), (108_000, 13.0, 5.0)])
def test_long_pages_are_small_and_ready_soon(
    browser_page: BrowserPage, tmp_path: Path, count: int, megabytes: float, seconds: float
) -> None:
    path = tmp_path / "rec" / "index.html"
    ((_, html),) = render_recording(made_view(count)).items()
    write_page(path, html)
    assert path.stat().st_size < megabytes * 1e6
    page = browser_page.open(path)
    ready = float(page.evaluate("document.documentElement.dataset.ready")) / 1000
    print(f"{count} rows: {path.stat().st_size / 1e6:.2f} MB, ready after {ready:.2f} s")
    assert ready < seconds


def test_the_cursor_stands_where_the_clock_says_also_after_zoom_resize_and_on_the_full_page(
    browser_page: BrowserPage, report: Path
) -> None:
    times = RECORDINGS["uneven"].times
    page = browser_page.open(page_of(report, "uneven"))
    low, high = times[0], end_of(times)
    for row in (0, 31, 90):
        page.evaluate(f"location.hash = '#row={row}'")
        assert abs(dark_column(page) - expected_column(page, times, row, low, high)) <= 1, row
    room = (high - low) / 2
    page.click("[data-do=closer]")
    from_ = min(max(times[90] - room / 2, low), high - room)  # zoomed around the cursor, which stays where it is
    place = (times[90] - low) / (high - low)
    from_ = min(max(times[90] - place * room, low), high - room)
    assert abs(dark_column(page) - expected_column(page, times, 90, from_, from_ + room)) <= 1
    page.click("[data-do=all]")
    page.set_viewport_size({"width": 777, "height": 900})
    page.wait_for_timeout(100)
    assert say(page) == 90
    assert abs(dark_column(page) - expected_column(page, times, 90, low, high)) <= 1
    full = cv2.imdecode(np.frombuffer(page.screenshot(full_page=True), np.uint8), cv2.IMREAD_COLOR).astype(int)
    box = page.evaluate(
        "(() => { const b = document.getElementById('plot').getBoundingClientRect();"
        "return [b.left + scrollX, b.top + scrollY, b.width]; })()"
    )
    line = full[round(box[1]) + 2, round(box[0]) : round(box[0] + box[2])].sum(axis=1)
    found = float(np.flatnonzero(line < 300).mean() + 0.5)
    assert abs(found - expected_column(page, times, 90, low, high)) <= 1


def test_under_a_variable_frame_rate_strip_and_panel_have_their_gap_in_one_place(
    browser_page: BrowserPage, report: Path
) -> None:
    one = RECORDINGS["uneven"]
    page = browser_page.open(page_of(report, "uneven"))
    pixels = canvas(page, "lines").astype(int)
    width = pixels.shape[1]
    low, high = one.times[0], end_of(one.times)
    expected = [(one.times[row] - low) / (high - low) * width for row in (30, 70)]
    middle = round(sum(expected) / 2)
    for y in (6, pixels.shape[0] - 20):  # the first panel, the heat strip
        line = pixels[y]
        gap = (np.abs(line - line[middle]).sum(axis=1) < 12).astype(int)
        first, last = np.flatnonzero(gap)[[0, -1]]
        assert abs(first - expected[0]) <= 6, (y, first, expected)
        assert abs(last + 1 - expected[1]) <= 6, (y, last, expected)
    tops = page.evaluate("[...document.querySelectorAll('#names div')].map((one) => [one.textContent, one.offsetTop])")
    for name in ("sound, dB", "speech"):  # what is seen is no gap of what is heard
        (top,) = [place for text, place in tops if text.startswith(name)]
        inked = pixels[top - tops[0][1] + 13 : top - tops[0][1] + 15, :, 3].any(axis=0)
        begin = round((1.0 - low) / (high - low) * width)
        assert inked[: begin - 16].mean() > 0.5 if name != "speech" else not inked[: begin - 16].any(), name
        assert not inked[begin + 24 : -24].any(), name  # the last row has none either
    assert "no sound" in page.text_content(".legend")
    assert pixels[4:11, 3:8, 3].any()  # the ends of the axis
    box, tall = page.locator("#plot").bounding_box(), 150 / len(NAMES)
    page.mouse.move(box["x"] + 200, box["y"] + box["height"] - 150 + 10.5 * tall)
    said = page.locator(".names .heat b").text_content().split("\n")
    assert said[0] == f"\u25b8 {NAMES[10]} 0.20"
    assert said[1:3] == [f"{NAMES[51]} 1.00", f"{NAMES[50]} 0.98"]


def test_click_keys_and_links_lead_to_their_rows(browser_page: BrowserPage, report: Path) -> None:
    times = RECORDINGS["uneven"].times
    page = browser_page.open(page_of(report, "uneven"))
    box = page.locator("#plot").bounding_box()
    low, high = times[0], end_of(times)
    for share in (0.1, 0.37, 0.8):
        page.mouse.click(box["x"] + share * box["width"], box["y"] + 50)
        row = int(np.searchsorted(times, low + share * (high - low), side="right") - 1)
        assert abs(say(page) - row) <= 1, share
    page.focus("#timeline")
    for key, row in (
        ("End", COUNT - 1),
        ("Home", 0),
        ("ArrowRight", 1),
        ("ArrowRight", 2),
        ("ArrowLeft", 1),
        ("Shift+ArrowRight", 11),
        ("g", 30),
    ):
        page.keyboard.press(key)
        assert say(page) == row, key
    page.keyboard.press("End")
    page.keyboard.press("Home")
    page.wait_for_timeout(500)  # what the video does comes later
    assert say(page) == 0
    assert wait_for(lambda: shown_row(page) == 0)
    page.locator("a[href='#row=30']").first.click()
    assert say(page) == 30
    assert "nobody" in page.text_content("#state")
    assert page.get_attribute("#timeline", "aria-valuetext").startswith("row 30 of 120, 0:07.200, nobody")
    for target in ("a[href='#row=30']", "[data-do=on]", "summary >> nth=1", "#theme"):
        page.locator(target).first.click()  # then all keys are the time line's
        top, dark = page.evaluate("scrollY"), page.text_content("#theme")
        for key, row in (("Home", 0), ("ArrowRight", 1), ("PageUp", 5), ("ArrowDown", 4), ("End", COUNT - 1)):
            page.keyboard.press(key)
            assert say(page) == row, (target, key)
        assert page.evaluate("scrollY") == top
        page.keyboard.press("Home")
        page.keyboard.press(" ")
        assert wait_for(lambda: not page.evaluate("document.getElementById('video').paused")), target
        page.keyboard.press(" ")
        assert wait_for(lambda: page.evaluate("document.getElementById('video').paused")), target
        assert page.text_content("#theme") == dark
    page.focus("#theme")  # reached by the tab key: space presses the button alone
    page.keyboard.press(" ")
    assert page.text_content("#theme") != dark
    assert page.evaluate("document.getElementById('video').paused")
    page.keyboard.press("End")
    assert say(page) == COUNT - 1


def test_d_leads_to_the_next_disagreement_and_zoom_keeps_colours(browser_page: BrowserPage, tmp_path: Path) -> None:
    view = made_view(3000)
    write_page(tmp_path / "index.html", render_recording(view)["index.html"])
    page = browser_page.open(tmp_path / "index.html")
    begins = sorted({one.first for one in find_stretches(None, view.panels)})
    assert len(begins) > 20
    page.focus("#timeline")
    for row in begins[begins[0] == 0 :]:
        page.keyboard.press("d")
        assert say(page) == row
    for key, text in (("d", "No disagreement after"), ("g", "No gap after"), ("Home", ""), ("G", "No gap before")):
        page.keyboard.press("End" if key == "g" else key)
        page.keyboard.press(key)
        assert page.text_content("#said") == (f"{text} this row on this page." if text else ""), key
    page.keyboard.press("Home")

    def colours() -> set[tuple[int, ...]]:
        pixels = canvas(page, "lines")
        found, counts = np.unique(pixels[: 17 * 30].reshape(-1, 4), axis=0, return_counts=True)
        return {tuple(map(int, one)) for one in found[counts > 400]}

    before = colours()
    page.click("[data-do=closer]")
    page.click("[data-do=all]")
    assert colours() == before
    page.click("[data-do=closer]")
    page.click("[data-do=closer]")
    assert colours() & before


def big_corpus(count: int) -> CorpusReport:
    rng = np.random.default_rng(0)
    corpus = []
    for number in range(count):
        values = {
            "frames": float(rng.integers(100, 20_000)),
            "fps": 30.0,
            "irregular": 0.0,
            "nobody": float(rng.beta(1, 12)),
            "others_only": float(rng.beta(1, 30)),
            "jumps": float(rng.poisson(0.02)),
            "face_px": float(rng.normal(140, 30)),
            "score": float(rng.normal(0.9, 0.03)),
            "no_sound": float(rng.beta(1, 60)),
            "lag:au": 0.0,
            "fit:au": float(rng.normal(0.6, 0.08)),
        }
        corpus.append(Facts(f"a_folder_of_a_long_name/video-{number:05d}.mp4", values))
    return CorpusReport(tuple(corpus), tuple(judge(corpus)), ("clocks of all",), ())


@pytest.mark.slow
def test_an_index_of_5000_recordings_is_drawn_and_sorted_at_once(browser_page: BrowserPage, tmp_path: Path) -> None:
    report = big_corpus(5000)
    names = order_of(report, [facts.recording for facts in report.facts])
    pages = {name: f"rec/{number}/index.html" for number, name in enumerate(names[:20])}
    html = render_index(report, names, pages, {}, [], str, "none")
    write_page(tmp_path / "index.html", html)
    page = browser_page.open(tmp_path / "index.html")
    drawn = float(page.evaluate("document.documentElement.dataset.ready")) / 1000
    timed = """async (button) => {
        const begun = performance.now();
        button.click();
        document.body.offsetHeight;
        await new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
        return performance.now() - begun; }"""
    columns = ("name", "faults", "0", "5")
    rounds = [[page.locator(f"th[data-sort='{by}'] button").evaluate(timed) for by in columns] for _ in range(3)]
    seconds = float(np.array(rounds).min(axis=0).max()) / 1000
    print(f"{len(html) / 1e6:.2f} MB, drawn after {drawn:.2f} s, sorted in {seconds:.2f} s")
    assert drawn < 1.0
    assert seconds < 0.3
    assert page.locator("#table tbody tr").count() == 200
    page.fill("#search", "video-04999")
    assert page.locator("#table tbody tr").count() == 1
    assert page.text_content("#shown") == "1 of 5,000 found"
    cut = "all => all.filter((one) => one.scrollWidth > one.clientWidth).map((one) => one.ariaLabel)"
    assert page.locator(".scroll").evaluate_all(cut) == []  # no column is cut off at 1280 px
    page.fill("#search", "nothing of this name")
    assert page.text_content("#shown") == "0 of 5,000 found"
    page.fill("#search", "")
    page.check("#flagged")
    page.click("#more")
    assert page.locator("#table tbody tr").count() <= 400
    assert browser_page.errors == []


def test_an_index_shows_the_worst_without_scripts(page_without_scripts: BrowserPage, tmp_path: Path) -> None:
    report = big_corpus(300)
    names = order_of(report, [facts.recording for facts in report.facts])
    write_page(tmp_path / "index.html", render_index(report, names, {}, {}, [], str, "none"))
    page = page_without_scripts.open(tmp_path / "index.html")
    assert page.locator("#table tbody tr").count() == 200
    assert page.locator("#table tbody tr td").first.text_content() == names[0]
    assert page.locator(".strips svg").count() > 4
