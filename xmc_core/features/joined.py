"""Sparse words and a dense embedding in one row."""

import numpy as np
from scipy.sparse import csr_array, hstack

from xmc_core.errors import DataError, ShapeError
from xmc_core.types import Floats, Halves, SparseRows


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
    embeddings = embeddings.astype(np.float32, copy=False)
    lengths = np.linalg.norm(embeddings, axis=1, keepdims=True)
    if not np.isfinite(lengths).all():
        row = int(np.flatnonzero(~np.isfinite(lengths))[0])
        raise DataError(
            f"the embedding of row {row:,} is not finite; the encoder's training went wrong "
            "(a lower encoder.learning_rate, or encoder.precision: fp32, may help)."
        )
    scaled = embeddings * (weight / np.where(lengths > 0, lengths, 1))
    index = np.int32 if n_samples * n_dims < 2**31 else np.int64
    columns = np.tile(np.arange(n_dims, dtype=index), n_samples)
    pointer = np.arange(n_samples + 1, dtype=index) * n_dims
    dense = csr_array(
        (scaled.astype(np.float32, copy=False).reshape(-1), columns, pointer),
        shape=(n_samples, n_dims),
    )
    joined = csr_array(hstack((X, dense), format="csr"))
    joined.sort_indices()
    return joined
