"""Columns that nearly every row fills, such as an embedding behind the words: kept apart, as halves.

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

DIMS_AT_ONCE = 32
"""Rows are padded to a multiple of so many dimensions."""


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
def ends_before(
    pointer: Pointers,  # (n_samples + 1,)
    indices: Indices,
    first: int,
    ends: Pointers,  # (n_samples,) out: where each row's entries left of column `first` end
) -> None:
    for i in range(len(ends)):
        end = pointer[i + 1]
        while end > pointer[i] and indices[end - 1] >= first:
            end -= 1
        ends[i] = end


@kernel
def fill_dense(
    pointer: Pointers,
    indices: Indices,
    values: Floats,
    ends: Pointers,
    first: int,
    begin: int,  # rows begin : begin + len(out) of X
    out: Floats,  # (rows, n_dims) zeros; out
) -> None:
    for i in range(len(out)):
        for j in range(ends[begin + i], pointer[begin + i + 1]):
            out[i, indices[j] - first] = values[j]


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
