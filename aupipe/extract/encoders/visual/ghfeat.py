"""GH-Feat (Xu et al., 2021): StyleGAN style codes of the FFHQ-aligned face, with or without super-resolution."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from aupipe.extract.contract import KeyedWeightFile
from aupipe.extract.encoders.base import Encode
from aupipe.extract.encoders.image_base import (
    HALF,
    CheckpointEncoder,
    Normal,
    filled,
    identify_weights,
    image_encoder,
    read_weights,
    seeded,
)
from aupipe.extract.faces.landmarks import WideFfhqCropTemplate, ffhq_crops, open_mesh
from aupipe.extract.imaging.templates import FfhqCropTemplate
from aupipe.extract.weights import find_weights, is_random
from aupipe.types import Weights

if TYPE_CHECKING:
    from torch import Tensor

SIZE_PX = 256


@dataclass(frozen=True, kw_only=True)
class GhFeat(CheckpointEncoder):
    """(B, 14, 1024): row i is the style code of synthesis layer i; 256 px FFHQ crop, RGB in [-1, 1].

    ``super_resolution``: a Real-ESRGAN file (or ``"random"``); the face is then cut at 128 px, enlarged and brought to
    256 px: for small, blurred faces. ``landmarks``: MediaPipe's face landmarker bundle; the crop is then laid through
    the eye contours and mouth corners it finds, as FFHQ's is through those of 68 points, and rows of faces it does not
    see are invalid. Without it, or with ``"random"``, eyes and mouth corners are the detector's. ``depth`` is read off
    a weight file; it counts for random weights alone.
    """

    weights: str = "ghfeat-encoder-ffhq-256.pkl"
    depth: Literal[18, 34, 50] = 50
    super_resolution: KeyedWeightFile = ""
    landmarks: KeyedWeightFile = ""

    licence: ClassVar[str] = "not stated"
    random_parts: ClassVar[tuple[str, ...]] = ("super_resolution", "landmarks")  # may be "random", as weights may

    @property
    def reads(self) -> FfhqCropTemplate:
        size = self._cut_px()
        return WideFfhqCropTemplate(2 * size) if self.landmarks else FfhqCropTemplate(size)

    @property
    def row_shape(self) -> tuple[int, ...]:
        return 14, 1024

    @property
    def mean_std(self) -> Normal:
        return HALF

    @property
    def network_name(self) -> str:
        return f"ghfeat_{self.depth}"

    def _cut_px(self) -> int:
        return SIZE_PX // 2 if self.super_resolution else SIZE_PX

    def identify_weights(self) -> Weights:
        found = super().identify_weights()
        if self.super_resolution:
            found = _after(found, identify_weights(self.super_resolution, "rrdbnet", "BSD-3-Clause"))
        return _after(found, identify_weights(self.landmarks, "mesh", "Apache-2.0")) if self.landmarks else found

    def build(self, state: Mapping[str, Tensor]) -> Any:
        from aupipe.extract.nets.ghfeat import GHFeatEncoder, depth_of

        return GHFeatEncoder(depth_of(state) if state else self.depth)

    def rows(self, network: Any, x: Tensor) -> Tensor:
        return network(x)

    def load(self, device: str) -> Encode:
        encode = self._with_super_resolution(device) if self.super_resolution else super().load(device)
        template = self.reads
        if not isinstance(template, WideFfhqCropTemplate):
            return encode
        if is_random(self.landmarks):
            return lambda crops: encode(_squares(crops, template, self._cut_px()))
        mesh = open_mesh(find_weights(self.landmarks))

        def encode_contours(crops: NDArray[np.uint8]) -> NDArray[np.float32]:
            faces, seen = ffhq_crops(mesh, crops, template, self._cut_px())
            rows = np.array(encode(faces))
            rows[~seen] = np.nan
            return rows

        return encode_contours

    def _with_super_resolution(self, device: str) -> Encode:
        import torch
        import torch.nn.functional as F

        network = self.network()
        enlarger = _enlarger(self.super_resolution)
        enlarger.eval().to(device=device, dtype=getattr(torch, self.precision))

        def forward(x: Tensor) -> Tensor:
            # One face at a time: the enlarged maps of a whole chunk would fill any memory.
            faces = [enlarger(face[None] / 2 + 0.5).clamp(0, 1) for face in x]
            return network(F.interpolate(torch.cat(faces), size=(SIZE_PX, SIZE_PX), mode="area") * 2 - 1)

        return image_encoder(network, device, HALF, forward, self.precision)  # a loop over faces is no graph


def _squares(crops: NDArray[np.uint8], template: WideFfhqCropTemplate, size_px: int) -> NDArray[np.uint8]:
    """(B, size_px, size_px, 3) FFHQ crops through the detector's points, out of (B, S, S, 3) wide ones."""
    import cv2

    found = np.zeros((len(crops), size_px, size_px, 3), np.uint8)
    for crop, face in zip(crops, found, strict=True):
        inside = crop[template.square, template.square]
        face[:] = cv2.resize(inside, (size_px, size_px), interpolation=cv2.INTER_AREA)
    return found


def _after(last: Weights, first: Weights) -> Weights:
    """The weights of two networks in a row, as one identity."""
    both = hashlib.sha256(f"{last.sha256}{first.sha256}".encode()).hexdigest()
    return Weights(f"{last.name} after {first.name}", both, f"{last.licence}; {first.licence}")


def _enlarger(weights: str) -> Any:
    """The Real-ESRGAN generator a file holds; which of the two, and how large, its keys tell."""
    from aupipe.extract.nets.rrdbnet import RRDBNet, SRVGGNetCompact

    if is_random(weights):
        return seeded(lambda: RRDBNet(num_block=1), weights)
    state, source = read_weights(weights)
    if "conv_first.weight" in state:
        blocks = 1 + max(int(key.split(".")[1]) for key in state if key.startswith("body."))
        scale = {3: 4, 12: 2, 48: 1}.get(state["conv_first.weight"].shape[1], 4)
        return filled(RRDBNet(scale, blocks), state, source)
    last = max((int(key.split(".")[1]) for key in state if key.startswith("body.")), default=66)
    return filled(SRVGGNetCompact(num_conv=last // 2 - 1), state, source)
