"""Whatever the rows and labels are like, all ways to solve them agree with the slow twin."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.sparse import csr_array

from tests.reference import linear as reference
from xmc_core.data.rows import Rows
from xmc_core.kernels.sibling_rankers import DIRECT, GRAM
from xmc_core.rankers.train import Level, gather_clusters
from xmc_core.rankers.weights import ChunkedWeights
from xmc_core.solvers.scratch import ScratchPool
from xmc_core.solvers.siblings import DenseWeights, Problem, plan_jobs, solve


@st.composite
def levels(draw):
    """A few rows, some empty or equal; features some of which are equal or occur once; parents
    with no child, one, or more than a tile holds; labels without positives."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n, d = draw(st.integers(1, 20)), draw(st.integers(1, 40))
    X = rng.integers(1, 4, (n, d)) * (rng.random((n, d)) < draw(st.sampled_from([0.05, 0.3])))
    X = X.astype(np.float64) / 4
    if n > 2 and draw(st.booleans()):
        X[1], X[2] = 0, X[0]
    if d > 1 and draw(st.booleans()):
        X[:, 1] = X[:, 0]
    sizes = draw(st.lists(st.sampled_from([0, 1, 2, 17]), min_size=1, max_size=3))
    pointer = np.concatenate([[0], np.cumsum(sizes)])
    targets = (rng.random((n, pointer[-1])) < 0.3).astype(np.float64)
    targets[:, rng.random(pointer[-1]) < 0.2] = 0
    active = rng.random((n, len(sizes))) < 0.6 if draw(st.booleans()) else None
    return X, targets, pointer, active


@settings(max_examples=60, deadline=None)
@given(levels(), st.sampled_from(["squared_hinge", "hinge", "logistic"]))
def test_every_way_to_solve_a_level_finds_the_optimum(level, loss):
    X, targets, pointer, active = level
    expected, expected_b = reference.train_level(X, targets, pointer, active, loss=loss)
    rows = csr_array(X.astype(np.float32))
    task = Level(
        csr_array(targets.astype(np.float32)), pointer,
        None if active is None else csr_array(active.astype(np.float32)), 2, 2,
    )  # fmt: skip
    clusters = gather_clusters(task, 1.0, "none")
    kernel_rows = Rows.of(rows)
    for method in (DIRECT, GRAM):
        for vector in (True, False):
            problem = Problem(
                loss=loss, cost_negative=1.0, bias=1.0, tol=1e-5, max_iter=50_000, threshold=0.0,
                max_weights=0, seed=3, method=method, vector=vector,
            )  # fmt: skip
            scratch = ScratchPool(X.shape[1])
            jobs = plan_jobs(clusters, kernel_rows, 1)
            dense = DenseWeights.empty(clusters.n_children, kernel_rows.dense.n_dims, rounded=False)
            pieces = [solve(job, kernel_rows, clusters, problem, scratch, dense) for job in jobs]
            W, b = ChunkedWeights.from_tiles(
                pieces, dense, pointer, X.shape[1], n_threads=1, scratch=scratch
            ).to_dense()
            # With the hinge the twin's optimiser stops early where rows are equal, and no weights
            # are better than the optimum: what counts is not to be worse.
            if loss == "hinge":
                values, b = values_of(X, targets, pointer, active, W, b)
                best, best_b = values_of(X, targets, pointer, active, expected, expected_b)
                assert np.all(values <= best + 2e-3)
                assert_array_equal(b, best_b)
            else:
                assert_allclose(W, expected, atol=2e-3)
                assert_allclose(b, expected_b, atol=2e-3)


def values_of(X, targets, pointer, active, W, b):
    """Objective of each child that has rows; the bias of the others."""
    with_bias = np.hstack([X, np.ones((len(X), 1))])
    values, untrained = [], []
    for parent in range(len(pointer) - 1):
        for child in range(pointer[parent], pointer[parent + 1]):
            positive = targets[:, child] > 0
            rows = positive | (active[:, parent] if active is not None else True)
            if not rows.any():
                untrained.append(b[child])
                continue
            y = np.where(positive, 1.0, -1.0)[rows]
            w = np.append(W[child], b[child])
            values.append(reference.objective("hinge", with_bias[rows], y, np.ones(len(y)), w))
    return np.array(values), np.array(untrained)
