"""`aupipe config show`: every value in use, and where it is from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.test_train import Folder

CONFIG = """
[dataset]
videos = "videos"
[[task]]
name = "pain"
kind = "classes"
names = ["no", "yes"]
folder = "pain"
[detector]
kind = "yunet"
[[encoder]]
name = "hog"
modality = "visual"
kind = "hog"
cell_px = 14
"""


@pytest.mark.parametrize("text", ["", CONFIG], ids=["defaults", "tables"])
def test_every_value_in_use_is_shown_with_where_it_is_from(tmp_path: Path, text: str) -> None:
    folder, file = Folder(tmp_path), tmp_path / "aupipe.toml"
    file.write_text(text)
    shown = json.loads(folder.ask("config", "show", "--json"))
    lines = folder.ask("config", "show").splitlines()
    assert shown["dataset.videos"]["origin"] == (str(file) if text else "default")
    assert shown["dataset.tasks"]["origin"] == (str(file) if text else "default")
    assert shown["store.backend"] == {"value": "zarr", "origin": "default"}
    assert {line.split()[0] for line in lines} >= set(shown) - {"encoder", "message_type"}
    assert [encoder["name"] for encoder in shown["encoder"]][:1] == ["hog"]
