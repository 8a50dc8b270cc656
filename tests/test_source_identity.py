"""A source is told from another by its whole content, or by blocks all over it; older records stay comparable."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest

from aupipe.sources import WHOLE_BYTES, source_changed, source_identity
from aupipe.types import SourceIdentity


def write(path: Path, size: int) -> Path:
    path.write_bytes(np.random.default_rng(0).bytes(size))
    return path


def overwrite(path: Path, start: int, content: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(start)
        file.write(content)
    os.utime(path, ns=(1, 1))


@pytest.mark.parametrize("size", [1, 5000, 3 << 20, WHOLE_BYTES])
def test_a_byte_that_changes_anywhere_in_a_file_of_ordinary_size_is_noticed(tmp_path: Path, size: int) -> None:
    file = write(tmp_path / "a.mp4", size)
    known = source_identity(file)
    overwrite(file, size // 2, b"\0" if file.read_bytes()[size // 2] else b"\1")
    assert source_changed((file,), known)


def test_a_change_as_long_as_the_distance_of_two_blocks_is_noticed_in_a_large_file(tmp_path: Path) -> None:
    size = 50 << 20
    file = write(tmp_path / "a.mp4", size)
    known = source_identity(file)
    for start in np.random.default_rng(1).integers(0, size - (1 << 20), 10).tolist():
        before = file.read_bytes()[start : start + (1 << 20)]
        overwrite(file, start, bytes(1 << 20))
        assert source_changed((file,), known), start
        overwrite(file, start, before)
        assert not source_changed((file,), known)


def test_records_of_the_older_rule_are_compared_by_the_older_rule(tmp_path: Path) -> None:
    file = write(tmp_path / "a.mp4", 5 << 20)
    content = file.read_bytes()
    digest = hashlib.sha256(str(len(content)).encode() + content[: 1 << 20] + content[-(1 << 20) :]).hexdigest()
    known = SourceIdentity(len(content), file.stat().st_mtime_ns, digest)
    assert not source_changed((file,), known)
    os.utime(file, ns=(1, 1))  # copied: another time, the same file
    assert not source_changed((file,), known)
    overwrite(file, 10, bytes(100))
    assert source_changed((file,), known)
