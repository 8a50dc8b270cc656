"""ONNX files through onnxruntime, which is an optional dependency."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from aupipe.errors import UsageError
from aupipe.extract.weights import RefusedWeightsError
from aupipe.extract.weights.onnx_external import external_files

BEFORE_CLASSIFIER = "before-classifier"

log = logging.getLogger(__name__)


def open_session(path: Path, device: str, output: str = "") -> Any:
    """An `onnxruntime.InferenceSession` of a file, on the GPU where ``device`` is one and onnxruntime can use it.

    ``output`` may name a tensor inside the graph that is no output of it, or be ``before-classifier``: the input of
    the last Gemm. Both need the package onnx. Raises UsageError where a package is missing or no such tensor exists,
    RefusedWeightsError for a file that is not an ONNX network or keeps tensors outside its folder.
    """
    try:
        import onnxruntime  # type: ignore[import-untyped]
    except ImportError as error:
        raise UsageError(
            "ONNX files need onnxruntime: pip install 'aupipe[onnx]' (on a GPU: onnxruntime-gpu)"
        ) from error
    external_files(path)  # refused here where they are not beside it: onnxruntime would read any file
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # its warnings about the graph say nothing a user can act on
    providers = ["CPUExecutionProvider"]
    if device.startswith("cuda"):
        if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
            number = int(device.partition(":")[2] or 0)
            providers = [("CUDAExecutionProvider", {"device_id": number}), *providers]  # type: ignore[list-item]
        else:
            log.warning("%s runs on the CPU: this onnxruntime has no CUDA; install onnxruntime-gpu", path.name)
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=providers)
        if output and output not in [found.name for found in session.get_outputs()]:
            graph = _with_output(path, output)
            session = onnxruntime.InferenceSession(graph, options, providers=providers)
    except UsageError:
        raise
    except Exception as error:  # onnxruntime's own kinds share no base class
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise RefusedWeightsError(f"{path} does not open as an ONNX network: {reason}") from error
    return session


def output_name(session: Any, output: str) -> str:
    """The name to ask the session for: the asked one, the one added last for `BEFORE_CLASSIFIER`, or the first."""
    names = [found.name for found in session.get_outputs()]
    if output == BEFORE_CLASSIFIER:
        return str(names[-1])
    return output or str(names[0])


def _with_output(path: Path, output: str) -> bytes:
    """The graph with one more output."""
    try:
        import onnx
    except ImportError as error:
        raise UsageError(
            f"{output!r} is no output of {path.name}; to reach inside the graph: pip install onnx"
        ) from error
    model = onnx.load(str(path))
    inside = {name for node in model.graph.node for name in node.output}
    if output == BEFORE_CLASSIFIER:
        dense = [node for node in model.graph.node if node.op_type == "Gemm"]
        if not dense:
            raise UsageError(f"{path.name} has no Gemm: name the tensor instead of {BEFORE_CLASSIFIER!r}")
        output = dense[-1].input[0]
    if output not in inside:
        ends = ", ".join(found.name for found in model.graph.output)
        raise UsageError(f"{path.name} has no tensor {output!r}; its outputs: {ends}")
    model.graph.output.append(onnx.ValueInfoProto(name=output))
    return bytes(model.SerializeToString())
