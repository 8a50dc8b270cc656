"""The frame of pages: what it promises without a browser, and in one."""

from __future__ import annotations

import base64
import hashlib
import re
import stat
import subprocess
import sys
from html import unescape
from pathlib import Path

import pytest

from aupipe.report.page import WEB, render_page, require_extra, to_script, write_page
from aupipe.report.palette import COLOURS, CURVES, TEXTS, contrast
from tests.report.conftest import BrowserPage

HOSTILE = "</script><script>alert('x')</script>&\"'"


def page(**more: str) -> str:
    return render_page("base.html.j2", title=HOSTILE, facts="1,000 frames", up=("../index.html", "all"), **more)


@pytest.mark.parametrize("paper", ["paper", "panel"])
@pytest.mark.parametrize("dark", [0, 1])
def test_texts_and_curves_have_the_contrast_that_wcag_aa_asks_for(paper: str, dark: int) -> None:
    for names, least in ((TEXTS, 4.5), (CURVES, 3.0)):
        low = {name: contrast(COLOURS[name][dark], COLOURS[paper][dark]) for name in names}
        assert {name: value for name, value in low.items() if value < least} == {}


def test_nothing_that_a_page_shows_becomes_code_and_only_its_own_code_runs() -> None:
    html = page()
    assert HOSTILE not in html
    policy = unescape(re.search(r'Content-Security-Policy" content="([^"]*)"', html)[1])
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    for tag, rule in (("style", "style-src"), ("script", "script-src")):
        allowed = re.search(rf"{rule} ([^;]*)", policy)[1]
        codes = re.findall(rf"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
        hashes = [base64.b64encode(hashlib.sha256(code.encode()).digest()).decode() for code in codes]
        assert allowed.split() == [f"'sha256-{each}'" for each in hashes]
    assert to_script({"a": HOSTILE}).isascii()
    assert "<" not in to_script({"a": HOSTILE})


@pytest.mark.parametrize("faces", ["show", "blur", "none"])
def test_the_foot_of_a_page_names_how_faces_are_shown(faces: str) -> None:
    said = {"show": "Faces: shown", "blur": "a face that no detector found", "none": "No picture, video or sound"}
    assert said[faces] in page(faces=faces)


def test_a_page_is_for_its_owner_alone_and_replaced_only_when_asked(tmp_path: Path) -> None:
    path = tmp_path / "report" / "index.html"
    write_page(path, page())
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    first = path.read_bytes()
    with pytest.raises(Exception, match="is there already"):
        write_page(path, page())
    write_page(path, page(), overwrite=True)
    assert path.read_bytes() == first
    assert [one.name for one in path.parent.iterdir()] == ["index.html"]


def test_files_of_the_web_are_part_of_the_package() -> None:
    names = {path.name for path in WEB.iterdir()}
    assert {"base.html.j2", "page.css", "theme.js"} <= names


def test_a_report_without_its_libraries_names_the_extra() -> None:
    require_extra()
    code = "import sys; sys.modules['jinja2'] = None\nfrom aupipe.cli import main; main()"
    answer = subprocess.run([sys.executable, "-c", code, "report", "run", "any"], capture_output=True, text=True)
    assert answer.stderr == "aupipe: a report needs jinja2: pip install 'aupipe[report]'\n"
    assert answer.returncode == 2


@pytest.mark.browser
def test_a_page_works_with_and_without_scripts_and_asks_for_nothing(
    browser_page: BrowserPage, page_without_scripts: BrowserPage, tmp_path: Path
) -> None:
    write_page(tmp_path / "index.html", page())
    shown = browser_page.open(tmp_path / "index.html", dark=True)
    colour = "() => getComputedStyle(document.body).backgroundColor"
    dark = shown.evaluate(colour)
    shown.click("#theme")
    assert shown.evaluate(colour) != dark
    assert shown.text_content("#theme") == "Dark"
    assert browser_page.errors == []
    assert browser_page.outside(tmp_path) == []
    plain = page_without_scripts.open(tmp_path / "index.html")
    assert not plain.is_visible("#theme")
    assert plain.is_visible("h1")


@pytest.mark.browser
@pytest.mark.parametrize("dark", [False, True])
def test_the_frame_has_no_violation_of_wcag_a_and_aa(browser_page: BrowserPage, tmp_path: Path, dark: bool) -> None:
    write_page(tmp_path / "index.html", page())
    browser_page.open(tmp_path / "index.html", dark=dark)
    assert browser_page.violations() == []
