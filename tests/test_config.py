from __future__ import annotations

import subprocess
import sys
import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from aupipe.cli.template import template
from aupipe.config import DEFAULT_ENCODERS, FILE_NAME, Config, find_config, load_config
from aupipe.encoder_kinds import ENCODERS, modality_of
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
        ('[faces]\ndetect_px = "big"', r"faces\.detect_px .* is 'big': expected a whole number"),
        (
            '[[encoder]]\nkind = "hog"\n[[encoder]]\nname = "mfcc"',
            r'\[\[encoder\]\] number 2 has no kind: add one, such as kind = "mfcc" \(`aupipe plugins` lists them\); '
            "name and modality may be left out$",
        ),
        ('[[encoder]]\nname = ["hog"]', r'number 1 has no kind: add one, such as kind = "hog" '),
        ("[[encoder]]\ncell_px = 8", r'number 1 has no kind: add one, such as kind = "hog" '),
        ('[[encoder]]\nkind = "hg"', r"unknown encoder 'hg'\. Did you mean 'hog'\? Available: "),
        ('[[encoder]]\nkind = "HOG"', "unknown encoder 'HOG'"),
        (
            '[[encoder]]\nkind = "hog"\nmodality = "video"',
            "modality of .* 'hog' is 'video'.*Accepted: visual, audio, text",
        ),
        ("[encoder.hog]\ncell_px = 8", r'\[encoder\.hog\]: write \[\[encoder\]\].* below it kind = "hog"$'),
        ('[encoders.swin_t]\nkind = "timm"', r'\[encoders\.swin_t\]: .* below it name = "swin_t", kind = "timm"$'),
        ('[encoder]\nkind = "mfcc"', r'\[encoder\]: write \[\[encoder\]\].* below it kind = "mfcc"$'),
        ('[[encoders]]\nkind = "mfcc"', r'\[\[encoders\]\]: write \[\[encoder\]\].* below it kind = "mfcc"$'),
        ('encoder = ["hog", "mfcc"]', r"encoder = \['hog', 'mfcc'\]: write \[\[encoder\]\].* kind = \"hog\"$"),
        (
            "[detector.retinaface]",
            r'\[detector\.retinaface\]: .* write \[detector\], and below it kind = "retinaface"$',
        ),
        ("[detectors.yunet]\nmin_score = 0.5", r'\[detectors\.yunet\]: .* below it kind = "yunet"$'),
        ('[[detector]]\nkind = "mtcnn"', r'\[\[detector\]\]: there is one .* below it kind = "mtcnn"$'),
        ('[detector]\nname = "scrfd"', r'\[detector\] name: there is one .* below it kind = "scrfd"$'),
        ('detector = "yunet"', r"detector = 'yunet': there is one .* below it kind = \"yunet\"$"),
        (
            '[[encoder]]\nname="a"\nkind="hog"\nmodality="visual"\n[[encoder]]\nname="a"\nkind="hog"\nmodality="visual"',
            r"two \[\[encoder\]\] tables are named 'a': give each a name of its own, such as name = \"a-2\"",
        ),
        ("[store", "not valid TOML"),
    ],
)
def test_a_wrong_file_is_refused_by_name(tmp_path: Path, text: str, message: str) -> None:
    file = write(tmp_path, text)
    with pytest.raises(UsageError, match=message) as error:
        load_config(file)
    assert str(file) in str(error.value)
    assert "\n" not in str(error.value)


def test_an_encoder_with_a_kind_alone_is_the_one_with_name_and_modality(tmp_path: Path) -> None:
    short = load_config(write(tmp_path, '[[encoder]]\nkind = "hog"\ncell_px = 8\n[[encoder]]\nkind = "mfcc"\n'))
    whole = load_config(
        write(
            tmp_path,
            '[[encoder]]\nname = "hog"\nmodality = "visual"\nkind = "hog"\ncell_px = 8\n'
            '[[encoder]]\nname = "mfcc"\nmodality = "audio"\nkind = "mfcc"\n',
        )
    )
    assert short.encoders == whole.encoders
    assert short.digest == whole.digest


@pytest.mark.parametrize("kind", ENCODERS.names())
def test_the_modality_that_a_kind_is_given_is_that_of_its_encoder(kind: str) -> None:
    assert modality_of(kind) == ENCODERS.get(kind).modality


