import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.sparse import csr_array, random_array

from tests.reference import linear as reference
from xmc_core.config import RankersConfig
from xmc_core.errors import DataError, ShapeError
from xmc_core.rankers.train import Level, train_level, train_together

N, D = 60, 90
POINTER = np.array([0, 3, 3, 20, 26], np.int64)  # a parent without children, one with 17
EXACT = {"tol": (1e-5,), "max_iter": (20_000,), "threshold": (0.0,)}


@pytest.fixture(scope="module", name="X")
def samples():
    return csr_array(random_array((N, D), density=0.1, rng=np.random.default_rng(8)))


@pytest.fixture(scope="module", name="targets")
def labels():
    rng = np.random.default_rng(9)
    values = (rng.random((N, 26)) < 0.15) * rng.integers(1, 4, (N, 26))
    values[:, 5] = 0  # no positives
    return csr_array(values.astype(np.float32))


@pytest.fixture(scope="module", name="active")
def shown():
    rng = np.random.default_rng(10)
    return csr_array((rng.random((N, 4)) < 0.4).astype(np.float32))


def train(X, targets, active, *, n_threads=2, level=2, depth=2, **settings):
    config = RankersConfig(**{**EXACT, **settings})
    return train_level(
        X, targets, POINTER, active, config=config, level=level, depth=depth, n_threads=n_threads
    )


@pytest.mark.parametrize("with_active", [True, False])
@pytest.mark.parametrize("relevance", ["none", "l1", "l2", "max"])
def test_agrees_with_the_reference(X, targets, active, relevance, with_active):
    active = active if with_active else None
    weights, outcome = train(
        X, targets, active, relevance=relevance, cost=(3.0, 2.0), cost_negative=(0.5,), bias=(0.5,)
    )
    expected, expected_b = reference.train_level(
        X.toarray(), targets.toarray(), POINTER, active.toarray() > 0 if with_active else None,
        cost=2.0, cost_negative=0.5, bias=0.5, relevance=relevance,
    )  # fmt: skip
    W, b = weights.to_dense()
    assert_allclose(W, expected, atol=2e-3)
    assert_allclose(b, expected_b, atol=2e-3)
    assert outcome.classifiers == 26
    assert outcome.not_converged == 0


def test_positives_that_are_not_active_are_seen_by_their_own_label_only(X, targets):
    nobody = csr_array((N, 4), dtype=np.float32)
    weights, outcome = train(X, targets, nobody)
    expected, expected_b = reference.train_level(
        X.toarray(), targets.toarray(), POINTER, np.zeros((N, 4), bool)
    )
    W, b = weights.to_dense()
    assert_allclose(W, expected, atol=2e-3)
    assert_allclose(b, expected_b, atol=2e-3)
    assert outcome.without_rows == 1  # label 5 has neither positives nor negatives


def test_a_label_without_rows_has_margin_minus_one_everywhere(X, targets):
    weights, _ = train(X, targets, csr_array((N, 4), dtype=np.float32))
    W, b = weights.to_dense()
    assert b[5] == -1
    assert not W[5].any()


def test_is_identical_on_one_thread_and_on_many(X, targets, active):
    alone, _ = train(X, targets, active, n_threads=1)
    for n_threads in (2, 5):
        many, _ = train(X, targets, active, n_threads=n_threads)
        for name, array in alone.arrays().items():
            assert_array_equal(many.arrays()[name], array)


def test_levels_trained_together_are_the_same_as_one_by_one(X, targets, active):
    config = RankersConfig(**EXACT)
    above = csr_array((targets @ np.eye(26, 4)).astype(np.float32))
    levels = [
        Level(above, np.array([0, 4]), None, 1, 2),
        Level(targets, POINTER, active, 2, 2),
    ]
    together = train_together(X, levels, config=config, n_threads=2)
    for level, (weights, outcome) in zip(levels, together, strict=True):
        single, single_outcome = train_together(X, [level], config=config, n_threads=1)[0]
        assert outcome == single_outcome
        for name, array in single.arrays().items():
            assert_array_equal(weights.arrays()[name], array)


def test_the_input_is_left_alone(X, targets, active):
    copies = [matrix.copy() for matrix in (X, targets, active)]
    train(X, targets, active)
    for matrix, copy in zip((X, targets, active), copies, strict=True):
        assert_array_equal(matrix.data, copy.data)
        assert_array_equal(matrix.indices, copy.indices)
        assert_array_equal(matrix.indptr, copy.indptr)


def test_rows_without_features_are_fine(targets, active):
    empty = csr_array((N, D), dtype=np.float32)
    weights, _ = train(empty, targets, active)
    assert weights.nnz == 0
    assert np.all(weights.biases <= 1)


def test_names_both_sizes_when_rows_do_not_match(X, targets, active):
    with pytest.raises(ShapeError, match=r"X has 59 rows but the targets of level 2 have 60"):
        train(X[:59], targets, active)


def test_names_both_sizes_when_children_do_not_match(X, targets, active):
    with pytest.raises(ShapeError, match=r"have 25 columns but its pointers name 26 children"):
        train(X, csr_array(targets[:, :25]), active)
    with pytest.raises(
        ShapeError, match=r"active rows of level 2 are \(60, 3\), expected \(60, 4\)"
    ):
        train(X, targets, csr_array(active[:, :3]))


def test_refuses_features_that_are_not_numbers(X, targets, active):
    broken = X.copy()
    broken.data[7] = np.nan
    with pytest.raises(DataError, match="NaN"):
        train(broken, targets, active)
