"""Columns that nearly every row fills, such as an embedding behind the words: apart, as halves.

As ordinary entries they would cost 8 bytes each and a look-up for every product. Apart, a row is
768 bytes for 384 dimensions, and its products run over memory in order: a visit takes some 125 ns
instead of 420 (EUR-Lex titles beside 384 dimensions, Sapphire Rapids). Half precision (11 bits)
is what halves that time again; it moves a margin by about 0.0003.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from xmc_core.kernels._compile import fast_kernel, inline_kernel, kernel
from xmc_core.kernels.search_simd import CONVERTS_HALVES, half
from xmc_core.kernels.simd import HAVE_VECTOR_CODE
from xmc_core.types import Floats, Indices, Pointers

DIMS_AT_ONCE = 64
"""Rows are padded to a multiple of so many dimensions."""

COPIED = 2**23
"""Values of a cluster that are copied together: 16 MB."""


class DenseRows(NamedTuple):
    """The dense part of X."""

    halves: NDArray[np.uint16]
    """(n_samples, width) bits of halves; zeros behind n_dims."""

    squares: Floats
    """(n_samples,) x·x of each row."""

    first: int
    """The column of X that dimension 0 is."""

    n_dims: int


@kernel
def count_columns(
    indices: Indices,
    first: int,
    counts: Pointers,  # (n_features - first,) zeros; out: entries of each column from `first` on
) -> None:
    for j in range(len(indices)):
        if indices[j] >= first:
            counts[indices[j] - first] += 1


@kernel
def split_columns(
    pointer: Pointers,  # (n_samples + 1,) X
    indices: Indices,
    values: Floats,
    first: int,
    left_pointer: Pointers,  # (n_samples + 1,) out: the columns left of `first`
    left_indices: Indices,  # out
    left_values: Floats,  # out
) -> None:
    end = 0
    left_pointer[0] = 0
    for i in range(len(pointer) - 1):
        for j in range(pointer[i], pointer[i + 1]):
            if indices[j] >= first:
                break
            left_indices[end] = indices[j]
            left_values[end] = values[j]
            end += 1
        left_pointer[i + 1] = end


@kernel
def fill_dense(
    pointer: Pointers,  # X
    indices: Indices,
    values: Floats,
    first: int,
    begin: int,  # rows begin : begin + len(out) of X
    out: Floats,  # (rows, n_dims) zeros; out
) -> None:
    for i in range(len(out)):
        j = pointer[begin + i + 1] - 1
        while j >= pointer[begin + i] and indices[j] >= first:
            out[i, indices[j] - first] = values[j]
            j -= 1


@kernel
def near_copy(dense: DenseRows, rows: Indices) -> tuple[NDArray[np.uint16], Indices]:
    # The dense parts of these rows, and where in them each row's is: a copy where it is small
    # enough to stay in the second cache, or near it, else all rows as they are.
    n, width = len(rows), dense.halves.shape[1]
    if dense.n_dims == 0 or n * width > COPIED:
        return dense.halves, rows
    halves = np.empty((n, width), np.uint16)
    for i in range(n):
        halves[i] = dense.halves[rows[i]]
    return halves, np.arange(n).astype(np.int32)


@fast_kernel
def plain_spread(halves: NDArray[np.uint16], row: int, n_dims: int, x: Floats) -> None:
    # x[j] = halves[row, j] for j < n_dims, a multiple of 16
    for j in range(n_dims):
        x[j] = half(halves[row, j])


vector_spread: Any = plain_spread
if HAVE_VECTOR_CODE and CONVERTS_HALVES:
    from xmc_core.kernels import vector_ir

    vector_spread = vector_ir.spread


@inline_kernel
def spread(vector: bool, halves: NDArray[np.uint16], row: int, n_dims: int, x: Floats) -> None:
    if vector:
        vector_spread(halves, row, n_dims, x)
    else:
        plain_spread(halves, row, n_dims, x)
