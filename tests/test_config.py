from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from aupipe.cli.template import template
from aupipe.config import DEFAULT_ENCODERS, FILE_NAME, find_config, load_config
from aupipe.errors import UsageError


def write(folder: Path, text: str) -> Path:
    path = folder / FILE_NAME
    path.write_text(text)
    return path


def test_command_line_beats_environment_beats_file_beats_default(tmp_path: Path) -> None:
    file = write(tmp_path, '[store]\nbackend = "hdf5"\n[faces]\ndetector = "yunet"\nsubject = "center"\n')
    config = load_config(
        file, {"faces.subject": "left"}, {"AUPIPE_FACES_DETECTOR": "mtcnn", "AUPIPE_FACES_SUBJECT": "right"}
    )
    assert (config.store.backend, config.faces.detector, config.faces.subject) == ("hdf5", "mtcnn", "left")
    assert config.origin["store.backend"] == str(file)
    assert config.origin["faces.detector"] == "AUPIPE_FACES_DETECTOR"
    assert config.origin["faces.subject"] == "command line"
    assert config.origin["faces.detect_px"] == "default"


def test_relative_paths_resolve_against_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(tmp_path, '[store]\npath = "out/features"\n')
    (tmp_path / "deep").mkdir()
    monkeypatch.chdir(tmp_path / "deep")
    assert load_config(file).store.path == tmp_path / "out" / "features"
    assert find_config(Path.cwd()) == file


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[stor]\npath = "x"', r"unknown section 'stor'\. Did you mean 'store'\?"),
        ('[faces]\ndetectr = "mtcnn"', r"unknown key in \[faces\] 'detectr'\. Did you mean 'detector'\?"),
        ('[faces]\nsubject = "biggest"', r"faces\.subject .* is 'biggest'.* Accepted: largest, center, left, right"),
        ('[faces]\ndetect_px = "big"', r"faces\.detect_px .* is 'big': expected int"),
        ('[[encoder]]\nname = "a"\nkind = "hog"', r"\[\[encoder\]\] number 1 has no 'modality'"),
        (
            '[[encoder]]\nname="a"\nkind="hog"\nmodality="visual"\n[[encoder]]\nname="a"\nkind="hog"\nmodality="visual"',
            r"two \[\[encoder\]\] tables are named 'a'",
        ),
        ("[store", "not valid TOML"),
    ],
)
def test_a_wrong_file_is_refused_by_name(tmp_path: Path, text: str, message: str) -> None:
    file = write(tmp_path, text)
    with pytest.raises(UsageError, match=message) as error:
        load_config(file)
    assert str(file) in str(error.value)


def test_an_unknown_key_in_the_environment_is_refused() -> None:
    with pytest.raises(UsageError, match="AUPIPE_STORE_PATHH"):
        load_config(None, environment={"AUPIPE_STORE_PATHH": "x"})


@pytest.mark.parametrize("layout", ["folder", "images", "affwild2"])
def test_what_init_writes_is_the_default_configuration(tmp_path: Path, layout: str) -> None:
    file = write(tmp_path, template(layout, fps=30.0 if layout == "images" else None))
    config = load_config(file, environment={})
    assert config.dataset.layout == layout
    assert config.encoders == DEFAULT_ENCODERS
    tomllib.loads(template(layout))
