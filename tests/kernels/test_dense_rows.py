import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from xmc_core.kernels._compile import kernel
from xmc_core.kernels.dense_rows import (
    COPIED,
    DenseRows,
    largest_size,
    narrow,
    near_copy,
    spread,
)
from xmc_core.kernels.search_simd import add_dots


@kernel
def back_and_forth(vector, values, n, scale, halves, x):
    largest = narrow(vector, values, 3, n, scale, halves, 1)
    spread(vector, halves, 1, 64, x)
    return largest


@pytest.mark.parametrize("vector", [True, False])
@pytest.mark.parametrize("n", [1, 16, 37, 64])
def test_halves_are_the_nearest_and_come_back(n, vector):
    rng = np.random.default_rng(n)
    values = (rng.normal(size=n + 3) * 10.0 ** rng.integers(-7, 4, n + 3)).astype(np.float32)
    values[3] = 2049  # between two halves: the even one
    halves, x = np.zeros((2, 64), np.uint16), np.empty(64, np.float32)
    largest = back_and_forth(vector, values, n, np.float32(0.5), halves, x)
    expected = np.pad((values[3:] * np.float32(0.5)).astype(np.float16), (0, 64 - n))
    assert_array_equal(halves[1].view(np.float16), expected)
    assert_array_equal(x, expected.astype(np.float32))
    assert not halves[0].any()
    assert largest == np.abs(values[3:] * np.float32(0.5)).max()


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


def test_few_rows_are_copied_and_many_are_not():
    halves = np.arange(30 * 64, dtype=np.uint16).reshape(30, 64)
    dense = DenseRows(halves, np.zeros(30, np.float32), 5, 60)
    rows = np.array([3, 9, 28], np.int32)
    near, places = near_copy(dense, rows)
    assert_array_equal(near[places], halves[rows])
    assert near.shape == (3, 64)
    many = np.zeros(COPIED // 64 + 1, np.int32)
    near, places = near_copy(dense, many)
    assert near.shape == halves.shape
    assert_array_equal(places, many)


def test_the_largest_size_counts_negative_ones():
    assert largest_size(np.array([1, -7, 3], np.float32)) == 7
    assert largest_size(np.zeros(0, np.float32)) == 0
