from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.sparse import csr_array, random_array

from tests.reference import linear as reference
from xmc_core.data.rows import Rows
from xmc_core.kernels.lanes import LANES
from xmc_core.kernels.sibling_rankers import DIRECT, EPOCHS, GRAM, NOT_CONVERGED, OBJECTIVE
from xmc_core.rankers.train import Level, gather_clusters
from xmc_core.solvers.scratch import ScratchPool
from xmc_core.solvers.siblings import DenseWeights, Problem, Tiles, parent_runs, plan_jobs, solve

N, D, CHILDREN = 70, 120, 19


@pytest.fixture(scope="module", name="X")
def samples():
    return csr_array(random_array((N, D), density=0.08, rng=np.random.default_rng(5)))


@pytest.fixture(scope="module", name="targets")
def labels():
    pattern = random_array((N, CHILDREN), density=0.15, rng=np.random.default_rng(6)) != 0
    return csr_array(pattern.astype(np.float32))


def run(X, targets, *, loss="squared_hinge", n_threads=1, **changes):
    settings = {
        "cost_negative": 1.0, "bias": 1.0, "tol": 1e-5, "max_iter": 20_000,
        "threshold": 0.0, "max_weights": 0, "seed": 1, "method": DIRECT,
    }  # fmt: skip
    problem = Problem(loss=loss, **{**settings, **changes})
    pointer = np.array([0, targets.shape[1]], np.int64)
    clusters = gather_clusters(Level(targets, pointer, None, 1, 1), 1.0, "none")
    rows = Rows.of(X)
    scratch = ScratchPool(X.shape[1])
    jobs = plan_jobs(clusters, rows, n_threads)
    dense = DenseWeights.empty(clusters.n_children, rows.dense.n_dims, rounded=False)
    return Tiles.concatenate([solve(job, rows, clusters, problem, scratch, dense) for job in jobs])


def dense(tiles, n_features, n_children):
    W = np.zeros((n_children, n_features))
    ends, position, weight = np.cumsum(tiles.n_features), 0, 0
    for tile, end in enumerate(ends):
        for k in range(position, end):
            for lane in range(LANES):
                if tiles.masks[k] >> lane & 1:
                    W[tile * LANES + lane, tiles.features[k]] = tiles.weights[weight]
                    weight += 1
        position = end
    return W, tiles.biases.reshape(-1)[:n_children]


@pytest.mark.parametrize("loss", ["squared_hinge", "hinge", "logistic"])
def test_agrees_with_the_reference(X, targets, loss):
    tiles = run(X, targets, loss=loss)
    W, b = dense(tiles, D, CHILDREN)
    expected, expected_b = reference.train_level(
        X.toarray(), targets.toarray(), [0, CHILDREN], None, loss=loss
    )
    assert_allclose(W, expected, atol=2e-3)
    assert_allclose(b, expected_b, atol=2e-3)
    assert tiles.statistics[:, NOT_CONVERGED].sum() == 0


@pytest.mark.parametrize("loss", ["squared_hinge", "hinge", "logistic"])
def test_the_dual_objective_meets_the_primal(X, targets, loss):
    tiles = run(X, targets, loss=loss)
    W, b = dense(tiles, D, CHILDREN)
    with_bias = np.hstack([X.toarray(), np.ones((N, 1))])
    y = np.where(targets.toarray() > 0, 1.0, -1.0)
    primal = sum(
        reference.objective(loss, with_bias, y[:, c], np.ones(N), np.append(W[c], b[c]))
        for c in range(CHILDREN)
    )
    assert tiles.statistics[:, OBJECTIVE].sum() == pytest.approx(primal, rel=1e-4)


@pytest.mark.parametrize("method", [DIRECT, GRAM])
@pytest.mark.parametrize("loss", ["squared_hinge", "hinge"])
def test_plain_code_and_inner_products_lead_to_the_same_weights(X, targets, loss, method):
    expected = dense(run(X, targets, loss=loss), D, CHILDREN)
    other = dense(run(X, targets, loss=loss, method=method, vector=False), D, CHILDREN)
    assert_allclose(other[0], expected[0], atol=2e-3)
    vector = dense(run(X, targets, loss=loss, method=method), D, CHILDREN)
    assert_allclose(vector[0], expected[0], atol=2e-3)
    assert_allclose(vector[1], expected[1], atol=2e-3)


def test_a_threshold_leaves_out_small_weights_and_nothing_else(X, targets):
    W, b = dense(run(X, targets), D, CHILDREN)
    kept, kept_b = dense(run(X, targets, threshold=0.1), D, CHILDREN)
    assert_allclose(kept, np.where(np.abs(W) >= 0.1, W, 0), atol=1e-6)
    assert_array_equal(kept_b, b)


def test_a_value_of_the_constant_feature_changes_how_the_bias_is_regularised(X, targets):
    for bias in (0.0, 3.0):
        W, b = dense(run(X, targets, bias=bias), D, CHILDREN)
        expected, expected_b = reference.train_level(
            X.toarray(), targets.toarray(), [0, CHILDREN], None, bias=bias
        )
        assert_allclose(W, expected, atol=2e-3)
        assert_allclose(b, expected_b, atol=3e-3)


def test_says_which_classifiers_max_iter_stopped(X, targets):
    tiles = run(X, targets, max_iter=1)
    assert tiles.statistics[:, NOT_CONVERGED].sum() == CHILDREN
    assert set(tiles.statistics[:, EPOCHS]) == {1.0}


def test_jobs_cover_every_tile_once_however_they_are_cut(X, targets):
    wide = csr_array(np.tile(targets.toarray(), (1, 40)))
    pointer = np.array([0, 5, 5, 700, 760], np.int64)
    active = csr_array(np.ones((N, 4), np.float32))
    clusters = gather_clusters(Level(wide, pointer, active, 2, 2), 1.0, "none")
    heavy = replace(Rows.of(X), indptr=X.indptr.astype(np.int64) * 10_000)
    for n_threads in (1, 2, 7):
        tiles = [
            (parent, tile)
            for job in plan_jobs(clusters, heavy, n_threads)
            for parent in range(job.first_parent, job.last_parent)
            for tile in range(
                job.first_tile, min(job.last_tile, -(-int(np.diff(pointer)[parent]) // LANES))
            )
        ]
        expected = [(0, 0), *((2, t) for t in range(44)), *((3, t) for t in range(4))]
        assert tiles == expected


def test_runs_of_parents_cover_all_of_them():
    for costs in ([], [0, 0, 0], [5, 0, 0, 1], [1] * 50):
        runs = parent_runs(np.array(costs), 8)
        assert [p for a, b in runs for p in range(a, b)] == list(range(len(costs)))
