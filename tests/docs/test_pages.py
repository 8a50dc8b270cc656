"""What the pages of the documentation name is there: classes, test files, pictures, figures on their own pages."""

from __future__ import annotations

import re

from tests.docs.blocks import PAGES, ROOT

DOCS = ROOT / "docs"
MOST_BYTES = 100_000  # of a picture


def test_every_class_and_function_of_the_glossary_is_defined() -> None:
    source = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "aupipe").rglob("*.py"))
    named = re.findall(r"\(`([A-Za-z]\w*)`\)", (DOCS / "glossary.md").read_text(encoding="utf-8"))
    assert len(named) >= 20
    missing = [
        name for name in named if not re.search(rf"^\s*(class |def ){name}\b|^\s*{name}(: |\s=)", source, re.MULTILINE)
    ]
    assert missing == []


def test_every_promise_has_tests_that_are_there() -> None:
    rows = [row for row in (DOCS / "promises.md").read_text(encoding="utf-8").splitlines() if row.startswith("| ")][1:]
    assert len(rows) > 10
    for row in rows:
        files = re.findall(r"`(tests/[\w/]+\.py)`", row)
        assert files, row
        assert [file for file in files if not (ROOT / file).is_file()] == []


def test_every_benchmark_stands_on_the_page_it_names() -> None:
    rows = re.findall(
        r"^\| .* \| (.*) \| .* \| \[\w+\]\(([\w-]+\.md)#", (DOCS / "benchmarks.md").read_text("utf-8"), re.MULTILINE
    )
    assert len(rows) > 10
    for figure, page in rows:
        text = (DOCS / page).read_text(encoding="utf-8")
        for number in re.findall(r"\.?\d[\d,.]*\d|\d", figure):
            assert re.search(rf"(?<![\d.]){re.escape(number)}(?!\d)", text), f"{number} of {figure!r} is not in {page}"


def test_every_picture_is_small_and_shown_and_every_one_shown_is_there() -> None:
    shown = {
        (path.parent / name).resolve()
        for path in PAGES
        for name in re.findall(r"!\[[^]]+\]\(([^)]+)\)", path.read_text(encoding="utf-8"))
    }
    there = {path.resolve() for path in (DOCS / "pictures").iterdir()}
    assert shown == there
    assert [path.name for path in there if path.stat().st_size > MOST_BYTES] == []


def test_links_of_the_readme_and_of_every_page_lead_to_files() -> None:
    for path in PAGES:
        for link in re.findall(r"\]\(([^)#:]+)(?:#[\w-]+)?\)", path.read_text(encoding="utf-8")):
            assert (path.parent / link).exists(), f"{path.name}: {link}"


def test_the_pages_are_those_of_the_table_of_contents() -> None:
    listed = re.findall(r"^([\w/-]+)$", (DOCS / "index.md").read_text(encoding="utf-8"), re.MULTILINE)
    there = {path.relative_to(DOCS).with_suffix("").as_posix() for path in DOCS.rglob("*.md")} - {"index"}
    assert set(listed) == there
