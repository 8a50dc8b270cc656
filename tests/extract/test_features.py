"""Which features a recording gets, and under which keys."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from aupipe.config import EncoderConfig, FacesConfig
from aupipe.errors import UsageError, WeightsMissingError
from aupipe.extract.planning.features import build_feature_set, feature_ids
from aupipe.extract.planning.plan import make_plan
from aupipe.store import Store
from aupipe.types import Recording

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
