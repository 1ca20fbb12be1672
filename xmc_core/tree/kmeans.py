"""Sparse rows into an order whose equal parts are clusters: hierarchical balanced 2-means."""

import numpy as np
from scipy.sparse import csr_array

from xmc_core.data.rows import no_dense_rows
from xmc_core.kernels.arguments import read_only
from xmc_core.kernels.dense_rows import DenseRows
from xmc_core.kernels.kmeans import split_node, split_subtree
from xmc_core.kernels.selection import prune_rows_into
from xmc_core.parallel import map_threads, row_blocks
from xmc_core.types import Indices, Pointers, SparseRows

SUBTREE_ROWS = 1024
"""A node with this many rows or fewer is split down to its leaves by one job, on its own copy."""


def cluster_rows(
    Z: SparseRows,
    levels: int,
    *,
    dense: DenseRows | None = None,
    max_iter: int,
    seed: int,
    n_threads: int = -1,
) -> tuple[Indices, Pointers]:
    """Cluster rows into 2^levels clusters of equal size, give or take one.

    Each node of a binary tree is split in two halves by balanced spherical 2-means, started from
    two of its rows that are drawn by the seed and the node's number: the result depends neither on
    the number of threads nor on the order in which nodes are split.

    Parameters
    ----------
    Z : (n_rows, n_features)
        Rows of unit length, or empty; empty rows are spread by their number.
    levels : count
        2^levels clusters.
    dense : of n_rows
        More columns of the rows, which then have unit length together.
    max_iter : rounds per node, at most

    Returns
    -------
    order : (n_rows,) row numbers, cluster by cluster, ascending within a cluster
    bounds : (2^levels + 1,) cluster c is order[bounds[c] : bounds[c + 1]]
        Neighbouring clusters are siblings in the binary tree, and so on up.
    """
    n_rows, n_features = Z.shape
    # Writable, as are the copies that the kernels make for the lower nodes: numba would compile the
    # kernels again for arrays that are not (memory maps).
    pointer = np.require(Z.indptr, np.int64, ["C", "W"])
    indices = np.require(Z.indices, np.int32, ["C", "W"])
    values = np.require(Z.data, np.float32, ["C", "W"])
    dense = dense or no_dense_rows(n_features)
    order = np.arange(n_rows, dtype=np.int32)
    names = np.arange(n_rows, dtype=np.int32)
    bounds = np.array([0, n_rows], np.int64)
    none = np.zeros(n_rows, np.float32)

    def split(job: tuple[int, int, int]) -> None:
        node, start, end = job
        counts = np.zeros(n_features, np.int32)
        numbers = np.empty(n_features, np.int32)
        split_node(
            pointer, indices, values, none, dense, names, order[start:end], seed, node, max_iter,
            counts, numbers,
        )  # fmt: skip

    level = 0
    while level < levels and np.diff(bounds).max() > SUBTREE_ROWS:
        map_threads(split, _jobs(level, bounds), n_threads)
        bounds = _halve(bounds)
        level += 1

    def finish(job: tuple[int, int, int]) -> None:
        node, start, end = job
        split_subtree(
            pointer, indices, values, n_features, dense, order[start:end], levels - level, seed,
            node, max_iter,
        )  # fmt: skip

    if level < levels:
        map_threads(finish, _jobs(level, bounds), n_threads)
    for _ in range(level, levels):
        bounds = _halve(bounds)
    return order, bounds


def prune_rows(Z: SparseRows, max_features: int, n_threads: int = -1) -> SparseRows:
    """Keep the max_features entries of largest absolute value of each row, at unit length.

    Equal values: the smaller column stays. Z itself is returned where no row is longer.
    """
    lengths = np.diff(Z.indptr)
    if not max_features or lengths.max(initial=0) <= max_features:
        return Z
    pointer = np.zeros(Z.shape[0] + 1, np.int64)
    np.cumsum(np.minimum(lengths, max_features), out=pointer[1:])
    indices = np.empty(pointer[-1], np.int32)
    values = np.empty(pointer[-1], np.float32)
    old_pointer = read_only(Z.indptr, np.int64)
    old_indices = read_only(Z.indices, np.int32)
    old_values = read_only(Z.data, np.float32)

    def prune(rows: tuple[int, int]) -> None:
        prune_rows_into(old_pointer, old_indices, old_values, *rows, pointer, indices, values)

    map_threads(prune, row_blocks(Z.shape[0], 4096), n_threads)
    if pointer[-1] < 2**31:
        pointer = pointer.astype(np.int32)
    return csr_array((values, indices, pointer), shape=Z.shape)


def _jobs(level: int, bounds: Pointers) -> list[tuple[int, int, int]]:
    """(node, start, end) of the nodes of a level; the root is node 1, children are 2 i, 2 i + 1."""
    edges = bounds.tolist()
    return [(2**level + i, edges[i], edges[i + 1]) for i in range(len(edges) - 1)]


def _halve(bounds: Pointers) -> Pointers:
    finer = np.empty(2 * len(bounds) - 1, np.int64)
    finer[::2] = bounds
    finer[1::2] = bounds[:-1] + np.diff(bounds) // 2
    return finer
