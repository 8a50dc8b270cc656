"""docs/extend.md, block by block: a package with encoders and a detector is written, installed and used."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from tests.made import write_talking

REPOSITORY = Path(__file__).parents[2]
PAGE = REPOSITORY / "docs" / "extend.md"
FRAMES = 24


@dataclass(frozen=True)
class Block:
    """A fenced block of the page, and the file its preceding line says that it is."""

    file: str
    language: str
    text: str


def blocks() -> list[Block]:
    found = re.findall(r"(?:^`([\w./-]+)`:\n\n)?^```(\w+)\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    return [Block(*each) for each in found]


def commands() -> list[Block]:
    return [block for block in blocks() if block.language == "sh"]


@dataclass(frozen=True)
class Folder:
    """A folder with a video, in which somebody follows the page; nothing is fetched and nobody's packages change."""

    path: Path

    def run(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        site = self.path / "site"
        environment = {
            **os.environ,
            "PATH": f"{self.path / 'bin'}:{os.environ['PATH']}",
            "PYTHONPATH": f"{site}:{REPOSITORY}",
            "PIP_TARGET": str(site),
            "PIP_UPGRADE": "1",  # a package that is installed a second time is replaced
            "PIP_NO_INDEX": "1",
            "PIP_NO_DEPS": "1",
            "PIP_NO_BUILD_ISOLATION": "0",  # pip's way of saying yes
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "OMP_NUM_THREADS": "1",
        }
        done = subprocess.run(command, cwd=self.path, env=environment, capture_output=True, text=True, timeout=500)
        assert done.returncode == 0 or not check, done.stdout + done.stderr
        return done

    def shell(self, text: str) -> str:
        return self.run("sh", "-e", "-c", text).stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """The page followed up to the installed package; ``aupipe`` and ``pip`` are those of this Python."""
    path = tmp_path_factory.mktemp("extend")
    (path / "bin").mkdir()
    for name, code in (("pip", "-m pip"), ("aupipe", '-c "from aupipe.cli import main; main()"')):
        script = path / "bin" / name
        script.write_text(f'#!/bin/sh\nexec {sys.executable} {code} "$@"\n')
        script.chmod(0o755)
    write_talking(path / "videos" / "a.mp4", frames=FRAMES)
    for block in blocks():
        if block.file:
            (path / block.file).parent.mkdir(parents=True, exist_ok=True)
            (path / block.file).write_text(block.text)
    return Folder(path)


@pytest.fixture(scope="module")
def installed(folder: Folder) -> str:
    """What the first commands of the page say."""
    return folder.shell(commands()[0].text)


def test_the_names_of_the_package_are_listed_with_it(installed: str) -> None:
    listed = dict(line.split(maxsplit=1) for line in installed.splitlines() if "aupipe-zones" in line and "  " in line)
    assert {name for name, package in listed.items() if package == "aupipe-zones"} == {"zones", "stem", "fixed"}


def test_extraction_with_the_package_fills_the_store(installed: str, folder: Folder) -> None:
    extract, inspect = commands()[1].text.splitlines()
    folder.shell(extract)
    found = {row["kind"]: row for row in json.loads(folder.shell(inspect))["features"]}
    zones, stem = found["zones"], found["stem"]
    assert (zones["row_shape"], zones["frames"], zones["valid_frames"]) == ([12], FRAMES, FRAMES)
    assert zones["columns"][:4] == ["red_0_0", "green_0_0", "blue_0_0", "red_0_1"]
    assert len(zones["columns"]) == 12
    assert (stem["row_shape"], stem["columns"], stem["params"]["width"]) == ([16], [], 16)
    assert found["fixed"]["params"]["box"] == [0.3, 0.1, 0.8, 0.9]

    from aupipe.store import open_store

    store = open_store(folder.path / "features")
    rows, box = np.asarray(store["zones"]["a.mp4"][:], np.float32), np.asarray(store["faces"]["a.mp4"][:])[:, :4]
    assert ((rows > 0) & (rows < 255)).all()
    width, height = 320, 256
    np.testing.assert_allclose(box, [[0.3 * width, 0.1 * height, 0.8 * width, 0.9 * height]] * FRAMES, rtol=1e-3)
    (reading,) = [block for block in blocks() if block.language == "python" and not block.file]
    assert folder.run(sys.executable, "-c", reading.text).stdout == f"a.mp4 ({FRAMES}, 12)\n"


def test_the_package_is_part_of_the_provenance(installed: str, folder: Folder) -> None:
    code = (
        "from aupipe.config import load_config\n"
        "from aupipe.extract.planning.features import build_feature_set\n"
        "from aupipe.extract.versions import versions_of\n"
        "features = build_feature_set(load_config())\n"
        "for part in (features.detector, *(encoder for _, encoder in features.encoders)):\n"
        "    print(versions_of(part)['aupipe-zones'])\n"
    )
    assert folder.run(sys.executable, "-c", code).stdout == "1.0\n" * 3


@pytest.mark.parametrize(
    ("wrong", "right", "said"),
    [
        ("boxx = [0.3, 0.1, 0.8, 0.9]", "box = [0.3, 0.1, 0.8, 0.9]", "unknown key 'boxx'. Did you mean 'box'?"),
        ("box = [0.9, 0.1, 0.8, 0.9]", "box = [0.3, 0.1, 0.8, 0.9]", "left must be below right"),
        ("n = 99", "n = 2", "n = 99: expected 1 to 16"),
        ('kind = "zone"', 'kind = "zones"', "unknown encoder 'zone'. Did you mean 'zones'?"),
    ],
)
def test_a_wrong_setting_of_the_package_is_refused_by_name(
    installed: str, folder: Folder, wrong: str, right: str, said: str
) -> None:
    (folder.path / "wrong.toml").write_text((folder.path / "aupipe.toml").read_text().replace(right, wrong))
    done = folder.run("aupipe", "extract", "--cpu", "--config", "wrong.toml", check=False)
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("file", "wrong", "right", "said"),
    [
        (
            "encoders.py",
            "import coloury\n",
            "import numpy as np\n",
            next(block.text for block in blocks() if block.language == "text").strip().removeprefix("aupipe: /data"),
        ),
        (
            "encoders.py",
            "        return unknown\n",
            "        return CropTemplate(112)\n",
            "encoder 'zones' of the package aupipe-zones has an error: NameError: name 'unknown' is not defined",
        ),
        (
            "detector.py",
            "    minimum: Share = 0.5\n",
            "    min_score: Share = 0.5\n",
            "detector 'fixed' of the package aupipe-zones has no min_score",
        ),
        (
            "detector.py",
            "class Fixed(\n",
            "class Fixed:\n",
            "detector 'fixed' of the package aupipe-zones has an error: SyntaxError",
        ),
    ],
)
def test_an_error_in_the_package_is_one_line_that_names_it(
    installed: str, folder: Folder, file: str, wrong: str, right: str, said: str
) -> None:
    path = folder.path / "site" / "aupipe_zones" / file
    whole = path.read_text()
    assert right in whole
    try:
        path.write_text(whole.replace(right, wrong, 1))
        done = folder.run("aupipe", "extract", "--cpu", "--store", "other", check=False)
    finally:
        path.write_text(whole)
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("file", "right", "wrong", "code", "said"),
    [
        (
            "encoders.py",
            "        edges = np.linspace(0, 112",
            "        raise RuntimeError('no zones today')\n        edges = np.linspace(0, 112",
            1,
            "encoder 'zones' of the package aupipe-zones cannot be loaded: RuntimeError: no zones today",
        ),
        (
            "encoders.py",
            "            area = np.outer(",
            "            raise KeyError('zone')\n            area = np.outer(",
            2,
            "encoder 'zones' of the package aupipe-zones cannot take in (1, 112, 112, 3) uint8: KeyError: 'zone'",
        ),
        (
            "encoders.py",
            "return (sums / area).reshape(len(crops), 3 * self.n * self.n)",
            "return (sums / area).reshape(len(crops), 3 * self.n * self.n)[:, 1:]",
            2,
            "encoder 'zones' of the package aupipe-zones declares rows of shape (12,) and gives (11,)",
        ),
        (
            "encoders.py",
            'for colour in ("red", "green", "blue"))',
            'for colour in ("red", "green", "red"))',
            2,
            "encoder 'zones' of the package aupipe-zones names 8 columns and gives rows of shape (12,)",
        ),
        (
            "detector.py",
            "        def detect(",
            "        return lambda frames: []\n\n        def detect(",
            2,
            "detector 'fixed' of the package aupipe-zones cannot take in (2, 64, 64, 3) uint8: TypeError: "
            "expected a list of 2 Detections",
        ),
    ],
)
def test_a_model_of_the_package_that_does_not_work_stops_the_run_and_fails_no_recording(
    installed: str, folder: Folder, file: str, right: str, wrong: str, code: int, said: str
) -> None:
    path = folder.path / "site" / "aupipe_zones" / file
    whole = path.read_text()
    assert right in whole
    try:
        path.write_text(whole.replace(right, wrong, 1))
        done = folder.run("aupipe", "extract", "--cpu", "--store", f"trial-{code}-{len(said)}", check=False)
    finally:
        path.write_text(whole)
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert "FAILED" not in done.stdout + done.stderr
