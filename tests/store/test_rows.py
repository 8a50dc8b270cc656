"""The check for finite values by their bits agrees with numpy."""

import numpy as np
import pytest

from aupipe.store.formats.rows import _all_finite


def test_every_float16_is_judged_as_numpy_does():
    for bits in range(2**16):
        value = np.array([bits], np.uint16).view(np.float16)
        assert _all_finite(value) == np.isfinite(value[0]), bits


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("sign", [1, -1])
def test_one_value_that_is_not_finite_is_seen_among_finite_ones(dtype, sign):
    limits = np.finfo(dtype)
    finite = [0.0, -0.0, limits.max, limits.min, limits.tiny, -limits.tiny, limits.smallest_subnormal, 1.0, -1.0]
    assert _all_finite(np.array(finite, dtype))
    assert _all_finite(np.array([], dtype))
    for bad in (np.inf, np.nan):
        assert not _all_finite(np.array([*finite, sign * np.array(bad, dtype)], dtype))
        assert not _all_finite(sign * np.array([bad], dtype))
