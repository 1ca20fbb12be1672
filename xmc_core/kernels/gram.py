"""Inner products between the rows of a cluster."""

import numpy as np

from xmc_core.kernels._compile import kernel
from xmc_core.kernels.lanes import LANES
from xmc_core.kernels.simd import dot
from xmc_core.types import Floats, Indices, Pointers

SYMMETRY_BLOCK = 32


@kernel
def prefers_gram(n_rows: int, n_nonzero: int, n_children: int) -> bool:
    # Measured: a visit costs 1.1 n against 3 times the row's non-zeros, and building the matrix is
    # shared by the tiles of the cluster (711 non-zeros a row: twice as fast; 100: slower).
    return n_rows > 0 and n_rows * (1.1 + 4.0 / n_children) < 3.0 * n_nonzero / n_rows


@kernel
def gram_matrix(
    vector: bool,
    pointer: Pointers,  # (n + 1,) local CSR
    ids: Indices,
    data: Floats,
    own: Floats,  # (n,) joins the diagonal
    bias: np.float32,
    W: Floats,  # (n_shared, 16) scratch: sixteen rows, spread out, take the place of weights
) -> Floats:  # (n, n padded to a multiple of 16); bias² is added to every entry
    n = len(own)
    gram = np.empty((n, (n + LANES - 1) // LANES * LANES), np.float32)
    products = np.empty((1, LANES), np.float32)
    bias_square = bias * bias
    W[:] = 0.0
    for first in range(0, n, LANES):
        block = min(LANES, n - first)
        for lane in range(block):
            for j in range(pointer[first + lane], pointer[first + lane + 1]):
                W[ids[j], lane] = data[j]
        for i in range(first, n):
            dot(vector, W, ids, data, pointer[i], pointer[i + 1], products, 0)
            for lane in range(LANES):
                gram[i, first + lane] = products[0, lane] + bias_square
        for lane in range(block):
            for j in range(pointer[first + lane], pointer[first + lane + 1]):
                W[ids[j], lane] = 0.0

    for top in range(0, n, SYMMETRY_BLOCK):
        for left in range(0, top + 1, SYMMETRY_BLOCK):
            for i in range(top, min(top + SYMMETRY_BLOCK, n)):
                for j in range(left, min(left + SYMMETRY_BLOCK, i)):
                    gram[j, i] = gram[i, j]
    for i in range(n):
        gram[i, i] += own[i]
    return gram
