import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.sparse import csr_array

from xmc_core.errors import DataError, ShapeError
from xmc_core.features.joined import join_features

X = csr_array(np.array([[0.6, 0, 0.8], [0, 0, 0], [0, 1, 0]], np.float32))
EMBEDDINGS = np.array([[3, 4], [-2, 0], [0, 0]], np.float32)


def test_puts_unit_embeddings_behind_the_sparse_features():
    joined = join_features(X, EMBEDDINGS)
    expected = [[0.6, 0, 0.8, 0.6, 0.8], [0, 0, 0, -1, 0], [0, 1, 0, 0, 0]]
    assert_allclose(joined.toarray(), np.array(expected, np.float32))
    assert (joined.data.dtype, joined.indices.dtype) == (np.float32, np.int32)
    assert joined.has_sorted_indices


def test_without_dimensions_the_features_themselves_come_back():
    assert join_features(X, np.empty((3, 0), np.float32)) is X


def test_does_not_change_what_it_is_given():
    before = EMBEDDINGS.copy()
    join_features(X, EMBEDDINGS)
    assert_allclose(EMBEDDINGS, before)


def test_names_both_sizes_when_samples_do_not_match():
    with pytest.raises(ShapeError, match=r"X has 3 rows but there are 2 embeddings"):
        join_features(X, EMBEDDINGS[:2])


def test_names_the_row_whose_embedding_is_not_finite():
    broken = EMBEDDINGS.copy()
    broken[1, 0] = np.nan
    with pytest.raises(DataError, match=r"embedding of row 1 is not finite"):
        join_features(X, broken)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_blocks_of_rows_fit_together(monkeypatch, dtype):
    rng = np.random.default_rng(0)
    words = csr_array(np.where(rng.random((11, 6)) < 0.3, 1, 0).astype(np.float32))
    embeddings = rng.normal(size=(11, 3)).astype(dtype)
    expected = join_features(words, embeddings, 0.5).toarray()
    monkeypatch.setattr("xmc_core.features.joined.BLOCK_ROWS", 4)
    assert_array_equal(join_features(words, embeddings, 0.5).toarray(), expected)
    wide = embeddings.astype(np.float32)
    assert_allclose(
        expected, np.hstack([words.toarray(), wide / np.linalg.norm(wide, axis=1)[:, None] / 2]),
        rtol=1e-6,
    )  # fmt: skip
    embeddings[9, 1] = np.inf
    with pytest.raises(DataError, match="embedding of row 9 is not finite"):
        join_features(words, embeddings)


def test_columns_that_are_not_sorted_are():
    mixed = csr_array((np.array([2, 1], np.float32), [2, 0], [0, 2]), shape=(1, 3))
    joined = join_features(mixed, np.array([[0, 1]], np.float32))
    assert joined.indices.tolist() == [0, 2, 3, 4]
    assert joined.data.tolist() == [1, 2, 0, 1]
