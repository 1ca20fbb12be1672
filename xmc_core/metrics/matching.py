"""Which predicted labels are right: the step under every metric.

A (row, label) pair becomes one number, row * n_labels + label. The pairs of a CSR matrix with
sorted columns are then an ascending list, and "does this label apply to this row" is a binary
search, done for all rows at once.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from xmc_core.data import Predictions
from xmc_core.errors import DataError, ShapeError
from xmc_core.types import Flags, Indices, Pointers, SparseRows


def ground_truth(Y: SparseRows) -> SparseRows:
    """`Y` as CSR with sorted columns and no stored zeros; the caller's matrix stays untouched.

    Raises DataError if no row has a label: there would be nothing to measure.
    """
    truth = csr_array(Y)
    if not np.all(truth.data):
        truth = truth.copy()
        truth.eliminate_zeros()
    if not truth.has_canonical_format:
        truth = truth.copy()
        truth.sum_duplicates()
    if truth.nnz == 0:
        raise DataError(
            f"the test split has {truth.shape[0]:,} rows and not one label; "
            "there is nothing to measure."
        )
    return truth


def check_predictions(predictions: Predictions, truth: SparseRows) -> None:
    """Raise ShapeError or DataError unless `predictions` can be judged by `truth`."""
    labels = predictions.labels
    n_rows, n_labels = truth.shape
    if len(labels) != n_rows:
        raise ShapeError(
            f"predictions have {len(labels):,} rows but Y_test has {n_rows:,}; "
            "both must hold the same samples in the same order."
        )
    if labels.size and labels.max() >= n_labels:
        raise ShapeError(
            f"predictions name label {int(labels.max()):,} but Y_test has {n_labels:,} columns; "
            "Y_test needs a column for every label of the model."
        )
    ordered = np.sort(labels, axis=1)
    twice = np.any((ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0), axis=1)
    if twice.any():
        row = int(twice.argmax())
        raise DataError(
            f"predictions name a label twice in row {row}: {labels[row].tolist()}; "
            "each label may stand in a row once."
        )


def top_labels(predictions: Predictions, k: int) -> Indices:
    """(n_samples, k) best labels, -1 where a row has fewer."""
    labels = predictions.labels[:, :k]
    missing = k - labels.shape[1]
    return np.pad(labels, ((0, 0), (0, missing)), constant_values=-1) if missing else labels


def find_hits(labels: Indices, truth: SparseRows) -> Flags:
    """(n_samples, k): does `labels[i, j]` apply to sample i? Padding (-1) never does."""
    n_rows, n_labels = truth.shape
    queries = np.arange(n_rows, dtype=np.int64)[:, None] * n_labels + labels
    return contains(pair_keys(truth), queries) & (labels >= 0)


def pair_keys(matrix: SparseRows) -> Pointers:
    """(nnz,) ascending numbers row * n_columns + column of the stored entries."""
    n_rows, n_columns = matrix.shape
    rows = np.repeat(np.arange(n_rows, dtype=np.int64), np.diff(matrix.indptr))
    keys: Pointers = rows * n_columns + matrix.indices
    return keys


def contains(ascending: Pointers, queries: NDArray[np.int64]) -> Flags:
    """For each query: does it stand in the list?"""
    if len(ascending) == 0:
        return np.zeros(queries.shape, bool)
    positions = np.minimum(np.searchsorted(ascending, queries), len(ascending) - 1)
    found: Flags = ascending[positions] == queries
    return found
