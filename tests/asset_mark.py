"""The mark ``assets``: which tests need the real clips, photos and weights, and that no others do.

A stranger's clone holds none of that material. Tests that need it are left out of a plain run, which ends with how many
they were and what runs them; where they are run, none of them may be skipped.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).parent.parent
NEEDING = {"assets", "clips"}  # the fixtures that give the material
LEFT_OUT = pytest.StashKey[int]()
# Read now: no test sees the variables of the person who runs it.
FOLDER = Path(os.environ.get("AUPIPE_TEST_ASSETS") or REPOSITORY / ".." / "shared" / "assets").resolve()
FORBIDDEN = bool(os.environ.get("AUPIPE_FORBID_SKIPS"))
COMMAND = "make test-assets runs them (AUPIPE_TEST_ASSETS=folder)"


def no_assets() -> str:
    """Why there is no test material, in one line; empty where there is."""
    if (FOLDER / "README.md").is_file():
        return ""
    return (
        "real clips, photos and weights are not part of the project, and there are none at "
        f"{FOLDER}: set AUPIPE_TEST_ASSETS to their folder"
    )


def is_marked(item: pytest.Item) -> bool:
    return item.get_closest_marker("assets") is not None


def pytest_configure(config: pytest.Config) -> None:
    """Where marked tests are asked for, missing material is said once and nothing is run."""
    config.stash[LEFT_OUT] = 0
    asked = re.search(r"\bassets\b", re.sub(r"\bnot\s+assets\b", "", config.option.markexpr))
    if asked and not hasattr(config, "workerinput") and (reason := no_assets()):
        raise pytest.UsageError(reason)


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Any:
    """A test that uses the material unmarked, or is marked and does not use it, is an error of its file."""
    report = yield
    wrong = [reason for item in report.result or () if isinstance(item, pytest.Item) and (reason := _wrong(item))]
    if wrong:
        report.outcome, report.longrepr = "failed", "\n".join(wrong)
    return _refused(report)


def _wrong(item: pytest.Item) -> str:
    needs = bool(NEEDING & set(getattr(item, "fixturenames", ())))
    if needs and not is_marked(item):
        return f"{item.nodeid} uses real material: mark it with @pytest.mark.assets"
    if is_marked(item) and not needs:
        return f"{item.nodeid} is marked assets and uses no real material: take the mark off"
    return ""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Any:
    report = yield
    return _refused(report)


def _refused(report: Any) -> Any:
    """The report; one of a skip is a failure where skipping is forbidden."""
    if FORBIDDEN and report.skipped:
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        report.outcome = "failed"
        report.longrepr = f"{report.nodeid} skips, which AUPIPE_FORBID_SKIPS forbids: {reason}"
    return report


def pytest_deselected(items: list[pytest.Item]) -> None:
    for item in items:
        if is_marked(item):
            item.config.stash[LEFT_OUT] += 1


def pytest_sessionfinish(session: pytest.Session) -> None:
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["left_out"] = session.config.stash[LEFT_OUT]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Of pytest-xdist: every worker collects all tests, so that one's number is that of all."""
    left_out = getattr(node, "workeroutput", {}).get("left_out", 0)
    node.config.stash[LEFT_OUT] = max(node.config.stash[LEFT_OUT], left_out)


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: Any) -> None:
    if left_out := terminalreporter.config.stash[LEFT_OUT]:
        terminalreporter.write_line(f"{left_out} tests need the test material and were left out: {COMMAND}")
