"""Convolutional networks on the CPU through onnxruntime, which is an optional dependency: up to twice torch's speed.

Transformers gain nothing and stay in torch. What onnxruntime computes differs from torch by 1e-7 to 4e-6 of the rows,
less than a GPU does: which of them ran is no part of a feature's identity.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor, nn

log = logging.getLogger(__name__)

AT_ONCE = 4  # pictures per call, always: what they become fits the caches, and one shape means one order of sums
SAME = 1e-5  # relative L2 distance from torch's rows, at most


def exported(
    network: nn.Module, forward: Callable[[Tensor], Tensor], size_px: int
) -> Callable[[Tensor], Tensor] | None:
    """``forward`` of pictures (B, 3, S, S) float32 on the CPU -> (B, ...), by onnxruntime; threads may share it.

    None where it is not worth it (no batch norm to fold into convolutions), where onnxruntime is not installed, and
    where the export fails or gives other rows.
    """
    import torch

    if not any(isinstance(module, torch.nn.BatchNorm2d) for module in network.modules()):
        return None
    if find_spec("onnxruntime") is None:
        log.info("convolutional networks are faster on a CPU with onnxruntime: pip install 'aupipe[onnx]'")
        return None
    # Noise of every brightness: what a trace got wrong shows in these rows.
    seed = torch.Generator().manual_seed(0)
    pixels = torch.randn((AT_ONCE, 3, size_px, size_px), generator=seed) * torch.linspace(0.5, 2, AT_ONCE).view(
        -1, 1, 1, 1
    )
    try:
        run = _in_onnxruntime(network, forward, pixels)
        with torch.inference_mode():
            rows, expected = run(pixels), forward(pixels.to(memory_format=torch.channels_last))
        far = float(torch.linalg.vector_norm(rows - expected) / torch.linalg.vector_norm(expected))
    except Exception as error:  # the exporter and onnxruntime raise kinds of many libraries
        log.info(
            "%s stays in torch: %s", type(network).__name__, (str(error).splitlines() or [type(error).__name__])[0]
        )
        return None
    if not far <= SAME:  # NaN is not the same either
        log.info("%s stays in torch: onnxruntime's rows are %.1e from its own", type(network).__name__, far)
        return None
    return run


def _in_onnxruntime(
    network: nn.Module, forward: Callable[[Tensor], Tensor], pixels: Tensor
) -> Callable[[Tensor], Tensor]:
    """``forward`` as an ONNX graph for pictures of this shape, in onnxruntime."""
    import torch

    from aupipe.extract.weights.onnx_session import open_session

    class Whole(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network  # its tensors are the graph's weights

        def forward(self, x: Tensor) -> Tensor:
            return forward(x)

    with TemporaryDirectory() as folder, warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # that a trace is no proof, which is why the rows are compared
        graph = Path(folder) / "network.onnx"
        # The exporter over torch.export takes ten times as long and one package more.
        torch.onnx.export(Whole().eval(), (pixels,), graph, dynamo=False)
        session = open_session(graph, threads=1)  # the engine has threads of its own
    name, at_once = session.get_inputs()[0].name, len(pixels)

    def run(pixels: Tensor) -> Tensor:
        missing = -len(pixels) % at_once
        if missing:
            pixels = torch.cat([pixels, pixels.new_zeros((missing, *pixels.shape[1:]))])
        rows = [session.run(None, {name: some.contiguous().numpy()})[0] for some in pixels.split(at_once)]
        return torch.cat([torch.from_numpy(each) for each in rows])[: len(pixels) - missing]

    return run
