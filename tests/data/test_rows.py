import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.sparse import csr_array, hstack, random_array

from xmc_core.data.rows import Rows, as_rows
from xmc_core.features.joined import join_features

N, WORDS = 50, 70


def words(seed=0):
    X = csr_array(random_array((N, WORDS), density=0.1, rng=np.random.default_rng(seed)))
    X = csr_array(X.astype(np.float32))
    X.sort_indices()
    return X


def embeddings(n_dims, seed=1):
    return np.random.default_rng(seed).normal(size=(N, n_dims)).astype(np.float32)


def again(rows):
    """The rows as one dense matrix."""
    left = csr_array((rows.values, rows.indices, rows.indptr), (N, rows.n_features))
    X = left.toarray()
    n_dims = rows.dense.n_dims
    if n_dims:
        X[:, rows.dense.first :] += rows.dense.scales[:, None] * rows.dense.values[:, :n_dims]
    return X


def assert_near(found, X):
    """Off by no more than bytes are."""
    assert np.all(np.abs(found - X) <= np.abs(X[:, WORDS:]).max(axis=1, keepdims=True) / 253)
    assert_array_equal(found[:, :WORDS], X[:, :WORDS])


@pytest.mark.parametrize("n_dims", [32, 33, 64, 100])
def test_an_embedding_is_kept_apart(n_dims):
    X = join_features(words(), embeddings(n_dims), 0.5)
    rows = Rows.of(X)
    assert (rows.dense.first, rows.dense.n_dims) == (WORDS, n_dims)
    assert rows.dense.values.shape[1] % 64 == 0
    assert not rows.dense.values[:, n_dims:].any()
    assert_near(again(rows), X.toarray())
    assert_allclose(rows.dense.squares, 0.25, rtol=2**-7)
    assert_array_equal(rows.values, words().data)
    assert rows.shape == X.shape


@pytest.mark.parametrize("n_dims", [0, 1, 31])
def test_few_dimensions_stay_with_the_words(n_dims):
    X = join_features(words(), embeddings(n_dims))
    rows = Rows.of(X)
    assert rows.dense.n_dims == 0
    assert rows.values is not None
    assert_array_equal(again(rows), X.toarray())


def test_rows_without_an_embedding_and_entries_that_are_not_stored_are_zeros():
    E = embeddings(40)
    E[3], E[7, ::3], E[9, 39] = 0, 0, 0
    X = csr_array(hstack([words(), csr_array(E)], format="csr"))
    X.sort_indices()
    rows = Rows.of(X)
    assert rows.dense.n_dims == 40
    assert_near(again(rows), X.toarray())
    assert rows.dense.squares[3] == 0


def test_a_matrix_that_is_dense_throughout_has_no_sparse_part():
    rows = Rows.of(csr_array(embeddings(48)))
    assert (rows.dense.first, rows.dense.n_dims, len(rows.values)) == (0, 48, 0)
    assert not rows.indptr.any()


@pytest.mark.parametrize("size", [1e-6, 1e6])
def test_the_scale_of_the_values_does_not_matter(size):
    X = csr_array(hstack([words(), csr_array(embeddings(40) * np.float32(size))], format="csr"))
    X.sort_indices()
    rows = Rows.of(X)
    assert rows.dense.n_dims == 40
    assert_near(again(rows), X.toarray())


@pytest.mark.parametrize(("size", "apart"), [(0.2, True), (0.01, False), (1e-4, True), (0, True)])
def test_columns_that_bytes_would_silence_stay_with_the_words(size, apart):
    E = embeddings(40)
    E[:, 7] *= np.float32(size)  # at .0001 rankers would not hear it
    X = csr_array(hstack([words(), csr_array(E)], format="csr"))
    X.sort_indices()
    rows = Rows.of(X)
    assert rows.dense.n_dims == (40 if apart else 0)
    if apart:
        assert_near(again(rows), X.toarray())
    else:
        assert_array_equal(again(rows), X.toarray())


def test_two_columns_in_forty_without_entries_are_too_many():
    E = embeddings(40)
    E[:, [3, 7]] = 0
    X = csr_array(hstack([words(), csr_array(E)], format="csr"))
    X.sort_indices()
    rows = Rows.of(X)
    assert rows.dense.n_dims == 36  # one of them is left of it


def test_no_rows_at_all_are_fine():
    assert Rows.of(csr_array((0, 60), dtype=np.float32)).dense.n_dims == 0


def test_entries_that_stand_twice_are_added_up_and_columns_sorted():
    X = csr_array((np.array([1, 2, 4, 8], np.float32), [2, 0, 2, 1], [0, 3, 4]), (2, 3))
    rows = Rows.of(X)
    assert rows.indices.tolist() == [0, 2, 1]
    assert rows.values.tolist() == [2, 5, 8]
    assert X.indices.tolist() == [2, 0, 2, 1]  # the caller's matrix is left alone
    assert as_rows(rows_of := csr_array(X.toarray())) is rows_of


def test_an_embedding_before_the_words_of_a_row_is_found_too():
    X = join_features(words(), embeddings(40))
    backwards = csr_array(
        (
            np.concatenate([row.data[::-1] for row in X]),
            np.concatenate([row.indices[::-1] for row in X]),
            X.indptr,
        ),
        X.shape,
    )
    assert_array_equal(again(Rows.of(backwards)), again(Rows.of(X)))
