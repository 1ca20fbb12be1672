import numpy as np
from numpy.testing import assert_allclose, assert_array_equal
from scipy.sparse import csr_array, hstack, random_array

from xmc_core.data.rows import Rows
from xmc_core.kernels.arguments import read_only
from xmc_core.kernels.local_rows import gather_rows


def gather(X, rows):
    feature_map = np.zeros(X.shape[1], np.int32)
    seen = np.zeros((X.shape[1] + 63) // 64, np.uint64)
    kept = Rows.of(X)
    found = gather_rows(
        kept.indptr,
        kept.indices,
        kept.values,
        kept.dense,
        read_only(rows, np.int32),
        feature_map,
        seen,
    )
    assert not feature_map.any()
    assert not seen.any()
    return found


def test_the_rows_can_be_put_together_again():
    X = csr_array(random_array((60, 300), density=0.04, rng=np.random.default_rng(0)))
    rows = np.array([3, 4, 17, 40, 41, 59])
    (
        pointer, ids, data, own, square, features, n_shared, single_row, single_value
    ) = gather(X, rows)  # fmt: skip

    part = X[rows].toarray()
    counts = (part != 0).sum(axis=0)
    assert_array_equal(np.sort(features), np.flatnonzero(counts))
    assert n_shared == (counts > 1).sum()
    again = np.zeros((len(rows), len(features)), np.float32)
    for i in range(len(rows)):
        again[i, ids[pointer[i] : pointer[i + 1]]] = data[pointer[i] : pointer[i + 1]]
    again[single_row, n_shared + np.arange(len(single_row))] = single_value
    assert_allclose(again, part[:, features], rtol=1e-6)
    assert_allclose(square, (part**2).sum(axis=1), rtol=1e-5)
    assert_allclose(own, (part[:, counts == 1] ** 2).sum(axis=1), rtol=1e-5)


def test_frequent_features_come_first():
    X = csr_array(random_array((80, 50), density=0.2, rng=np.random.default_rng(1)))
    *_, features, n_shared, _, _ = gather(X, np.arange(80))
    counts = (X.toarray() != 0).sum(axis=0)[features]
    assert np.all(np.diff(counts) <= 0)
    assert np.all(counts[n_shared:] == 1)


def test_no_rows_and_empty_rows_are_fine():
    X = csr_array((5, 130), dtype=np.float32)
    assert len(gather(X, np.zeros(0, np.int32))[0]) == 1
    assert gather(X, np.arange(5))[0].tolist() == [0] * 6


def test_dense_columns_are_left_out_but_counted_in_the_squares():
    rng = np.random.default_rng(2)
    words = random_array((40, 90), density=0.05, rng=rng)
    dims = rng.integers(-127, 128, (40, 40)) / 8
    dims[:, 0] = 127 / 8  # exact as bytes
    X = csr_array(hstack([words, csr_array(dims.astype(np.float64))], format="csr"))
    rows = np.array([1, 5, 6, 30])
    _, _, _, _, square, features, *_ = gather(X, rows)
    assert features.max() < 90
    assert_allclose(square, (X[rows].toarray() ** 2).sum(axis=1), rtol=1e-5)
