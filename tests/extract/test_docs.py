"""Every encoder is documented: its own section, with the licence of what it loads."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from aupipe.extract.encoders import ENCODERS
from aupipe.extract.weights import KNOWN_WEIGHTS

DOCS = Path(__file__).parents[2] / "docs"
PAGES = {"visual": "encoders-visual.md", "audio": "encoders-audio.md", "text": "encoders-audio.md"}
WITHOUT_WEIGHTS = {"crops", "hog", "geometry", "mfcc", "logmel", "level"}
THE_USERS_OWN = {"onnx", "transformers"}  # any file: its licence is the file's


def sections(page: str) -> dict[str, str]:
    """Heading -> text; a heading of several names, by commas, stands for each."""
    parts = re.split(r"^#+ (.+)$", (DOCS / page).read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    return {name.strip(): text for head, text in zip(parts[::2], parts[1::2], strict=True) for name in head.split(",")}


@pytest.mark.parametrize("name", [name for name in ENCODERS.names() if ENCODERS.origin(name) == "aupipe"])
def test_every_encoder_has_a_section_that_names_its_licence_and_a_row_that_states_its_size(name: str) -> None:
    kind = ENCODERS.get(name)
    page = PAGES[kind.modality]
    assert len(sections(page)[name].split()) > 20
    assert re.search(rf"^\|.*`{name}`.*\|", (DOCS / page).read_text(encoding="utf-8"), re.MULTILINE)
    if name not in WITHOUT_WEIGHTS | THE_USERS_OWN:
        assert re.search(r"MIT|Apache|BSD|CC BY|licen[cs]e", sections(page)[name]), name
    default = next((field.default for field in fields(kind) if field.name == "weights"), "")
    if default in KNOWN_WEIGHTS:
        assert KNOWN_WEIGHTS[default].used_by == name
