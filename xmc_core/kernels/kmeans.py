"""Balanced spherical 2-means over sparse rows, node by node down a binary tree.

A node's rows are first renumbered to the features that at least two of them share: those fit the
cache where all features do not. A feature that a single row has (in small nodes more than half of
all entries) matters to that row alone, so its squares are summed up in the row's `own` mass.

Columns that nearly every row fills (dense_rows.py) lie apart and are not copied.
"""

import numpy as np
from numpy.typing import NDArray

from xmc_core.kernels._compile import fast_kernel, inline_kernel, kernel
from xmc_core.kernels.dense_rows import DenseRows, add_row
from xmc_core.kernels.selection import Keys, largest_first
from xmc_core.types import Floats, Indices, Pointers, SignedBytes

SIGN = np.uint32(0x80000000)
SCORE_BITS = np.uint64(32)
GOLDEN = np.uint64(0x9E3779B97F4A7C15)
EQUAL = 0.999
"""Two rows of unit length with this product or more are the same for our purposes."""

SETTLED = 100
"""A split ends when at most one of so many rows changes sides: later rounds cost a third of all
time and change no figure by more than its noise (docs/log.md)."""

CENTRE, LEFT, RIGHT = 0, 1, 2
"""Rows of what a split sums up of the dense columns."""

MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
MIX_2 = np.uint64(0x94D049BB133111EB)


@inline_kernel
def _draw(seed: int, node: int, number: int, n: int) -> int:
    """A number below n: SplitMix64 of seed and node, so that no node depends on another's draws."""
    x = np.uint64(seed) + GOLDEN * np.uint64(2 * node + number + 1)
    x = (x ^ (x >> np.uint64(30))) * MIX_1
    x = (x ^ (x >> np.uint64(27))) * MIX_2
    return int(np.int64((x ^ (x >> np.uint64(31))) % np.uint64(n)))


