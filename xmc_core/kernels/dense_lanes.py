"""The dense columns' part of a tile while it is solved: sixteen labels' weights, lane by lane.

Weights are kept twice: V, float32, and B, bytes in units of the lane's own (state[UNIT]) around
128. Margins come from B: of 384 dimensions of sixteen labels these are 6 KB, which stay in the
nearest cache, and four products are one instruction. They are off by some thousandths where weights
are of order 1, which `tol` does not see unless it is small; then they come from V (`exact_*`).
Either way the weights that are kept are added up from the dual variables in the end
(`weights_of_lanes`).

Every 64 entries of V are in another order than those of B and of the rows: dimension 4 i + k comes
as 16 k + i, so that bytes become numbers and numbers bytes by shifts instead of shuffles.

As in simd.py, `plain_*` says what is computed and the functions without prefix choose the form.
"""

from typing import Any

import numpy as np

from xmc_core.kernels._compile import fast_kernel, inline_kernel, kernel
from xmc_core.kernels.bits import bits_of_float, lowest_bit
from xmc_core.kernels.dense_rows import LARGEST, DenseRows
from xmc_core.kernels.lanes import DELTA, DENSE, LANES, LARGEST_BYTE, MIDDLE, ROUNDING, UNIT
from xmc_core.kernels.simd import HAVE_VECTOR_CODE
from xmc_core.types import Bytes, Floats, Indices, SignedBytes

FITTED_BYTE = np.float32(50.0)
"""The largest weight of a lane when its unit has just been chosen."""

LARGEST_STEP = np.float32(127 - LARGEST_BYTE)
"""In units: what a weight may change by at once, or it would leave its byte before it is fitted."""


@fast_kernel
def plain_lane_dots(
    B: Bytes,  # (16, more than width)
    lanes: Indices,  # the first n_lanes in ascending order, a multiple of 4, or 1; see list_lanes
    n_lanes: int,
    mask: int,  # these lanes as bits
    values: SignedBytes,  # (any, width) rows of X
    place: int,  # which of them
    total: int,  # of its bytes
    scale: np.float32,  # of the row
    width: int,  # a multiple of 64
    state: Floats,  # state[DENSE] = what the row's dense part adds to the margin of the lanes named
) -> None:
    for k in range(n_lanes):
        lane = lanes[k]
        product = -MIDDLE * total
        for j in range(width):
            product += int(B[lane, j]) * int(values[place, j])
        state[DENSE, lane] = scale * np.float32(product) * state[UNIT, lane]


@kernel
def plain_lane_add(
    V: Floats,  # (16, more than width)
    B: Bytes,
    lane: int,
    values: SignedBytes,
    place: int,
    change: np.float32,
    inverse: np.float32,  # 1 / the lane's unit
    width: int,
) -> bool:
    # Adds change * values[place] to V[lane], and B with it; returns whether a byte is farther from
    # 128 than it should be.
    too_far = False
    for j in range(width):
        at = place_in_V(j)
        V[lane, at] += change * np.float32(values[place, j])
        B[lane, j] = byte_of(V[lane, at], inverse)
        too_far |= abs(int(B[lane, j]) - MIDDLE) > LARGEST_BYTE
    return too_far


@inline_kernel
def place_in_V(dim: int) -> int:
    return (dim & ~63) | ((dim & 3) << 4) | ((dim & 63) >> 2)


@inline_kernel
def byte_of(weight: np.float32, inverse: np.float32) -> np.uint8:
    shifted = np.float32(weight * inverse + np.float32(ROUNDING))
    return np.uint8(bits_of_float(shifted) & np.uint32(0xFF))


vector_lane_dots: Any = (plain_lane_dots,) * 5
vector_lane_add: Any = plain_lane_add
if HAVE_VECTOR_CODE:
    from xmc_core.kernels import dense_ir

    vector_lane_dots = tuple(dense_ir.make_lane_dots(n) for n in (1, 4, 8, 12, 16))
    vector_lane_add = dense_ir.lane_add
_one_lane, _four_lanes, _eight_lanes, _twelve_lanes, _sixteen_lanes = vector_lane_dots


