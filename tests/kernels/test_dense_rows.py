import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from xmc_core.kernels._compile import kernel
from xmc_core.kernels.dense_rows import round_to_bfloats, spread
from xmc_core.kernels.search_simd import add_dots


@kernel
def spread_out(vector, dense, x):
    spread(vector, dense, 1, 64, x)


@pytest.mark.parametrize("vector", [True, False])
def test_bfloats_are_the_nearest_and_come_back(vector):
    rng = np.random.default_rng(1)
    values = (rng.normal(size=40) * 10.0 ** rng.integers(-30, 30, 40)).astype(np.float32)
    values[3:5] = 257, 259  # between two of them: the even one
    dense, x = np.zeros((2, 64), np.uint16), np.empty(64, np.float32)
    round_to_bfloats(values, 3, 37, dense, 1)
    spread_out(vector, dense, x)
    assert_allclose(x[:37], values[3:], rtol=2**-8)
    assert_array_equal(x[:2], [256, 260])
    assert not x[37:].any()
    assert not dense[0].any()
    exact = x[:37].copy()
    round_to_bfloats(exact, 0, 37, dense, 0)
    assert_array_equal(dense[0], dense[1])


@kernel
def added(vector, weights, n_rows, width, x, out):
    add_dots(vector, weights, n_rows, width, x, out)


@pytest.mark.parametrize("vector", [True, False])
@pytest.mark.parametrize("n_rows", [1, 4, 7])
def test_dots_of_halves_and_of_floats_are_added(n_rows, vector):
    rng = np.random.default_rng(n_rows)
    weights = rng.normal(size=(n_rows, 128)).astype(np.float16)
    x, before = (rng.normal(size=size).astype(np.float32) for size in (128, n_rows + 3))
    wide = weights.astype(np.float32)
    expected = before.copy()
    expected[:n_rows] += wide @ x
    for stored in (weights.view(np.uint16), wide):
        out = before.copy()
        added(vector, stored.reshape(-1), n_rows, 128, x, out)
        assert_allclose(out, expected, rtol=1e-4, atol=1e-4)
        assert_array_equal(out[n_rows:], before[n_rows:])
