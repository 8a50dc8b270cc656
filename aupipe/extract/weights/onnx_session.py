"""ONNX files through onnxruntime, which is an optional dependency."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

from aupipe.errors import UsageError, WeightsMissingError
from aupipe.extract.weights import RefusedWeightsError
from aupipe.extract.weights.onnx_file import external_files, read_onnx

BEFORE_CLASSIFIER = "before-classifier"

log = logging.getLogger(__name__)


def open_session(
    path: Path, device: str = "cpu", *, output: str = "", free_sizes: bool = False, threads: int = 0
) -> Any:
    """An `onnxruntime.InferenceSession` of a file, on the GPU where ``device`` is one and onnxruntime can use it.

    ``output`` may name a tensor inside the graph that is no output of it, or be ``before-classifier``: the input of
    the last Gemm. ``free_sizes``: pictures may have any height and width, whatever the file states for its first
    input. ``threads`` of a call; 0: onnxruntime's choice. Raises UsageError where onnxruntime is missing or no such
    tensor exists, RefusedWeightsError for a file that is not an ONNX network or keeps tensors outside its folder.
    """
    # Its builds for some systems report usage over the network as soon as they are imported; aupipe sends nothing.
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    try:
        import onnxruntime  # type: ignore[import-untyped]
    except ImportError as error:
        raise UsageError(
            "ONNX files need onnxruntime: pip install 'aupipe[onnx]' (on a GPU: onnxruntime-gpu)"
        ) from error
    external_files(path)  # those outside its folder are refused here, before any version of onnxruntime reads them
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # its warnings about the graph say nothing a user can act on
    options.intra_op_num_threads = options.inter_op_num_threads = threads
    providers = ["CPUExecutionProvider"]
    if device.startswith("cuda"):
        if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
            number = int(device.partition(":")[2] or 0)
            providers = [("CUDAExecutionProvider", {"device_id": number}), *providers]  # type: ignore[list-item]
        else:
            log.warning("%s runs on the CPU: this onnxruntime has no CUDA; install onnxruntime-gpu", path.name)
    try:
        return onnxruntime.InferenceSession(edit_graph(path, output, free_sizes), options, providers=providers)
    except (UsageError, WeightsMissingError):
        raise
    except Exception as error:  # onnxruntime's own kinds share no base class
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise RefusedWeightsError(f"{path} does not open as an ONNX network: {reason}") from error


def output_name(session: Any, output: str) -> str:
    """The name to ask the session for: the asked one, the one added last for `BEFORE_CLASSIFIER`, or the first."""
    names = [found.name for found in session.get_outputs()]
    if output == BEFORE_CLASSIFIER:
        return str(names[-1])
    return output or str(names[0])


def edit_graph(path: Path, output: str = "", free_sizes: bool = False) -> str | bytes:
    """The file's name, or the network in it with one more output or with free sizes."""
    if not output and not free_sizes:
        return str(path)
    import onnx

    model = read_onnx(path)
    if output and output not in [found.name for found in model.graph.output]:
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
    elif not free_sizes:
        return str(path)
    if free_sizes and model.graph.input:
        sides = model.graph.input[0].type.tensor_type.shape.dim[2:4]
        for side, name in zip(sides, ("height", "width"), strict=False):
            if side.dim_value:
                side.dim_param = name
    onnx.load_external_data_for_model(model, str(path.parent))
    return bytes(model.SerializeToString())
