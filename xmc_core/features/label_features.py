"""One feature vector per label: what the label tree is grown on.

>>> X = csr_array(np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1]], np.float32))
>>> Y = csr_array(np.array([[1, 0], [1, 0], [0, 1]], np.float32))
>>> label_centroids(Y, X).toarray().round(2)
array([[0.71, 0.71, 0.  ],
       [0.  , 0.  , 1.  ]], dtype=float32)
"""

import numpy as np
from scipy.sparse import csr_array

from xmc_core.errors import ShapeError
from xmc_core.features.blocks import Rows, blocks_of_work, stack
from xmc_core.kernels.arguments import read_only
from xmc_core.kernels.centroids import centroids_into
from xmc_core.parallel import map_threads
from xmc_core.types import SparseRows

BLOCK_ENTRIES = 2**18
"""Labels are taken in blocks whose positives have together about this many features (more where X
has more columns, which each block's scratch memory has, too)."""


def label_centroids(
    Y: SparseRows, X: SparseRows, *, max_features: int = 0, n_threads: int = -1
) -> SparseRows:
    """Represent each label by the unit-length sum of its positive samples (PIFA).

    Parameters
    ----------
    Y : (n_samples, n_labels)
        Each row is scaled to unit length first: a sample with many labels says less about each.
    X : (n_samples, n_features)
    max_features : count
        Only this many features of largest absolute value are kept of a label, equal ones by the
        smaller number, and scaled to unit length again; 0 keeps all. The full sums are never held
        for more than one label per thread: with 3 million labels they would take 10 GB.

    Returns
    -------
    (n_labels, n_features)
        A label without positives gets an empty row.

    Raises
    ------
    ShapeError
        If X and Y have different numbers of samples.

    References
    ----------
    Yu, Zhong, Zhang, Chang and Dhillon, "PECOS: Prediction for Enormous and Correlated Output
    Spaces", JMLR 2022, section 3.
    """
    n_samples, n_features = Y.shape[0], X.shape[1]
    if X.shape[0] != n_samples:
        raise ShapeError(
            f"Y has {n_samples:,} samples but X has {X.shape[0]:,} rows; both must hold the same "
            "samples in the same order."
        )
    by_label = _by_label(Y)
    label_pointer = read_only(by_label.indptr, np.int64)
    samples = read_only(by_label.indices, np.int32)
    weights = read_only(by_label.data, np.float32)
    pointer = read_only(X.indptr, np.int64)
    indices = read_only(X.indices, np.int32)
    values = read_only(X.data, np.float32)
    most = min(max_features, n_features) if max_features else n_features

    lengths = np.diff(pointer)
    work = np.concatenate([[0], np.cumsum(lengths[samples])])[label_pointer]
    bound = np.minimum(np.diff(work), most)  # entries a label can have

    def centroids_of(block: tuple[int, int]) -> Rows:
        first, last = block
        totals = np.full(n_features, np.inf)
        size = int(bound[first:last].sum())
        out_pointer = np.empty(last - first + 1, np.int64)
        out_indices = np.empty(size, np.int32)
        out_values = np.empty(size, np.float32)
        n = centroids_into(
            label_pointer, samples, weights, pointer, indices, values,
            first, last, most, totals, out_pointer, out_indices, out_values,
        )  # fmt: skip
        return out_pointer, out_indices[:n].copy(), out_values[:n].copy()

    blocks = blocks_of_work(work, max(BLOCK_ENTRIES, 4 * n_features))
    rows = map_threads(
        centroids_of, blocks, n_threads, cost=lambda block: float(work[block[1]] - work[block[0]])
    )
    return stack(rows, n_features)


def _by_label(Y: SparseRows) -> SparseRows:
    """(n_labels, n_samples): Y with rows of unit length, transposed."""
    row = np.repeat(np.arange(Y.shape[0]), np.diff(Y.indptr))
    values = Y.data.astype(np.float64)
    lengths = np.sqrt(np.bincount(row, values * values, minlength=Y.shape[0]))
    lengths[lengths == 0] = 1  # rows of explicit zeros
    scaled = csr_array(((values / lengths[row]).astype(np.float32), Y.indices, Y.indptr), Y.shape)
    return csr_array(scaled.T.tocsr())
