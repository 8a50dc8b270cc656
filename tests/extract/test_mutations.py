"""Damaged media never crash, hang or lose rows without a word where there is any sign of it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests.extract.mutations import FRAMES, Verdict, judge, look_at_all, mutants


def judged(folder: Path, count: int, seed: int) -> list[Verdict]:
    """What becomes of so many damaged files; the whole ones among them must be whole."""
    pairs = list(mutants(folder, count, seed))
    wholes = sorted({whole for whole, _ in pairs})
    first = dict(zip(wholes, look_at_all(wholes), strict=True))
    for whole, found in first.items():
        assert found["numbers"] == list(range(FRAMES)), whole.name
        assert (found["damage"], found["notes"]) == ("", []), whole.name
    found = look_at_all([path for _, path in pairs])
    return [judge(path, first[whole], what) for (whole, path), what in zip(pairs, found, strict=True)]


def assert_said(verdicts: list[Verdict]) -> None:
    """No crash, no hang, and no row lost or moved without a word where FFmpeg gives a sign."""
    kinds = Counter(verdict.kind for verdict in verdicts)
    silent = [verdict for verdict in verdicts if verdict.kind == "silent"]
    print(f"\n{len(verdicts)} damaged files: " + ", ".join(f"{kinds[kind]} {kind}" for kind in sorted(kinds)))
    print(*(f"silent: {verdict.path.name}: {verdict.what}" for verdict in silent), sep="\n")
    assert not [verdict for verdict in verdicts if verdict.kind in ("crashed", "hung")]
    assert not [verdict for verdict in silent if verdict.signs]
    assert len(silent) <= 0.03 * len(verdicts)
    strange = [v.what for v in verdicts if v.kind == "failed" and str(v.path) not in v.what]
    assert not strange  # every reason names its file


@pytest.mark.slow
def test_a_few_damaged_files_of_every_container_are_told_from_whole_ones(tmp_path: Path) -> None:
    verdicts = judged(tmp_path, 24, seed=1)
    assert_said(verdicts)
    assert {"flagged", "failed"} <= {verdict.kind for verdict in verdicts}


@pytest.mark.slow
def test_five_hundred_damaged_files_never_crash_hang_or_change_rows_without_a_word(tmp_path: Path) -> None:
    assert_said(judged(tmp_path, 500, seed=2026))
