"""Which features a recording gets, and under which keys."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from aupipe.config import Config, EncoderConfig, FacesConfig
from aupipe.errors import UsageError, WeightsMissingError
from aupipe.extract.planning.features import build_feature_set, column_names, feature_ids
from aupipe.extract.planning.plan import make_plan
from aupipe.store import Store
from aupipe.types import FeatureSpec, Recording, StreamChoice
from tests.made_yunet import FILE as YUNET

from .conftest import Lit
from .test_plan import CONFIG, publish, recording, states, store

__all__ = ["recording", "store"]  # fixtures


def test_the_name_of_a_feature_is_not_part_of_its_key_and_its_numbers_are(recording: Recording) -> None:
    def keys(**params) -> str:
        config = replace(CONFIG, encoders=(EncoderConfig("x", "hog", "visual", params),))
        return build_feature_set(config).graph(recording).encoders[0][0].key

    other_name = replace(CONFIG, encoders=(EncoderConfig("y", "hog", "visual"),))
    assert keys() == build_feature_set(other_name).graph(recording).encoders[0][0].key
    assert len({keys(), keys(cell_px=8), keys(bins=8), keys(size_px=224)}) == 4
    assert keys(cell_px=14) == keys()  # said or not, it is the default


def test_heads_refuse_one_name_for_two_features(recording: Recording, tmp_path: Path) -> None:
    crops = Recording("t", images=tmp_path, aligned=True, fps=30.0)
    with pytest.raises(UsageError, match="do not mix"):
        feature_ids(build_feature_set(CONFIG), [recording, crops], ["hog"])
    with pytest.raises(UsageError, match=r"no feature 'hug'.*Did you mean 'hog'"):
        feature_ids(build_feature_set(CONFIG), [recording], ["hug"])


def test_features_are_read_without_the_weights_that_made_them(
    recording: Recording, store: Store, lit_yunet: Lit, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Heads are trained where nothing is extracted. Which weights it were, the store knows, unless it knows two."""
    config = replace(CONFIG, faces=FacesConfig(detector="yunet"))
    parts = build_feature_set(config)
    made = feature_ids(parts, [recording])
    publish(store, recording, parts)
    monkeypatch.delenv("AUPIPE_WEIGHTS")
    with pytest.raises(WeightsMissingError):
        feature_ids(build_feature_set(config), [recording])
    reading = build_feature_set(config, known=store.features())
    assert feature_ids(reading, [recording]) == made
    assert states(make_plan([recording], reading, store)) == {"hog": "done", "mfcc": "done"}
    other = replace(config, faces=FacesConfig(detector="yunet", detect_px=320))
    with pytest.raises(WeightsMissingError):  # of those settings nothing is stored
        feature_ids(build_feature_set(other, known=store.features()), [recording])
    (detections,) = (spec for spec in store.features() if spec.name == "detections")
    assert detections.weights is not None
    twin = replace(detections, weights=replace(detections.weights, sha256="0" * 64))
    with pytest.raises(WeightsMissingError):
        feature_ids(build_feature_set(config, known=[*store.features(), twin]), [recording])


def yunet(name: str = YUNET, **detector: Any) -> Config:
    return replace(CONFIG, faces=FacesConfig(detector="yunet"), detector={"weights_file": name, **detector})


def specs_of(config: Config, recording: Recording) -> dict[str, FeatureSpec]:
    graph = build_feature_set(config).graph(recording)
    found = [graph.detections, graph.faces, *(spec for spec, _ in graph.encoders)]
    return {spec.name: spec for spec in found if spec is not None}


def test_a_detector_configured_by_its_table_has_the_keys_of_the_short_form(
    recording: Recording, lit_yunet: Lit
) -> None:
    short = replace(CONFIG, faces=FacesConfig(detector="yunet", min_score=0.5))
    assert specs_of(short, recording) == specs_of(yunet(min_score=0.5), recording)
    assert specs_of(short, recording)["detections"].id != specs_of(yunet(), recording)["detections"].id
    with pytest.raises(UsageError, match=r"unknown key 'nms_treshold'\. Did you mean 'nms_threshold'\?"):
        build_feature_set(yunet(nms_treshold=0.5))
    large = replace(CONFIG, faces=FacesConfig(detector="retinaface"), detector={"model": "resnet50"})
    with pytest.raises(WeightsMissingError, match=r"Resnet50_Final\.pth"):
        specs_of(large, recording)


