"""What stands in ONNX files, read by the package onnx: the files they keep tensors in, and their weights.

Where tensors lie decides which files are read, so the parser is the one that onnxruntime has (protocol buffers), and
what it does not understand is refused.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aupipe.errors import WeightsMissingError
from aupipe.extract.weights import RefusedWeightsError, file_sha256, find_weights, identify
from aupipe.types import Weights


def read_onnx(path: Path) -> Any:
    """The `onnx.ModelProto` of a file, without the tensors it keeps in other files. Raises RefusedWeightsError."""
    import onnx

    try:
        return onnx.load(str(path), format="protobuf", load_external_data=False)
    except OSError:
        raise
    except Exception as error:  # a kind of the package protobuf, which onnx brings
        raise RefusedWeightsError(f"{path} does not open as an ONNX network: {error}") from error


def external_files(path: Path) -> list[tuple[str, Path]]:
    """(location as written, file) of everything an ONNX file keeps outside, sorted by location; none for most.

    Raises RefusedWeightsError for a file that is not ONNX and for a location outside the file's own folder,
    WeightsMissingError for one that is not there.
    """
    return [(location, _beside(path, location)) for location in sorted(set(_locations(read_onnx(path))))]


def identify_network(name: str, licence: str = "unknown") -> Weights:
    """As `identify`; where an ONNX file keeps tensors outside, the sha256 is of all its files together.

    Raises as `external_files` does.
    """
    found = identify(name, licence)
    outside = external_files(find_weights(name))
    if not outside:
        return found
    lines = [found.sha256, *(f"{location} {file_sha256(file)}" for location, file in outside)]
    return replace(found, sha256=hashlib.sha256("\n".join(lines).encode()).hexdigest())


def _beside(path: Path, location: str) -> Path:
    """The file of a location, which must lie in the folder of ``path``, links included."""
    parts = PurePosixPath(location).parts
    outside = not location or PurePosixPath(location).is_absolute() or ".." in parts
    outside = outside or PureWindowsPath(location).is_absolute() or ".." in PureWindowsPath(location).parts
    found = path.parent / location
    if outside or not Path(os.path.realpath(found)).is_relative_to(os.path.realpath(path.parent)):
        raise RefusedWeightsError(
            f"{path} keeps tensors in {location!r}, outside its own folder: save it as one file, "
            "onnx.save(onnx.load(FILE), ONE_FILE)"
        )
    if not found.is_file():
        raise WeightsMissingError(f"{path} keeps tensors in {location!r}, which is not beside it: put it there")
    return found


def _locations(message: Any) -> Iterator[str]:
    """The locations of all tensors in a message, however deep: in graphs, functions, attributes, training."""
    if message.DESCRIPTOR.name == "TensorProto":
        yield from (entry.value for entry in message.external_data if entry.key == "location")
        return
    for field, value in message.ListFields():
        if field.message_type is not None:
            for each in [value] if hasattr(value, "ListFields") else value:
                yield from _locations(each)


def read_convolutions(path: Path) -> list[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Weight (out, in, h, w) and bias (out,) of every convolution, in the order in which the graph runs them.

    Raises RefusedWeightsError for a file that is no ONNX network of such convolutions, all in one file.
    """
    from onnx import TensorProto
    from onnx.numpy_helper import to_array

    graph = read_onnx(path).graph
    tensors = {
        tensor.name: tensor
        for tensor in graph.initializer
        if tensor.data_type == TensorProto.FLOAT and tensor.data_location == TensorProto.DEFAULT
    }
    try:
        inputs = [node.input for node in graph.node if node.op_type == "Conv"]
        return [(to_array(tensors[weight]), to_array(tensors[bias])) for _, weight, bias in inputs]
    except (ValueError, KeyError) as error:
        raise RefusedWeightsError(f"{path} is not an ONNX network of convolutions with weight and bias") from error
