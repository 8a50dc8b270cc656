"""How a decoded picture is meant to be shown: which way up, mirrored or not, and with pixels of which shape."""

from __future__ import annotations

from fractions import Fraction
from typing import Any, NamedTuple, cast

import av
import numpy as np
from av.sidedata.sidedata import SideDataContainer, Type
from numpy.typing import NDArray

SQUARE = Fraction(1)
ALMOST_SQUARE = Fraction(1, 50)  # 854x480 states 1280:1281; resampling would blur it and move nothing
MAX_ASPECT = 4  # no standard has pixels longer than that; damaged and careless headers do


class Display(NamedTuple):
    """What brings a decoded picture upright: rows and columns exchanged, then rows, then columns reversed.

    ``pixel_aspect``: the width of a decoded pixel over its height. These are the eight orientations of Exif and of the
    display matrix of ISO/IEC 14496-12 (8.3.2), whose first two columns say where a step to the right and a step down
    lead.
    """

    is_transposed: bool = False
    is_upside_down: bool = False
    is_reversed: bool = False
    pixel_aspect: Fraction = SQUARE

    @property
    def is_upright(self) -> bool:
        return not (self.is_transposed or self.is_upside_down or self.is_reversed)

    @property
    def is_mirrored(self) -> bool:
        """Whether left and right of the decoded picture are exchanged, and not only turned."""
        return (self.is_transposed + self.is_upside_down + self.is_reversed) % 2 == 1

    @property
    def is_square(self) -> bool:
        return self.pixel_aspect is SQUARE or self.pixel_aspect == SQUARE

    def upright(self, picture: NDArray[Any]) -> NDArray[Any]:
        """A view of a picture (H, W, ...), as it is shown."""
        if self.is_transposed:
            picture = picture.swapaxes(0, 1)
        return picture[:: -1 if self.is_upside_down else 1, :: -1 if self.is_reversed else 1]

    def square_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of a decoded picture in square pixels; the side whose pixels are longer grows."""
        if self.is_square:
            return height, width
        if self.pixel_aspect > 1:
            return height, round(width * self.pixel_aspect)
        return round(height / self.pixel_aspect), width


AS_DECODED = Display()


def display_of(frame: av.VideoFrame, pixel_aspect: Fraction = SQUARE) -> Display:
    """How a frame is shown, by its own display matrix and the pixels its stream states (`pixel_aspect_of`)."""
    try:
        # `frame.side_data` refers to the frame and the frame to it: each picture would wait for the garbage collector.
        side_data = cast(Any, SideDataContainer)(frame)  # its type stub names no argument
        matrix = next((data for data in side_data if data.type is Type.DISPLAYMATRIX), None)
    except ValueError:  # PyAV knows no name for other data of this frame; what it says of the turn is no mirror
        quarters = frame.rotation // 90 % 4
        return Display(quarters % 2 == 1, quarters in (1, 2), quarters in (2, 3), pixel_aspect)
    if matrix is None:
        return AS_DECODED if pixel_aspect is SQUARE else Display(pixel_aspect=pixel_aspect)
    a, b, _, c, d = np.frombuffer(memoryview(matrix), np.int32)[:5].tolist()
    if abs(b) + abs(c) > abs(a) + abs(d):
        return Display(True, b < 0, c < 0, pixel_aspect)
    return Display(False, d < 0, a < 0, pixel_aspect)


def pixel_aspect_of(stream: Any) -> Fraction:
    """The width of a video stream's pixels over their height; 1 where that is almost so, or not to be believed."""
    stated = stream.sample_aspect_ratio
    if not stated or not Fraction(1, MAX_ASPECT) <= stated <= MAX_ASPECT or abs(stated - 1) <= ALMOST_SQUARE:
        return SQUARE
    return Fraction(stated)
