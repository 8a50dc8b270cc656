"""Who has no test material is told once what was left out, and no test can come to need it unmarked."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
REPOSITORY = TESTS.parent

GOOD = """
import pytest

def test_plain(): pass

@pytest.mark.skip(reason="no test of aupipe: text of an inner suite, where a plain run must report a skip and go on")
def test_skipped(): pass

@pytest.mark.assets
@pytest.mark.parametrize("number", [1, 2])
def test_real(assets, number): assert (assets / "README.md").is_file()
"""
UNMARKED = """
import pytest

@pytest.fixture
def photo(assets): return assets / "images"

def test_of_a_photo(photo): pass
"""
NEEDLESS = """
import pytest

@pytest.mark.assets
def test_of_nothing(): pass
"""
SKIPS = """
import pytest

@pytest.mark.assets
def test_real(assets): pytest.skip("not today")
"""


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    """A folder with this project's settings of pytest and no tests of its own."""
    (tmp_path / "tests").mkdir()
    shutil.copy(REPOSITORY / "pyproject.toml", tmp_path)
    for name in ("__init__.py", "conftest.py", "asset_mark.py"):
        shutil.copy(TESTS / name, tmp_path / "tests")
    return tmp_path


def run(suite: Path, source: str, *arguments: str, **environment: str) -> tuple[int, list[str]]:
    """The exit code, and the lines said."""
    (suite / "tests" / "test_it.py").write_text(source)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AUPIPE_", "PYTEST_"))}
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments],
        cwd=suite,
        env=kept | {"AUPIPE_TEST_ASSETS": str(suite / "absent")} | environment,
        capture_output=True,
        text=True,
    )
    return result.returncode, (result.stdout + result.stderr).splitlines()


@pytest.mark.parametrize("workers", ["0", "2"])
def test_a_plain_run_passes_and_says_in_one_line_what_was_left_out(suite: Path, workers: str) -> None:
    code, said = run(suite, GOOD, "-n", workers)
    assert code == 0, said
    assert [line for line in said if "material" in line] == [
        "2 tests need the test material and were left out: make test-assets runs them (AUPIPE_TEST_ASSETS=folder)"
    ]
    assert any(re.match(r"SKIPPED \[1\] .*no test of aupipe: text of an inner suite", line) for line in said)
    assert "1 passed, 1 skipped" in said[-1]


def test_without_the_material_the_marked_tests_fail_with_one_line(suite: Path) -> None:
    code, said = run(suite, GOOD, "-m", "assets", "-n", "2")
    assert code != 0
    assert [line for line in said if line] == [
        "ERROR: real clips, photos and weights are not part of the project, and there are none at "
        f"{suite / 'absent'}: set AUPIPE_TEST_ASSETS to their folder"
    ]


def test_with_the_material_exactly_the_marked_tests_run_and_none_may_skip(suite: Path) -> None:
    (suite / "material").mkdir()
    (suite / "material" / "README.md").touch()
    environment = {"AUPIPE_TEST_ASSETS": str(suite / "material"), "AUPIPE_FORBID_SKIPS": "1"}
    code, said = run(suite, GOOD, "-m", "assets", **environment)
    assert (code, "2 passed" in said[-1], "skipped" in said[-1]) == (0, True, False), said
    code, said = run(suite, SKIPS, "-m", "assets", **environment)
    assert code == 1
    assert any("test_real skips, which AUPIPE_FORBID_SKIPS forbids" in line and "not today" in line for line in said)


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (UNMARKED, "test_of_a_photo uses real material: mark it with @pytest.mark.assets"),
        (NEEDLESS, "test_of_nothing is marked assets and uses no real material: take the mark off"),
    ],
)
def test_a_wrong_mark_is_an_error_of_every_run(suite: Path, source: str, reason: str) -> None:
    code, said = run(suite, source)
    assert code != 0
    assert any(line.endswith(reason) for line in said), said


def test_only_the_fixtures_know_where_the_material_is() -> None:
    allowed = {"asset_mark.py", Path(__file__).name}
    for path in TESTS.rglob("*.py"):
        if path.name not in allowed:
            assert not re.search(r"TEST_ASSETS|shared.{1,4}assets", path.read_text()), path


def test_make_has_the_commands_that_are_named() -> None:
    targets = re.findall(r"^([\w-]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE)
    assert {"demo", "test", "test-assets", "lint", "slow"} <= set(targets)
