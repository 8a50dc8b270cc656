"""Between host and device: arrays and tensors, without either waiting for the other where that can be had."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def upload(array: NDArray[Any], device: torch.device | str) -> Tensor:
    """An array on a device. To CUDA through pinned memory, in the current stream, without waiting."""
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    if torch.device(device).type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def fetch(tensors: Sequence[Tensor]) -> Callable[[], list[NDArray[Any]]]:
    """Begin to copy tensors to the host; calling what is returned waits for them alone, and gives them as arrays.

    From CUDA into pinned memory, in the current stream; what is launched after this call is not waited for.
    """
    if not tensors or tensors[0].device.type != "cuda":
        return lambda: [np.ascontiguousarray(tensor.numpy(force=True)) for tensor in tensors]
    pinned = [torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True) for tensor in tensors]
    for there, here in zip(tensors, pinned, strict=True):
        here.copy_(there, non_blocking=True)
    copied = torch.cuda.Event(blocking=True)  # a thread that waits leaves its core to others
    copied.record(torch.cuda.current_stream(tensors[0].device))

    def wait() -> list[NDArray[Any]]:
        copied.synchronize()
        return [here.numpy() for here in pinned]

    return wait


def on_host(tensor: Tensor) -> NDArray[Any]:
    """A tensor as an array, in one piece; waits for the device."""
    (array,) = fetch([tensor])()
    return array


def empty_cache() -> None:
    """Give memory that is cached but not in use back to CUDA devices, after one has run out."""
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
