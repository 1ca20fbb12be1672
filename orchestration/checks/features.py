"""tf-idf features: cosines are only cosines between rows of unit length."""

import dagster as dg
import numpy as np

from orchestration.checks.stage_check import stage_check
from orchestration.dvc_project import DvcProject
from xmc_core.persistence import read_store
from xmc_core.types import SparseRows

TOLERANCE = 1e-3
"""Of a row's length; float32 sums over a few thousand terms stay within 1e-5."""


@stage_check("tfidf_features", blocking=True)
def rows_are_finite_and_of_unit_length(project: DvcProject, dataset: str) -> dg.AssetCheckResult:
    """Every row of X_train and X_test has length 1 or is empty; every value is a number."""
    store = read_store(project.out("tfidf_features", dataset), "tfidf-features")
    passed = True
    metadata: dict[str, int | float] = {}
    for name in ("X_train", "X_test"):
        X = store.csr(name)
        lengths = row_lengths(X)
        empty = np.diff(X.indptr) == 0
        not_finite = int(np.count_nonzero(~np.isfinite(X.data)))
        not_unit = int(np.count_nonzero(~(np.abs(lengths - 1.0) <= TOLERANCE) & ~empty))
        passed &= not_finite == 0 and not_unit == 0 and not bool(empty.all())
        metadata |= {
            f"{name}_rows": X.shape[0],
            f"{name}_empty_rows": int(np.count_nonzero(empty)),
            f"{name}_not_finite": not_finite,
            f"{name}_rows_not_unit": not_unit,
        }
    return dg.AssetCheckResult(passed=passed, metadata=metadata)


def row_lengths(X: SparseRows) -> np.ndarray:
    """(n_rows,) Euclidean lengths."""
    rows = np.repeat(np.arange(X.shape[0]), np.diff(X.indptr))
    squares = np.bincount(rows, weights=X.data.astype(np.float64) ** 2, minlength=X.shape[0])
    lengths: np.ndarray = np.sqrt(squares)
    return lengths
