"""The rows of X as kernels take them."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from xmc_core.errors import DataError
from xmc_core.kernels.arguments import read_only
from xmc_core.kernels.dense_rows import (
    DIMS_AT_ONCE,
    DenseRows,
    count_columns,
    fill_dense,
    padded,
    split_columns,
)
from xmc_core.types import Doubles, Floats, Indices, Pointers, SignedBytes, SparseRows

FILLED = 0.8
"""A column that so many of the rows fill is dense."""

DIMS_A_GAP = 32
"""One in so many columns may be filled by fewer: a dimension so faint that bytes silence it is
missing in sums of rows."""

FEWEST_DIMS, MOST_DIMS = 32, 8192
"""With fewer the dense part is not worth its while; more are not looked for."""

MOST_LOST = 0.1
"""Share of a column's squares that rounding to bytes may change. MiniLM's dimensions lose one in
20,000, 192 principal components of theirs up to one in 200, columns 50 times as small as the
largest ones one in ten."""

FAINT = 1e-5
"""Columns with so small a share of the average one's squares may lose all: rankers hardly hear
them, as weights have a price. Three of MiniLM's 384 dimensions are."""


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """X in the one integer width that kernels are compiled for, its dense columns apart."""

    indptr: Pointers
    indices: Indices
    values: Floats
    dense: DenseRows
    n_features: int

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.indptr) - 1, self.n_features

    @property
    def left(self) -> SparseRows:
        """X without its dense columns."""
        return csr_array((self.values, self.indices, self.indptr), shape=self.shape)

    @classmethod
    def of(cls, X: SparseRows) -> "Rows":
        """The last columns of X are its dense part if there are at least 32 of them that four in
        five rows fill, unless bytes would not do for one of them. They are then held a second time,
        as bytes, an eighth of what they take in X, and so are the other entries, side by side.
        Among them a column whose values are some 300 times smaller than the others' may become
        zeros: columns that are to count should be of like lengths.

        Raises DataError if X holds a NaN or an infinity.
        """
        X = as_rows(X)
        require_finite(X.data)
        indptr, indices = read_only(X.indptr, np.int64), read_only(X.indices, np.int32)
        values = read_only(X.data, np.float32)
        first, left = _first_dense(indices, *X.shape)
        if first == X.shape[1]:
            return cls(indptr, indices, values, no_dense_rows(X.shape[1]), X.shape[1])
        dense = _dense_rows(indptr, indices, values, first, X.shape[1] - first)
        if dense is None:
            return cls(indptr, indices, values, no_dense_rows(X.shape[1]), X.shape[1])
        left_pointer = np.empty(len(indptr), np.int64)
        left_indices, left_values = np.empty(left, np.int32), np.empty(left, np.float32)
        split_columns(indptr, indices, values, first, left_pointer, left_indices, left_values)
        return cls(
            read_only(left_pointer), read_only(left_indices), read_only(left_values), dense,
            X.shape[1],
        )  # fmt: skip


def _first_dense(indices: Indices, n_samples: int, n_features: int) -> tuple[int, int]:
    """The first of the dense columns (n_features if there are too few), and how many entries lie
    left of it."""
    first = max(0, n_features - MOST_DIMS)
    counts = np.zeros(n_features - first, np.int64)
    count_columns(indices, first, counts)
    filled = counts >= max(1, FILLED * n_samples)
    gaps = np.cumsum(~filled[::-1])[::-1]
    begins = np.flatnonzero(filled & (DIMS_A_GAP * gaps <= np.arange(len(gaps), 0, -1)))
    first += int(begins[0]) if len(begins) else len(gaps)
    if n_features - first < FEWEST_DIMS:
        return n_features, len(indices)
    return first, len(indices) - int(counts[-(n_features - first) :].sum())


