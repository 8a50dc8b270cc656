"""The scripts of `benchmarks/` still start, and the cluster's runs to its end, after a change to what they measure."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"
SCRIPTS = sorted(path.name for path in FOLDER.glob("*.py") if "__main__" in path.read_text(encoding="utf-8"))
FIGURE = re.compile(r"^(.+?) +(\d+\.\d{3})(?: +\S.*)?$", re.MULTILINE)  # and what is asked of it
# All in one process: a script imports torch, which takes seconds each time.
ASK_EACH = """
import contextlib, io, json, runpy, sys, traceback
folder, *names = sys.argv[1:]
sys.path.insert(0, folder)
answers = {}
for name in names:
    sys.argv, said, code = [name, "--help"], io.StringIO(), "no exit"
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            runpy.run_path(f"{folder}/{name}", run_name="__main__")
        except SystemExit as end:
            code = end.code
        except BaseException:
            traceback.print_exc()
    answers[name] = code, said.getvalue()
print(json.dumps(answers))
"""


@pytest.fixture(scope="module")
def answers() -> dict[str, tuple[int | str, str]]:
    """What each script says to ``--help``: its exit code, and its output."""
    command = [sys.executable, "-c", ASK_EACH, str(FOLDER), *SCRIPTS]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert answer.returncode == 0, answer.stderr
    found: dict[str, tuple[int | str, str]] = json.loads(answer.stdout)
    return found


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_says_how_it_is_used(name: str, answers: dict[str, tuple[int | str, str]]) -> None:
    code, said = answers[name]
    assert code == 0, said
    assert said.startswith(f"usage: {name}"), said


@pytest.mark.slow
def test_the_cluster_benchmark_runs_to_its_end_and_prints_its_figures() -> None:
    command = [sys.executable, str(FOLDER / "cluster_live.py"), "--machines", "2", "--jobs", "20", "--rate", "10"]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert answer.returncode == 0, answer.stderr
    figures = {name: float(value) for name, value in FIGURE.findall(answer.stdout)}
    assert 0 < figures["share of the machines used"] <= 1
    assert figures["wall, s"] > 20 / 10
    for process in ("client", "scheduler", "workers"):
        assert figures[f"CPU a job of the {process}, ms"] > 0
