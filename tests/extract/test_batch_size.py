"""Batch sizes: probed once, remembered, halved where memory runs out."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from aupipe.errors import is_out_of_memory
from aupipe.extract.engine.batch_size import BatchSizes, one_prober, probe, remember, remembered


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "aupipe" / "batch_sizes.json"


def a_device(seconds: Callable[[int], float], most: int = 1 << 20) -> tuple[Callable[[int], None], Callable[[], float]]:
    """An encoder that takes ``seconds`` for a batch and has memory for ``most`` inputs, and its clock."""
    now = [0.0]

    def encode(count: int) -> None:
        if count > most:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        now[0] += seconds(count)

    return encode, lambda: now[0]


@pytest.mark.parametrize(
    ("seconds", "most", "expected"),
    [
        (lambda n: 1.0, 10_000, 512),  # the larger the better
        (lambda n: 1.0, 200, 128),  # as far as memory goes
        (lambda n: 1.0, 20, 0),  # nowhere
        (lambda n: float(n), 10_000, 32),  # no gain
        (lambda n: 100.0 + n, 10_000, 512),
        (lambda n: 4.0 + n, 10_000, 128),  # 256 is 1.5 % faster
    ],
)
def test_a_batch_doubles_while_that_is_three_percent_faster(seconds, most: int, expected: int) -> None:
    encode, clock = a_device(seconds, most)
    assert probe(encode, clock) == expected


def test_a_probe_passes_on_what_is_not_memory() -> None:
    def encode(count: int) -> None:
        raise ValueError("wrong shape")

    with pytest.raises(ValueError, match="wrong shape"):
        probe(encode)


def test_sizes_are_remembered_each_by_its_key(cache: Path) -> None:
    assert remembered("a H100 float16") is None
    remember("a H100 float16", 256)
    remember("a H100 float32", 64)
    remember("a H100 float16", 512)
    assert (remembered("a H100 float16"), remembered("a H100 float32")) == (512, 64)
    assert json.loads(cache.read_text()) == {"a H100 float16": 512, "a H100 float32": 64}
    assert [file.name for file in cache.parent.iterdir()] == [cache.name]  # written beside, then put in place


@pytest.mark.parametrize("content", ["", "{", "[1]", "null", '{"a": "many"}', '{"a": 0}', '{"a": 100000}', "\x00"])
def test_a_damaged_file_of_sizes_counts_as_none_and_is_replaced(cache: Path, content: str) -> None:
    cache.parent.mkdir()
    cache.write_text(content)
    assert remembered("a") is None
    remember("a", 64)
    assert remembered("a") == 64


def test_a_cache_that_cannot_be_written_is_no_error(cache: Path) -> None:
    cache.parent.write_text("a file where the folder should be")
    remember("a", 64)
    assert remembered("a") is None


def test_a_size_is_halved_once_however_many_batches_of_it_fail() -> None:
    sizes = BatchSizes(default=64)
    assert sizes.halve("a", 64) == (32, True)
    assert sizes.halve("a", 64) == (32, False)  # was on its way already
    assert sizes.halve("a", 32) == (16, True)
    assert sizes.halve("a", 1) == (1, True)
    assert (sizes.of("a"), sizes.of("b")) == (1, 64)


def test_threads_that_remember_at_once_leave_a_whole_file(cache: Path) -> None:
    threads = [threading.Thread(target=remember, args=(f"{n}", 32)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(json.loads(cache.read_text()).values()) == {32}


def test_memory_running_out_is_known_by_every_name_it_has() -> None:
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"))
    assert is_out_of_memory(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"))
    assert not is_out_of_memory(RuntimeError("shapes do not match"))
    assert not is_out_of_memory(ValueError("out of memory"))


def test_one_process_probes_at_a_time(cache: Path) -> None:
    held = """
import sys
from aupipe.extract.engine.batch_size import one_prober
with one_prober():
    print("held", flush=True)
    sys.stdin.read()
"""
    other = subprocess.Popen([sys.executable, "-c", held], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None
    assert other.stdout.readline() == "held\n"
    entered = threading.Event()

    def enter() -> None:
        with one_prober():
            entered.set()

    thread = threading.Thread(target=enter)
    thread.start()
    assert not entered.wait(0.3)
    other.communicate()
    assert entered.wait(30)
    thread.join()


def test_where_no_lock_can_be_had_probing_goes_on(cache: Path) -> None:
    cache.parent.write_text("a file where the folder should be")
    with one_prober():
        pass
