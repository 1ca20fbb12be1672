"""Predictions in numpy's format, from any system."""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array, load_npz

from xmc_core.data.predictions import Predictions
from xmc_core.errors import DataError
from xmc_core.types import SparseRows

MOST_LABELS = 100
"""Best labels kept of each row; the deepest measure looks at ten."""

LARGEST = 3.4e38
"""Scores are kept in 32 bits."""

NUMBERS = "the place in the data set's label names, from 0"


def read_npz(path: Path, n_labels: int, n_rows: int) -> Predictions:
    """Read a sparse matrix of scores, or arrays `labels` and `scores`.

    Raises DataError as `read_predictions` does.
    """
    try:
        with np.load(path, allow_pickle=False) as content:
            if "labels" in content.files:
                labels = content["labels"]
                scores = content["scores"] if "scores" in content.files else None
                return _from_arrays(path, labels, scores, n_labels, n_rows)
            if "format" not in content.files:
                raise DataError(
                    f"{path} holds {', '.join(content.files) or 'nothing'}; expected a sparse "
                    "matrix (scipy.sparse.save_npz), or arrays `labels` and `scores`."
                )
        matrix: SparseRows = csr_array(load_npz(path))
    except (zipfile.BadZipFile, EOFError, KeyError, ValueError, TypeError) as error:
        raise DataError(f"{path} is no npz file that can be read ({error}).") from None
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}.") from None
    if matrix.shape[0] != n_rows or matrix.shape[1] > n_labels:
        raise DataError(
            f"{path} is a matrix of {matrix.shape[0]:,} rows by {matrix.shape[1]:,} columns; the "
            f"data set has {n_rows:,} test documents and {n_labels:,} labels."
        )
    matrix = matrix.astype(np.float64) if matrix.dtype == bool else matrix
    matrix.sum_duplicates()
    row_of = np.repeat(np.arange(n_rows), np.diff(matrix.indptr))
    _check_finite(path, "the matrix", row_of, matrix.data)
    return _best_of_matrix(matrix)


def _from_arrays(
    path: Path, labels: NDArray[Any], scores: NDArray[Any] | None, n_labels: int, n_rows: int
) -> Predictions:
    if labels.ndim != 2 or len(labels) != n_rows or not np.issubdtype(labels.dtype, np.integer):
        raise DataError(
            f"{path}, array labels: expected whole numbers, {n_rows:,} rows by k, one row for each "
            f"test document; got {labels.dtype} {labels.shape}."
        )
    given = labels >= 0
    if scores is None:
        scores = np.where(given, -1.0 - np.arange(labels.shape[1]), 0.0)
    if scores.shape != labels.shape:
        raise DataError(
            f"{path}, array scores: expected the shape of labels, {labels.shape}, got "
            f"{scores.shape}."
        )
    wrong = (labels >= n_labels) | (labels < -1)
    if wrong.any():
        row, place = np.argwhere(wrong)[0].tolist()
        raise DataError(
            f"{path}, array labels, row {row}: label number {labels[row, place]} is not between 0 "
            f"and {n_labels - 1} (-1: none); numbers are {NUMBERS}."
        )
    _check_finite(path, "array scores", np.nonzero(given)[0], scores[given])
    ordered = np.sort(labels, axis=1)
    twice = (ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)
    if twice.any():
        row, place = np.argwhere(twice)[0].tolist()
        raise DataError(
            f"{path}, array labels, row {row}: label {ordered[row, place]} stands twice."
        )
    ranked = np.where(given, scores, -np.inf)
    # Before they are rounded: scores near 1 may be told apart in 64 bits alone.
    order = np.argsort(-ranked, axis=1, kind="stable")[:, :MOST_LABELS]
    return Predictions(
        np.take_along_axis(labels, order, 1).astype(np.int32),
        np.take_along_axis(ranked, order, 1).astype(np.float32),
    )


def _best_of_matrix(rows: SparseRows) -> Predictions:
    """The highest scores of each row; among equals the smaller label."""
    counts = np.diff(rows.indptr)
    row_of = np.repeat(np.arange(rows.shape[0]), counts)
    order = np.lexsort((rows.indices, -rows.data.astype(np.float64), row_of))
    rank = np.arange(rows.nnz) - np.repeat(rows.indptr[:-1], counts)
    kept = rank < MOST_LABELS
    width = int(min(counts.max(initial=0), MOST_LABELS))
    labels = np.full((rows.shape[0], width), -1, np.int32)
    scores = np.full((rows.shape[0], width), -np.inf, np.float32)
    labels[row_of[kept], rank[kept]] = rows.indices[order][kept]
    scores[row_of[kept], rank[kept]] = rows.data[order][kept]
    return Predictions(labels, scores)


def _check_finite(path: Path, what: str, rows: NDArray[Any], scores: NDArray[Any]) -> None:
    if not np.issubdtype(scores.dtype, np.number) or np.iscomplexobj(scores):
        raise DataError(f"{path}, {what}: scores must be numbers, got {scores.dtype}.")
    wrong = ~(np.abs(scores.astype(np.float64)) < LARGEST)  # NaN is among them
    if wrong.any():
        place = int(wrong.argmax())
        raise DataError(
            f"{path}, {what}, row {int(rows[place])}: scores must be finite numbers, got "
            f"{scores[place]}."
        )
