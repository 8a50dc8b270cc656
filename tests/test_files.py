"""Files are handed over whole or not at all, and errors name what the user has named."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from aupipe.errors import explain
from aupipe.files import staged_file


def test_an_error_of_the_disk_names_the_file_that_was_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    with pytest.raises(OSError, match="No space left") as caught, staged_file(path):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    said = explain(caught.value)
    assert said is not None
    assert said.startswith(f"No space left on device: {path} (")
    assert os.listdir(tmp_path) == []


def test_what_cannot_be_placed_on_a_file_system_is_said_without_guessing_which() -> None:
    said = explain(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    assert said is not None
    assert "MB are free" not in said


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (RuntimeError("can't start new thread"), "too many threads: raise `ulimit -v` and `-u`"),
        (OSError(errno.EAGAIN, "Resource temporarily unavailable"), "raise `ulimit -u`"),
        (MemoryError("Unable to allocate 7 MiB"), "too little memory (Unable to allocate 7 MiB)"),
        (ImportError("libx.so: failed to map segment from shared object"), "too little memory to load a library"),
        (OSError(errno.ESTALE, "Stale file handle", "/nfs/a"), "mount it again"),
        (
            RuntimeError("CUDA error: CUDA-capable device(s) is/are busy or unavailable\nand more"),
            "takes one process only",
        ),
    ],
)
def test_what_the_machine_lacks_is_said_with_what_to_do(error: BaseException, words: str) -> None:
    assert words in (explain(error) or "")


def test_other_errors_are_not_explained_away() -> None:
    assert explain(ValueError("out of memory")) is None
    assert explain(RuntimeError("shapes do not match")) is None
