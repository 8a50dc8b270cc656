"""The devices of a machine: how many processes each has, and with which threads."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from aupipe.extract.executors import devices as module
from aupipe.extract.executors.devices import available_cores, processes_on, thread_counts
from aupipe.extract.memory import KEPT_ON_DEVICE_BYTES, kept_on

GIB = 1 << 30


def a_gpu(monkeypatch: pytest.MonkeyPatch, cores: int, memory_gib: int) -> None:
    monkeypatch.setattr(module, "available_cores", lambda: cores)
    monkeypatch.setattr(module, "shares", lambda device: True)
    properties = SimpleNamespace(total_memory=memory_gib * GIB)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)


@pytest.mark.parametrize(
    ("cores", "memory_gib", "gpus", "processes", "decoders"),
    [
        (16, 141, 1, 4, 4),  # a large GPU is more than one python can feed
        (16, 24, 1, 2, 7),  # each process has networks of its own
        (16, 8, 1, 1, 14),
        (6, 80, 1, 1, 4),  # no cores for more
        (2, 80, 1, 1, 1),
        (64, 80, 1, 4, 4),
        (64, 80, 8, 2, 4),
        (64, 80, 4, 4, 4),
    ],
)
def test_a_gpu_has_as_many_workers_as_its_memory_and_the_cores_allow(
    monkeypatch: pytest.MonkeyPatch, cores: int, memory_gib: int, gpus: int, processes: int, decoders: int
) -> None:
    a_gpu(monkeypatch, cores, memory_gib)
    devices = [f"cuda:{number}" for number in range(gpus)]
    assert processes_on(devices) == processes
    threads = thread_counts(devices, processes)
    assert [(each.decoders, each.encoders) for each in threads] == [(decoders, 1)] * processes
    asked = thread_counts(devices, processes, decoders=7)  # --workers 7 means 7, on each device
    assert (len(asked), sum(each.decoders for each in asked)) == (processes, 7)


@pytest.mark.parametrize(
    ("mode", "mps", "answer", "processes"),
    [
        (0, 0, 0, 4),
        (3, 0, 0, 1),  # exclusive
        (3, 1, 0, 4),  # exclusive, and its one process is the server of MPS
        (3, None, 0, 1),  # a driver that knows no such attribute
        (2, 0, 0, 1),  # prohibited
        (0, 0, 1, 1),  # the driver fails
        (None, 0, 0, 1),  # there is none
    ],
)
def test_a_gpu_that_takes_one_process_only_has_one_worker(
    monkeypatch: pytest.MonkeyPatch, mode: int | None, mps: int | None, answer: int, processes: int
) -> None:
    def get(found, number: int) -> int:
        found._obj.value = 40 + number
        return 0

    def ask(found, attribute: int, gpu) -> int:
        assert gpu.value == 41
        value = {20: mode, 133: mps}[attribute]
        found._obj.value = 77 if value is None else value
        return 1 if value is None else answer

    def load(name: str) -> SimpleNamespace:
        if mode is None:
            raise OSError(f"{name}: cannot open shared object file")
        return SimpleNamespace(cuInit=lambda flags: 0, cuDeviceGet=get, cuDeviceGetAttribute=ask)

    monkeypatch.setattr(module, "available_cores", lambda: 16)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(total_memory=141 * GIB))
    monkeypatch.setattr(module.ctypes, "CDLL", load)
    assert processes_on(["cuda:1"]) == processes


def test_the_processor_has_one_worker_with_every_core(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "available_cores", lambda: 6)
    assert processes_on(["cpu"]) == 1
    (threads,) = thread_counts(["cpu"])
    assert (threads.decoders, threads.encoders) == (6, 6)
    assert thread_counts(["cpu"], decoders=2)[0].decoders == 2


@pytest.mark.parametrize(
    ("limit", "cores"),
    [("300000 100000", 3), ("50000 100000", 1), ("9900000 100000", 16), ("max 100000", 16), (None, 16)],
)
def test_a_container_has_the_cores_that_its_limit_of_processor_time_is_worth(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, limit: str | None, cores: int
) -> None:
    monkeypatch.setattr(module.os, "sched_getaffinity", lambda pid: set(range(16)))
    monkeypatch.setattr(module, "CPU_LIMIT", tmp_path / "cpu.max")
    if limit is not None:
        (tmp_path / "cpu.max").write_text(f"{limit}\n")
    assert available_cores() == cores


def test_crops_kept_on_a_device_take_an_eighth_of_it_and_on_a_small_one_a_gibibyte(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for memory_gib, processes, expected in ((128, 1, 16 * GIB), (128, 4, 4 * GIB), (8, 2, KEPT_ON_DEVICE_BYTES)):
        a_gpu(monkeypatch, 16, memory_gib)
        assert kept_on("cuda:0", processes) == expected
    assert kept_on("cpu") == KEPT_ON_DEVICE_BYTES
