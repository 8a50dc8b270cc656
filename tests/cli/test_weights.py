"""`aupipe weights`: what is known, what is here, and nothing executed on the way in."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import pytest

from tests.cli.conftest import Project


def test_list_says_licence_source_and_presence(project: Project) -> None:
    rows = json.loads(project.run("weights", "list", "--json").out)["weights"]
    assert not any(row["here"] for row in rows)
    assert all(row["licence"] and row["how"] for row in rows)


@pytest.mark.assets
def test_verify_finds_a_file_that_is_not_what_its_name_says(project: Project, assets: Path) -> None:
    folder = project.folder / "weights"
    folder.mkdir()
    shutil.copy(assets / "weights" / "face_detection_yunet_2023mar.onnx", folder)
    assert project.run("weights", "verify", AUPIPE_WEIGHTS=str(folder)).code == 0
    rows = json.loads(project.run("weights", "list", "--json", AUPIPE_WEIGHTS=str(folder)).out)["weights"]
    assert [row["name"] for row in rows if row["here"]] == ["face_detection_yunet_2023mar.onnx"]
    with (folder / "face_detection_yunet_2023mar.onnx").open("ab") as file:
        file.write(b"x")
    answer = project.run("weights", "verify", AUPIPE_WEIGHTS=str(folder))
    assert answer.code == 12
    assert "not the published file" in answer.out


def test_import_makes_safetensors_of_a_checkpoint(project: Project) -> None:
    import torch

    folder = project.folder / "weights"
    folder.mkdir()
    source = project.folder / "net.pth"
    torch.save({f"layer{n}.weight": torch.full((2, 3), float(n)) for n in range(60)}, source)
    answer = project.run("weights", "import", source, AUPIPE_WEIGHTS=str(folder))
    assert answer.code == 0, answer.err
    (made,) = folder.iterdir()
    assert made.suffix == ".safetensors"

    from safetensors import safe_open

    with safe_open(made, "pt") as file:
        assert len(list(file.keys())) > 50


class Bomb:
    """What a malicious checkpoint holds."""

    def __reduce__(self):
        return (Path.touch, (Path("executed"),))


def test_a_pickle_that_would_run_something_is_refused_and_runs_nothing(project: Project) -> None:
    bad = project.folder / "bad.pth"
    bad.write_bytes(pickle.dumps(Bomb()))
    folder = project.folder / "weights"
    folder.mkdir()
    answer = project.run("weights", "import", bad, AUPIPE_WEIGHTS=str(folder))
    assert answer.code == 12
    assert len(answer.err.strip().splitlines()) == 1
    assert not (project.folder / "executed").exists()
    assert not list(folder.iterdir())
