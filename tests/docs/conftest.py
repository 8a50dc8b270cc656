"""The built documentation, and a browser to look at it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.blocks import ROOT
from tests.report.conftest import browser, browser_page  # noqa: F401 (fixtures)

SITE = ROOT / "build" / "site"


@pytest.fixture(scope="session")
def site() -> Path:
    """The folder that `make docs` builds before it runs these tests."""
    assert (SITE / "index.html").is_file(), "build it: make docs"
    return SITE
