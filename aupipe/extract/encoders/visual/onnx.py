"""Any ONNX network on the face, through onnxruntime."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from aupipe.extract.contract import ColumnNames
from aupipe.extract.encoders.base import Encode
from aupipe.extract.imaging.templates import ArcFaceCropTemplate, BoxCropTemplate, CropTemplate
from aupipe.extract.weights import find_weights
from aupipe.extract.weights.onnx_file import identify_network
from aupipe.tables import Pixels, Range
from aupipe.types import Modality, Weights


@dataclass(frozen=True)
class Onnx:
    """What a network computes from pixels scaled by ``(x / 255 - mean) / std``, in the channels and layout it wants.

    ``output``: a name; the first output where it is empty; ``"before-classifier"``, what the last Gemm sees; or any
    tensor inside the graph. ``crop``: ``"aligned"``, ``"box"`` (stretched) or ``"square"`` (around the box, widened
    by ``margin`` of it on each side, as ``"box"`` is). ``mean`` and ``std`` have one number or one per channel.
    ``classes``: the names of the columns, of a classifier its classes; they are no part of the feature's key.
    """

    weights: str
    size_px: Pixels
    output: str = ""
    channels: Literal["rgb", "bgr", "grey"] = "rgb"
    layout: Literal["nchw", "nhwc"] = "nchw"
    mean: tuple[float, ...] = (0.5,)
    std: tuple[float, ...] = (0.5,)
    crop: Literal["aligned", "box", "square"] = "aligned"
    margin: Annotated[float, Range(-0.5, 10, open="low")] = 0.0
    classes: ColumnNames = ()

    modality: ClassVar[Modality] = "visual"
    file_is_network: ClassVar[bool] = True
    requires: ClassVar[tuple[str, ...]] = ("onnxruntime", "onnxruntime-gpu")
    shareable: ClassVar[bool] = True  # several threads may run one session of onnxruntime
    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        allowed = (1,) if self.channels == "grey" else (1, 3)
        if len(self.mean) not in allowed or len(self.std) not in allowed or not all(self.std):
            raise ValueError(f"mean = {self.mean}, std = {self.std}: one number or one per channel, std not 0")

    @property
    def reads(self) -> CropTemplate:
        if self.crop == "aligned":
            return ArcFaceCropTemplate(self.size_px)
        return BoxCropTemplate(self.size_px, self.margin, self.crop == "square")

    def column_names(self) -> tuple[str, ...]:
        return self.classes

    def identify_weights(self) -> Weights:
        return identify_network(self.weights)

    def load(self, device: str) -> Encode:
        from aupipe.extract.weights.onnx_session import open_session, output_name

        session = open_session(find_weights(self.weights), device, output=self.output)
        source = session.get_inputs()[0]
        wanted = [output_name(session, self.output)]
        single = isinstance(source.shape[0], int)  # a batch size written into the file: one face at a time
        step = source.shape[0] if single else None

        def run(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
            return np.asarray(session.run(wanted, {source.name: pixels})[0], dtype=np.float32)

        def encode(crops: NDArray[np.uint8]) -> NDArray[np.float32]:
            count = len(crops)
            pixels = self._pixels(crops if count else np.zeros((1, *crops.shape[1:]), np.uint8))
            if step is None:
                return run(pixels)[:count]
            filler = np.zeros((-len(pixels) % step, *pixels.shape[1:]), np.float32)
            pixels = np.concatenate([pixels, filler])
            return np.concatenate([run(pixels[i : i + step]) for i in range(0, len(pixels), step)])[:count]

        return encode

    def _pixels(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(B, S, S, 3) uint8 RGB -> what the network takes in."""
        import cv2

        if self.channels == "grey":
            crops = np.stack([cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY) for crop in crops])[..., None]
        elif self.channels == "bgr":
            crops = crops[..., ::-1]
        pixels = (crops.astype(np.float32) / 255 - np.array(self.mean, np.float32)) / np.array(self.std, np.float32)
        if self.layout == "nchw":
            pixels = pixels.transpose(0, 3, 1, 2)
        return np.ascontiguousarray(pixels, dtype=np.float32)
