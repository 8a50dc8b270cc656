"""The weights inside an ONNX file, read without the package onnx: protobuf is tags, lengths and bytes."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from aupipe.extract.weights import RefusedWeightsError
from aupipe.extract.weights.protobuf import fields, varint

# Field numbers of onnx.proto3; the messages are Model > Graph > Node, Tensor.
MODEL_GRAPH = 7
GRAPH_NODE, GRAPH_INITIALIZER, GRAPH_INPUT = 1, 5, 11
NODE_INPUT, NODE_OP_TYPE = 1, 4
TENSOR_DIMS, TENSOR_TYPE, TENSOR_FLOATS, TENSOR_NAME, TENSOR_RAW = 1, 2, 4, 8, 9
FLOAT = 1


def read_convolutions(path: Path) -> list[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Weight (out, in, h, w) and bias (out,) of every convolution, in the order in which the graph runs them.

    Raises RefusedWeightsError for a file that is no ONNX network of such convolutions.
    """
    try:
        graph = b"".join(_all(path.read_bytes(), MODEL_GRAPH))
        tensors = dict(_tensor(message) for message in _all(graph, GRAPH_INITIALIZER))
        nodes = [node for node in _all(graph, GRAPH_NODE) if b"Conv" in _all(node, NODE_OP_TYPE)]
        inputs = [[name.decode() for name in _all(node, NODE_INPUT)] for node in nodes]
        return [(tensors[weight], tensors[bias]) for _, weight, bias in inputs]
    except (ValueError, IndexError, KeyError, UnicodeDecodeError) as error:
        raise RefusedWeightsError(f"{path} is not an ONNX network of convolutions with weight and bias") from error


def with_free_sizes(model: bytes) -> bytes:
    """The same network for pictures of any size: the fixed sides (128 and more) of its first input get names instead.

    A fixed side of 128 to 16383 and a name of one letter take three bytes each, so nothing else moves.
    """
    graph = b"".join(_all(model, MODEL_GRAPH))
    first = _all(graph, GRAPH_INPUT)[0]
    names = iter(b"hw")
    freed = re.sub(
        rb"\x0a\x03\x08[\x80-\xff][\x01-\x7f]", lambda _: b"\x0a\x03\x12\x01" + bytes([next(names)]), first, count=2
    )
    return model.replace(first, freed, 1)


def _all(message: bytes, number: int) -> list[bytes]:
    """Every value of one field that is text, bytes or a message."""
    return [value for found, value in fields(message) if found == number and isinstance(value, bytes)]


def _tensor(message: bytes) -> tuple[str, NDArray[np.float32]]:
    """Name and values; an empty array for what is not float32."""
    dims: list[int] = []
    data, name, kind = b"", "", 0
    for number, value in fields(message):
        if number == TENSOR_DIMS:
            if isinstance(value, int):
                dims.append(value)
            else:  # packed
                at = 0
                while at < len(value):
                    dim, at = varint(value, at)
                    dims.append(dim)
        elif number == TENSOR_TYPE and isinstance(value, int):
            kind = value
        elif number in (TENSOR_RAW, TENSOR_FLOATS) and isinstance(value, bytes):
            data += value  # floats come packed or one by one, four bytes each
        elif number == TENSOR_NAME and isinstance(value, bytes):
            name = value.decode()
    if kind != FLOAT:
        return name, np.zeros(0, np.float32)
    return name, np.frombuffer(data, "<f4").reshape(dims).astype(np.float32)
