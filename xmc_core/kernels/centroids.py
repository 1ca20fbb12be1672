"""Sums over the positive samples of each label, of which only the strongest features stay."""

import numpy as np

from xmc_core.kernels._compile import fast_kernel, kernel
from xmc_core.kernels.dense_rows import DenseRows, spread
from xmc_core.kernels.selection import strongest_first
from xmc_core.types import Doubles, Floats, Indices, Pointers

DENSE_SHARE = 32
"""A label with more than 1/32 of all features is read off in their order instead of sorted."""


@kernel
def centroids_into(
    label_pointer: Pointers,  # (n_labels + 1,) positives of l: samples[label_pointer[l] : [l + 1]]
    samples: Indices,  # (nnz of Y,) rows of X
    weights: Floats,  # (nnz of Y,) weight of each positive
    pointer: Pointers,  # (n_samples + 1,) X but its dense part
    indices: Indices,
    values: Floats,
    dense: DenseRows,
    first: int,  # labels first : last are this call's
    last: int,
    max_features: int,  # how many of a label's features are kept besides the dense ones
    totals: Doubles,  # (n_features,) scratch, inf everywhere before and after
    out_pointer: Pointers,  # (last - first + 1,) out
    out_indices: Indices,  # out: ascending within a label
    out_values: Floats,  # out; a label without features gets an empty row
    out_dense: Floats,  # (last - first, n_dims) out: with these a label is of unit length
) -> int:
    """Sum the rows of each label's positives; returns how many entries were written, the dense part
    left out."""
    # Sums run in sample order, and in double precision: head labels add 1e5 rows and more. inf
    # marks a feature as not yet seen; zero would not do, since terms of a sum may cancel.
    unseen = np.inf
    n_features = totals.shape[0]
    features = np.empty(n_features, np.int32)
    strengths = np.empty(n_features, np.float32)
    keys = np.empty(n_features, np.uint64)
    x = np.empty(dense.n_dims, np.float32)
    dense_total = np.empty(dense.n_dims, np.float64)
    k = 0
    out_pointer[0] = 0
    for label in range(first, last):
        n = 0
        dense_total[:] = 0.0
        for p in range(label_pointer[label], label_pointer[label + 1]):
            sample = samples[p]
            weight = np.float64(weights[p])
            for q in range(pointer[sample], pointer[sample + 1]):
                feature = indices[q]
                if totals[feature] == unseen:
                    totals[feature] = weight * values[q]
                    features[n] = feature
                    n += 1
                else:
                    totals[feature] += weight * values[q]
            if dense.n_dims > 0:
                spread(dense, sample, x)
                add_to(dense_total, weight, x)
        kept = min(n, max_features)
        if kept < n:
            for i in range(n):
                strengths[i] = abs(totals[features[i]])
            strongest_first(features, strengths, n, kept, keys)
            for i in range(kept, n):
                totals[features[i]] = unseen
        start = k
        squares = 0.0
        if kept * DENSE_SHARE < n_features:
            features[:kept].sort()
            for i in range(kept):
                total = totals[features[i]]
                totals[features[i]] = unseen
                if total != 0.0:
                    squares += total * total
                    out_indices[k] = features[i]
                    out_values[k] = total
                    k += 1
        else:
            for feature in range(dense.first):
                total = totals[feature]
                totals[feature] = unseen
                if total != unseen and total != 0.0:
                    squares += total * total
                    out_indices[k] = feature
                    out_values[k] = total
                    k += 1
        for d in range(dense.n_dims):
            squares += dense_total[d] * dense_total[d]
            out_dense[label - first, d] = dense_total[d]
        scale = 1.0 / np.sqrt(squares) if squares > 0.0 else 0.0
        for i in range(start, k):
            out_values[i] *= scale
        for d in range(dense.n_dims):
            out_dense[label - first, d] *= scale
        out_pointer[label - first + 1] = k
    return k


@fast_kernel
def add_to(total: Doubles, weight: float, x: Floats) -> None:
    for d in range(len(x)):
        total[d] += weight * x[d]
