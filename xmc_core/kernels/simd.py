"""Vector code for tiles of sixteen labels, each piece in two forms that agree.

`plain_*` is ordinary numba and says what is computed. The form used is explicit vector code
(vector_ir.py), several times faster. The functions without prefix are what kernels call; their
first argument chooses the form. Where llvmlite is too old to be told the types behind a pointer,
the plain form is used whatever was chosen.
"""

import inspect
from typing import Any

import numpy as np
from llvmlite import ir

from xmc_core.kernels._compile import fast_kernel, inline_kernel
from xmc_core.kernels.lanes import (
    BIAS,
    DELTA,
    DENSE,
    GRADIENT_MAX,
    GRADIENT_MIN,
    LANES,
    LIVE,
    MARGIN,
)
from xmc_core.types import Floats, Indices

HAVE_VECTOR_CODE = "source_etype" in inspect.signature(ir.IRBuilder.gep).parameters
"""Whether this llvmlite can express the vector code."""


@fast_kernel
def plain_dot(
    W: Floats,  # (features, 16)
    indices: Indices,  # feature of each non-zero
    values: Floats,
    start: int,
    end: int,
    out: Floats,  # (any, 16): out[row] = sum of values[j] * W[indices[j]] over start <= j < end
    row: int,
) -> None:
    for lane in range(LANES):
        out[row, lane] = 0.0
    for j in range(start, end):
        for lane in range(LANES):
            out[row, lane] += values[j] * W[indices[j], lane]


@fast_kernel
def plain_axpy(
    W: Floats, indices: Indices, values: Floats, start: int, end: int, delta: Floats, row: int
) -> None:
    # W[indices[j]] += values[j] * delta[row]
    for j in range(start, end):
        for lane in range(LANES):
            W[indices[j], lane] += values[j] * delta[row, lane]


@fast_kernel
def plain_rank_update(F: Floats, gram: Floats, rows: Indices, delta: Floats, n: int) -> None:
    # F[j] += gram[rows[u], j] * delta[u], u = 0 .. 3, for j < n
    for j in range(n):
        for u in range(4):
            for lane in range(LANES):
                F[j, lane] += gram[rows[u], j] * delta[u, lane]


@fast_kernel
def plain_pending_row(
    F: Floats, gram: Floats, rows: Indices, delta: Floats, n: int, j: int, out: Floats, row: int
) -> None:
    # out[row] = F[j] + sum of gram[rows[u], j] * delta[u] over u < n
    for lane in range(LANES):
        total = F[j, lane]
        for u in range(n):
            total += gram[rows[u], j] * delta[u, lane]
        out[row, lane] = total


@fast_kernel
def plain_copy_row(source: Floats, from_row: int, target: Floats, to_row: int) -> None:
    for lane in range(LANES):
        target[to_row, lane] = source[from_row, lane]


@fast_kernel
def plain_above(W: Floats, row: int, threshold: np.float32) -> int:
    # Bit mask of the lanes with |W[row, lane]| >= threshold.
    mask = 0
    for lane in range(LANES):
        if abs(W[row, lane]) >= threshold:
            mask |= 1 << lane
    return mask


@fast_kernel
def plain_squares(W: Floats, start: int, end: int, out: Floats, row: int) -> None:
    # out[row] = sum of W[j]², lane by lane, over start <= j < end
    for lane in range(LANES):
        out[row, lane] = 0.0
    for j in range(start, end):
        for lane in range(LANES):
            out[row, lane] += W[j, lane] * W[j, lane]


@fast_kernel
def plain_weighted_squares(
    W: Floats, weights: Floats, start: int, end: int, out: Floats, row: int
) -> None:
    # out[row] = sum of weights[j] * W[j]², lane by lane, over start <= j < end
    for lane in range(LANES):
        out[row, lane] = 0.0
    for j in range(start, end):
        for lane in range(LANES):
            out[row, lane] += weights[j] * W[j, lane] * W[j, lane]


