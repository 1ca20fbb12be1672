"""Columns that nearly every row fills, such as an embedding behind the words: apart, as halves.

As ordinary entries they would cost 8 bytes each and a look-up for every product. Apart, a row is
768 bytes for 384 dimensions, and its products run over memory in order: in training a visit takes
310 ns instead of 690 (180 and 160 without them; EUR-Lex titles, Sapphire Rapids). Single precision
is twice the memory to wait for: 140 ns more. Halves have eleven bits: a margin moves by 0.0003.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from xmc_core.kernels._compile import fast_kernel, inline_kernel, kernel
from xmc_core.kernels.prefetch import prefetch
from xmc_core.kernels.search_simd import CONVERTS_HALVES, half
from xmc_core.kernels.simd import HAVE_VECTOR_CODE
from xmc_core.types import Floats, Indices, Pointers

DIMS_AT_ONCE = 64
"""Rows are padded to a multiple of so many dimensions."""

LINE = 32
"""Halves of a cache line."""

COPIED = 2**23
"""Up to so many values (16 MB) a cluster's dense rows are copied next to each other, which takes a
tenth off its training: one read costs 160 ns a row, and a row is visited ten times."""

COPIED_AHEAD = 4
"""A row is asked for so many before it is copied: 160 ns instead of 270."""


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
    n_dims: int,
    vector: bool,
    halves: NDArray[np.uint16],  # (n_samples, width) zeros; out
    squares: Floats,  # (n_samples,) out
) -> tuple[np.float32, np.float32]:
    # Returns the least and the largest of the rows' largest values.
    least, largest = np.float32(np.inf), np.float32(0.0)
    scattered = np.empty(n_dims, np.float32)
    x = np.empty(halves.shape[1], np.float32)
    one = np.float32(1.0)
    for i in range(len(halves)):
        begin = pointer[i + 1] - n_dims
        if begin >= pointer[i] and indices[begin] == first:  # all of them, in order
            size = narrow(vector, values, begin, n_dims, one, halves, i)
        else:
            scattered[:] = 0.0
            j = pointer[i + 1] - 1
            while j >= pointer[i] and indices[j] >= first:
                scattered[indices[j] - first] = values[j]
                j -= 1
            size = narrow(vector, scattered, 0, n_dims, one, halves, i)
        largest = max(largest, size)
        if size > 0.0:
            least = min(least, size)
        spread(vector, halves, i, halves.shape[1], x)
        squares[i] = square_of(x)
    return least, largest


@fast_kernel
def square_of(x: Floats) -> np.float32:
    total = np.float32(0.0)
    for j in range(len(x)):
        total += x[j] * x[j]
    return total


@kernel
def narrow_rows(
    values: Floats,  # rows of n_dims
    rows: Pointers,  # which of them
    n_dims: int,
    scale: np.float32,
    vector: bool,
    halves: NDArray[np.uint16],  # (len(rows), n_dims or more) out: the nearest to values * scale
) -> None:
    for i in range(len(rows)):
        narrow(vector, values, rows[i] * n_dims, n_dims, scale, halves, i)


@fast_kernel
def largest_size(values: Floats) -> np.float32:
    largest = np.float32(0.0)
    for j in range(len(values)):
        largest = max(largest, abs(values[j]))
    return largest


@kernel
def near_copy(dense: DenseRows, rows: Indices) -> tuple[NDArray[np.uint16], Indices]:
    # The dense parts of these rows, and where in them each row's is.
    n, width = len(rows), dense.halves.shape[1]
    if dense.n_dims == 0 or n * width > COPIED:
        return dense.halves, rows
    halves = np.empty((n, width), np.uint16)
    for i in range(n):
        if i + COPIED_AHEAD < n:
            later = rows[i + COPIED_AHEAD] * np.int64(width)
            for j in range(0, width, LINE):
                prefetch(dense.halves, later + j)
        halves[i] = dense.halves[rows[i]]
    return halves, np.arange(n).astype(np.int32)


@fast_kernel
def plain_spread(halves: NDArray[np.uint16], row: int, n_dims: int, x: Floats) -> None:
    # x[j] = halves[row, j] for j < n_dims, a multiple of 16
    for j in range(n_dims):
        x[j] = half(halves[row, j])


@fast_kernel
def plain_narrow(
    values: Floats, start: int, n: int, scale: np.float32, halves: NDArray[np.uint16], row: int
) -> np.float32:
    # halves[row, j] = values[start + j] * scale for j < n; returns the largest of them, by size.
    # The reverse of `plain_half`, rounded to the nearest, among equals to the even one.
    largest = np.float32(0.0)
    moved = np.empty(1, np.float32)
    patterns = moved.view(np.uint32)
    for j in range(n):
        value = values[start + j] * scale
        largest = max(largest, abs(value))
        moved[0] = value * np.float32(2.0**-112)
        size = patterns[0] & np.uint32(0x7FFFFFFF)
        is_odd = (size >> np.uint32(13)) & np.uint32(1)
        rounded = (size + np.uint32(0xFFF) + is_odd) >> np.uint32(13)
        halves[row, j] = rounded | ((patterns[0] >> np.uint32(16)) & np.uint32(0x8000))
    return largest


vector_spread: Any = plain_spread
vector_narrow: Any = plain_narrow
if HAVE_VECTOR_CODE and CONVERTS_HALVES:
    from xmc_core.kernels import vector_ir

    vector_spread = vector_ir.spread
    vector_narrow = vector_ir.narrow


@inline_kernel
def spread(vector: bool, halves: NDArray[np.uint16], row: int, n_dims: int, x: Floats) -> None:
    if vector:
        vector_spread(halves, row, n_dims, x)
    else:
        plain_spread(halves, row, n_dims, x)


@inline_kernel
def narrow(
    vector: bool,
    values: Floats,
    start: int,
    n: int,
    scale: np.float32,
    halves: NDArray[np.uint16],
    row: int,
) -> np.float32:
    largest: np.float32
    if vector:
        largest = vector_narrow(values, start, n, scale, halves, row)
    else:
        largest = plain_narrow(values, start, n, scale, halves, row)
    return largest
