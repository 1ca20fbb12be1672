"""Columns that nearly every row fills, such as an embedding behind the words: apart, as bytes.

As ordinary entries they would cost 8 bytes each and a look-up for every product. Apart, a row is
384 bytes for 384 dimensions, and its products run over memory in order, four in one instruction
where the processor has it (dense_lanes.py).

    x_ij = scales[i] * values[i, j],   -127 <= values[i, j] <= 127

An entry is off by at most 1/254 of its row's largest one. An embedding of unit length moves by a
hundredth, in no direction that means anything: margins move by a few ten-thousandths. Columns
beside which that is much are not kept so (xmc_core.data.rows).
"""

from typing import NamedTuple

import numpy as np

from xmc_core.kernels._compile import fast_kernel, kernel
from xmc_core.types import Doubles, Floats, Indices, Pointers, SignedBytes

DIMS_AT_ONCE = 64
"""Rows are padded to a multiple of so many dimensions."""


def padded(n_dims: int) -> int:
    """Dimensions of a row with its padding."""
    return -(-n_dims // DIMS_AT_ONCE) * DIMS_AT_ONCE


LARGEST = np.float32(127.0)
LOOKED_AT = 1024
"""So many rows, or up to twice as many, say what rounding to bytes takes from each column."""

NOTHING = np.float32(1e-30)
"""Rows whose largest value is no larger are zeros."""


class DenseRows(NamedTuple):
    """The dense part of X."""

    values: SignedBytes
    """(n_samples, width) zeros behind n_dims."""

    sums: Indices
    """(n_samples,) of each row's `values`."""

    scales: Floats
    """(n_samples,)"""

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
    dense: DenseRows,  # values of zeros; out: all but `first` and `n_dims`
    squares: Doubles,  # (n_dims,) zeros; out: of each column, in some thousand of the rows
    lost: Doubles,  # (n_dims,) zeros; out: of what rounding adds to them
) -> None:
    n_dims = dense.n_dims
    stride = max(1, len(dense.values) // LOOKED_AT)
    x = np.zeros(n_dims, np.float32)
    for i in range(len(dense.values)):
        begin = pointer[i + 1] - n_dims
        if begin >= pointer[i] and indices[begin] == dense.first:  # all of them, in order
            x[:] = values[begin : pointer[i + 1]]
        else:
            x[:] = 0.0
            j = pointer[i + 1] - 1
            while j >= pointer[i] and indices[j] >= dense.first:
                x[indices[j] - dense.first] = values[j]
                j -= 1
        put_row(x, dense, i, i % stride == 0, squares, lost)


@kernel
def fill_rows(
    first: int,
    X: Floats,  # (n, n_dims) the dense part of rows first, ...
    dense: DenseRows,  # as in fill_dense
    squares: Doubles,
    lost: Doubles,
) -> None:
    stride = max(1, len(dense.values) // LOOKED_AT)
    for i in range(len(X)):
        put_row(X[i], dense, first + i, (first + i) % stride == 0, squares, lost)


@fast_kernel
def put_row(
    x: Floats, dense: DenseRows, row: int, is_looked_at: bool, squares: Doubles, lost: Doubles
) -> None:
    dense.scales[row] = largest_of(x) / LARGEST
    dense.sums[row], dense.squares[row] = round_row(x, dense.scales[row], dense.values, row)
    if is_looked_at:
        add_squares(x, dense.scales[row], dense.values, row, squares, lost)


@fast_kernel
def largest_of(x: Floats) -> np.float32:
    largest = np.float32(0.0)
    for d in range(len(x)):
        largest = max(largest, abs(x[d]))
    return largest


@fast_kernel
def round_row(
    x: Floats, scale: np.float32, values: SignedBytes, row: int
) -> tuple[np.int32, np.float32]:
    # Returns the sum of the bytes and the square of the row that they are.
    inverse = np.float32(1.0) / scale if scale > NOTHING else np.float32(0.0)
    total = np.int32(0)
    square = np.float32(0.0)
    for d in range(len(x)):
        rounded = np.rint(x[d] * inverse)
        values[row, d] = np.int8(rounded)
        total += np.int32(rounded)
        square += rounded * rounded
    return total, scale * scale * square


@fast_kernel
def add_squares(
    x: Floats, scale: np.float32, values: SignedBytes, row: int, squares: Doubles, lost: Doubles
) -> None:
    for d in range(len(x)):
        error = x[d] - scale * np.float32(values[row, d])
        squares[d] += x[d] * x[d]
        lost[d] += error * error


@fast_kernel
def spread(dense: DenseRows, row: int, x: Floats) -> None:
    # x[j] = what dimension j of the row is, for j < len(x), at most the width
    scale = dense.scales[row]
    for j in range(len(x)):
        x[j] = scale * np.float32(dense.values[row, j])


@fast_kernel
def add_row(totals: Floats, to: int, factor: np.float32, values: SignedBytes, row: int) -> None:
    # totals[to] += factor * values[row], for as many dimensions as totals has
    for d in range(totals.shape[1]):
        totals[to, d] += factor * np.float32(values[row, d])
