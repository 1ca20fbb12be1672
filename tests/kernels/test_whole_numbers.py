import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from xmc_core.kernels import search_ir
from xmc_core.kernels._compile import kernel
from xmc_core.kernels.search_simd import add_products
from xmc_core.kernels.simd import HAVE_VECTOR_CODE
from xmc_core.kernels.whole_numbers import LARGEST_VALUE, largest_weight, round_row


@kernel
def most(width):
    return largest_weight(width)


@kernel
def rounded(values, largest, numbers, units):
    for row in range(len(values)):
        units[row] = round_row(values, row, largest, numbers, row)


@kernel
def added(vector, weights, units, n_rows, width, x, scale, out):
    add_products(vector, weights, units, n_rows, width, x, scale, out)


if HAVE_VECTOR_CODE:
    apart = search_ir.make_add_products(in_pairs=False)

    @kernel
    def added_apart(vector, weights, units, n_rows, width, x, scale, out):
        apart(weights, units, n_rows, width, x, scale, out)


FORMS = [(added, True), (added, False), *([(added_apart, True)] if HAVE_VECTOR_CODE else [])]


def whole(values, largest, width=None):
    numbers = np.zeros((len(values), width or values.shape[1]), np.int16)
    units = np.empty(len(values), np.float32)
    rounded(values, largest, numbers, units)
    return numbers, units


def test_numbers_are_the_nearest_and_use_their_range():
    rng = np.random.default_rng(1)
    values = (rng.normal(size=(20, 40)) * 10.0 ** rng.integers(-6, 6, (20, 1))).astype(np.float32)
    values[3] = 0
    numbers, units = whole(values, 1023, 64)
    size = np.abs(values).max(axis=1)
    assert_array_equal(np.abs(numbers).max(axis=1), np.where(size > 0, 1023, 0))
    back = units[:, None] * numbers[:, :40]
    assert np.all(np.abs(back - values) <= 0.501 * units[:, None])
    assert not numbers[:, 40:].any()
    assert units[3] == 0


@pytest.mark.parametrize("width", [64, 384, 768, 1024, 4096])
@pytest.mark.parametrize(("form", "vector"), FORMS)
def test_the_largest_sums_fit(form, vector, width):
    largest = most(width)
    assert 500 <= largest <= 2**15 - 1
    for sign in (1, -1):
        weights = np.full((2, width), sign * largest, np.int16)
        x, out = np.full(width, LARGEST_VALUE, np.int16), np.zeros(2, np.float32)
        ones = np.ones(2, np.float32)
        form(vector, weights.reshape(-1), ones, 2, width, x, np.float32(1), out)
        assert_allclose(out, sign * float(largest) * LARGEST_VALUE * width, rtol=1e-6)


@pytest.mark.parametrize("n_rows", [1, 4, 7, 16, 37])
@pytest.mark.parametrize(("form", "vector"), FORMS)
def test_products_are_added(form, vector, n_rows):
    rng = np.random.default_rng(n_rows)
    weights, units = whole(rng.normal(size=(n_rows, 128)).astype(np.float32), most(128))
    x, scales = whole(rng.normal(size=(1, 128)).astype(np.float32), LARGEST_VALUE)
    out = rng.normal(size=n_rows + 3).astype(np.float32)
    sums = (weights.astype(np.int64) @ x[0].astype(np.int64)).astype(np.float32)
    expected = out.copy()
    expected[:n_rows] += units * scales[0] * sums
    form(vector, weights.reshape(-1), units, n_rows, 128, x[0], scales[0], out)
    assert_allclose(out, expected, rtol=3e-7, atol=3e-6)  # sums are exact
    assert_array_equal(out[n_rows:], expected[n_rows:])
