"""Every number of a configuration has a range: whatever stands there is accepted, or refused in one line."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest

from aupipe.config import EncoderConfig, load_config
from aupipe.documents import parse_json, parse_toml
from aupipe.errors import AupipeError, UsageError
from aupipe.extract.contract import params_of
from aupipe.extract.encoders import ENCODERS, build_encoder
from aupipe.extract.faces import DETECTORS
from aupipe.tables import build
from aupipe.train.heads import HEADS, head_config
from aupipe.train.losses import LOSSES, loss_config
from aupipe.train.postprocess import Options
from aupipe.train.recipe import Recipe, load_recipe, recipe_from
from aupipe.train.schedule import Optimiser

ODD = [0, -1, 1e30, 10**30, -(10**400), math.nan, math.inf, -math.inf, True, "x", [], [[]], {}, [math.nan], 0.5, 10**15]
NEEDED: dict[str, Any] = {"model": "some/model", "weights": "some.onnx", "size_px": 112}


def accepted(make: Any) -> Any:
    """What is made, or None where it is refused in one line."""
    try:
        return make()
    except AupipeError as error:
        said = str(error)
    assert "\n" not in said
    assert len(said) < 1000
    return None


def check_finite(made: Any) -> None:
    values = [getattr(made, field.name) for field in dataclasses.fields(made)]
    for value in values + [item for several in values if isinstance(several, tuple) for item in several]:
        assert not isinstance(value, float) or math.isfinite(value)


@pytest.mark.parametrize("kind", ENCODERS.names())
def test_every_parameter_of_an_encoder_is_accepted_or_refused_in_one_line(kind: str) -> None:
    cls = ENCODERS.get(kind)
    for field in dataclasses.fields(cls):
        needed = {f.name: NEEDED[f.name] for f in dataclasses.fields(cls) if f.default is dataclasses.MISSING}
        for value in ODD:
            config = EncoderConfig("x", kind, cls.modality, {**needed, field.name: value})
            if made := accepted(lambda config=config: build_encoder(config)):
                check_finite(made)


@pytest.mark.parametrize("kind", DETECTORS.names())
def test_every_parameter_of_a_detector_is_accepted_or_refused_in_one_line(kind: str) -> None:
    cls = DETECTORS.get(kind)
    for field in dataclasses.fields(cls):
        for value in ODD:
            if made := accepted(lambda name=field.name, value=value: build(cls, {name: value}, kind)):
                check_finite(made)


@pytest.mark.parametrize("kind", HEADS.names())
def test_every_parameter_of_a_head_is_accepted_or_refused_in_one_line(kind: str) -> None:
    for field in dataclasses.fields(HEADS.get(kind).Config):
        for value in ODD:
            if made := accepted(lambda name=field.name, value=value: head_config(kind, {name: value})):
                check_finite(made)


@pytest.mark.parametrize("kind", LOSSES.names())
def test_every_parameter_of_a_loss_is_accepted_or_refused_in_one_line(kind: str) -> None:
    cls = LOSSES.get(kind)
    for field in dataclasses.fields(cls.Config):
        for value in ODD:
            make = lambda name=field.name, value=value: loss_config(kind, {name: value}, cls.kinds[0])  # noqa: E731
            if made := accepted(make):
                check_finite(made)


def test_every_setting_of_a_recipe_is_accepted_or_refused_in_one_line() -> None:
    tables = load_recipe("tcn").to_json()
    plain = [field.name for field in dataclasses.fields(Recipe) if field.name not in ("name", "optimiser")]
    places = [((), name) for name in plain]
    places += [(("optimiser",), field.name) for field in dataclasses.fields(Optimiser)]
    places += [(("postprocess", "au"), field.name) for field in dataclasses.fields(Options)]
    places += [(("aux_tasks",), "va"), (("loss",), "au"), (("head",), "kind"), (("postprocess",), "au")]
    for parents, name in places:
        for value in ODD:
            own = parse_json(json.dumps(tables))
            table = own
            for parent in parents:
                table = table.setdefault(parent, {})
            table[name] = value
            if made := accepted(lambda own=own: recipe_from(own, "x")):
                check_finite(made)
                check_finite(made.optimiser)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("optimiser.lr=-1", "lr = -1.*expected above 0"),
        ("optimiser.lr=0", "lr = 0.*expected above 0"),
        ("optimiser.lr=nan", "lr = nan.*finite"),
        ("optimiser.momentum=1.0", "momentum.*below 1"),
        ("epochs=0", "epochs = 0.*expected 1 or more"),
        ("head.width=0", "width = 0.*expected 1 to"),
        ("head.dropout=1.5", "dropout = 1.5.*expected 0 to 1"),
    ],
)
def test_a_setting_out_of_its_range_is_refused_with_the_range(override: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        load_recipe("tcn", [override])


@pytest.mark.parametrize("key", ["detect_px", "max_faces", "min_score", "detect_every"])
@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf", "1e30", "1" + "0" * 30, "'x'", "[]", "true", "{}"])
def test_every_number_of_the_faces_is_accepted_or_refused_in_one_line(tmp_path: Path, key: str, value: str) -> None:
    file = tmp_path / "aupipe.toml"
    file.write_text(f"[faces]\n{key} = {value}\n")
    assert accepted(lambda: load_config(file)) is None or (key, value) == ("min_score", "0")


def test_ranges_change_no_feature_key() -> None:
    """The parameters of two features as version 0.1.0 wrote them."""
    hog = build_encoder(EncoderConfig("x", "hog", "visual", {"size_px": 96, "cell_px": 12}))
    assert params_of(hog) == {"size_px": 96, "cell_px": 12, "bins": 9}
    logmel = params_of(build_encoder(EncoderConfig("x", "logmel", "audio", {"f_max_hz": 7600, "align_s": 0})))
    assert logmel["f_max_hz"] == 7600.0
    assert {type(logmel[name]) for name in ("f_max_hz", "align_s", "floor_db")} == {float}


NESTED = "[" * 10_000 + "]" * 10_000


@pytest.mark.parametrize(
    ("parse", "text"),
    [
        (parse_json, NESTED),
        (parse_json, '{"a":' * 10_000 + "1" + "}" * 10_000),
        (parse_json, "9" * 10_000),
        (parse_json, b"\xff\xfe\xff"),
        (parse_toml, f"a = {NESTED}".encode()),
        (parse_toml, b"a = " + b"{a=" * 10_000 + b"1" + b"}" * 10_000),
        (parse_toml, b"a = " + b"9" * 10_000),
        (parse_toml, b"a = '\xff'"),
    ],
)
def test_a_document_that_is_none_is_the_parsers_own_error(parse: Any, text: Any) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        parse(text)
    assert type(caught.value).__name__ in ("JSONDecodeError", "TOMLDecodeError")


def files_that_nest(folder: Path) -> list[tuple[str, Any]]:
    from aupipe.extract.media.transcript import read_transcript
    from aupipe.store import create_store, open_store
    from aupipe.train.checkpoint import load_checkpoint
    from aupipe.train.model import load_model
    from aupipe.train.postprocess import read_postprocess
    from aupipe.train.run import load_run

    create_store(folder / "store", "zarr").close()
    return [
        ("aupipe.toml", load_config),
        ("recipe.toml", load_recipe),
        ("run/run.json", lambda path: load_run(path.parent)),
        ("ensemble/ensemble.json", lambda path: load_model(path.parent)),
        ("store/store.json", lambda path: open_store(path.parent)),
        ("talk.json", read_transcript),
        ("post.json", read_postprocess),
        ("killed/head.safetensors", lambda path: load_checkpoint(path.parent)),
    ]


@pytest.mark.parametrize(
    "content", [NESTED, f"a = {NESTED}", '{"format": 1, "recipe": []}', "[3]", "\udcff", "3", '"x"']
)
def test_every_file_that_nests_or_holds_something_else_is_refused_in_one_line(tmp_path: Path, content: str) -> None:
    for name, read in files_that_nest(tmp_path):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content.encode(errors="surrogateescape"))
        with pytest.raises(AupipeError, match=path.stem.partition(".")[0]) as caught:
            read(path)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("metadata", "kind"),
    [
        ({}, "missing"),
        ({"run": "other"}, "other"),
        ({"document": "[" * 10_000}, "nested"),
        ({"document": "[1]"}, "list"),
        ({"document": '{"run": 1, "progress": 1}'}, "numbers"),
    ],
)
def test_odd_metadata_of_a_runs_tensors_are_refused_in_one_line(
    tmp_path: Path, metadata: dict[str, str], kind: str
) -> None:
    from types import SimpleNamespace

    import numpy as np
    from safetensors.numpy import save_file

    from aupipe.train.checkpoint import load_checkpoint
    from aupipe.train.run import load_weights
    from aupipe.train.run_file import _checksum

    tensors = {"scaling.mean": np.zeros(3), "scaling.std": np.ones(3)}
    if "document" in metadata:  # of which the checksum is right
        metadata = metadata | {"sha256": _checksum(metadata["document"], tensors)}
    save_file(tensors, tmp_path / "head.safetensors", metadata or None)
    run: Any = SimpleNamespace(path=tmp_path, id="own", recipe=SimpleNamespace(center=0.0))
    for read in (lambda: load_weights(run), lambda: load_checkpoint(tmp_path)):
        with pytest.raises(AupipeError, match="safetensors") as caught:
            read()
        assert "\n" not in str(caught.value)