@fast_kernel
def plain_step(
    hinge: bool,
    state: Floats,  # (9, 16)
    coefficient: Floats,  # (rows, 16) y/(2c), or y*c with hinge; 0: the lane does not see the row
    beta: Floats,  # (rows, 16) y * alpha
    row: int,
    square: np.float32,  # x·x + bias²
    own: np.float32,  # x·x over the features that no other row has: their weight is beta * x
    bias: np.float32,
    lanes: int,  # bit mask of those to look at
    still: np.float32,  # a lane whose projected gradient is no larger stays as it is
) -> int:  # bits 0 .. 15: lanes that moved; 16 .. 31: those looked at whose beta is not 0
    # G = y w·x - 1 + D alpha, alpha <- clip(alpha - G / (x·x + D), 0, U): eq. (12)-(13) of Hsieh
    # et al., "A Dual Coordinate Descent Method for Large-scale Linear SVM", ICML 2008. Squared
    # hinge: D = 1/(2c), U = inf. Hinge: D = 0, U = c.
    moved = 0
    for lane in range(LANES):
        c = coefficient[row, lane]
        state[DELTA, lane] = 0.0
        if c == 0.0 or state[LIVE, lane] == 0.0 or lanes >> lane & 1 == 0:
            continue
        y = np.float32(-1.0) if c < 0.0 else np.float32(1.0)
        size = c * y
        old = beta[row, lane]
        alpha = old * y
        margin = state[MARGIN, lane] + state[DENSE, lane]
        margin += own * old + bias * state[BIAS, lane]
        gradient = y * margin - np.float32(1.0)
        curvature = square
        if not hinge:
            gradient += alpha * size
            curvature += size
        projected = gradient
        if alpha <= 0.0:
            projected = min(gradient, np.float32(0.0))
        elif hinge and alpha >= size:
            projected = max(gradient, np.float32(0.0))
        state[GRADIENT_MAX, lane] = max(state[GRADIENT_MAX, lane], projected)
        state[GRADIENT_MIN, lane] = min(state[GRADIENT_MIN, lane], projected)

        new = alpha
        if abs(projected) > still:
            new = max(alpha - gradient / curvature, np.float32(0.0))
        if hinge:
            new = min(new, size)
        delta = (new - alpha) * y
        beta[row, lane] = old + delta
        state[DELTA, lane] = delta
        state[BIAS, lane] += bias * delta
        if delta != 0.0:
            moved |= 1 << lane
        if beta[row, lane] != 0.0:
            moved |= 1 << (LANES + lane)
    return moved


@fast_kernel
def plain_squared_hinge_step(
    state: Floats,
    coefficient: Floats,
    beta: Floats,
    row: int,
    square: np.float32,
    own: np.float32,
    bias: np.float32,
    lanes: int,
    still: np.float32,
) -> int:
    return plain_step(False, state, coefficient, beta, row, square, own, bias, lanes, still)


@fast_kernel
def plain_hinge_step(
    state: Floats,
    coefficient: Floats,
    beta: Floats,
    row: int,
    square: np.float32,
    own: np.float32,
    bias: np.float32,
    lanes: int,
    still: np.float32,
) -> int:
    return plain_step(True, state, coefficient, beta, row, square, own, bias, lanes, still)


@fast_kernel
def plain_four_by_four(
    A: Floats, first: int, B: Floats, second: int, n_dims: int, out: Floats
) -> None:
    # out[4 u + v] = A[first + u] . B[second + v], u and v = 0 .. 3
    for u in range(4):
        for v in range(4):
            total = np.float32(0.0)
            for j in range(n_dims):
                total += A[first + u, j] * B[second + v, j]
            out[4 * u + v] = total


