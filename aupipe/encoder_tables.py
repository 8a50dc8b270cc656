"""The [[encoder]] tables of a configuration or a recipe: one for each feature."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aupipe.config_values import coerce
from aupipe.encoder_kinds import ENCODERS, EncoderModality, modality_of
from aupipe.errors import UsageError
from aupipe.types import FEATURE_NAME

RESERVED_NAMES = ("clock", "detections", "faces")  # features that aupipe computes itself


@dataclass(frozen=True)
class EncoderConfig:
    """One feature: its name, its encoder, and every further key as a parameter of the encoder."""

    name: str
    kind: str
    modality: EncoderModality
    params: Mapping[str, Any] = field(default_factory=dict)


def encoder_table(encoder: EncoderConfig) -> dict[str, Any]:
    """The ``[[encoder]]`` table that `read_encoders` turns back into this encoder."""
    return {"name": encoder.name, "modality": encoder.modality, "kind": encoder.kind, **encoder.params}


def read_encoders(tables: Any, where: str) -> tuple[EncoderConfig, ...]:
    """The encoders of ``[[encoder]]`` tables. Without a ``name``, one is called as its kind.

    Raises UsageError, which begins with ``where``, for what is none.
    """
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise UsageError(f"{where}: {right_form('encoder', tables)}")
    encoders: dict[str, EncoderConfig] = {}
    for number, table in enumerate(tables, 1):
        encoder = _read_encoder(table, number, where)
        if encoder.name in encoders:
            raise UsageError(
                f"{where}: two [[encoder]] tables are named {encoder.name!r}: give each a name of its own, such as "
                f'name = "{encoder.name}-2"'
            )
        encoders[encoder.name] = encoder
    return tuple(encoders.values())


def _read_encoder(table: Mapping[str, Any], number: int, where: str) -> EncoderConfig:
    if "kind" not in table:
        name = table.get("name")
        kind = name if isinstance(name, str) and name in ENCODERS.table else "hog"
        raise UsageError(
            f'{where}: [[encoder]] number {number} has no kind: add one, such as kind = "{kind}" (`aupipe plugins` '
            "lists them); name and modality may be left out"
        )
    kind = str(table["kind"])
    name = str(table.get("name", kind))
    try:
        modality = coerce(
            table["modality"] if "modality" in table else modality_of(kind),
            EncoderModality,
            Path(),
            f"modality of [[encoder]] {name!r}",
        )
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from error
    if not FEATURE_NAME.fullmatch(name) or name in RESERVED_NAMES:
        raise UsageError(
            f"{where}: [[encoder]] name {name!r}: use a-z, 0-9, '_', '.', '-', at most 64 characters, and none of "
            f"{', '.join(RESERVED_NAMES)}"
        )
    params = {key: value for key, value in table.items() if key not in ("name", "kind", "modality")}
    return EncoderConfig(name, kind, modality, params)


def as_written(key: str, given: Any) -> tuple[str, str, Any]:
    """Of a table in another form than its own: how it is written, the name below ``key``, and what may be its kind."""
    first = given[0] if isinstance(given, list) and given else given
    if not isinstance(first, Mapping):
        return f"{key} = {reprlib.repr(given)}", "", first
    name = next((name for name, value in first.items() if isinstance(value, Mapping)), "")
    heading = f"[[{key}]]" if isinstance(given, list) else f"[{key}.{name}]" if name else f"[{key}]"
    return heading, name, first[name].get("kind", name) if name else first.get("kind")


def right_form(key: str, given: Any) -> str:
    """What to write in place of ``given``, which stands under ``key`` and is no list of [[encoder]] tables."""
    heading, name, kind = as_written(key, given)
    known = kind if isinstance(kind, str) and kind in ENCODERS else "hog"
    named = f'name = "{name}", ' if name not in ("", known) else ""
    return f'{heading}: write [[encoder]], once for each feature, and below it {named}kind = "{known}"'
