"""Functions of tensors as CUDA graphs: hundreds of kernels for the price of launching a few.

Every kernel that python launches costs it some ten microseconds and its lock, and every thread in which cuDNN meets a
shape plans each convolution anew, which takes seconds. A graph is recorded once and replayed from any thread.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

log = logging.getLogger(__name__)

MOST = 16  # graphs of one function: sizes of videos; the one that was not used for longest goes

Key = tuple[tuple[torch.Size, torch.dtype], ...]


@dataclass(frozen=True)
class _Recorded:
    graph: torch.cuda.CUDAGraph
    inputs: list[Tensor]
    output: Tensor


class Graphed:
    """A function of tensors to one tensor that launches kernels alone: it waits for nothing and copies nothing over.

    On CUDA it is recorded once per shape of its inputs. The threads that call it share one stream. Elsewhere, and
    where it cannot be recorded, it is called as it is.
    """

    _pool: Any = None  # memory of all graphs: they run one after another, and what they give is copied out of it

    def __init__(self, function: Callable[..., Tensor]) -> None:
        self._function = function
        self._recorded: OrderedDict[Key, _Recorded | None] = OrderedDict()

    def __call__(self, inputs: Sequence[Tensor], lengths: Sequence[int], take: int) -> Tensor:
        """The first ``take`` rows of the function's value.

        On CUDA each input is filled up to a length of its own, with whatever lies there: rows of the value must depend
        on no row of that.
        """
        if not inputs[0].is_cuda:
            return self._function(*inputs)[:take]
        key = tuple(
            (torch.Size((length, *each.shape[1:])), each.dtype) for each, length in zip(inputs, lengths, strict=True)
        )
        with _LOCK, torch.inference_mode():
            if key not in self._recorded:
                self._recorded[key] = self._record(key, inputs)
                if len(self._recorded) > MOST:
                    torch.cuda.synchronize(inputs[0].device)
                    self._recorded.popitem(last=False)
            self._recorded.move_to_end(key)
            recorded = self._recorded[key]
            if recorded is None:
                return self._function(*inputs)[:take]
            _fill(recorded.inputs, inputs)
            recorded.graph.replay()
            return recorded.output[:take].clone()

    def _record(self, key: Key, inputs: Sequence[Tensor]) -> _Recorded | None:
        device = inputs[0].device
        held = [torch.zeros(shape, dtype=dtype, device=device) for shape, dtype in key]
        _fill(held, inputs)
        if Graphed._pool is None:
            Graphed._pool = torch.cuda.graph_pool_handle()
        stream, graph = torch.cuda.Stream(device), torch.cuda.CUDAGraph()
        stream.wait_stream(torch.cuda.current_stream(device))
        try:
            with torch.cuda.stream(stream):
                self._function(*held)  # what libraries do once must not be part of a graph
            torch.cuda.current_stream(device).wait_stream(stream)
            # Other threads go on: what they do meanwhile is no part of it, and no error.
            with torch.cuda.graph(graph, Graphed._pool, stream, capture_error_mode="thread_local"):
                output = self._function(*held)
        except torch.cuda.OutOfMemoryError:
            raise
        except RuntimeError as error:
            log.warning("not recorded as a CUDA graph, and slower for it: %s", str(error).splitlines()[0])
            return None
        return _Recorded(graph, held, output)


_LOCK = threading.Lock()  # of all graphs, since they share their memory


def _fill(held: Sequence[Tensor], inputs: Sequence[Tensor]) -> None:
    for there, here in zip(held, inputs, strict=True):
        there[: len(here)].copy_(here)
