"""What users get wrong, in the table `bad_inputs.toml`: each is one line with its exit code, and changes nothing."""

from __future__ import annotations

import os
import shlex
import shutil
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.cli.conftest import HOG, MFCC, NO_FACES, Project
from tests.cli.test_train import fill
from tests.conftest import write_video

HERE = "{here}"  # in the table: the folder of the project
NO_TORCH = "import sys\nsys.stderr.write('torch was loaded\\n')\nraise ImportError('torch was loaded')\n"


@dataclass(frozen=True)
class BadInput:
    """A command line as it is typed in a scene, and what is said of it.

    ``files``: what lies in the folder besides, and ``config`` as its `aupipe.toml`. ``said``: the one line on stderr,
    behind ``aupipe: ``. ``out``: lines on stdout, of commands that name there which files they cannot use.
    """

    name: str
    line: str
    said: str = ""
    code: int = 2
    scene: str = "clips"
    config: str | None = None
    files: dict[str, str] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    out: str = ""
    slow: bool = False  # of a kind that other rows show
    loads_torch: bool = False  # which takes seconds: anything else is said before it


TABLE = tomllib.loads(Path(__file__).with_suffix(".toml").with_stem("bad_inputs").read_text(encoding="utf-8"))
BAD_INPUTS = [BadInput(name, **row) for name, row in TABLE.items()]


def make_empty(root: Path) -> None:
    root.mkdir()


def make_clips(root: Path) -> None:
    """Two videos, one with sound, and what lies about in such folders."""
    write_video(root / "videos" / "a.mp4", 12, tone_hz=440)
    write_video(root / "videos" / "b.mp4", 12)
    (root / "aupipe.toml").write_text(NO_FACES + HOG + MFCC)
    (root / "notes.txt").write_text("first session: light was poor\n")
    (root / "empty").mkdir()


def make_labelled(root: Path) -> None:
    """An Aff-Wild2 tree with labels and a store."""
    root.mkdir()
    fill(root)


def make_stored(root: Path) -> None:
    """The clips, of which the store has a clock, and rows of another program for one of them."""
    from aupipe.config import load_config
    from aupipe.dataset import open_dataset
    from aupipe.extract.planning.features import build_feature_set
    from aupipe.sources import source_identity
    from aupipe.store import create_store

    make_clips(root)
    config = load_config(root / "aupipe.toml")
    with create_store(root / "features", "zarr") as store:
        for one in open_dataset(config.dataset).recordings:
            clock = build_feature_set(config).graph(one).clock
            store.publish(one.id, clock, np.arange(12) / 25, source=source_identity(one.video))


SCENES: dict[str, Callable[[Path], None]] = {
    "empty": make_empty,
    "clips": make_clips,
    "labelled": make_labelled,
    "stored": make_stored,
}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folders that bad inputs are typed in, each made once."""
    root = tmp_path_factory.mktemp("scenes")

    def made(name: str) -> Path:
        if not (root / name).exists():
            SCENES[name](root / name)
        return root / name

    return made


def listing(folder: Path) -> dict[str, tuple[int, int]]:
    """Every file and folder below: of files their sizes and when they were written."""
    found = {path.relative_to(folder).as_posix(): path.lstat() for path in sorted(folder.rglob("*"))}
    return {
        name: (about.st_size, about.st_mtime_ns) if (folder / name).is_file() else (0, 0)
        for name, about in found.items()
    }


def type_in(bad: BadInput, scene: Path, folder: Path) -> tuple[Any, bool]:
    """What the command said and how it ended, with ``{here}`` for the folder; and whether all is as it was."""
    shutil.copytree(scene, folder)
    for name, content in (bad.files | ({} if bad.config is None else {"aupipe.toml": bad.config})).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content.encode("latin-1"))
    before = listing(folder)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AUPIPE_")}
    if not bad.loads_torch:
        (stub := folder.with_name("stub")).mkdir()
        (stub / "torch.py").write_text(NO_TORCH)
        environment["PYTHONPATH"] = os.pathsep.join([str(stub), *filter(None, [environment.get("PYTHONPATH")])])
    program, *arguments = shlex.split(bad.line)
    assert program == "aupipe"
    answer = Project(folder, environment).run(*arguments, **bad.environment)
    answer.out, answer.err = (text.replace(str(folder), HERE) for text in (answer.out, answer.err))
    return answer, listing(folder) == before


@pytest.mark.parametrize(
    "bad", [pytest.param(bad, id=bad.name, marks=[pytest.mark.slow] * bad.slow) for bad in BAD_INPUTS]
)
def test_a_bad_input_is_one_line_with_its_exit_code_and_changes_nothing(
    bad: BadInput, scenes: Callable[[str], Path], tmp_path: Path
) -> None:
    answer, is_unchanged = type_in(bad, scenes(bad.scene), tmp_path / "project")
    assert answer.err.splitlines() == ([f"aupipe: {bad.said}"] if bad.said else [])
    assert (answer.code, answer.out.rstrip("\n")) == (bad.code, bad.out)
    assert is_unchanged


def test_there_are_sixty_bad_inputs_and_no_two_are_the_same() -> None:
    assert sum(not bad.slow for bad in BAD_INPUTS) >= 60
    typed = {(bad.line, bad.scene, bad.config, str(bad.files), str(bad.environment)) for bad in BAD_INPUTS}
    assert len(typed) == len(BAD_INPUTS)
    assert {bad.code for bad in BAD_INPUTS} >= {2, 3, 10, 11, 12, 13}
