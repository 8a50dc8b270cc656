"""docs/architecture.md and its figure name files, packages and classes that are there, and every package of extract."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
FIGURE = (ROOT / "docs" / "pictures" / "pipeline.svg").read_text(encoding="utf-8")


def exists(path: str) -> bool:
    found = [ROOT / path, ROOT / "aupipe" / path, ROOT / "aupipe" / "extract" / path, ROOT / "aupipe" / "train" / path]
    return any(place.exists() or place.with_suffix(".py").exists() for place in found)


def test_every_path_the_page_names_is_there() -> None:
    quoted = re.findall(r"`([\w/.]+/[\w/.]+)`", PAGE)
    groups = re.findall(r'<text class="path"[^>]*>([^<]+)<', FIGURE)
    assert quoted
    assert len(groups) > 10
    assert [path for path in quoted if not exists(path)] == []
    for group in groups:  # "faces/detection, detectors": the second lies beside the first
        for names in group.rstrip(";").split(";"):
            first, *others = [name.strip() for name in names.split(",")]
            folder = first.rpartition("/")[0]
            missing = [name for name in [first, *(f"{folder}/{other}" for other in others)] if not exists(name)]
            assert missing == [], group


def test_every_package_of_extract_is_in_the_page() -> None:
    packages = {path.parent.name for path in (ROOT / "aupipe" / "extract").glob("*/__init__.py")}
    table = PAGE[PAGE.index("| package of `extract` |") :]
    named = set(re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (`[^|]+`) \|", table, re.MULTILINE))))
    assert packages <= named | {"extract"}


def test_every_class_the_page_names_is_defined() -> None:
    source = "\n".join(
        path.read_text(encoding="utf-8") for folder in ("aupipe", "tests") for path in (ROOT / folder).rglob("*.py")
    )
    for name in re.findall(r"`([A-Z][a-z]+[A-Za-z]*)(?:\.\w+)?(?:\(\w*\))?`", PAGE):
        assert re.search(rf"^class {name}\b|^{name} = ", source, re.MULTILINE), name
