"""What a shell completes on a line: recordings, features, recipes, label sets and trained models, without torch."""

from __future__ import annotations

import os
import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.blocks import ROOT

PAGE = ROOT / "docs" / "reference" / "commands.md"
MOST_S = 0.5  # of CPU
CONFIG = """
[[encoder]]
kind = "hog"
[[encoder]]
kind = "mfcc"
[[task]]
name = "mood"
kind = "regression"
names = ["calm"]
file = "absent.csv"
low = -1
"""
CODE = "import sys; sys.argv = ['aupipe']; from aupipe.cli import main; main()"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("completion")
    (root / "aupipe.toml").write_text(CONFIG)
    for name in ("day 1/a.mp4", "day 1/ab.mp4", "day2/c.mkv"):
        (root / "videos" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "videos" / name).touch()
    for name in ("hog@0123456789ab", "openface@0123456789ab", "clock@0123456789ab"):
        (root / "features" / name).mkdir(parents=True)
    for name in ("runs/20260101-tcn-au", "runs/search"):
        (root / name).mkdir(parents=True)
        (root / name / "train.json").write_text("{}")
    return root


def completed(folder: Path, *words: str, shell: str = "zsh") -> list[str]:
    """What the last of the words is completed to: ``_AUPIPE_COMPLETE`` is what a shell sets."""
    line = {"COMP_WORDS": " ".join(["aupipe", *words]), "COMP_CWORD": str(len(words))}
    if shell == "fish":
        line["COMP_CWORD"] = words[-1]
    own = {name: value for name, value in os.environ.items() if not name.startswith("AUPIPE_")}
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", CODE],
        env=own | line | {"_AUPIPE_COMPLETE": f"{shell}_complete"},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "| torch" not in done.stderr
    errors = [line for line in done.stderr.splitlines() if not line.startswith("import time:")]
    assert (done.returncode, errors) == (0, [])
    if shell == "zsh":
        return done.stdout.splitlines()[1::3]
    return [line.rpartition("\t" if "\t" in line else ",")[2].partition("\n")[0] for line in done.stdout.splitlines()]


def test_the_words_of_a_line_are_completed_each_in_half_a_second_of_a_processor(folder: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert completed(folder, "insp") == ["inspect"]
    assert completed(folder, "inspect", "day2/") == ["day2/c.mkv"]
    assert completed(folder, "inspect", "'day 1/a") == ["day 1/a.mp4", "day 1/ab.mp4"]
    assert completed(folder, "extract", "--feature", "hog,m") == ["hog,mfcc"]
    assert completed(folder, "train", "--feature", "") == ["hog", "mfcc", "openface"]
    assert completed(folder, "store", "rm", "o") == ["openface", "openface@0123456789ab"]
    assert completed(folder, "train", "--recipe", "tcn") == ["tcn", "tcn-transformer", "tcn-transformer-code"]
    assert completed(folder, "train", "--task", "m") == ["mood"]
    assert completed(folder, "evaluate", "runs/") == ["runs/20260101-tcn-au", "runs/search"]
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) / 9 < MOST_S


@pytest.mark.parametrize("shell", ["bash", "fish"])
def test_other_shells_are_answered_too(folder: Path, shell: str) -> None:
    assert completed(folder, "predict", "runs/s", shell=shell) == ["runs/search"]


def test_nothing_is_completed_and_nothing_said_where_there_is_no_project(tmp_path: Path) -> None:
    assert completed(tmp_path, "inspect", "a") == []
    (tmp_path / "aupipe.toml").write_text("[[")
    assert completed(tmp_path, "inspect", "a") == []


LINES = dict(re.findall(r"^\| (\w+) \| `[^`]+` \| `(.+)` \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE))


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_line_of_the_docs_makes_a_shell_complete(shell: str) -> None:
    (value,) = re.findall(r"_AUPIPE_COMPLETE=(\w+) aupipe\b", LINES[shell])
    command, environment = [sys.executable, "-c", CODE], os.environ | {"_AUPIPE_COMPLETE": value}
    if shell == "bash":
        typed = f"aupipe() {{ '{sys.executable}' -c \"{CODE}\"; }}\n{LINES[shell]}\ncomplete -p aupipe"
        command, environment = ["bash", "-c", typed], dict(os.environ)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert "_aupipe_completion aupipe" in done.stdout if shell == "bash" else f"{shell}_complete" in done.stdout
