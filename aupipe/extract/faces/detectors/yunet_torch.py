"""YuNet in torch: a batched form of OpenCV's `FaceDetectorYN`, from the weights in its ONNX file.

The steps around the network are those of OpenCV's modules/objdetect/src/face_detect.cpp.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aupipe.extract.faces import FaceTensors
from aupipe.extract.faces.nms import suppress
from aupipe.extract.nets.yunet import HEADS, STRIDES, VALUES, YuNet
from aupipe.extract.weights import RefusedWeightsError
from aupipe.extract.weights.onnx_file import read_convolutions


def load_yunet(path: Path) -> YuNet:
    """The network of a published ONNX file (yunet_s, yunet_n), in evaluation mode.

    Raises RefusedWeightsError for another network.
    """
    read = read_convolutions(path)
    body = len(read) - 2 * len(HEADS) * len(STRIDES)
    if body not in (29, 35):
        raise RefusedWeightsError(f"{path} has {len(read)} convolutions; a YuNet has 53 (yunet_s) or 59 (yunet_n)")
    network = YuNet(read[5 + 1][0].shape[0], read[9 + 1][0].shape[0], shared=body == 35)
    pairs = read[:body]
    pairs[0] = (pairs[0][0][:, ::-1], pairs[0][1])  # the file's takes BGR
    for level in range(len(STRIDES)):
        for part in range(2):  # 1x1, then 3x3, of every head of this stride
            heads = [read[body + 2 * (kind * len(STRIDES) + level) + part] for kind in range(len(HEADS))]
            pairs.append((np.concatenate([w for w, _ in heads]), np.concatenate([b for _, b in heads])))
    layers = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    for layer, (weight, bias) in zip(layers, pairs, strict=True):
        if layer.weight.shape != weight.shape or layer.bias is None or layer.bias.shape != bias.shape:
            raise RefusedWeightsError(f"{path}: {weight.shape} where a YuNet has {tuple(layer.weight.shape)}")
        layer.weight.data = torch.from_numpy(weight.copy())
        layer.bias.data = torch.from_numpy(bias.copy())
    return network.eval().requires_grad_(False)


def detect_faces(
    network: YuNet, pictures: Tensor, min_score: float, nms_threshold: float, candidates: int, rounds: int
) -> FaceTensors:
    """The faces of (B, 3, H, W) RGB pictures in 0..255 on the network's device; host and device exchange nothing.

    Black is added at the right and at the bottom up to multiples of 32. The ``candidates`` best cells of a frame are
    looked at; for ``rounds`` see `aupipe.extract.faces.nms.suppress`.
    """
    height, width = pictures.shape[2:]
    with torch.inference_mode():
        x = pictures.to(torch.float32)
        x = F.pad(x, (0, -width % STRIDES[-1], 0, -height % STRIDES[-1])).contiguous(memory_format=torch.channels_last)
        output = network(x)  # (B, N, 16)
        score = (output[..., 0].sigmoid() * output[..., 5].sigmoid()).sqrt()
        # Stable: equal scores keep the order of their cells, as in OpenCV.
        score, best = score.sort(dim=1, descending=True, stable=True)
        passed = (score >= min_score).sum(dim=1)  # (B,)
        score, best = score[:, :candidates], best[:, :candidates]
        output = output.gather(1, best[..., None].expand(-1, -1, VALUES))  # (B, K, 16)
        cells = _cells(x.shape[2], x.shape[3], x.device)[best]  # (B, K, 3)
        corner, stride = cells[..., :2], cells[..., 2:]
        size = output[..., 3:5].exp() * stride
        low = (corner + output[..., 1:3]) * stride - size / 2
        points = (output[..., 6:] + corner.repeat(1, 1, 5)) * stride
        whole = torch.cat([low.trunc(), low.trunc() + size.trunc()], dim=-1)  # as OpenCV compares them
        kept, settled = suppress(whole, score >= min_score, nms_threshold, rounds)
        rows = torch.cat([low, low + size, points, score[..., None]], dim=-1) * kept[..., None]
        order = kept.to(torch.uint8).sort(dim=1, descending=True, stable=True).indices
        rows = rows.gather(1, order[..., None].expand(-1, -1, rows.shape[-1]))  # kept ones first, best first
        return FaceTensors(
            box=rows[..., :4],
            landmarks=rows[..., 4:14].unflatten(-1, (5, 2)),
            score=rows[..., 14],
            number=kept.sum(dim=1),
            settled=settled & (passed <= candidates),
        )


def _cells(height: int, width: int, device: torch.device) -> Tensor:
    """(N, 3): column, row and stride of every cell of a picture, in the order of the network's rows."""
    levels = []
    for stride in STRIDES:
        rows, columns = height // stride, width // stride
        index = torch.arange(rows * columns, device=device)
        levels.append(torch.stack([index % columns, index // columns, torch.full_like(index, stride)], dim=1))
    return torch.cat(levels).to(torch.float32)
