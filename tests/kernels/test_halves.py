import numpy as np
import pytest
from numpy.testing import assert_array_equal

from xmc_core.kernels._compile import kernel
from xmc_core.kernels.halves import largest_size, narrow


@kernel
def narrowed(vector, values, n, scale, halves):
    narrow(vector, values, 3, n, scale, halves, 1)


@pytest.mark.parametrize("vector", [True, False])
@pytest.mark.parametrize("n", [1, 16, 37, 64])
def test_halves_are_the_nearest(n, vector):
    rng = np.random.default_rng(n)
    values = (rng.normal(size=n + 3) * 10.0 ** rng.integers(-7, 4, n + 3)).astype(np.float32)
    values[3] = 2049  # between two halves: the even one
    halves = np.zeros((2, 64), np.uint16)
    narrowed(vector, values, n, np.float32(0.5), halves)
    expected = np.pad((values[3:] * np.float32(0.5)).astype(np.float16), (0, 64 - n))
    assert_array_equal(halves[1].view(np.float16), expected)
    assert not halves[0].any()


def test_the_largest_size_counts_negative_ones():
    assert largest_size(np.array([1, -7, 3], np.float32)) == 7
    assert largest_size(np.zeros(0, np.float32)) == 0