def test_where_weights_lie_is_not_part_of_a_key(recording: Recording, lit_yunet: Lit, tmp_path: Path) -> None:
    shutil.copy(lit_yunet.folder / YUNET, tmp_path / "mine.onnx")
    keys = [
        {name: spec.id for name, spec in specs_of(yunet(name), recording).items()}
        for name in (YUNET, str(tmp_path / "mine.onnx"))
    ]
    assert keys[0] == keys[1]
    data = Path(__file__).parent / "data"
    shutil.copytree(data / "tiny_vit", tmp_path / "other")
    (tmp_path / "other" / "model.safetensors").write_bytes(b"w")
    shutil.copytree(tmp_path / "other", tmp_path / "again")

    def key(kind: str, **params: Any) -> str:
        config = Config(encoders=(EncoderConfig("x", kind, "visual", params),))
        return specs_of(config, recording)["x"].id

    vit = [key("transformers", model=str(tmp_path / name)) for name in ("other", "again")]
    assert vit[0] == vit[1]
    shutil.copy(data / "mean_colour.onnx", tmp_path / "same.onnx")
    assert key("onnx", size_px=32, weights=str(data / "mean_colour.onnx")) == key(
        "onnx", size_px=32, weights=str(tmp_path / "same.onnx")
    )


def publish_as_in_0_1(store: Store, recording: Recording, config: Config, weights_file: str) -> list[str]:
    """Items of a recording under the keys of aupipe 0.1, those that were computed from others included."""
    specs = build_feature_set(config).graph(recording)
    assert specs.detections is not None
    assert specs.faces is not None
    detections = replace(specs.detections, params={**specs.detections.params, "weights_file": weights_file})
    faces = replace(specs.faces, inputs={**specs.faces.inputs, "detections": detections.id})
    encoders = tuple(
        (replace(spec, inputs={**spec.inputs, "faces": faces.id} if "faces" in spec.inputs else spec.inputs), encoder)
        for spec, encoder in specs.encoders
    )
    parts = build_feature_set(config)
    old = replace(specs, detections=detections, faces=faces, encoders=encoders)
    parts._graphs[(True, False, None, StreamChoice())] = old
    publish(store, recording, parts)
    return [detections.id, faces.id, *(spec.id for spec, _ in encoders)]


def test_what_was_stored_under_a_key_with_the_name_of_a_weight_file_is_still_found(
    recording: Recording, store: Store, lit_yunet: Lit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = str(tmp_path / "mine.onnx")
    shutil.copy(lit_yunet.folder / YUNET, mine)
    old = publish_as_in_0_1(store, recording, yunet(mine), mine)
    assert set(old) & {spec.id for spec in specs_of(yunet(mine), recording).values()} == {old[-1]}  # the sound alone
    for config in (yunet(mine), yunet()):
        plan = make_plan([recording], build_feature_set(config), store)
        assert states(plan) == {"hog": "done", "mfcc": "done"}
        assert {item.spec.id for item in plan.items} == set(old[2:])
        finer = replace(config, encoders=(EncoderConfig("hog", "hog", "visual", {"cell_px": 8}),))
        (job,) = make_plan([recording], build_feature_set(finer), store).jobs
        assert [item.spec.name for item in job.items] == ["hog"]  # its faces are the stored ones
    other = make_plan([recording], build_feature_set(yunet(nms_threshold=0.4)), store)
    assert states(other) == {"hog": "spec changed", "mfcc": "done"}
    assert feature_ids(build_feature_set(yunet(), known=store.features()), [recording])["hog"] in old
    (tmp_path / "mine.onnx").unlink()
    monkeypatch.delenv("AUPIPE_WEIGHTS")
    assert feature_ids(build_feature_set(yunet(mine), known=store.features()), [recording])["hog"] in old


def test_columns_that_were_renamed_have_their_new_names_also_when_they_are_stored(
    recording: Recording, store: Store
) -> None:
    parts = build_feature_set(CONFIG)
    publish(store, recording, parts)
    spec = parts.graph(recording).named["mfcc"]
    store.name_columns(replace(spec, columns=tuple(f"before_{name}" for name in spec.columns)))
    plan = make_plan([recording], parts, store)
    assert [item.spec.columns for item in plan.items if item.spec.id == spec.id] == [spec.columns]
    assert {item.state for item in plan.items} == {"done"}


def test_the_names_of_columns_are_had_from_a_stored_spec(recording: Recording) -> None:
    encoders = (
        EncoderConfig("g", "geometry", "visual"),
        EncoderConfig("m", "mfcc", "audio", {"deltas": 1, "n_mfcc": 2}),
    )
    specs = specs_of(replace(CONFIG, encoders=encoders), recording)
    assert column_names(specs["m"]) == ("mfcc_0", "mfcc_1", "mfcc_0_delta1", "mfcc_1_delta1")
    assert column_names(specs["g"])[-2:] == ("mouth_left_to_mouth_right", "roll_rad")
    assert column_names(replace(specs["g"], columns=())) == specs["g"].columns  # one that was stored before
    assert column_names(replace(specs["g"], kind="nobodys", columns=())) == ()
    assert specs["faces"].columns[:5] == ("x1_px", "y1_px", "x2_px", "y2_px", "left_eye_x_px")
    assert len(specs["faces"].columns) == 15
    assert specs["detections"].columns == (*specs["faces"].columns, "frame_height_px", "frame_width_px")
