"""Functions of tensors as CUDA graphs: hundreds of kernels for the price of launching a few.

Every kernel that python launches costs it some ten microseconds and its lock, and every thread in which cuDNN meets a
shape plans each convolution anew, which takes seconds. A graph is recorded once and replayed from any thread.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

log = logging.getLogger(__name__)

MOST = 64  # graphs of a process, each of one size of video; the one that was not used for longest goes

Function = Callable[..., Tensor]
Shapes = tuple[tuple[torch.Size, torch.dtype], ...]


class GraphedFunction:
    """A function of tensors to one tensor that launches kernels alone: it waits for nothing and copies nothing over.

    On CUDA it is captured once per shape of its inputs. The threads that call it work in one stream. Elsewhere, and
    where the capture fails, it is called as it is. What it calls must not use cuBLAS: a graph that is freed takes the
    workspace of the others with it (pytorch#193402).
    """

    def __init__(self, function: Function) -> None:
        self._function = function

    def __call__(self, inputs: Sequence[Tensor], lengths: Sequence[int], take: int) -> Tensor:
        """The first ``take`` rows of the function's value.

        On CUDA each input is filled up to a length of its own, with whatever lies there: rows of the value must depend
        on no row of that.
        """
        if not on_cuda(inputs[0]):
            return self._function(*inputs)[:take]
        sizes = zip(inputs, lengths, strict=True)
        shapes = tuple((torch.Size((length, *each.shape[1:])), each.dtype) for each, length in sizes)
        with _GRAPHS.lock:
            recorded = _GRAPHS.of(self._function, shapes, inputs[0].device)
            with torch.inference_mode():
                held = recorded.inputs if recorded else _zeros(shapes, inputs[0].device)
                for there, here in zip(held, inputs, strict=True):
                    there[: len(here)].copy_(here)
                if recorded:
                    recorded.replay()
                output = recorded.output if recorded else self._function(*held)
            return output[:take].clone()  # where the next replay, of whichever graph, does not write


@dataclass(frozen=True)
class CapturedGraph:
    """A graph: copy into ``inputs``, replay, copy from ``output``."""

    inputs: list[Tensor]
    replay: Callable[[], None]
    output: Tensor


@dataclass
class Graphs:
    """All graphs of a process. They share the memory of what they compute, since they run one after another."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    recorded: OrderedDict[tuple[Function, Shapes], CapturedGraph] = field(default_factory=OrderedDict)
    seen: Counter[tuple[Function, Shapes]] = field(default_factory=Counter)
    failed: bool = False  # recording, after which nothing more is recorded: what it leaves behind is not sure
    _pool: Any = None
    _stream: Any = None

    def of(self, function: Function, shapes: Shapes, device: torch.device) -> CapturedGraph | None:
        """The graph of a function for inputs of these shapes; None while it is not worth one, or cannot be had."""
        key = function, shapes
        if key in self.recorded:
            self.recorded.move_to_end(key)
            return self.recorded[key]
        self.seen[key] += 1
        full = len(self.recorded) == MOST
        if self.failed or (full and self.seen[key] < 2):  # what comes once is not worth what has to go for it
            return None
        if full:
            torch.cuda.synchronize(device)  # it may still run
            self.recorded.popitem(last=False)
        try:
            self.recorded[key] = self._record(function, shapes, device)
        except RuntimeError as error:  # CUDA's and cuDNN's, out of memory among them
            self.failed = True
            log.warning("no CUDA graphs from here on, which is slower: %s", str(error).splitlines()[0])
            return None
        return self.recorded[key]

    def _record(self, function: Function, shapes: Shapes, device: torch.device) -> CapturedGraph:
        if self._stream is None:
            self._pool = torch.cuda.graph_pool_handle()
            # Streams are handed out again after 32 of a priority, and what another thread did in this one would be
            # recorded with it: no other code asks for this priority.
            self._stream = torch.cuda.Stream(device, priority=-1)
        graph, here = torch.cuda.CUDAGraph(), torch.cuda.current_stream(device)
        with torch.inference_mode():
            held = _zeros(shapes, device)
            self._stream.wait_stream(here)
            with torch.cuda.stream(self._stream):
                function(*held)  # what libraries do once must not be part of a graph
            here.wait_stream(self._stream)
            # Other threads go on: what they do meanwhile is no part of it, and no error.
            with torch.cuda.graph(graph, self._pool, self._stream, capture_error_mode="thread_local"):
                output = function(*held)
        return CapturedGraph(held, graph.replay, output)


_GRAPHS = Graphs()


def on_cuda(tensor: Tensor) -> bool:
    """Whether a tensor lies where graphs can be had."""
    return tensor.is_cuda


def _zeros(shapes: Shapes, device: torch.device) -> list[Tensor]:
    return [torch.zeros(shape, dtype=dtype, device=device) for shape, dtype in shapes]
