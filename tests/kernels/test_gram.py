import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.sparse import csr_array

from xmc_core.kernels.dense_rows import DenseRows
from xmc_core.kernels.gram import entries_below, gram_matrix, prefers_gram
from xmc_core.kernels.lanes import LANES
from xmc_core.kernels.local_rows import by_feature

BIAS = np.float32(0.5)


def local_rows(n, d):
    """Ids by falling frequency, as gather_rows gives them: some in every row, some in two."""
    rng = np.random.default_rng(n)
    X = (rng.random((n, d)) < np.geomspace(1, 2 / n, d)) * rng.normal(size=(n, d))
    X = X[:, np.argsort(-(X != 0).sum(axis=0), kind="stable")]
    X = X[:, (X != 0).any(axis=0)]
    rows = csr_array(X.astype(np.float32))
    return rows, rows.indptr.astype(np.int64), rows.indices.astype(np.int32), rows.data


def rows_of_bytes(n, n_dims):
    rng = np.random.default_rng(2)
    values = np.zeros((n, -(-n_dims // 64) * 64), np.int8)
    values[:, :n_dims] = rng.integers(-127, 128, (n, n_dims))
    scales = rng.random(n).astype(np.float32) / 100
    nothing = np.zeros(0, np.float32)
    return DenseRows(values, np.zeros(0, np.int32), scales, nothing, 0, n_dims)


def test_entries_by_feature_are_the_transpose():
    X, pointer, ids, data = local_rows(30, 50)
    by_column = X.tocsc()
    starts, rows, values = by_feature(pointer, ids, data, X.shape[1])
    assert_array_equal(starts, by_column.indptr)
    assert_array_equal(rows, by_column.indices)
    assert_array_equal(values, by_column.data)


def test_entries_below_an_id_are_those_columns():
    X, pointer, ids, data = local_rows(30, 50)
    for n_ids in (0, 7, X.shape[1]):
        start, kept_ids, kept_data = entries_below(pointer, ids, data, n_ids)
        part = csr_array(X[:, :n_ids])
        assert_array_equal(start, part.indptr)
        assert_array_equal(kept_ids[: part.nnz], part.indices)
        assert_array_equal(kept_data[: part.nnz], part.data)


@pytest.mark.parametrize("vector", [True, False])
@pytest.mark.parametrize(("n", "d"), [(1, 9), (16, 40), (70, 300)])
def test_is_all_inner_products(n, d, vector):
    X, pointer, ids, data = local_rows(n, d)
    own = np.random.default_rng(0).random(n).astype(np.float32)
    W = np.empty((X.shape[1], LANES), np.float32)
    columns = by_feature(pointer, ids, data, X.shape[1])
    places = np.random.default_rng(1).permutation(n).astype(np.int32)
    for n_dims in (0, 70):
        dense = rows_of_bytes(n, n_dims)
        gram = gram_matrix(vector, pointer, ids, data, *columns, dense, places, own, BIAS, W)
        E = dense.scales[:, None] * dense.values[:, :n_dims].astype(np.float64)
        both = np.hstack([X.toarray(), E[places]])
        assert_allclose(gram[:, :n], both @ both.T + BIAS**2 + np.diag(own), rtol=1e-4, atol=1e-4)


def test_pays_for_long_rows_in_small_clusters_of_many_children():
    assert prefers_gram(300, 300 * 700, 64, 0)
    assert not prefers_gram(3000, 3000 * 700, 16, 0)
    assert not prefers_gram(1000, 1000 * 65, 64, 0)
    assert not prefers_gram(0, 0, 64, 0)
    assert not prefers_gram(10, 100, 0, 0)
