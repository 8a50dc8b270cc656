"""A YuNet made by code: published weights are the user's, and a network that takes bright for a face needs none.

The pictures that go with it are discs of light in the dark, some of which move.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from aupipe.extract.imaging.templates import ARCFACE_112
from aupipe.extract.nets.yunet import HEADS, STRIDES, YuNet
from tests.made import talking

FILE = "face_detection_yunet_2023mar.onnx"
FACE_PX = 80  # side of the box that the made network says: five cells of stride 16
LEAST = 0.7  # light, of about 0.9 in the middle of a disc, from which on the made network sees a face
OUTPUTS = {"face": "cls", "object": "obj", "box": "bbox", "points": "kps"}  # as the published files call them
CHANNELS = {"face": slice(0, 1), "object": slice(5, 6), "box": slice(1, 5), "points": slice(6, 16)}  # of a head


def bright_for_face() -> YuNet:
    """A face of `FACE_PX` where 5 x 5 cells of stride 16 are bright, its points where a template has them.

    The other strides see nothing. A little of every other weight is random, so that nothing of the network is idle.
    """
    torch.manual_seed(0)
    network = YuNet()
    with torch.no_grad():
        for layer in network.modules():
            if isinstance(layer, nn.Conv2d):
                layer.weight.mul_(0.02)
                layer.bias.zero_()  # type: ignore[union-attr]
        network.stem.weight[0] = 1 / (27 * 255)  # the first channel carries the light, from here to the heads
        for name, layer in network.named_modules():
            if name.endswith("point") and not name.startswith("heads"):
                layer.weight[0] = 0
                layer.weight[0, 0] = 1
            if name.endswith("depth") and not name.startswith("heads"):
                layer.weight[0] = 0
                layer.weight[0, 0, 1, 1] = 1
        network.neck[0].depth.weight[0] = 0
        network.neck[1].depth.weight[0, 0] = 1 / 9  # of 3 x 3 cells of stride 16, and the head takes such a mean of it
        points = (ARCFACE_112 - 56) / 112 * FACE_PX / 16 + 0.5
        for stride, head in zip(STRIDES, network.heads, strict=True):
            head.point.weight[0], head.point.weight[5] = 0, 0
            head.point.weight[0, 0] = head.point.weight[5, 0] = 1
            head.depth.weight[0], head.depth.weight[5] = 0, 0
            for score in (0, 5):
                head.depth.weight[score, 0] = 20.0 / 9 if stride == 16 else 0.0
                head.depth.bias[score] = -20.0 * LEAST if stride == 16 else -10.0
            head.depth.bias[1:3] = 0.5
            head.depth.bias[3:5] = float(np.log(FACE_PX / 16))
            head.depth.bias[6:16] = torch.from_numpy(points.reshape(-1)).float()
    return network.eval()


def random_faces(shared: bool = False) -> YuNet:
    """A YuNet of random numbers that sees overlapping faces of all sizes in pictures of `talking`."""
    torch.manual_seed(1)
    network = YuNet(64, 64, shared=True) if shared else YuNet()
    with torch.no_grad():
        for layer in network.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight)
                layer.bias.normal_(0, 0.1)  # type: ignore[union-attr]
        network.stem.weight.div_(255)
        picture = torch.tensor(talking(frames=1)[0]).permute(0, 3, 1, 2).float()
        said = network(picture)[0]  # (N, 16)
        spread = torch.tensor([1.0, *[0.3] * 4, 1.0, *[0.5] * 10])
        for stride, head in zip(STRIDES, network.heads, strict=True):
            count = picture[0, 0, ::stride, ::stride].numel()
            cells, said = said[:count], said[count:]
            gain = spread / cells.std(dim=0)
            head.depth.weight.mul_(gain[:, None, None, None])
            head.depth.bias.copy_((head.depth.bias - cells.mean(dim=0)) * gain)
            head.depth.bias[3:5] += 1.5  # boxes of four or five cells: they overlap
    return network.eval()


def write_yunet(path: Path, network: YuNet, size: tuple[int, int] | None = (640, 640)) -> Path:
    """The network as the published ONNX files have it: BGR, its heads apart, 12 outputs named by stride.

    ``size``: the sides stated for its input; None for any.
    """
    nodes, weights = [], []

    def convolution(layer: nn.Conv2d, source: str, name: str, rows: slice = slice(None), relu: bool = False) -> str:
        weight, bias = (values.detach().numpy()[rows] for values in (layer.weight, layer.bias))  # type: ignore[union-attr]
        if source == "input":
            weight = weight[:, ::-1].copy()
        weights.extend(numpy_helper.from_array(v, f"{name}.{what}") for v, what in ((weight, "w"), (bias, "b")))
        groups = len(weight) if layer.groups > 1 else 1
        kernel, pad, stride = list(layer.kernel_size), [layer.padding[0]] * 4, list(layer.stride)  # type: ignore[list-item]
        how = {"kernel_shape": kernel, "pads": pad, "strides": stride, "group": groups}
        nodes.append(helper.make_node("Conv", [source, f"{name}.w", f"{name}.b"], [name], **how))
        return step("Relu", name) if relu else name

    def step(kind: str, *sources: str, **how) -> str:
        nodes.append(helper.make_node(kind, list(sources), [f"{kind}{len(nodes)}"], **how))
        return nodes[-1].output[0]

    def unit(layer, source: str, name: str, rows: slice = slice(None)) -> str:
        middle = convolution(layer.point, source, f"{name}.point", rows)
        return convolution(layer.depth, middle, f"{name}.depth", rows, relu=not layer.last)

    def halved(source: str) -> str:
        return step("MaxPool", source, kernel_shape=[2, 2], strides=[2, 2])

    x = halved(unit(network.stem_unit, convolution(network.stem, "input", "stem", relu=True), "stem_unit"))
    maps = []
    for number, stage in enumerate(network.stages):
        for part, layer in enumerate(stage):
            x = unit(layer, x, f"stage{number}.{part}")
        if number >= 2:
            maps.append(x)
        if number in (1, 2, 3):
            x = halved(x)
    weights.append(numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), "twice"))
    levels: list[str] = []
    for number, (layer, finer) in enumerate(zip(network.neck, reversed(maps), strict=True)):
        if levels:
            how = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
            finer = step("Add", finer, step("Resize", levels[0], "", "twice", **how))
        levels.insert(0, unit(layer, finer, f"neck{number}"))
    if network.shared is not None:
        pairs = zip(network.shared, levels, strict=True)
        levels = [unit(layer, level, f"shared{number}") for number, (layer, level) in enumerate(pairs)]
    said = {}
    for kind in HEADS:
        for stride, layer, level in zip(STRIDES, network.heads, levels, strict=True):
            said[kind, stride] = unit(layer, level, f"{kind}{stride}", CHANNELS[kind])
    outputs = []
    for kind in ("face", "object", "box", "points"):
        for stride in STRIDES:
            width = CHANNELS[kind].stop - CHANNELS[kind].start
            shape = numpy_helper.from_array(np.array([1, -1, width], np.int64), f"shape.{kind}{stride}")
            weights.append(shape)
            rows = step("Reshape", step("Transpose", said[kind, stride], perm=[0, 2, 3, 1]), shape.name)
            if kind in ("face", "object"):
                rows = step("Sigmoid", rows)
            nodes[-1].output[0] = f"{OUTPUTS[kind]}_{stride}"
            cells = (size[0] // stride) * (size[1] // stride) if size else f"cells{stride}"
            stated = helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.FLOAT, [1, cells, width])
            outputs.append(stated)
    sides = list(size) if size else ["height", "width"]
    picture = helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, *sides])
    graph = helper.make_graph(nodes, "yunet", [picture], outputs, weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), str(path))
    return path


def discs(
    *places: tuple[float, float], frames: int = 24, size: tuple[int, int] = (160, 240), seed: int = 0
) -> np.ndarray:
    """FrameChunk (T, H, W, 3) of textured discs of light about ``places`` (x, y) in the dark.

    Each goes one pixel to the right in three frames.
    """
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[: size[0], : size[1]]
    pictures = rng.integers(0, 30, (frames, *size, 3)).astype(np.uint8)
    texture = rng.integers(190, 256, (2 * FACE_PX, 2 * FACE_PX, 3)).astype(np.uint8)
    for number, picture in enumerate(pictures):
        for x, y in places:
            dx, dy = columns - (x + number // 3), rows - y
            inside = np.hypot(dx, dy) < 0.4 * FACE_PX
            at = (dy[inside] + FACE_PX).astype(int) // 4, (dx[inside] + FACE_PX).astype(int) // 4
            picture[inside] = texture[at]
    return pictures
