"""A face landmarker bundle made by code: two small TFLite networks in MediaPipe's names and shapes.

The points are those of a drawn face, moved a little by the picture; a face is seen in whatever is not dark.
"""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np

from aupipe.extract.encoders.visual.blendshapes import NAMES, SEEN
from aupipe.extract.faces.landmarks import LANDMARKS, LEFT_EYE, LEFT_MOUTH, RIGHT_EYE, RIGHT_MOUTH

FILE = "made.task"
AVERAGE_POOL, CONVOLUTION, DENSE, LOGISTIC, RESHAPE = 1, 3, 9, 14, 22  # BuiltinOperator of TensorFlow Lite's schema
NO_OPTIONS, CONVOLUTION_OPTIONS, POOL_OPTIONS, DENSE_OPTIONS, RESHAPE_OPTIONS = 0, 1, 5, 8, 17  # BuiltinOptions
VALID = 1  # Padding
CELL_PX = 32


class Network:
    """A graph of float32 tensors, to be written as a .tflite file."""

    def __init__(self) -> None:
        self.tensors: list[tuple[str, tuple[int, ...], np.ndarray | None]] = []
        self.steps: list[tuple[int, list[int], int, int, dict[int, Any]]] = []

    def tensor(self, name: str, shape: Sequence[int], values: np.ndarray | None = None) -> int:
        self.tensors.append((name, tuple(shape), values))
        return len(self.tensors) - 1

    def step(
        self, kind: int, inputs: list[int], name: str, shape: Sequence[int], options: int, fields: dict[int, Any]
    ) -> int:
        """``fields``: slot -> number or list of numbers of the options' table."""
        output = self.tensor(name, shape)
        self.steps.append((kind, inputs, output, options, fields))
        return output

    def constant(self, name: str, values: np.ndarray) -> int:
        return self.tensor(name, values.shape, values)

    def written(self, inputs: list[int], outputs: list[int]) -> bytes:
        build = flatbuffers.Builder(1 << 20)
        kinds = list(dict.fromkeys(kind for kind, *_ in self.steps))
        codes = [_table(build, {0: ("int8", kind), 3: ("int32", kind)}) for kind in kinds]
        buffers, tensors = [_table(build, {})], []
        for name, shape, values in self.tensors:
            if values is not None:
                buffers.append(
                    _table(build, {0: ("table", build.CreateNumpyVector(np.frombuffer(values.tobytes(), np.uint8)))})
                )
            kind = 2 if values is not None and values.dtype == np.int32 else 0  # TensorType
            fields = {0: ("table", _numbers(build, shape)), 1: ("int8", kind), 3: ("table", build.CreateString(name))}
            if values is not None:
                fields[2] = ("uint32", len(buffers) - 1)
            tensors.append(_table(build, fields))
        steps = []
        for kind, sources, output, options, settings in self.steps:
            fields = {
                0: ("uint32", kinds.index(kind)),
                1: ("table", _numbers(build, sources)),
                2: ("table", _numbers(build, [output])),
            }
            if options:
                made = {
                    slot: ("table", _numbers(build, value))
                    if isinstance(value, list)
                    else ("int8" if slot == 0 else "int32", value)
                    for slot, value in settings.items()
                }
                fields |= {3: ("uint8", options), 4: ("table", _table(build, made))}
            steps.append(_table(build, fields))
        graph = _table(
            build,
            {
                0: ("table", _tables(build, tensors)),
                1: ("table", _numbers(build, inputs)),
                2: ("table", _numbers(build, outputs)),
                3: ("table", _tables(build, steps)),
            },
        )
        model = {
            0: ("uint32", 3),  # of the schema
            1: ("table", _tables(build, codes)),
            2: ("table", _tables(build, [graph])),
            4: ("table", _tables(build, buffers)),
        }
        build.Finish(_table(build, model), file_identifier=b"TFL3")
        return bytes(build.Output())


