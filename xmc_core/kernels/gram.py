"""Inner products between the rows of a cluster."""

import numpy as np

from xmc_core.kernels._compile import kernel
from xmc_core.kernels.dense_rows import DenseRows, spread
from xmc_core.kernels.lanes import LANES, empty_lines
from xmc_core.kernels.simd import dot, four_by_four
from xmc_core.types import Floats, Indices, Pointers

SYMMETRY_BLOCK = 32


@kernel
def prefers_gram(n_rows: int, n_nonzero: int, n_children: int, n_dims: int) -> bool:
    # Per row, for t tiles and six epochs, in ns on a Sapphire Rapids core: inner products cost
    # t * 6 * 0.35 n to descend, n * (non-zeros / 50 + dimensions / 200) to make and (4 + 0.7 t)
    # non-zeros to get the weights back; going through the weights costs t * 6 * 2.4 non-zeros and
    # t * 3 dimensions.
    tiles = (n_children + LANES - 1) // LANES
    if n_rows == 0 or tiles == 0:
        return False
    length = n_nonzero / n_rows
    making = (0.02 * length + 0.005 * n_dims) / tiles
    return n_rows * (2.1 + making) < length * (13.7 - 4.0 / tiles) + 3.0 * n_dims


@kernel
def gram_matrix(
    vector: bool,
    pointer: Pointers,  # (n + 1,) local CSR
    ids: Indices,
    data: Floats,
    feature_pointer: Pointers,  # (n_shared + 1,) the same by feature
    feature_rows: Indices,
    feature_values: Floats,
    dense: DenseRows,
    rows: Indices,  # (n,) which of its rows each is
    own: Floats,  # (n,) joins the diagonal
    bias: np.float32,
    W: Floats,  # (n_shared, 16) scratch: sixteen rows, spread out, take the place of weights
) -> Floats:  # (n, n padded to a multiple of 16); bias² is added to every entry
    # A feature of c rows is worth c² / 2 single products, or c * n / 32 products of 16 rows by one,
    # twice as dear each. Frequent features, whose ids come first, go the second way.
    n = len(own)
    n_frequent = 0
    while (
        n_frequent < len(W)
        and (feature_pointer[n_frequent + 1] - feature_pointer[n_frequent]) * LANES >= n
    ):
        n_frequent += 1
    start, near_ids, near_data = entries_below(pointer, ids, data, n_frequent)

    gram = np.empty((n, (n + LANES - 1) // LANES * LANES), np.float32)
    products = np.empty((1, LANES), np.float32)
    bias_square = bias * bias
    W[:n_frequent] = 0.0
    for first in range(0, n, LANES):
        block = min(LANES, n - first)
        for lane in range(block):
            for j in range(start[first + lane], start[first + lane + 1]):
                W[near_ids[j], lane] = near_data[j]
        for i in range(first, n):
            dot(vector, W, near_ids, near_data, start[i], start[i + 1], products, 0)
            for lane in range(LANES):
                gram[i, first + lane] = products[0, lane] + bias_square
        for lane in range(block):
            for j in range(start[first + lane], start[first + lane + 1]):
                W[near_ids[j], lane] = 0.0

    for f in range(n_frequent, len(W)):
        begin, end = feature_pointer[f], feature_pointer[f + 1]
        for a in range(begin, end):
            i, value = feature_rows[a], feature_values[a]
            for b in range(begin, a + 1):
                gram[i, feature_rows[b]] += value * feature_values[b]

    if dense.n_dims > 0:
        add_dense(vector, dense, rows, gram)

    for top in range(0, n, SYMMETRY_BLOCK):
        for left in range(0, top + 1, SYMMETRY_BLOCK):
            for i in range(top, min(top + SYMMETRY_BLOCK, n)):
                for j in range(left, min(left + SYMMETRY_BLOCK, i)):
                    gram[j, i] = gram[i, j]
    for i in range(n):
        gram[i, i] += own[i]
    return gram


@kernel
def entries_below(
    pointer: Pointers, ids: Indices, data: Floats, n_ids: int
) -> tuple[Pointers, Indices, Floats]:
    # The part of a local CSR with ids below n_ids.
    start = np.empty(len(pointer), np.int64)
    kept_ids = np.empty(len(ids) + 1, np.int32)  # one more: written before it is known to stay
    kept_data = np.empty(len(ids) + 1, np.float32)
    end = 0
    for i in range(len(pointer) - 1):
        start[i] = end
        for j in range(pointer[i], pointer[i + 1]):
            kept_ids[end] = ids[j]
            kept_data[end] = data[j]
            end += ids[j] < n_ids
    start[len(pointer) - 1] = end
    return start, kept_ids, kept_data


@kernel
def add_dense(vector: bool, dense: DenseRows, rows: Indices, gram: Floats) -> None:
    # To the entries below the diagonal and on it, four rows by four columns at a time.
    n, width = len(rows), dense.values.shape[1]
    n_blocks = (n + 3) // 4
    X = empty_lines(n_blocks * 4 * width // LANES).reshape(n_blocks * 4, width)
    for i in range(n):
        spread(dense, rows[i], X[i])
    X[n:] = 0.0
    products = np.empty(16, np.float32)
    for a in range(n_blocks):
        for b in range(a + 1):
            four_by_four(vector, X, 4 * a, X, 4 * b, width, products)
            for i in range(4 * a, min(4 * a + 4, n)):
                for j in range(4 * b, min(4 * b + 4, n)):
                    gram[i, j] += products[4 * (i - 4 * a) + j - 4 * b]
