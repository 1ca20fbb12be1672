"""Columns that nearly every row fills, such as an embedding behind the words: apart, as bfloat16.

As ordinary entries they would cost 8 bytes each and a look-up for every product. Apart, a row is
768 bytes for 384 dimensions, and its products run over memory in order, two in one instruction
where the processor has it. bfloat16 has eight bits: a product may be off by one in 256, a sum of
384 of them by far less.
"""

from typing import Any, NamedTuple

import numpy as np

from xmc_core.kernels._compile import fast_kernel, inline_kernel, kernel
from xmc_core.kernels.bits import Shorts
from xmc_core.kernels.simd import HAVE_VECTOR_CODE, upper
from xmc_core.types import Floats, Indices, Pointers

DIMS_AT_ONCE = 64
"""Rows are padded to a multiple of so many dimensions."""


class DenseRows(NamedTuple):
    """The dense part of X."""

    values: Shorts
    """(n_samples, width) bfloat16; zeros behind n_dims."""

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
    n_dims: int,
    vector: bool,
    dense: Shorts,  # (n_samples, width) zeros; out
    squares: Floats,  # (n_samples,) out
) -> None:
    scattered = np.empty(n_dims, np.float32)
    x = np.empty(dense.shape[1], np.float32)
    for i in range(len(dense)):
        begin = pointer[i + 1] - n_dims
        if begin >= pointer[i] and indices[begin] == first:  # all of them, in order
            round_to_bfloats(values, begin, n_dims, dense, i)
        else:
            scattered[:] = 0.0
            j = pointer[i + 1] - 1
            while j >= pointer[i] and indices[j] >= first:
                scattered[indices[j] - first] = values[j]
                j -= 1
            round_to_bfloats(scattered, 0, n_dims, dense, i)
        spread(vector, dense, i, dense.shape[1], x)
        squares[i] = square_of(x)


@fast_kernel
def round_to_bfloats(values: Floats, start: int, n: int, dense: Shorts, row: int) -> None:
    # dense[row, j] = the nearest to values[start + j] for j < n, among equals the even one
    patterns = values.view(np.uint32)
    for j in range(n):
        bits = patterns[start + j]
        is_odd = (bits >> np.uint32(16)) & np.uint32(1)
        dense[row, j] = (bits + np.uint32(0x7FFF) + is_odd) >> np.uint32(16)


@fast_kernel
def square_of(x: Floats) -> np.float32:
    total = np.float32(0.0)
    for j in range(len(x)):
        total += x[j] * x[j]
    return total


@fast_kernel
def plain_spread(dense: Shorts, row: int, n_dims: int, x: Floats) -> None:
    # x[j] = dense[row, j] for j < n_dims, a multiple of 16
    for j in range(n_dims):
        x[j] = upper(dense[row, j])


vector_spread: Any = plain_spread
if HAVE_VECTOR_CODE:
    from xmc_core.kernels import vector_ir

    vector_spread = vector_ir.spread


@inline_kernel
def spread(vector: bool, dense: Shorts, row: int, n_dims: int, x: Floats) -> None:
    if vector:
        vector_spread(dense, row, n_dims, x)
    else:
        plain_spread(dense, row, n_dims, x)
