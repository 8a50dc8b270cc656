"""Which column of a feature is which in the mirrored picture, where that is known. numpy only.

The mean of a row and its mirror image does not tell left from right, and neither do the labels. A linear head that is
trained on pictures and on their mirror images, as virtual examples, can do no better than one on such rows (Niyogi,
Girosi and Poggio, "Incorporating prior information in machine learning by creating virtual examples", Proceedings of
the IEEE 86(11), 1998).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from aupipe.types import FeatureSpec


def mirror_order(spec: FeatureSpec, shape: Sequence[int]) -> NDArray[np.intp] | None:
    """(d,) the columns in the order that they have for the mirrored picture; None where it is not known.

    ``shape`` (T, d) of the stored rows. Known for ``hog``, by its layout, and for features whose columns are named
    ...Left and ...Right (``blendshapes``).
    Column k of a row of the mirrored picture equals column ``order[k]`` of the row of the picture: of HOG but for the
    clip of its aligned face, whose template is symmetric to half a pixel, and of networks as far as they are symmetric.
    """
    order = _order(spec)
    return order if order is not None and tuple(shape[1:]) == order.shape else None


def _order(spec: FeatureSpec) -> NDArray[np.intp] | None:
    if spec.kind == "hog" and {"size_px", "cell_px", "bins"} <= spec.params.keys():
        return _hog_order(spec.params["size_px"] // spec.params["cell_px"] - 1, spec.params["bins"])
    numbers = {name: number for number, name in enumerate(spec.columns)}
    order = np.array([numbers.get(_other_side(name), -1) for name in spec.columns], dtype=np.intp)
    sided = any(_other_side(name) != name for name in spec.columns)
    return order if sided and (order >= 0).all() else None


def symmetric_rows(rows: NDArray[np.float32], order: NDArray[np.intp] | None) -> NDArray[np.float32]:
    """The mean of each of the rows (n, d) and its mirror image; the rows themselves where ``order`` is None."""
    return rows if order is None else (rows + rows[:, order]) * np.float32(0.5)


def _hog_order(blocks: int, bins: int) -> NDArray[np.intp]:
    """Rows are (block row, block column, cell row, cell column, direction); a direction a becomes 180 degrees - a."""
    number = np.arange(blocks * blocks * 4 * bins).reshape(blocks, blocks, 2, 2, bins)
    return np.ascontiguousarray(number[:, ::-1, :, ::-1, ::-1]).ravel()


def _other_side(name: str) -> str:
    return "Right".join(part.replace("Right", "Left") for part in name.split("Left"))
