"""Sparse words and a dense embedding in one row."""

import numpy as np
from scipy.sparse import csr_array

from xmc_core.errors import DataError, ShapeError
from xmc_core.types import Floats, Halves, SparseRows

BLOCK_ROWS = 4096


def join_features(X: SparseRows, embeddings: Floats | Halves, weight: float = 1.0) -> SparseRows:
    """Put each row's embedding, at length `weight`, behind its sparse features of unit length.

    X' = [X, weight * E / |E|], the features of XR-Transformer's rankers. At weight 1, the paper's,
    each part says as much as the other; where the encoder sees less of a text than tf-idf does, a
    smaller one is better (docs/log.md).

    Parameters
    ----------
    X : (n_samples, n_features)
    embeddings : (n_samples, n_dims)
        A zero row adds zeros. With n_dims = 0, X itself is returned.

    Returns
    -------
    (n_samples, n_features + n_dims)

    Raises
    ------
    ShapeError
        If the numbers of samples differ.
    DataError
        If an embedding is not finite.
    """
    n_samples, n_dims = X.shape[0], embeddings.shape[1]
    if embeddings.shape[0] != n_samples:
        raise ShapeError(
            f"X has {n_samples:,} rows but there are {embeddings.shape[0]:,} embeddings; both must "
            "hold the same samples in the same order."
        )
    if n_dims == 0:
        return X
    X = X if X.has_sorted_indices else X.sorted_indices()
    pointer = X.indptr.astype(np.int64) + n_dims * np.arange(n_samples + 1)
    index = np.int32 if pointer[-1] < 2**31 else np.int64
    columns, values = np.empty(pointer[-1], index), np.empty(pointer[-1], np.float32)
    dims = np.arange(n_dims)
    # Block by block into their place: nothing as large as the result is held beside it.
    for begin in range(0, n_samples, BLOCK_ROWS):
        end = min(begin + BLOCK_ROWS, n_samples)
        words = slice(X.indptr[begin], X.indptr[end])
        lengths = np.diff(X.indptr[begin : end + 1])
        place = np.arange(words.start, words.stop) + n_dims * np.repeat(
            np.arange(begin, end), lengths
        )
        columns[place], values[place] = X.indices[words], X.data[words]
        place = (pointer[begin + 1 : end + 1, None] - n_dims) + dims
        columns[place] = X.shape[1] + dims
        values[place] = _scaled(embeddings[begin:end], weight, begin)
    return csr_array(
        (values, columns, pointer.astype(index)), shape=(n_samples, X.shape[1] + n_dims)
    )


def _scaled(embeddings: Floats | Halves, weight: float, first_row: int) -> Floats:
    wide = embeddings.astype(np.float32)
    lengths = np.linalg.norm(wide, axis=1, keepdims=True)
    if not np.isfinite(lengths).all():
        row = first_row + int(np.flatnonzero(~np.isfinite(lengths))[0])
        raise DataError(
            f"the embedding of row {row:,} is not finite; the encoder's training went wrong "
            "(a lower encoder.learning_rate, or encoder.precision: fp32, may help)."
        )
    wide *= weight / np.where(lengths > 0, lengths, 1)
    return wide
