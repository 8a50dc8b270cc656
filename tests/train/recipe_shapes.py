"""The features that a recipe's own tables make: their specs and the shapes of their rows, with random weights."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

from aupipe.config import Config
from aupipe.extract.encoders import Encoder, build_encoder, row_shape_of
from aupipe.extract.planning.features import FeatureSet, build_feature_set
from aupipe.extract.planning.random_weights import with_random_weights
from aupipe.train.recipe import DataNeeds
from aupipe.types import FeatureSpec, Recording


def random_features(recipe: DataNeeds) -> FeatureSet:
    """The feature set of a recipe's tables."""
    return build_feature_set(with_random_weights(replace(Config(), encoders=recipe.encoders)), names=recipe.features)


def specs(recipe: DataNeeds) -> dict[str, FeatureSpec]:
    """Feature name -> spec, in the order of the recipe's features."""
    graph = random_features(recipe).graph(Recording("a", aligned=True))
    found = {spec.name: spec for spec, _ in graph.encoders}
    return {name: found[name] for name in recipe.features}


def row_shapes(recipe: DataNeeds) -> dict[str, tuple[int, ...]]:
    """Feature name -> shape of a row, in the order of the recipe's features."""
    encoders = {config.name: config for config, _ in random_features(recipe).encoders}
    return {name: _shape(build_encoder(encoders[name])) for name in recipe.features}


@cache
def _shape(encoder: Encoder) -> tuple[int, ...]:
    shape = row_shape_of(encoder) or row_shape_of(encoder, encoder.load("cpu"))
    assert shape is not None
    return shape
