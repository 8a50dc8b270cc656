"""A browser for the tests of pages: Debian's Chromium, driven by playwright, and axe-core where npm has put it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), "")
QUIET = ("--no-sandbox", "--disable-background-networking", "--disable-component-update", "--disable-sync")
QUIET += ("--disable-gpu", "--no-first-run", "--allow-file-access-from-files")
WCAG = ("wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa")


def axe_core() -> Path | None:
    """axe-core as npm installs it, in this folder or one above, as node looks for it; AXE_CORE names another file."""
    if given := os.environ.get("AXE_CORE"):
        return Path(given)
    here = Path(__file__).resolve()
    found = (folder / "node_modules" / "axe-core" / "axe.min.js" for folder in here.parents)
    return next((path for path in found if path.is_file()), None)


@dataclass
class BrowserPage:
    """A page of its own in the browser. ``requests``: the addresses it asked for; ``errors``: what its console said."""

    page: Any  # playwright's Page
    requests: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("console", lambda line: self.errors.append(line.text) if line.type == "error" else None)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))

    def open(self, path: Path, width: int = 1280, height: int = 900, dark: bool = False) -> Any:
        """The page of a file, loaded; returns playwright's page. Forgets the requests and errors of one before."""
        self.requests.clear()
        self.errors.clear()
        self.page.set_viewport_size({"width": width, "height": height})
        self.page.emulate_media(color_scheme="dark" if dark else "light")
        self.page.goto(path.resolve().as_uri(), wait_until="load")
        return self.page

    def outside(self, folder: Path) -> list[str]:
        """The requests that went to anything but files in a folder."""
        own = folder.resolve().as_uri() + "/"
        return [url for url in self.requests if not url.startswith((own, "data:", "blob:"))]

    def violations(self) -> list[str]:
        """What axe-core finds against WCAG A and AA: rule, and the first element. Skips where there is no axe-core."""
        file = axe_core()
        if file is None:
            pytest.skip(
                "the rules of WCAG are checked by axe-core, a JavaScript library that pip cannot install: npm install "
                "axe-core in this folder; every other promise of the pages is tested without it"
            )
        self.page.evaluate(file.read_text(encoding="utf-8"))  # not as a script of the page, which its policy forbids
        run = "(tags) => axe.run(document, {runOnly: {type: 'tag', values: tags}})"
        found = self.page.evaluate(run, list(WCAG))["violations"]
        return [f"{one['id']}: {one['nodes'][0]['html'][:200]}" for one in found]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium, for the tests of one file: playwright's event loop would disturb those of other files."""
    sync_api = pytest.importorskip(
        "playwright.sync_api",
        reason="pages are clicked in a browser by playwright, an extra of developers: pip install -e '.[dev]'",
    )
    if not CHROMIUM:
        pytest.skip(
            "what a page does when it is clicked is seen only in a browser, which pip cannot install: apt-get install "
            "chromium; the files of pages and the numbers in them are tested without one, everywhere"
        )
    with sync_api.sync_playwright() as playwright:
        try:
            started = playwright.chromium.launch(executable_path=CHROMIUM, args=list(QUIET))
        except sync_api.Error as error:
            pytest.skip(
                f"{CHROMIUM} is installed and does not start, which says nothing about the pages (run it by hand to "
                f"see why): {str(error).splitlines()[0]}"
            )
        yield started
        started.close()


@pytest.fixture
def browser_page(browser: Any) -> Iterator[BrowserPage]:
    """A page of a new context: nothing is kept of the one before."""
    context = browser.new_context()
    yield BrowserPage(context.new_page())
    context.close()


@pytest.fixture
def page_without_scripts(browser: Any) -> Iterator[BrowserPage]:
    """As `browser_page`, with scripts switched off."""
    context = browser.new_context(java_script_enabled=False)
    yield BrowserPage(context.new_page())
    context.close()
