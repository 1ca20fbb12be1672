"""The dense columns' part of a tile while it is solved: sixteen labels' weights, lane by lane.

A weight is a whole number of 65536ths of its lane's unit (state[UNIT]), kept in V around ORIGIN.
Its third byte, nearest to the weight in units and around 128, stands in B as well. Margins come
from B: of 384 dimensions of sixteen labels these are 6 KB, which stay in the nearest cache, and
four products are one instruction. Where that is too coarse for the tolerance (`noise`), C has the
second byte, what the first one leaves in 256ths of the unit, also around 128: twice the products.
The lowest byte is only there so that what one step rounds is not seen in the sum of thousands.

Every 64 entries of V are in another order than those of bytes and rows: dimension 4 i + k comes
as 16 k + i, so that bytes become numbers and numbers bytes by shifts instead of shuffles.

As in simd.py, `plain_*` says what is computed and the functions without prefix choose the form.
"""

import math
from typing import Any

import numpy as np

from xmc_core.kernels._compile import fast_kernel, inline_kernel, kernel
from xmc_core.kernels.bits import lowest_bit
from xmc_core.kernels.dense_rows import LARGEST, DenseRows, add_row
from xmc_core.kernels.lanes import (
    DELTA,
    DENSE,
    LANES,
    LARGEST_BYTE,
    MIDDLE,
    NO_UNIT,
    ORIGIN,
    PARTS,
    PER_UNIT,
    UNIT,
)
from xmc_core.kernels.simd import HAVE_VECTOR_CODE
from xmc_core.types import Bytes, Floats, Indices, SignedBytes

FITTED_BYTE = np.float32(50.0)
"""The largest weight of a lane when its unit has just been chosen."""

LARGEST_STEP = np.float32((127 - LARGEST_BYTE) / LARGEST) * PARTS
"""A value of 127 times this is what a weight may change by at once, or it would leave its byte
before it is fitted."""


@fast_kernel
def plain_lane_dots(
    fine: bool,  # whether C counts
    B: Bytes,  # (width / 64, 16, 64)
    C: Bytes,
    lanes: Indices,  # the first n_lanes in ascending order, a multiple of 4, or 1; see list_lanes
    n_lanes: int,
    mask: int,  # these lanes as bits
    values: SignedBytes,  # (any, width) rows of X
    place: int,  # which of them
    total: int,  # of its bytes
    scale: np.float32,  # of the row
    width: int,  # a multiple of 64
    state: Floats,  # state[DENSE] = what the row's dense part adds to the margin of the lanes
    # named; of others it may be anything, as more than eight are as dear as all
) -> None:
    for k in range(n_lanes):
        lane = lanes[k]
        product, rest = -MIDDLE * total, -MIDDLE * total
        for j in range(width):
            product += int(B[j >> 6, lane, j & 63]) * int(values[place, j])
            rest += int(C[j >> 6, lane, j & 63]) * int(values[place, j])
        sum_ = np.float32(product)
        if fine:
            sum_ += np.float32(rest) / np.float32(256.0)
        state[DENSE, lane] = scale * sum_ * state[UNIT, lane]


@kernel
def plain_lane_add(
    fine: bool,
    V: Indices,  # (16, more than width)
    B: Bytes,
    C: Bytes,
    lane: int,
    values: SignedBytes,
    place: int,
    step: int,  # fits in 16 bits
    width: int,
) -> bool:
    # Adds step * values[place] to V[lane], and the bytes with it; returns whether a byte is
    # farther from 128 than it should be.
    too_far = False
    for j in range(width):
        at = place_in_V(j)
        V[lane, at] += step * int(values[place, j])
        set_bytes(fine, V[lane, at], B, C, lane, j)
        too_far |= abs(int(B[j >> 6, lane, j & 63]) - MIDDLE) > LARGEST_BYTE
    return too_far


@inline_kernel
def place_in_V(dim: int) -> int:
    return (dim & ~63) | ((dim & 3) << 4) | ((dim & 63) >> 2)


