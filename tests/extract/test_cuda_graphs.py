"""What is recorded when, and what comes out. CUDA's part, capture and replay, is a stand-in: replay computes anew."""

from __future__ import annotations

import logging

import pytest
import torch
from torch import Tensor

from aupipe.extract.gpu import cuda_graphs
from aupipe.extract.gpu.cuda_graphs import CapturedGraph, GraphedFunction, Graphs


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Graphs:
    """Graphs of a process in which every tensor counts as CUDA's."""

    def record(
        self: Graphs, function: cuda_graphs.Function, shapes: cuda_graphs.Shapes, device: torch.device
    ) -> CapturedGraph:
        held = [torch.zeros(shape, dtype=dtype) for shape, dtype in shapes]
        output = function(*held)
        return CapturedGraph(held, lambda: output.copy_(function(*held)), output)

    own = Graphs()
    monkeypatch.setattr(cuda_graphs, "_GRAPHS", own)
    monkeypatch.setattr(cuda_graphs, "on_cuda", lambda tensor: True)
    monkeypatch.setattr(Graphs, "_record", record)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
    return own


class Doubled:
    """Twice the rows of one input, plus one of another; ``lengths`` it was called with."""

    def __init__(self) -> None:
        self.lengths: list[int] = []

    def __call__(self, x: Tensor, shift: Tensor) -> Tensor:
        self.lengths.append(len(x))
        return 2 * x + shift[:1]


def test_rows_are_the_functions_however_full_the_inputs_and_are_nobody_elses(made: Graphs) -> None:
    function = Doubled()
    graphed, shift = GraphedFunction(function), torch.tensor([[5.0]])
    given = []
    for count in (4, 2, 8, 1, 3):
        x = torch.randn(count, 3)
        rows = graphed([x, shift], [8, 1], count)
        assert not rows.is_inference()
        given.append((rows, 2 * x + 5))
    assert set(function.lengths) == {8}  # one size, recorded or not: the same kernels, the same bytes
    for rows, expected in given:  # after all replays
        assert torch.equal(rows, expected)
    assert len(made.recorded) == 1


def test_a_shape_is_recorded_once_and_where_there_is_no_room_only_if_it_comes_again(
    made: Graphs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cuda_graphs, "MOST", 2)
    graphed, shift = GraphedFunction(Doubled()), torch.zeros(1, 1)
    there: list[list[int]] = []
    for width in (1, 1, 2, 1, 3, 4, 3):
        graphed([torch.ones(2, width), shift], [4, 1], 2)
        there.append([shapes[0][0][1] for _, shapes in made.recorded])
    assert there == [[1], [1], [1, 2], [2, 1], [2, 1], [2, 1], [1, 3]]  # last the one that was used last


def test_where_recording_fails_the_function_is_called_and_it_is_said_once(
    made: Graphs, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(self: Graphs, *things: object) -> CapturedGraph:
        raise RuntimeError("operation not permitted when stream is capturing\nand more")

    monkeypatch.setattr(Graphs, "_record", fail)
    one, other, shift = GraphedFunction(Doubled()), GraphedFunction(Doubled()), torch.zeros(1, 1)
    with caplog.at_level(logging.WARNING, "aupipe"):
        for graphed in (one, other, one, other, one, other):
            assert torch.equal(graphed([torch.ones(2, 3), shift], [4, 1], 2), torch.full((2, 3), 2.0))
    (said,) = caplog.records
    assert "no CUDA graphs from here on" in said.message
    assert not made.recorded


def test_elsewhere_than_on_cuda_the_function_gets_its_inputs_as_they_are() -> None:
    function = Doubled()
    x = torch.randn(3, 2)
    assert torch.equal(GraphedFunction(function)([x, torch.ones(1, 1)], [8, 1], 2), (2 * x + 1)[:2])
    assert function.lengths == [3]
