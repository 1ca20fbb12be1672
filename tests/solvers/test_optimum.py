"""The solver's optimum beside scikit-learn's liblinear."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.sparse import csr_array, random_array
from sklearn.linear_model import LogisticRegression
from sklearn.svm import LinearSVC

from xmc_core.config import RankersConfig
from xmc_core.rankers.train import train_level

N, D, CHILDREN = 80, 150, 18


def problem():
    rng = np.random.default_rng(11)
    X = csr_array(random_array((N, D), density=0.1, rng=rng, dtype=np.float32))
    X.sort_indices()
    targets = csr_array((rng.random((N, CHILDREN)) < 0.2).astype(np.float32))
    return X, targets


def liblinear(loss, X, y, cost):
    if loss == "logistic":
        solver = LogisticRegression(
            C=cost, solver="liblinear", dual=True, tol=1e-9, max_iter=100_000, random_state=0
        )
    else:
        solver = LinearSVC(
            C=cost, loss=loss, dual=True, tol=1e-9, max_iter=1_000_000, random_state=0
        )
    solver.fit(X, y)
    return solver.coef_[0], solver.intercept_[0]


@pytest.mark.parametrize("cost", [0.5, 4.0])
@pytest.mark.parametrize("loss", ["squared_hinge", "hinge", "logistic"])
def test_is_that_of_liblinear(loss, cost):
    X, targets = problem()
    config = RankersConfig(
        loss=(loss,), cost=(cost,), cost_negative=(cost,), tol=(1e-6,), max_iter=(100_000,),
        threshold=(0.0,),
    )  # fmt: skip
    pointer = np.array([0, CHILDREN], np.int64)
    weights, _ = train_level(
        X, targets, pointer, None, config=config, level=1, depth=1, n_threads=1
    )
    W, b = weights.to_dense()
    wide = X.astype(np.float64)
    for child in range(CHILDREN):
        w, bias = liblinear(loss, wide, targets.toarray()[:, child], cost)
        assert_allclose(W[child], w, atol=1e-4)
        assert_allclose(b[child], bias, atol=1e-4)
