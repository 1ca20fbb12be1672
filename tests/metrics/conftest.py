"""A made test split with every oddity: rows without labels, short predictions, unseen labels."""

from dataclasses import dataclass

import numpy as np
import pytest
from scipy.sparse import csr_array

from xmc_core.data import Predictions
from xmc_core.types import Pointers, SparseRows


@dataclass(frozen=True)
class Judged:
    predictions: Predictions
    Y: SparseRows
    ranked: list[list[int]]
    truth: list[set[int]]
    counts: Pointers
    n_train: int


def predictions_of(ranked: list[list[int]], top_k: int) -> Predictions:
    labels = np.full((len(ranked), top_k), -1, np.int32)
    scores = np.full((len(ranked), top_k), -np.inf, np.float32)
    for row, chosen in enumerate(ranked):
        labels[row, : len(chosen)] = chosen
        scores[row, : len(chosen)] = 1.0 / np.arange(1, len(chosen) + 1)
    return Predictions(labels, scores)


def truth_matrix(truth: list[set[int]], n_labels: int) -> SparseRows:
    rows = [row for row, true in enumerate(truth) for _ in true]
    columns = [label for true in truth for label in sorted(true)]
    shape = (len(truth), n_labels)
    return csr_array((np.ones(len(rows), np.float32), (rows, columns)), shape=shape)


@pytest.fixture(scope="session")
def judged() -> Judged:
    rng = np.random.default_rng(7)
    n_rows, n_known, n_labels = 80, 30, 34  # the last four labels occur in the test split only
    truth = [
        set(rng.choice(n_labels, size=rng.integers(0, 13), replace=False).tolist())
        for _ in range(n_rows)
    ]
    ranked = []
    for true in truth:
        likely = rng.permutation([*sorted(true), *range(n_labels)])
        known = [int(label) for label in dict.fromkeys(likely.tolist()) if label < n_known]
        ranked.append(known[: rng.integers(0, 9)])
    counts = np.concatenate([rng.integers(1, 200, n_known), np.zeros(4, np.int64)])
    return Judged(
        predictions_of(ranked, 8), truth_matrix(truth, n_labels), ranked, truth, counts, 500
    )
