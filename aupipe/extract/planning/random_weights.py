"""The configuration with random numbers in the place of weights: for tests, dry runs and benchmarks."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

from aupipe.config import Config, EncoderConfig
from aupipe.extract.encoders import ENCODERS
from aupipe.extract.weights import RANDOM, is_random


def with_random_weights(config: Config) -> Config:
    """Random weights for every encoder that has weights; the detector keeps its own.

    Encoders that differ only in their weights get different numbers: an encoder whose table names other weights than
    the default of its kind has those of ``random:<their name>``.
    """
    return replace(config, encoders=tuple(map(randomised, config.encoders)))


def randomised(encoder: EncoderConfig) -> EncoderConfig:
    """One encoder of `with_random_weights`; one that has random weights already keeps them."""
    kind = ENCODERS.get(encoder.kind)
    defaults = {field.name: field.default for field in fields(kind)}
    if "weights" not in defaults or getattr(kind, "file_is_network", False):  # the file holds the network itself
        return encoder
    given = encoder.params.get("weights", defaults["weights"])
    params: dict[str, Any] = {}
    if not is_random(str(given)):
        params["weights"] = RANDOM if given == defaults["weights"] else f"{RANDOM}:{given}"
    params |= {name: RANDOM for name in getattr(kind, "random_parts", ()) if encoder.params.get(name)}
    return replace(encoder, params={**encoder.params, **params})