@inline_kernel
def set_bytes(fine: bool, weight: int, B: Bytes, C: Bytes, lane: int, dim: int) -> None:
    B[dim >> 6, lane, dim & 63] = (weight >> 16) & 0xFF
    if fine:
        C[dim >> 6, lane, dim & 63] = (weight >> 8) & 0xFF


vector_lane_dots: Any = plain_lane_dots
vector_lane_add: Any = plain_lane_add
if HAVE_VECTOR_CODE:
    from xmc_core.kernels import dense_ir

    vector_lane_dots, vector_lane_add = dense_ir.make_lane_dots(), dense_ir.make_lane_add()


@inline_kernel
def lane_dots(
    vector: bool,
    fine: bool,
    B: Bytes,
    C: Bytes,
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
    if vector:
        vector_lane_dots(
            fine, B, C, lanes, n_lanes, mask, values, place, total, scale, width, state
        )
    else:
        plain_lane_dots(fine, B, C, lanes, n_lanes, mask, values, place, total, scale, width, state)


@inline_kernel
def move_lanes(
    vector: bool,
    fine: bool,
    V: Indices,
    B: Bytes,
    C: Bytes,
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
        if abs(change) * state[PER_UNIT, lane] > LARGEST_STEP:
            fit_bytes(fine, V, B, C, lane, abs(change) * (PARTS / LARGEST_STEP), width, state)
        step = int(np.rint(change * state[PER_UNIT, lane]))
        if vector:
            far = vector_lane_add(fine, V, B, C, lane, values, place, step, width)
        else:
            far = plain_lane_add(fine, V, B, C, lane, values, place, step, width)
        if far:
            fit_bytes(fine, V, B, C, lane, np.float32(0.0), width, state)


@kernel
def fit_bytes(
    fine: bool,
    V: Indices,
    B: Bytes,
    C: Bytes,
    lane: int,
    smallest: np.float32,
    width: int,
    state: Floats,
) -> None:
    # A new unit for the lane, not below `smallest`. No second way out: with one, numba has callers
    # count a reference at each of their updates (95 ns instead of 14).
    largest = 0
    for j in range(width):
        largest = max(largest, abs(int(V[lane, j]) - ORIGIN))
    old = state[UNIT, lane]
    unit = max(np.float32(largest) / (PARTS * FITTED_BYTE) * old, smallest)
    state[UNIT, lane] = unit
    state[PER_UNIT, lane] = PARTS / unit if unit > 0.0 else NO_UNIT
    factor = old / unit if unit > 0.0 else np.float32(0.0)
    for j in range(width):
        at = place_in_V(j)
        V[lane, at] = ORIGIN + int(np.rint(factor * np.float32(V[lane, at] - ORIGIN)))
        set_bytes(fine, V[lane, at], B, C, lane, j)


@kernel
def noise(state: Floats, lanes: int, largest_square: np.float32) -> np.float32:
    # By how much margins of these lanes are off where C does not count: a rounded number by
    # 1 / sqrt(12) of the unit, and the sum over dimensions by that times the row's length.
    unit = np.float32(0.0)
    for lane in range(LANES):
        if lanes >> lane & 1:
            unit = max(unit, state[UNIT, lane])
    return unit * np.float32(math.sqrt(largest_square / 12.0))


@kernel
def weights_in_order(V: Indices, state: Floats, out: Floats) -> None:
    # (16, n_dims) out: the weights of the dimensions.
    for lane in range(LANES):
        part = state[UNIT, lane] / PARTS
        for d in range(out.shape[1]):
            out[lane, d] = part * np.float32(V[lane, place_in_V(d)] - ORIGIN)


@kernel
def weights_of_rows(
    dense: DenseRows,
    rows: Indices,  # (n,) the cluster's
    beta: Floats,  # (n, 16)
    out: Floats,  # (16, n_dims) out: sum of beta[i, l] * row i
) -> None:
    out[:] = 0.0
    if dense.n_dims == 0:
        return
    values, scales = dense.values, dense.scales
    for i in range(len(rows)):
        for lane in range(LANES):
            if beta[i, lane] != 0.0:
                add_row(out, lane, beta[i, lane] * scales[rows[i]], values, rows[i])
