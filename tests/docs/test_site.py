"""The built documentation: nothing raw in its text, every page titled and reachable, every link leads somewhere.

`make docs` builds it and runs these tests.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag

import pytest

from tests.report.conftest import BrowserPage

pytestmark = pytest.mark.site
CODE = {"pre", "code", "script", "style"}
VOID = {"br", "img", "hr", "input", "link", "meta", "path", "circle", "line", "polyline", "rect", "polygon"}
OF_SPHINX = {"search.html"}  # a page without a text of its own
# Signs of markup that was not read: backticks, directives, roles, fields, links and tables of Markdown, names of types.
RAW = re.compile(r"`|(^|\s)\.\. \w+::|:\w+:`|^:\w+ ?\w*:|\]\(|^\|.*\|$|\*\*[A-Za-z]|~[a-z_]+\.\w", re.MULTILINE)


@dataclass
class Page(HTMLParser):
    """What a page says beside its code, where it leads, and what it loads."""

    text: list[str] = field(default_factory=list)
    code: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    loads: list[str] = field(default_factory=list)
    ids: set[str] = field(default_factory=set)
    headings: int = 0
    title: str = ""
    open: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag not in VOID:
            self.open.append(tag)
        self.ids |= {value for name in ("id", "name") if (value := given.get(name))}
        self.headings += tag == "h1"
        if tag == "a" and given.get("href"):
            self.links.append(str(given["href"]))
        elif address := given.get("src") or (given.get("href") if tag == "link" else None):
            self.loads.append(address)

    def handle_endtag(self, tag: str) -> None:
        if tag in self.open:
            while self.open.pop() != tag:
                pass

    def handle_data(self, data: str) -> None:
        if "title" in self.open and "svg" not in self.open:
            self.title += data
        (self.code if CODE & set(self.open) else self.text).append(data)


def read(path: Path) -> Page:
    page = Page()
    page.feed(path.read_text(encoding="utf-8"))
    return page


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[str, Page]:
    return {path.relative_to(site).as_posix(): read(path) for path in sorted(site.rglob("*.html"))}


def target(place: str, link: str) -> tuple[str, str]:
    """The page and the part of it that a link leads to, from the page ``place``."""
    address, part = urldefrag(link)
    address = address.partition("?")[0]
    folder = Path("/", place).parent
    return ((folder / unquote(address)).resolve().as_posix()[1:] if address else place), unquote(part)


def is_inside(link: str) -> bool:
    return not re.match(r"[a-z]+:|//", link)


def test_every_page_has_a_title_and_one_heading(pages: dict[str, Page]) -> None:
    assert len(pages) > 25
    assert [name for name, page in pages.items() if not page.title.strip()] == []
    written = {name: page.headings for name, page in pages.items() if name not in OF_SPHINX}
    assert set(written.values()) == {1}, written


def test_no_markup_is_left_in_the_text(pages: dict[str, Page]) -> None:
    raw = {name: line for name, page in pages.items() for line in page.text if RAW.search(line)}
    assert raw == {}


def test_options_have_two_hyphens_in_text_and_code(pages: dict[str, Page]) -> None:
    commands = "".join(pages["reference/commands.html"].code)
    assert re.search(r"--gpu N\s+GPU to run on", commands)
    for name, page in pages.items():
        text = "".join(page.text + page.code)
        assert not re.search(r"[–—](gpu|cpu|help|json|store|folds|out)\b", text), name


def test_every_command_has_its_help(pages: dict[str, Page]) -> None:
    from aupipe.cli import cli

    commands = pages["reference/commands.html"]
    missing = [name for name in cli.commands if f"Usage: aupipe {name} " not in "".join(commands.code)]
    assert missing == []
    assert "aupipe-extract" in commands.ids


def test_public_names_have_their_docstrings(pages: dict[str, Page]) -> None:
    import aupipe

    named = {name for name in aupipe.__all__ if not name.startswith("__")}
    called = {"extract", "train"}  # packages that are functions too: described where the functions are
    described = {f"aupipe.{name}" for name in named - called} | {f"aupipe.commands.{name}" for name in called}
    assert described <= pages["reference/python.html"].ids
    assert "aupipe.store.open_store" in pages["reference/store.html"].ids
    assert "aupipe.train.fit.fit" in pages["reference/train.html"].ids


def test_every_page_is_reached_from_the_first_one(pages: dict[str, Page]) -> None:
    seen, ahead = {"index.html"}, ["index.html"]
    while ahead:
        place = ahead.pop()
        for link in filter(is_inside, pages[place].links):
            found = target(place, link)[0]
            if found in pages and found not in seen:
                seen.add(found)
                ahead.append(found)
    assert set(pages) - seen - OF_SPHINX == set()


def test_every_link_inside_leads_somewhere(pages: dict[str, Page], site: Path) -> None:
    dead = []
    for place, page in pages.items():
        for link in filter(is_inside, page.links):
            found, part = target(place, link)
            if not (site / found).is_file() or (found in pages and part and part not in pages[found].ids):
                dead.append(f"{place}: {link}")
    assert dead == []


def test_nothing_is_loaded_from_another_host(pages: dict[str, Page], site: Path) -> None:
    loaded = [(place, address) for place, page in pages.items() for address in page.loads]
    assert [pair for pair in loaded if not is_inside(pair[1]) and not pair[1].startswith("data:")] == []
    assert [pair for pair in loaded if is_inside(pair[1]) and not (site / target(*pair)[0]).is_file()] == []
    styles = "".join(path.read_text(encoding="utf-8") for path in site.rglob("*.css"))
    assert re.findall(r"(?:@import|url\()\s*[\"']?(?:https?:)?//", styles) == []


@pytest.mark.parametrize(("width", "dark"), [(400, True), (1280, False)])
def test_pages_fit_their_window_and_ask_for_nothing_else(
    pages: dict[str, Page], site: Path, browser_page: BrowserPage, width: int, dark: bool
) -> None:
    for name in pages:
        shown = browser_page.open(site / name, width, dark=dark)
        assert shown.evaluate("document.documentElement.scrollWidth <= innerWidth"), name
        assert browser_page.outside(site) == []
        assert browser_page.errors == [], name
