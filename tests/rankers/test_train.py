import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.sparse import csr_array, hstack, random_array

from tests.reference import linear as reference
from xmc_core import reporting
from xmc_core.config import RankersConfig
from xmc_core.errors import DataError, ShapeError
from xmc_core.rankers.train import Level, train_level, train_together
from xmc_core.solvers import siblings

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


def test_jobs_that_are_cut_small_lead_to_the_same_weights(X, targets, active, monkeypatch):
    config = RankersConfig()
    above = csr_array((targets @ np.eye(26, 4)).astype(np.float32))
    levels = [
        Level(above, np.array([0, 4]), None, 1, 2),
        Level(targets, POINTER, active, 2, 2),
    ]
    whole = train_together(X, levels, config=config, n_threads=1)
    monkeypatch.setattr(siblings, "JOB_COST", 1.0)
    monkeypatch.setattr(siblings, "JOBS_PER_THREAD", 100)
    for n_threads in (1, 2, 3):
        cut = train_together(X, levels, config=config, n_threads=n_threads)
        for (weights, outcome), (other, other_outcome) in zip(whole, cut, strict=True):
            assert outcome == other_outcome
            for name, array in weights.arrays().items():
                assert_array_equal(other.arrays()[name], array)


def test_progress_ends_with_the_whole_and_never_falls_back(X, targets, active, monkeypatch):
    monkeypatch.setattr(reporting, "PROGRESS_SECONDS", 0.0)
    monkeypatch.setattr(siblings, "JOB_COST", 1.0)
    recorder = reporting.Recorder()
    level = Level(targets, POINTER, active, 2, 2)
    train_together(X, [level], config=RankersConfig(), n_threads=2, report=recorder)
    done = [event["done"] for event in recorder.events]
    assert len(done) > 2
    assert done == sorted(done)
    assert done[-1] == recorder.events[-1]["total"] == 100
    assert recorder.events[-1]["left"] == 0


def test_cost_2_is_relevance_2(X, active):
    # Two labels of equal value in each row: each has half of the row's relevance.
    rng = np.random.default_rng(12)
    pairs = np.argsort(rng.random((N, 26)), axis=1)[:, :2]
    values = np.zeros((N, 26), np.float32)
    np.put_along_axis(values, pairs, 3, axis=1)
    targets = csr_array(values)
    shared, _ = train(X, targets, active, relevance="l1", cost=(2.0,))
    plain, _ = train(X, targets, active, relevance="none", cost=(1.0,))
    other, _ = train(X, targets, active, relevance="l1", cost=(1.0,))
    for name, array in plain.arrays().items():
        assert_array_equal(shared.arrays()[name], array)
    assert np.abs(other.to_dense()[0] - plain.to_dense()[0]).max() > 0.05


@pytest.mark.parametrize("most", [1, 3, 50])
def test_pruning_by_count_keeps_the_largest(X, targets, active, most):
    doubled = csr_array(hstack([X, X[:, ::-1]]))  # every weight twice: ties everywhere
    doubled.sort_indices()
    full, outcome = train(doubled, targets, active)
    pruned, pruned_outcome = train(doubled, targets, active, max_weights=(9, most))
    W, b = full.to_dense()
    kept, kept_b = pruned.to_dense()
    assert_array_equal(kept, reference.keep_largest(W, most))
    assert_array_equal(kept_b, b)
    assert pruned_outcome.nnz == np.count_nonzero(kept) <= outcome.nnz


def test_pruning_by_count_comes_after_the_threshold(X, targets, active):
    W, _ = train(X, targets, active, threshold=(0.2,))[0].to_dense()
    kept, _ = train(X, targets, active, threshold=(0.2,), max_weights=(4,))[0].to_dense()
    assert_array_equal(kept, reference.keep_largest(W, 4))
    assert np.abs(kept[kept != 0]).min() >= np.float32(0.2)


def test_each_level_has_its_own_settings(X, targets, active):
    lists = {
        "loss": ("hinge", "logistic"), "tol": (1e-3, 1e-4), "max_iter": (7, 2000),
        "bias": (2.0, 0.5), "cost": (1.0, 3.0), "cost_negative": (2.0, 1.0),
        "threshold": (0.1, 0.05), "max_weights": (0, 6),
    }  # fmt: skip
    for level in (1, 2):
        of_lists, outcome = train(X, targets, active, level=level, **lists)
        own = {name: (values[level - 1],) for name, values in lists.items()}
        alone, alone_outcome = train(X, targets, active, level=level, **own)
        assert outcome == alone_outcome
        for name, array in alone.arrays().items():
            assert_array_equal(of_lists.arrays()[name], array)


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
    wide = csr_array(X.astype(np.float64))
    wide.data[7] = 1e39  # a number in 64 bits, none in the solvers' 32
    with pytest.raises(DataError, match="infinity"):
        train(wide, targets, active)
