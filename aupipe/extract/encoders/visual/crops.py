"""The aligned crops themselves, for heads that train the last blocks of an encoder (docs/training.md)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from aupipe.extract.encoders.image_base import Crop, TensorEncode, template
from aupipe.extract.imaging.templates import CropTemplate
from aupipe.tables import Pixels
from aupipe.types import Modality

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Crops:
    """Gives (B, S, S, 3) RGB, 0 to 255, stored as uint8: 0 in frames without a face, which are not valid."""

    size_px: Pixels = 112
    crop: Crop = "aligned"

    modality: ClassVar[Modality] = "visual"
    version: ClassVar[int] = 2  # 1: float16
    dtype: ClassVar[str] = "uint8"

    @property
    def reads(self) -> CropTemplate:
        return template(self.crop, self.size_px)

    @property
    def row_shape(self) -> tuple[int, ...]:
        return (self.size_px, self.size_px, 3)

    def identify_weights(self) -> None:
        return None

    def load(self, device: str) -> TensorEncode:
        def encode(crops: Tensor) -> Tensor:
            return crops.clone()  # the buffer of a batch is filled anew

        return TensorEncode(device, encode)