@inline_kernel
def lane_dots(
    vector: bool,
    B: Bytes,
    lanes: Indices,
    n_lanes: int,
    mask: int,
    values: SignedBytes,
    place: int,
    total: int,
    scale: np.float32,
    width: int,
    state: Floats,
) -> None:
    if not vector:
        plain_lane_dots(B, lanes, n_lanes, mask, values, place, total, scale, width, state)
    elif n_lanes == 1:
        _one_lane(B, lanes, n_lanes, mask, values, place, total, scale, width, state)
    elif n_lanes == 4:
        _four_lanes(B, lanes, n_lanes, mask, values, place, total, scale, width, state)
    elif n_lanes == 8:
        _eight_lanes(B, lanes, n_lanes, mask, values, place, total, scale, width, state)
    elif n_lanes == 12:
        _twelve_lanes(B, lanes, n_lanes, mask, values, place, total, scale, width, state)
    else:
        _sixteen_lanes(B, lanes, n_lanes, mask, values, place, total, scale, width, state)


@inline_kernel
def move_lanes(
    vector: bool,
    V: Floats,
    B: Bytes,
    lanes: int,  # bit mask
    values: SignedBytes,
    place: int,
    scale: np.float32,  # of the row
    width: int,
    state: Floats,  # state[DELTA] times the row is added to the weights of the lanes named
) -> None:
    rest = np.uint64(lanes)
    while rest != 0:
        lane = lowest_bit(rest)
        rest &= rest - np.uint64(1)
        change = state[DELTA, lane] * scale
        most = abs(change) * LARGEST
        if most > LARGEST_STEP * state[UNIT, lane]:
            fit_bytes(V, B, lane, most / LARGEST_STEP, width, state)
        inverse = np.float32(1.0) / state[UNIT, lane]
        if vector:
            too_far = vector_lane_add(V, B, lane, values, place, change, inverse, width)
        else:
            too_far = plain_lane_add(V, B, lane, values, place, change, inverse, width)
        if too_far:
            fit_bytes(V, B, lane, np.float32(0.0), width, state)


@kernel
def fit_bytes(
    V: Floats, B: Bytes, lane: int, smallest: np.float32, width: int, state: Floats
) -> None:
    # A new unit for the lane, not below `smallest`.
    largest = np.float32(0.0)
    for j in range(width):
        largest = max(largest, abs(V[lane, j]))
    state[UNIT, lane] = max(largest / FITTED_BYTE, smallest)
    inverse = np.float32(1.0) / state[UNIT, lane]
    for j in range(width):
        B[lane, j] = byte_of(V[lane, place_in_V(j)], inverse)


@fast_kernel
def exact_lane_dots(
    V: Floats,  # (16, width), in the order of the rows
    lanes: Indices,
    n_lanes: int,
    values: SignedBytes,
    place: int,
    scale: np.float32,
    width: int,
    state: Floats,
) -> None:
    for k in range(n_lanes):
        total = np.float32(0.0)
        for j in range(width):
            total += V[lanes[k], j] * np.float32(values[place, j])
        state[DENSE, lanes[k]] = scale * total


@kernel
def exact_move_lanes(
    V: Floats, lanes: int, values: SignedBytes, place: int, scale: np.float32, state: Floats
) -> None:
    for lane in range(LANES):
        if lanes >> lane & 1:
            add_row(V, lane, state[DELTA, lane] * scale, values, place)


@kernel
def weights_of_lanes(
    dense: DenseRows,
    rows: Indices,  # (n,) the cluster's
    beta: Floats,  # (n, 16)
    out: Floats,  # (16, n_dims)
) -> None:
    # out[l] = sum of beta[i, l] * row i
    out[:] = 0.0
    if dense.n_dims == 0:
        return
    values, scales = dense.values, dense.scales
    for i in range(len(rows)):
        for lane in range(LANES):
            if beta[i, lane] != 0.0:
                add_row(out, lane, beta[i, lane] * scales[rows[i]], values, rows[i])


@fast_kernel
def add_row(out: Floats, lane: int, factor: np.float32, values: SignedBytes, place: int) -> None:
    for d in range(out.shape[1]):
        out[lane, d] += factor * np.float32(values[place, d])