@kernel
def compact_rows_into(
    pointer: Pointers,  # (n_rows + 1,)
    indices: Indices,
    values: Floats,
    own: Floats,  # (n_rows,) mass already taken out of each row
    rows: Indices,  # (n,) the rows of the node
    counts: Indices,  # (n_features,) scratch, zero before and after
    numbers: Indices,  # (n_features,) scratch
    out_pointer: Pointers,  # (n + 1,) out
    out_indices: Indices,  # out: as long as the rows together is enough
    out_values: Floats,  # out
    out_own: Floats,  # (n,) out
) -> int:
    """Copy rows without the features that only one of them has; returns how many features stay."""
    for i in range(rows.shape[0]):
        for p in range(pointer[rows[i]], pointer[rows[i] + 1]):
            counts[indices[p]] += 1
    met = np.empty(min(counts.shape[0], out_indices.shape[0] // 2), np.int32)
    n_met = 0
    k = 0
    out_pointer[0] = 0
    for i in range(rows.shape[0]):
        mass = np.float64(own[rows[i]])
        for p in range(pointer[rows[i]], pointer[rows[i] + 1]):
            feature = indices[p]
            if counts[feature] == 1:
                counts[feature] = 0
                mass += np.float64(values[p]) ** 2
                continue
            if counts[feature] > 0:
                counts[feature] = -1
                numbers[feature] = n_met
                met[n_met] = feature
                n_met += 1
            out_indices[k] = numbers[feature]
            out_values[k] = values[p]
            k += 1
        out_pointer[i + 1] = k
        out_own[i] = mass
    for i in range(n_met):
        counts[met[i]] = 0
    return n_met


@fast_kernel
def _product(
    pointer: Pointers, indices: Indices, values: Floats, row: int, centre: Floats
) -> np.float32:
    total = np.float32(0)
    for p in range(pointer[row], pointer[row + 1]):
        total += centre[np.uint64(indices[p])] * values[p]
    return total


@inline_kernel
def _add_row(
    pointer: Pointers,
    indices: Indices,
    values: Floats,
    row: int,
    sign: float,
    total: Floats,
) -> None:
    scale = np.float32(sign)
    for p in range(pointer[row], pointer[row + 1]):
        total[np.uint64(indices[p])] += scale * values[p]


@fast_kernel
def _dense_product(values: SignedBytes, row: int, scale: np.float32, dense: Floats) -> np.float32:
    total = np.float32(0)
    for d in range(dense.shape[1]):
        total += dense[CENTRE, d] * np.float32(values[row, d])
    return scale * total


@fast_kernel
def _length(
    total: Floats, dense: Floats, own: Floats, right: NDArray[np.bool_], half: int
) -> float:
    squares = 0.0
    for j in range(total.shape[0]):
        squares += np.float64(total[j]) * np.float64(total[j])
    for d in range(dense.shape[1]):
        squares += np.float64(dense[half, d]) * np.float64(dense[half, d])
    side = half == RIGHT
    for i in range(own.shape[0]):
        if right[i] == side:
            squares += own[i]
    return float(np.sqrt(squares))


@kernel
def halve(
    pointer: Pointers,  # (n + 1,) rows of the node, n >= 2
    indices: Indices,
    values: Floats,
    own: Floats,  # (n,)
    dense: DenseRows,
    names: Indices,  # (n,) which of its rows each is
    n_features: int,
    first: int,  # the row that starts as the right centre
    step: int,  # 0 .. n - 2: the left one is first + 1 + step, or the next that differs
    max_iter: int,
    right: NDArray[np.bool_],  # (n,) out: the n - n // 2 rows of the right half
) -> int:
    """Split rows into two halves of equal size; returns the rounds it took.

    Each round scores a row by its product with (right centre - left centre), both of unit length,
    and puts the n // 2 rows of lowest (score, row) to the left, until hardly a row changes sides.
    """
    n = own.shape[0]
    n_right = n - n // 2
    centre = np.zeros(n_features, np.float32)
    left_total = np.zeros(n_features, np.float32)
    right_total = np.zeros(n_features, np.float32)
    bytes_, scales, n_dims = dense.values, dense.scales, dense.n_dims
    dense_totals = np.zeros((3, n_dims), np.float32)
    scores = np.empty(n, np.float32)
    patterns = scores.view(np.uint32)
    keys: Keys = np.empty(n, np.uint64)
    ordered: Keys = np.empty(n, np.uint64)

    _add_row(pointer, indices, values, first, 1.0, centre)
    if n_dims > 0:
        add_row(dense_totals, CENTRE, scales[names[first]], bytes_, names[first])
    # Labels of a single document have equal rows; two of them would tell nothing apart.
    second = first
    for i in range(n - 1):
        second = (first + 1 + (step + i) % (n - 1)) % n
        product = _product(pointer, indices, values, second, centre)
        if n_dims > 0:
            product += _dense_product(bytes_, names[second], scales[names[second]], dense_totals)
        if product < EQUAL:
            break
    _add_row(pointer, indices, values, second, -1.0, centre)
    if n_dims > 0:
        add_row(dense_totals, CENTRE, -scales[names[second]], bytes_, names[second])
    left_scale = right_scale = np.float32(0)
    for iteration in range(max_iter):
        for i in range(n):
            scores[i] = _product(pointer, indices, values, i, centre)
        if n_dims > 0:
            for i in range(n):
                scores[i] += _dense_product(bytes_, names[i], scales[names[i]], dense_totals)
        if iteration == 0:
            scores[first] += own[first]
            scores[second] -= own[second]
        else:
            for i in range(n):
                scores[i] += own[i] * right_scale if right[i] else -own[i] * left_scale

        # Score and row in one number whose order is theirs; the median is then a selection.
        for i in range(n):
            bits = patterns[i]
            if bits == SIGN:
                bits = np.uint32(0)  # -0.0 and 0.0 are equal
            bits = ~bits if bits & SIGN else bits | SIGN
            keys[i] = np.uint64(bits) << SCORE_BITS | np.uint64(i)
            ordered[i] = keys[i]
        largest_first(ordered, n, n_right)
        median = ordered[0]
        for i in range(1, n_right):
            median = min(median, ordered[i])

        moved = 0
        for i in range(n):
            goes_right = keys[i] >= median
            if iteration > 0:
                if right[i] == goes_right:
                    continue
                _add_row(
                    pointer, indices, values, i, -1.0, left_total if goes_right else right_total
                )
            _add_row(pointer, indices, values, i, 1.0, right_total if goes_right else left_total)
            if n_dims > 0:
                scale = scales[names[i]]
                if iteration > 0:
                    add_row(dense_totals, LEFT if goes_right else RIGHT, -scale, bytes_, names[i])
                add_row(dense_totals, RIGHT if goes_right else LEFT, scale, bytes_, names[i])
            right[i] = goes_right
            moved += 1
        if moved * SETTLED <= n:
            return iteration + 1

        length = _length(right_total, dense_totals, own, right, RIGHT)
        right_scale = np.float32(1.0 / length if length > 0.0 else 0.0)
        length = _length(left_total, dense_totals, own, right, LEFT)
        left_scale = np.float32(1.0 / length if length > 0.0 else 0.0)
        for j in range(n_features):
            centre[j] = right_total[j] * right_scale - left_total[j] * left_scale
        for d in range(n_dims):
            dense_totals[CENTRE, d] = (
                dense_totals[RIGHT, d] * right_scale - dense_totals[LEFT, d] * left_scale
            )
    return max_iter


@kernel
def split_node(
    pointer: Pointers,  # (n_rows + 1,)
    indices: Indices,
    values: Floats,
    own: Floats,  # (n_rows,)
    dense: DenseRows,
    names: Indices,  # (n_rows,) which of its rows each is
    rows: Indices,  # (n,) ascending; out: the left half, then the right half, each ascending
    seed: int,
    node: int,  # number of the node in the binary tree: root 1, children 2 i and 2 i + 1
    max_iter: int,
    counts: Indices,  # (n_features,) scratch, zero before and after
    numbers: Indices,  # (n_features,) scratch
) -> int:
    """Split the rows of one node; returns the rounds it took."""
    n = rows.shape[0]
    if n < 2:
        return 0
    nnz = 0
    for i in range(n):
        nnz += pointer[rows[i] + 1] - pointer[rows[i]]
    own_pointer = np.empty(n + 1, np.int64)
    own_indices = np.empty(nnz, np.int32)
    own_values = np.empty(nnz, np.float32)
    own_mass = np.empty(n, np.float32)
    n_features = compact_rows_into(
        pointer, indices, values, own, rows, counts, numbers,
        own_pointer, own_indices, own_values, own_mass,
    )  # fmt: skip

    first = _draw(seed, node, 0, n)
    step = _draw(seed, node, 1, n - 1)
    right = np.zeros(n, np.bool_)
    iterations = halve(
        own_pointer, own_indices, own_values, own_mass, dense, names[rows], n_features,
        first, step, max_iter, right,
    )  # fmt: skip

    old = rows.copy()
    left_end = 0
    right_end = n // 2
    for i in range(n):
        if right[i]:
            rows[right_end] = old[i]
            right_end += 1
        else:
            rows[left_end] = old[i]
            left_end += 1
    return iterations


@kernel
def split_subtree(
    pointer: Pointers,  # (n_rows + 1,)
    indices: Indices,
    values: Floats,
    n_columns: int,
    dense: DenseRows,
    rows: Indices,  # (n,) ascending; out: leaf by leaf, ascending within a leaf
    levels: int,  # the subtree has 2^levels leaves
    seed: int,
    node: int,  # number of the subtree's root in the binary tree
    max_iter: int,
) -> None:
    """Split a node, its children, and so on."""
    n = rows.shape[0]
    nnz = 0
    for i in range(n):
        nnz += pointer[rows[i] + 1] - pointer[rows[i]]
    # One copy for the whole subtree: below it, no node touches the large matrix any more.
    own = np.empty(n, np.float32)
    own_pointer = np.empty(n + 1, np.int64)
    own_indices = np.empty(nnz, np.int32)
    own_values = np.empty(nnz, np.float32)
    n_features = compact_rows_into(
        pointer, indices, values, np.zeros(pointer.shape[0] - 1, np.float32), rows,
        np.zeros(n_columns, np.int32), np.empty(n_columns, np.int32),
        own_pointer, own_indices, own_values, own,
    )  # fmt: skip

    counts = np.zeros(n_features, np.int32)
    numbers = np.empty(n_features, np.int32)
    names = rows.copy()
    order = np.arange(n).astype(np.int32)
    bounds = np.array([0, n])
    for level in range(levels):
        finer = np.empty(2 * bounds.shape[0] - 1, np.int64)
        finer[0] = 0
        for i in range(bounds.shape[0] - 1):
            start = bounds[i]
            end = bounds[i + 1]
            split_node(
                own_pointer, own_indices, own_values, own, dense, names, order[start:end],
                seed, (node << level) + i, max_iter, counts, numbers,
            )  # fmt: skip
            finer[2 * i + 1] = start + (end - start) // 2
            finer[2 * i + 2] = end
        bounds = finer
    for i in range(n):
        rows[i] = names[order[i]]
