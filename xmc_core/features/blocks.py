"""Sparse rows that are made block by block, side by side."""

from itertools import pairwise

import numpy as np
from scipy.sparse import csr_array

from xmc_core.kernels.tfidf import place_rows_into
from xmc_core.types import Floats, Indices, Pointers, SparseRows

Rows = tuple[Pointers, Indices, Floats]
"""Pointer, columns and values of a block of rows."""


def stack(blocks: list[Rows], n_columns: int) -> SparseRows:
    """Put blocks of rows under each other; empties `blocks`, so that memory is needed only once."""
    n_rows = sum(len(pointer) - 1 for pointer, _, _ in blocks)
    nnz = sum(len(indices) for _, indices, _ in blocks)
    pointer = np.zeros(n_rows + 1, np.int64)
    indices = np.empty(nnz, np.int32)
    values = np.empty(nnz, np.float32)
    row = start = 0
    blocks.reverse()
    while blocks:
        block_pointer, block_indices, block_values = blocks.pop()
        end = start + len(block_indices)
        pointer[row + 1 : row + len(block_pointer)] = block_pointer[1:] + start
        indices[start:end] = block_indices
        values[start:end] = block_values
        row += len(block_pointer) - 1
        start = end
    if nnz < 2**31:  # scipy keeps both index arrays in the wider of their types
        pointer = pointer.astype(np.int32)
    X = csr_array((values, indices, pointer), shape=(n_rows, n_columns))
    X.has_sorted_indices = True
    X.has_canonical_format = True
    return X


def side_by_side(parts: list[Rows], widths: list[int], weights: list[float]) -> Rows:
    """Put blocks of columns beside each other, their rows as long as `weights` say.

    The result has rows of unit length if those of the parts have; empty ones stay empty.
    """
    sizes = [np.diff(pointer) for pointer, _, _ in parts]
    squares = sum(w * w * (size > 0) for w, size in zip(weights, sizes, strict=True))
    lengths = np.sqrt(np.maximum(squares, np.finfo(np.float32).tiny))
    pointer = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(sum(sizes), out=pointer[1:])
    indices = np.empty(pointer[-1], np.int32)
    values = np.empty(pointer[-1], np.float32)
    ends = pointer[:-1].copy()
    column = 0
    for part, width, weight in zip(parts, widths, weights, strict=True):
        place_rows_into(*part, column, (weight / lengths).astype(np.float32), ends, indices, values)
        column += width
    return pointer, indices, values


def blocks_of_work(work: Pointers, share: int) -> list[tuple[int, int]]:
    """Cut rows into ranges of about `share` units of work; work[i] is what rows before i need."""
    n_rows = len(work) - 1
    bounds = np.searchsorted(work, np.arange(share, int(work[-1]) + share, share), side="left")
    edges = np.unique(np.concatenate([[0], np.minimum(bounds, n_rows), [n_rows]])).tolist()
    return list(pairwise(edges))
