"""Linear rankers and beam search by general-purpose optimisers, loops and dense matrices."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve_triangular
from scipy.optimize import lsq_linear, minimize

Dense = NDArray[np.float64]


def loss_value(loss: str, margins: Dense) -> Dense:
    if loss == "squared_hinge":
        return np.maximum(0, 1 - margins) ** 2
    if loss == "hinge":
        return np.maximum(0, 1 - margins)
    return np.logaddexp(0, -margins)


def objective(loss: str, X: Dense, y: Dense, costs: Dense, w: Dense) -> float:
    """||w||² / 2 + sum of costs * loss; the bias is the last weight, X has its column."""
    return float(0.5 * w @ w + costs @ loss_value(loss, y * (X @ w)))


def train(loss: str, X: Dense, y: Dense, costs: Dense, bias: float) -> Dense:
    """Weights of one classifier, the bias weight last."""
    X = np.hstack([X, np.full((len(X), 1), bias)])
    if loss == "logistic":

        def value_and_slope(w: Dense) -> tuple[float, Dense]:
            slope = -costs * y / (1 + np.exp(y * (X @ w)))
            return objective(loss, X, y, costs, w), w + X.T @ slope

        options = {"maxiter": 10_000, "ftol": 1e-15, "gtol": 1e-9}
        start = np.zeros(X.shape[1])
        return minimize(value_and_slope, start, jac=True, method="L-BFGS-B", options=options).x

    # The dual, min a'(K + D)a / 2 - sum(a) over 0 <= a <= U, is least squares within bounds:
    # K + D = RR', min |R'a - R^-1 1|.
    hinge = loss == "hinge"
    K = (y[:, None] * X) @ (y[:, None] * X).T
    R = np.linalg.cholesky(K + np.diag(np.full(len(y), 1e-9) if hinge else 0.5 / costs))
    target = solve_triangular(R, np.ones(len(y)), lower=True)
    bounds = (0, costs if hinge else np.inf)
    return X.T @ (lsq_linear(R.T, target, bounds, method="bvls", tol=1e-12).x * y)


def train_level(
    X: Dense,
    targets: Dense,
    pointer: Sequence[int],
    active: NDArray[np.bool_] | None,
    *,
    loss: str = "squared_hinge",
    cost: float = 1.0,
    cost_negative: float = 1.0,
    bias: float = 1.0,
    relevance: str = "none",
) -> tuple[Dense, Dense]:
    """(children, features) weights and (children,) biases: one classifier after the other."""
    shares = normalise_rows(targets, relevance)
    W = np.zeros((targets.shape[1], X.shape[1]))
    b = np.full(targets.shape[1], -1.0)
    for parent in range(len(pointer) - 1):
        for child in range(pointer[parent], pointer[parent + 1]):
            positive = targets[:, child] != 0
            rows = positive | (active[:, parent] if active is not None else True)
            if not rows.any():
                continue
            y = np.where(positive, 1.0, -1.0)[rows]
            costs = np.where(positive, cost * shares[:, child], cost_negative)[rows]
            w = train(loss, X[rows], y, costs, bias)
            W[child], b[child] = w[:-1], w[-1] * bias
    return W, b


def keep_largest(W: Dense, most: int) -> Dense:
    """Each row with all but its `most` largest entries, by absolute value, set to 0; of equal ones
    the first stay."""
    kept = np.zeros_like(W)
    for row, out in zip(W, kept, strict=True):
        order = sorted(range(len(row)), key=lambda f: (-abs(row[f]), f))
        out[order[:most]] = row[order[:most]]
    return kept


def normalise_rows(matrix: Dense, kind: str) -> Dense:
    if kind == "none":
        return (matrix != 0).astype(float)
    norm = {"l1": np.sum, "l2": lambda row: np.sqrt(np.sum(row**2)), "max": np.max}[kind]
    return np.array([row / norm(row) if row.any() else row for row in matrix])


def factor(margin: float, post_processor: str) -> float:
    if post_processor == "sigmoid":
        return 1 / (1 + np.exp(-margin))
    power = int(post_processor[1])  # l3-hinge
    return np.exp(-(max(0.0, 1 - margin) ** power))


def path_score(above: float, margin: float, post_processor: str, path_weight: float) -> float:
    if post_processor != "none":
        return above * factor(margin, post_processor)
    return margin + (path_weight * np.log(above) if path_weight else 0.0)


def beam_search(
    x: Dense,
    levels: Sequence[tuple[Sequence[int], Dense, Dense]],
    *,
    beam_size: int,
    top_k: int,
    post_processor: Sequence[str],
    slot_labels: Sequence[int] | None = None,
    path_weight: float = 0.0,
    paths: str = "best",
) -> list[tuple[int, float]]:
    """Best (label or node, score) of one row; `levels` are (pointer, W, biases).

    `paths`: best or mean, of a label with several of them.
    """
    beam = [(0, 1.0)]
    for number, ((pointer, W, b), name) in enumerate(
        zip(levels, post_processor, strict=True), start=1
    ):
        is_last = number == len(levels)
        reached: dict[int, list[tuple[float, float]]] = {}  # scores of parents, and own margins
        for node, above in beam:
            for child in range(pointer[node], pointer[node + 1]):
                key = slot_labels[child] if is_last and slot_labels is not None else child
                reached.setdefault(key, []).append((above, float(W[child] @ x + b[child])))
        if paths == "mean":
            assert all(np.ptp([margin for _, margin in found]) == 0 for found in reached.values())
            reached = {
                key: [(float(np.mean([above for above, _ in found])), found[0][1])]
                for key, found in reached.items()
            }
        weight = path_weight if is_last else 0.0
        scores = {
            key: max(path_score(above, margin, name, weight) for above, margin in found)
            for key, found in reached.items()
        }
        # Ten digits: exp(-1/2) exp(-3/2) and exp(-1) exp(-1) are equal.
        ordered = sorted(scores.items(), key=lambda item: (-float(f"{item[1]:.10g}"), item[0]))
        beam = ordered[: top_k if is_last else beam_size]
    return beam