vector_dot: Any = plain_dot
vector_axpy: Any = plain_axpy
vector_rank_update: Any = plain_rank_update
vector_pending_row: Any = plain_pending_row
vector_copy_row: Any = plain_copy_row
vector_above: Any = plain_above
vector_squares: Any = plain_squares
vector_weighted_squares: Any = plain_weighted_squares
vector_squared_hinge_step: Any = plain_squared_hinge_step
vector_hinge_step: Any = plain_hinge_step
vector_four_by_four: Any = plain_four_by_four
if HAVE_VECTOR_CODE:
    from xmc_core.kernels import vector_ir

    vector_dot = vector_ir.dot
    vector_axpy = vector_ir.axpy
    vector_rank_update = vector_ir.rank_update
    vector_pending_row = vector_ir.pending_row
    vector_copy_row = vector_ir.copy_row
    vector_above = vector_ir.above
    vector_squares = vector_ir.squares
    vector_weighted_squares = vector_ir.weighted_squares
    vector_squared_hinge_step = vector_ir.make_step(hinge=False)
    vector_hinge_step = vector_ir.make_step(hinge=True)
    vector_four_by_four = vector_ir.four_by_four


@inline_kernel
def dot(
    vector: bool,
    W: Floats,
    indices: Indices,
    values: Floats,
    start: int,
    end: int,
    out: Floats,
    row: int,
) -> None:
    if vector:
        vector_dot(W, indices, values, start, end, out, row)
    else:
        plain_dot(W, indices, values, start, end, out, row)


@inline_kernel
def axpy(
    vector: bool,
    W: Floats,
    indices: Indices,
    values: Floats,
    start: int,
    end: int,
    delta: Floats,
    row: int,
) -> None:
    if vector:
        vector_axpy(W, indices, values, start, end, delta, row)
    else:
        plain_axpy(W, indices, values, start, end, delta, row)


@inline_kernel
def rank_update(
    vector: bool, F: Floats, gram: Floats, rows: Indices, delta: Floats, n: int
) -> None:
    if vector:
        vector_rank_update(F, gram, rows, delta, n)
    else:
        plain_rank_update(F, gram, rows, delta, n)


@inline_kernel
def pending_row(
    vector: bool,
    F: Floats,
    gram: Floats,
    rows: Indices,
    delta: Floats,
    n: int,
    j: int,
    out: Floats,
    row: int,
) -> None:
    if vector:
        vector_pending_row(F, gram, rows, delta, n, j, out, row)
    else:
        plain_pending_row(F, gram, rows, delta, n, j, out, row)


@inline_kernel
def copy_row(vector: bool, source: Floats, from_row: int, target: Floats, to_row: int) -> None:
    if vector:
        vector_copy_row(source, from_row, target, to_row)
    else:
        plain_copy_row(source, from_row, target, to_row)


@inline_kernel
def above(vector: bool, W: Floats, row: int, threshold: np.float32) -> int:
    if vector:
        mask: int = vector_above(W, row, threshold)
        return mask
    return plain_above(W, row, threshold)


@inline_kernel
def step(
    vector: bool,
    hinge: bool,
    state: Floats,
    coefficient: Floats,
    beta: Floats,
    row: int,
    square: np.float32,
    own: np.float32,
    bias: np.float32,
    lanes: int,
    still: np.float32,
) -> int:
    if not vector:
        return plain_step(hinge, state, coefficient, beta, row, square, own, bias, lanes, still)
    moved: int
    if hinge:
        moved = vector_hinge_step(state, coefficient, beta, row, square, own, bias, lanes, still)
    else:
        moved = vector_squared_hinge_step(
            state, coefficient, beta, row, square, own, bias, lanes, still
        )
    return moved


@inline_kernel
def squares(vector: bool, W: Floats, start: int, end: int, out: Floats, row: int) -> None:
    if vector:
        vector_squares(W, start, end, out, row)
    else:
        plain_squares(W, start, end, out, row)


@inline_kernel
def weighted_squares(
    vector: bool, W: Floats, weights: Floats, start: int, end: int, out: Floats, row: int
) -> None:
    if vector:
        vector_weighted_squares(W, weights, start, end, out, row)
    else:
        plain_weighted_squares(W, weights, start, end, out, row)


@inline_kernel
def four_by_four(
    vector: bool, A: Floats, first: int, B: Floats, second: int, n_dims: int, out: Floats
) -> None:
    if vector:
        vector_four_by_four(A, first, B, second, n_dims, out)
    else:
        plain_four_by_four(A, first, B, second, n_dims, out)
