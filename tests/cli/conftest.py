"""A project folder and the command line in it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from tests.cli.mounts import mounting  # noqa: F401 - a fixture

# Pieces of configurations. A worker process with no more than NO_FACES, HOG and LEVEL starts three times faster.
NO_FACES = '[faces]\ndetector = "none"\n'
HOG = '[[encoder]]\nname = "hog"\nmodality = "visual"\nkind = "hog"\n'
LEVEL = '[[encoder]]\nname = "level"\nmodality = "audio"\nkind = "level"\n'
MFCC = '[[encoder]]\nname = "mfcc"\nmodality = "audio"\nkind = "mfcc"\n'


@dataclass
class Answer:
    """What a command said and how it ended."""

    code: int
    out: str
    err: str

    def json(self) -> list[dict]:
        return [json.loads(line) for line in self.out.splitlines()]


@dataclass
class Project:
    """A folder with videos in which `aupipe` is run, in a process of its own as a user runs it."""

    folder: Path
    environment: dict[str, str]

    def run(self, *arguments: object, **environment: str) -> Answer:
        result = subprocess.run(
            [sys.executable, "-c", "from aupipe.cli import main; main()", *map(str, arguments)],
            cwd=self.folder,
            env=self.environment | environment,
            capture_output=True,
            text=True,
            errors="surrogateescape",
            timeout=550,
            stdin=subprocess.DEVNULL,
        )
        return Answer(result.returncode, result.stdout, result.stderr)

    def start(self, *arguments: object, **environment: str) -> subprocess.Popen:
        return subprocess.Popen(
            [sys.executable, "-c", "from aupipe.cli import main; main()", *map(str, arguments)],
            cwd=self.folder,
            env=self.environment | environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            preexec_fn=lambda: signal.signal(
                signal.SIGINT, signal.default_int_handler
            ),  # ignored where tests run behind &
        )

    def configure(self, text: str) -> None:
        (self.folder / "aupipe.toml").write_text(text)


def install_plugin(site: Path, module: str, source: str, **encoders: str) -> None:
    """Make ``site`` a folder of installed packages with one module, whose encoders are entry points: name -> class."""
    about = site / f"{module}-1.0.dist-info"
    about.mkdir(parents=True)
    (site / f"{module}.py").write_text(source)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
    entries = [f"{name} = {module}:{kind}" for name, kind in encoders.items()]
    (about / "entry_points.txt").write_text("\n".join(["[aupipe.encoders]", *entries, ""]))


def workers_of(pid: int) -> list[psutil.Process]:
    """The worker processes that a process has started."""
    return [child for child in psutil.Process(pid).children() if "aupipe.extract.executors.worker" in child.cmdline()]


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """An empty project of somebody who has a clone and nothing else: faces are found by the bundled detector."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AUPIPE_")}
    (tmp_path / "videos").mkdir()
    return Project(tmp_path, environment)


@pytest.fixture(scope="session")
def arrays():
    """Every array of a store, by (recording, feature), as bytes; reads through the contract alone."""

    def read(path: Path) -> dict[tuple[str, str], bytes]:
        from aupipe.store import open_store

        store = open_store(path)
        return {
            (record.recording, record.feature): store.read(record.recording, record.feature).tobytes()
            for record in store.records()
            if record.state == "done"
        }

    return read
