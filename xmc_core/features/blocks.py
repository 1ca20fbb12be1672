"""Sparse rows that are made block by block, side by side."""

from itertools import pairwise

import numpy as np
from scipy.sparse import csr_array

from xmc_core.kernels.tfidf import place_rows_into
from xmc_core.types import Floats, Indices, Pointers, SparseRows

Rows = tuple[Pointers, Indices, Floats]
"""Pointer, columns and values of a block of rows."""


class Stack:
    """Blocks of rows under each other, each copied to its place as soon as it is there."""

    def __init__(self, n_rows: int, nnz: int) -> None:
        self._pointer = np.zeros(n_rows + 1, np.int64)
        self._indices = np.empty(nnz, np.int32)
        self._values = np.empty(nnz, np.float32)
        self._row = self._end = 0

    def put(self, rows: Rows) -> None:
        """Add rows below the others."""
        pointer, indices, values = rows
        start, self._end = self._end, self._end + len(indices)
        first, self._row = self._row, self._row + len(pointer) - 1
        self._pointer[first + 1 : self._row + 1] = pointer[1:] + start
        self._indices[start : self._end] = indices
        self._values[start : self._end] = values

    def matrix(self, n_columns: int) -> SparseRows:
        """All rows, once all are there."""
        pointer: Pointers | Indices = self._pointer
        if len(self._indices) < 2**31:  # scipy keeps both index arrays in the wider of their types
            pointer = pointer.astype(np.int32)
        shape = (len(pointer) - 1, n_columns)
        X = csr_array((self._values, self._indices, pointer), shape=shape)
        X.has_sorted_indices = True
        X.has_canonical_format = True
        return X


def stack(blocks: list[Rows], n_columns: int) -> SparseRows:
    """Put blocks of rows under each other; empties `blocks`, so that memory is needed only once."""
    n_rows = sum(len(pointer) - 1 for pointer, _, _ in blocks)
    stacked = Stack(n_rows, sum(len(indices) for _, indices, _ in blocks))
    blocks.reverse()
    while blocks:
        stacked.put(blocks.pop())
    return stacked.matrix(n_columns)


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