def test_the_modality_of_a_kind_of_another_package_is_that_of_its_class(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "their_package.py").write_text("class Loud:\n    modality = 'audio'\nclass Vague:\n    pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    points = {name: EntryPoint(name, f"their_package:{name.title()}", "aupipe.encoders") for name in ("loud", "vague")}
    monkeypatch.setitem(ENCODERS.__dict__, "plugins", points)
    (loud,) = load_config(write(tmp_path, '[[encoder]]\nkind = "loud"\n')).encoders
    assert (loud.name, loud.modality) == ("loud", "audio")
    with pytest.raises(UsageError, match=r"encoder 'vague'.* states no modality: give one, such as modality = "):
        load_config(write(tmp_path, '[[encoder]]\nkind = "vague"\n'))


def test_a_configuration_is_read_without_loading_an_encoder(tmp_path: Path) -> None:
    file = write(tmp_path, '[[encoder]]\nkind = "timm"\nmodel = "x"\n[[encoder]]\nkind = "speech"\n')
    code = (
        "import sys, pathlib; from aupipe.config import load_config; "
        "print(*(one.modality for one in load_config(pathlib.Path(sys.argv[1])).encoders)); "
        "print(sorted({'torch', 'numpy', 'aupipe.extract'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code, file], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["visual audio", "[]"]


def test_an_unknown_encoder_is_named_without_a_file_where_there_is_none(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no \[\[encoder\]\] is named 'swin_t'\. Named: "):
        Config().encoder("swin_t")
    with pytest.raises(UsageError, match=r"is named 'swin_t' in .*\.toml\. Named: "):
        load_config(write(tmp_path, "")).encoder("swin_t")


RETINAFACE = '[detector]\nkind = "retinaface"\nmodel = "resnet50"\n'


@pytest.mark.parametrize(
    ("text", "environment", "detector", "params"),
    [
        (RETINAFACE, {}, "retinaface", {"model": "resnet50"}),
        ('[faces]\ndetector = "retinaface"\n[detector]\nmodel = "resnet50"', {}, "retinaface", {"model": "resnet50"}),
        ('[faces]\ndetector = "retinaface"\n' + RETINAFACE, {}, "retinaface", {"model": "resnet50"}),
        ("[detector]\nmin_face_px = 20", {}, "mtcnn", {"min_face_px": 20}),
        (RETINAFACE, {"AUPIPE_FACES_DETECTOR": "yunet"}, "yunet", {}),
        (RETINAFACE, {"AUPIPE_FACES_DETECTOR": "retinaface"}, "retinaface", {"model": "resnet50"}),
        (RETINAFACE, {"AUPIPE_FACES_DETECTOR": "none"}, "none", {}),
        ('[detector]\nkind = "none"', {}, "none", {}),
        ("", {}, "mtcnn", {}),
    ],
)
def test_a_detector_has_its_parameters_from_a_table_of_its_own(
    tmp_path: Path, text: str, environment: dict[str, str], detector: str, params: dict[str, object]
) -> None:
    config = load_config(write(tmp_path, text), environment=environment)
    assert (config.faces.detector, config.detector) == (detector, params)
    assert set(config.origin) >= {f"detector.{key}" for key in params}


@pytest.mark.parametrize(
    ("faces", "detector", "message"),
    [
        ('detector = "yunet"', 'kind = "mtcnn"', r"detector = 'yunet' contradicts \[detector\] kind = 'mtcnn'"),
        ('detector = "none"', 'kind = "mtcnn"', r"detector = 'none' contradicts \[detector\] kind = 'mtcnn'"),
        ("min_score = 0.5", "min_score = 0.6", r"min_score = 0\.5 contradicts \[detector\] min_score = 0\.6"),
        ('detector = "none"', "min_face_px = 20", r"\[detector\] min_face_px: no detector"),
        ("", "kind = 5", r"\[detector\] kind is 5"),
    ],
)
def test_settings_of_the_detector_that_contradict_each_other_are_refused(
    tmp_path: Path, faces: str, detector: str, message: str
) -> None:
    with pytest.raises(UsageError, match=message) as error:
        load_config(write(tmp_path, f"[faces]\n{faces}\n[detector]\n{detector}\n"))
    assert "\n" not in str(error.value)


def test_the_detector_table_cannot_be_set_by_the_environment_and_that_is_said() -> None:
    with pytest.raises(UsageError, match="AUPIPE_FACES_DETECTOR"):
        load_config(None, environment={"AUPIPE_DETECTOR_MIN_SCORE": "0.9"})


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