def _table(build: Any, fields: dict[int, tuple[str, Any]]) -> int:
    """A table of slot -> (type, value); whatever is not a number was built before."""
    build.StartObject(max(fields, default=-1) + 1)
    for slot, (kind, value) in fields.items():
        if kind == "table":
            build.PrependUOffsetTRelativeSlot(slot, value, 0)
        else:
            getattr(build, f"Prepend{kind.capitalize()}Slot")(slot, value, 0)
    return build.EndObject()


def _setting(build: Any, slot: int, value: Any) -> tuple[str, Any]:
    """One field of a step's options: a list of numbers, an enumeration in the first slot, or a number."""
    if isinstance(value, list):
        return "table", _numbers(build, value)
    return ("int8" if slot == 0 else "int32"), value


def _numbers(build: Any, values: Sequence[int]) -> int:
    return build.CreateNumpyVector(np.array(values, np.int32))


def _tables(build: Any, tables: Sequence[int]) -> int:
    build.StartVector(4, len(tables), 4)
    for table in reversed(tables):
        build.PrependUOffsetTRelative(table)
    return build.EndVector()


def landmarks_network() -> bytes:
    """(1, 256, 256, 3) in 0 to 1 -> "Identity" (1, 1, 1, 1434), "Identity_1" (1, 1, 1, 1): the logit of a face."""
    rng = np.random.default_rng(0)
    points = np.zeros((LANDMARKS, 3), np.float32)
    points[:, :2] = rng.uniform(60, 200, (LANDMARKS, 2))
    for at, (x, y) in ((LEFT_EYE, (96, 120)), (RIGHT_EYE, (160, 120))):
        angle = np.linspace(np.pi, 3 * np.pi, len(at), endpoint=False)
        points[list(at), :2] = np.stack([x + 12 * np.cos(angle), y + 5 * np.sin(angle)], axis=1)
    points[LEFT_MOUTH, :2], points[RIGHT_MOUTH, :2] = (104, 176), (152, 176)
    network, cells = Network(), 256 // CELL_PX
    picture = network.tensor("input_1", (1, 256, 256, 3))
    pool = {0: VALID, 1: CELL_PX, 2: CELL_PX, 3: CELL_PX, 4: CELL_PX}
    coarse = network.step(AVERAGE_POOL, [picture], "coarse", (1, cells, cells, 3), POOL_OPTIONS, pool)
    outputs = []
    moved = rng.normal(0, 0.2, (points.size, cells, cells, 3)).astype(np.float32)
    light = np.full((1, cells, cells, 3), 40 / (3 * cells**2), np.float32)
    for name, weight, bias in (
        ("Identity", moved, points.reshape(-1)),
        ("Identity_1", light, np.array([-4], np.float32)),
    ):
        parts = [coarse, network.constant(f"{name}/w", weight), network.constant(f"{name}/b", bias)]
        settings = {0: VALID, 1: 1, 2: 1, 4: 1, 5: 1}
        outputs.append(network.step(CONVOLUTION, parts, name, (1, 1, 1, len(bias)), CONVOLUTION_OPTIONS, settings))
    return network.written([picture], outputs)


def blendshapes_network() -> bytes:
    """(1, 146, 2) landmarks in pixels -> (1, 52) scores in 0 to 1."""
    rng = np.random.default_rng(1)
    network, numbers = Network(), 2 * len(SEEN)
    points = network.tensor("points", (1, len(SEEN), 2))
    shape = network.constant("shape", np.array([1, numbers], np.int32))
    flat = network.step(RESHAPE, [points, shape], "flat", (1, numbers), RESHAPE_OPTIONS, {0: [1, numbers]})
    weight = rng.normal(0, 2e-4, (len(NAMES), numbers)).astype(np.float32)
    parts = [flat, network.constant("w", weight), network.constant("b", np.zeros(len(NAMES), np.float32))]
    logits = network.step(DENSE, parts, "logits", (1, len(NAMES)), DENSE_OPTIONS, {0: 0})
    scores = network.step(LOGISTIC, [logits], "scores", (1, len(NAMES)), NO_OPTIONS, {})
    return network.written([points], [scores])


def write_bundle(path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as bundle:
        bundle.writestr("face_landmarks_detector.tflite", landmarks_network())
        bundle.writestr("face_blendshapes.tflite", blendshapes_network())
    return path
