import numpy as np
import pytest
from numpy.testing import assert_array_equal

from xmc_core.kernels.halves import largest_size, narrow


@pytest.mark.parametrize("vector", [True, False])
@pytest.mark.parametrize("n", [1, 16, 37, 64])
def test_halves_are_the_nearest(n, vector):
    rng = np.random.default_rng(n)
    values = (rng.normal(size=n) * 10.0 ** rng.integers(-7, 4, n)).astype(np.float32)
    values[0] = 2049  # between two halves: the even one
    halves = np.zeros(64, np.uint16)
    narrow(vector, values, np.float32(0.5), halves[:n])
    assert_array_equal(halves[:n].view(np.float16), (values * np.float32(0.5)).astype(np.float16))
    assert not halves[n:].any()


def test_the_largest_size_counts_negative_ones():
    assert largest_size(np.array([1, -7, 3], np.float32)) == 7
    assert largest_size(np.zeros(0, np.float32)) == 0
