import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.sparse import csr_array

from xmc_core.kernels._compile import kernel
from xmc_core.kernels.dense_rows import DenseRows, fill_dense, spread
from xmc_core.kernels.search_simd import add_dots

N_DIMS = 40


def dense_rows(E):
    """E as the dense part of X, and the squares and losses of its columns."""
    X = csr_array(E)  # zeros are not stored
    n, n_dims = E.shape
    dense = DenseRows(
        np.zeros((n, 64), np.int8), np.empty(n, np.int32), np.empty(n, np.float32),
        np.empty(n, np.float32), 0, n_dims,
    )  # fmt: skip
    squares, lost = np.zeros(n_dims), np.zeros(n_dims)
    pointer, indices = X.indptr.astype(np.int64), X.indices.astype(np.int32)
    fill_dense(pointer, indices, X.data, dense, squares, lost)
    return dense, squares, lost


def again(dense):
    X = np.empty((len(dense.values), dense.n_dims), np.float32)
    for row, x in enumerate(X):
        spread(dense, row, x)
    return X


def test_bytes_are_the_nearest_and_say_what_they_lose():
    rng = np.random.default_rng(1)
    E = (rng.normal(size=(30, N_DIMS)) * 10.0 ** rng.integers(-6, 6, (30, 1))).astype(np.float32)
    E[3] = 0
    E[5, ::2] = 0
    dense, squares, lost = dense_rows(E)
    largest = np.abs(E).max(axis=1, keepdims=True)
    found = again(dense)
    assert np.all(np.abs(found - E) <= largest / 253)
    assert not found[3].any()
    assert_array_equal(dense.sums, dense.values.sum(axis=1, dtype=np.int32))
    assert_allclose(dense.squares, (found**2).sum(axis=1), rtol=1e-5)
    assert_allclose(squares, (E.astype(np.float64) ** 2).sum(axis=0), rtol=1e-5)
    assert_allclose(lost, ((found.astype(np.float64) - E) ** 2).sum(axis=0), rtol=1e-2)


def test_of_many_rows_some_thousand_say_what_is_lost():
    E = np.random.default_rng(3).normal(size=(5000, 32)).astype(np.float32)
    _, squares, _ = dense_rows(E)
    assert_allclose(squares, (E[::4].astype(np.float64) ** 2).sum(axis=0), rtol=1e-5)


def test_bytes_of_bytes_are_the_same():
    found = again(dense_rows(np.random.default_rng(2).normal(size=(9, N_DIMS)).astype("f4"))[0])
    assert_allclose(again(dense_rows(found)[0]), found, rtol=1e-5)


@kernel
def added(vector, weights, n_rows, width, x, out):
    add_dots(vector, weights, n_rows, width, x, out)


@pytest.mark.parametrize("vector", [True, False])
@pytest.mark.parametrize("n_rows", [1, 4, 7])
def test_dots_are_added(n_rows, vector):
    rng = np.random.default_rng(n_rows)
    weights = rng.normal(size=(n_rows, 128)).astype(np.float32)
    x, out = (rng.normal(size=size).astype(np.float32) for size in (128, n_rows + 3))
    expected = out.copy()
    expected[:n_rows] += weights @ x
    added(vector, weights.reshape(-1), n_rows, 128, x, out)
    assert_allclose(out, expected, rtol=1e-4, atol=1e-4)
    assert_array_equal(out[n_rows:], expected[n_rows:])
