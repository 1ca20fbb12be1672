"""How much each positive row of a classifier counts."""

import numpy as np
from scipy.sparse import csr_array

from xmc_core.types import SparseRows


def favour_rare_labels(Y: SparseRows, tail: float) -> SparseRows:
    """Y with each label's values multiplied by (rows of the label) ** -tail.

    With shares of a row's cost in proportion to these values, a rare label gets more of its row
    than a common one: common labels have rows enough to be learned from smaller costs, and are
    learned better for it.

    >>> Y = csr_array([[1.0, 1.0], [1.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
    >>> favour_rare_labels(Y, 0.5).toarray()[0].tolist()
    [0.5, 1.0]
    """
    if tail == 0:
        return Y
    rows = np.bincount(Y.indices, minlength=Y.shape[1]).astype(np.float64)
    values = (Y.data * rows[Y.indices] ** -tail).astype(np.float32)
    return csr_array((values, Y.indices, Y.indptr), shape=Y.shape)


def normalise_rows(matrix: SparseRows, kind: str) -> SparseRows:
    """Divide each row by its l1 norm, l2 norm or maximum; `none` sets every value to 1.

    With l1 a row with five labels counts a fifth for each of them, so that documents weigh the
    same however many labels they have.

    >>> normalise_rows(csr_array([[1.0, 3.0]]), "l1").data.tolist()
    [0.25, 0.75]
    """
    values = np.abs(matrix.data.astype(np.float64))
    if kind == "none" or len(values) == 0:
        scaled = np.ones(len(values), np.float32)
    else:
        starts = matrix.indptr[:-1]
        padded = np.append(values, 0.0)
        if kind == "max":
            norms = np.maximum.reduceat(padded, starts)
        elif kind == "l1":
            norms = np.add.reduceat(padded, starts)
        else:
            norms = np.sqrt(np.add.reduceat(padded * padded, starts))
        scaled = (values / np.repeat(norms, np.diff(matrix.indptr))).astype(np.float32)
    return csr_array((scaled, matrix.indices, matrix.indptr), shape=matrix.shape)