def _dense_rows(
    indptr: Pointers, indices: Indices, values: Floats, first: int, n_dims: int
) -> DenseRows | None:
    """The dense part, or None where bytes would not do."""
    dense = empty_dense_rows(len(indptr) - 1, first, n_dims)
    squares, lost = np.zeros(n_dims), np.zeros(n_dims)
    fill_dense(indptr, indices, values, dense, squares, lost)
    return frozen(dense) if bytes_do(squares, lost) else None


def empty_dense_rows(n_samples: int, first: int, n_dims: int) -> DenseRows:
    """To be filled in and then frozen."""
    return DenseRows(
        values=_whole_lines(n_samples, padded(n_dims)),
        sums=np.empty(n_samples, np.int32),
        scales=np.empty(n_samples, np.float32),
        squares=np.empty(n_samples, np.float32),
        first=first,
        n_dims=n_dims,
    )


def bytes_do(squares: Doubles, lost: Doubles) -> bool:
    """Whether no column is so small beside others that rounding takes away what it says.

    `squares` and `lost`, both (n_dims,), are as kernels.dense_rows.fill_dense makes them.
    """
    faint = squares < FAINT * squares.mean()
    return not np.any(lost[~faint] > MOST_LOST * squares[~faint])


def _whole_lines(n_samples: int, width: int) -> SignedBytes:
    """Zeros, no row in more cache lines than it needs: numpy starts arrays at multiples of 16 or 32
    bytes."""
    memory = np.zeros(n_samples * width + DIMS_AT_ONCE, np.int8)
    skipped = -memory.ctypes.data % DIMS_AT_ONCE
    return memory[skipped : skipped + n_samples * width].reshape(n_samples, width)


def no_dense_rows(n_features: int) -> DenseRows:
    """What stands for the dense part of rows that have none."""
    floats = np.zeros(0, np.float32)
    nothing = np.zeros((0, DIMS_AT_ONCE), np.int8)
    return frozen(DenseRows(nothing, np.zeros(0, np.int32), floats, floats, n_features, 0))


def frozen(dense: DenseRows) -> DenseRows:
    """The same, not to be written any more."""
    return dense._replace(
        values=read_only(dense.values),
        sums=read_only(dense.sums),
        scales=read_only(dense.scales),
        squares=read_only(dense.squares),
    )


def require_finite(values: NDArray[Any], name: str = "X", what: str = "features") -> None:
    """Raises DataError if a value of the matrix `name` is a NaN or an infinity."""
    # One that is not finite makes the sum so; a matrix of flags would take a quarter of the values'
    # memory. In 32 bits, as kernels see them: what is too large for that becomes an infinity.
    with np.errstate(over="ignore"):
        values = values.astype(np.float32, copy=False)
    if not np.isfinite(values.sum(dtype=np.float64)):
        raise DataError(f"{name} holds a NaN or an infinity; {what} must be finite numbers.")


def as_labels(matrix: Any) -> SparseRows:
    """Y as rows, see `as_rows`, with a positive value for each label that applies: stored zeros are
    left out, and signs, as values of both would cancel in sums up the tree.

    Raises DataError if a value is not finite, or a column lies outside the matrix.
    """
    Y = as_rows(matrix)
    require_finite(Y.data, "Y", "labels")
    if Y.data.min(initial=1) <= 0:
        Y = csr_array(abs(Y))
        Y.eliminate_zeros()
    return Y


def as_rows(matrix: Any) -> SparseRows:
    """The same matrix as CSR whose column numbers ascend in every row, entries that stand twice
    added up; itself if it is that already.

    Raises DataError if a column number lies outside the matrix: scipy does not look, and kernels
    would write where it points.
    """
    rows = matrix if isinstance(matrix, csr_array) else csr_array(matrix)
    if len(rows.indices):
        lowest, highest = int(rows.indices.min()), int(rows.indices.max())
        if lowest < 0 or highest >= rows.shape[1]:
            raise DataError(
                f"a matrix of {rows.shape[1]:,} columns names columns {lowest:,} .. {highest:,}; "
                "build it with the shape that its column numbers were made for."
            )
    if not rows.has_canonical_format:
        rows = rows.copy()
        rows.sum_duplicates()
    return rows
