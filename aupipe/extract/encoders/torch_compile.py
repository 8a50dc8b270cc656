"""Encoders through torch.compile: kernels fused from pixels to rows, on a GPU."""

from __future__ import annotations

from dataclasses import replace

from aupipe.errors import UsageError, is_out_of_memory
from aupipe.extract.encoders.base import Encode
from aupipe.extract.encoders.image_base import TensorEncode


def compiled(encode: Encode, size_px: int, batch: int) -> Encode:
    """The same function compiled for batches of this size of crops (S, S); as it is where it is not one graph of torch.

    Raises UsageError when the compiler cannot: said before anything is decoded for it, and no recording's fault.
    """
    if not (isinstance(encode, TensorEncode) and encode.is_graph):
        return encode
    import torch

    made = replace(encode, forward=torch.compile(encode.forward, dynamic=False))
    try:
        made(torch.zeros((batch, size_px, size_px, 3), dtype=torch.uint8, device=encode.device))
    except Exception as error:  # the compiler and what it calls raise kinds of many libraries
        if not is_out_of_memory(error):
            reason = (str(error).splitlines() or [""])[0] or type(error).__name__
            raise UsageError(f"--compile: {reason}; run without it") from error
    return made
