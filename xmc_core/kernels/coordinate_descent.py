"""Dual coordinate descent for sixteen sibling labels at once.

For each label (lane) l of a tile, over the rows i of the cluster,

    min over w:  ||w||² / 2 + sum_i c_il loss(y_il w·x_i),   loss(z) = max(0, 1-z)², max(0, 1-z) or
                                                             log(1 + e^-z)

with the bias as the weight of a constant feature. The dual variables alpha_il >= 0 are optimised
one row at a time, in a random order that is the same for all lanes, so that a row's non-zeros are
read once for sixteen labels; w = sum_i beta_i x_i with beta = y alpha is kept up to date.

An epoch over all rows is followed by some that look only at pairs of row and lane with alpha > 0:
of the others few move, and they are most (EUR-Lex titles beside an embedding: 9 live lanes a row,
0.7 of them with alpha > 0). A lane is finished when the projected gradients of an epoch over all
rows span less than `tol`; one that comes so far in between waits for the next such epoch. The very
first epoch sees the positives and an eighth of the rows, after which most others lie on their side
of the margin. Against every row in every epoch that takes 0.8 of the time where negatives come from
the beam, 1.06 where all are near (EUR-Lex titles, tf-idf), and ends with no smaller objective.

Hsieh et al., "A Dual Coordinate Descent Method for Large-scale Linear SVM", ICML 2008; logistic:
Yu, Huang and Lin, "Dual coordinate descent methods for logistic regression and maximum entropy
models", Machine Learning 2011, algorithm 5.
"""

import math

import numpy as np
from numpy.typing import NDArray

from xmc_core.kernels._compile import fast_kernel, inline_kernel, kernel
from xmc_core.kernels.bits import lowest_bit
from xmc_core.kernels.dense_lanes import fit_bytes, lane_dots, move_lanes, noise
from xmc_core.kernels.dense_rows import DenseRows
from xmc_core.kernels.lanes import (
    BIAS,
    DELTA,
    DENSE,
    GRADIENT_MAX,
    GRADIENT_MIN,
    LANES,
    LIVE,
    MARGIN,
    MIDDLE,
    NO_UNIT,
    ORIGIN,
    PER_UNIT,
)
from xmc_core.kernels.prefetch import prefetch
from xmc_core.kernels.search_simd import at_least
from xmc_core.kernels.simd import (
    axpy,
    copy_row,
    dot,
    pending_row,
    rank_update,
    squares,
    step,
    weighted_squares,
)
from xmc_core.types import Bytes, Floats, Indices, Pointers

SQUARED_HINGE, HINGE, LOGISTIC = range(3)
STILL = 0.25
"""In shares of `tol`: a pair with a smaller projected gradient is not moved. Training takes a tenth
less than at 0, with an embedding a fifth, and the objective is less by a thousandth. At .5, the
most with which every lane can finish, epochs go from 27 to 45 (EUR-Lex titles, leaves)."""

SMALLEST_ALPHA = 1e-8
"""The logistic loss keeps alpha strictly between 0 and c."""

NEWTON_STEPS = 100
AHEAD = 2
"""A row is asked for so many visits before its own. At the first level, where the rows do not fit
the near caches, this saves a third of the time; asking for their lines of W instead loses some."""

PAUSE_GROWTH, LONGEST_PAUSE = 2, 7
"""Epochs over what has alpha > 0 between two over everything: 2, 4, 6, 7, 7. Others (up to 3, 5;
growing by 1, 3) take within 5 % of the time."""

NEARLY_ALL = 0.8
"""Where such an epoch would see more of the rows than this, it sees all: that costs little, and a
lane may finish."""

NOISE = 0.25
"""Of the gradient that moves a pair: how far margins of dense columns may be off before a second
byte counts."""

FIRST_SHARE = 8
SMALLEST_COST = np.float32(1e-30)
ALL_LANES = (1 << LANES) - 1

SUM_BLOCK = 256
"""So many squares are added up in single precision, the blocks in double."""

HUGE = np.float32(3e38)
"""Stands for infinity, which fast-math code may not see."""


@kernel
def descend(
    loss: int,
    vector: bool,
    pointer: Pointers,  # (n + 1,) local CSR, see local_rows.py
    ids: Indices,
    data: Floats,
    dense: DenseRows,
    rows: Indices,  # (n,) which of its rows each is
    own: Floats,  # (n,)
    square: Floats,  # (n,)
    coefficient: Floats,  # (n, 16) y/(2c) with squared hinge, else y*c; 0: not this lane's row
    beta: Floats,  # (n, 16) out
    W: Floats,  # (n_shared, 16) out
    V: Indices,  # (16, the width or more) scratch: weights of the dense part, see dense_lanes.py
    B: Bytes,
    C: Bytes,
    state: Floats,  # (9, 16) scratch; state[BIAS] is the bias weight
    bias: np.float32,  # value of the constant feature
    tol: float,
    max_iter: int,
    n_lanes: int,
    seed: np.uint64,
) -> tuple[int, int]:  # epochs, row visits; lanes with state[LIVE] > 0 have not converged
    start(loss, coefficient, beta, state, n_lanes)
    W[:] = 0.0
    V[:] = ORIGIN
    B[:] = MIDDLE
    C[:] = MIDDLE
    dense_values = dense.values  # taken out once: each time counts a reference, atomically
    width = dense_values.shape[1] if dense.n_dims > 0 else 0
    fine = False
    largest_square = np.float32(0.0)
    scales = np.empty(len(own) if width > 0 else 0, np.float32)
    sums = np.empty(len(scales), np.int32)
    for i in range(len(scales)):
        scales[i], sums[i] = dense.scales[rows[i]], dense.sums[rows[i]]
        largest_square = max(largest_square, dense.squares[rows[i]])
    lanes = np.zeros(LANES + 3, np.int32)
    order = rows_with_a_lane(coefficient)
    n = len(order)
    visits = np.empty(n, np.int32)
    held = np.empty(len(own), np.uint16)  # lanes whose beta was not 0 when last looked at
    begin_with(vector, loss, coefficient, held)
    awake = live_lanes(state)
    pause = 0
    until_full = 0 if loss == LOGISTIC else 1
    n_visits = 0
    inner_tol = 1e-2
    still = np.float32(STILL * tol)
    random = seed
    for epoch in range(max_iter):
        random = shuffle(order, random)
        is_full = until_full == 0 or awake == 0
        m = 0
        for k in range(n):
            visits[m] = order[k]
            m += is_full or held[order[k]] & awake != 0
        if not is_full and m > NEARLY_ALL * n:
            is_full = True
            m = n
            visits[:] = order
        if is_full:
            awake = live_lanes(state)
            pause = min(pause + PAUSE_GROWTH, LONGEST_PAUSE) if loss != LOGISTIC else 0
            until_full = pause
        else:
            until_full -= 1
        n_visits += m
        if width > 0 and not fine and noise(state, awake, largest_square) > NOISE * still:
            fine = True
            for lane in range(n_lanes):
                fit_bytes(fine, V, B, C, lane, np.float32(0.0), width, state)
        count = list_lanes(awake, lanes)
        state[GRADIENT_MAX] = -HUGE
        state[GRADIENT_MIN] = HUGE
        newton_steps = 0
        for k in range(m):
            i = visits[k]
            if k + AHEAD < m:
                later = visits[k + AHEAD]
                for j in range(pointer[later], pointer[later + 1], LANES):
                    prefetch(ids, j)
                    prefetch(data, j)
                for j in range(0, width, 4 * LANES):
                    prefetch(dense_values, rows[later] * np.int64(width) + j)
                prefetch(coefficient, later * np.int64(LANES))
                prefetch(beta, later * np.int64(LANES))
            looked_at = awake if is_full else held[i] & awake
            dot(vector, W, ids, data, pointer[i], pointer[i + 1], state, MARGIN)
            if width > 0:
                if not is_full:
                    count = list_lanes(looked_at, lanes)
                place = int(rows[i])
                scale = scales[i]
                lane_dots(
                    vector,
                    fine,
                    B,
                    C,
                    lanes,
                    count,
                    looked_at,
                    dense_values,
                    place,
                    int(sums[i]),
                    scale,
                    width,
                    state,
                )
            q = square[i] + bias * bias
            if loss == LOGISTIC:
                moved, steps = logistic_step(
                    state, coefficient, beta, i, q, own[i], bias, inner_tol
                )
                newton_steps += steps
            else:
                moved = step(
                    vector,
                    loss == HINGE,
                    state,
                    coefficient,
                    beta,
                    i,
                    q,
                    own[i],
                    bias,
                    looked_at,
                    still,
                )
                held[i] = moved >> LANES
                moved &= ALL_LANES
            if moved != 0:
                axpy(vector, W, ids, data, pointer[i], pointer[i + 1], state, DELTA)
                if width > 0 and scale > 0.0:
                    move_lanes(
                        vector, fine, V, B, C, moved, dense_values, place, scale, width, state
                    )
        if newton_steps <= n * n_lanes // 10:
            inner_tol = max(0.1 * inner_tol, 1e-8)
        awake &= ~settled_lanes(state, tol)
        if is_full:
            finish_lanes(state, awake)
            if awake == 0:
                return epoch + 1, n_visits
    return max_iter, n_visits


@kernel
def rows_with_a_lane(coefficient: Floats) -> Indices:
    # The others are there for other tiles of the cluster.
    rows = np.empty(len(coefficient), np.int32)
    n = 0
    for i in range(len(coefficient)):
        rows[n] = i
        some = False
        for lane in range(LANES):
            some |= coefficient[i, lane] != 0.0
        n += some
    return rows[:n].copy()


@kernel
def begin_with(vector: bool, loss: int, coefficient: Floats, held: NDArray[np.uint16]) -> None:
    # What the first epoch sees. With the logistic loss no alpha is ever 0: it sees everything.
    lines = coefficient.reshape(-1)
    for i in range(len(held)):
        if i % FIRST_SHARE == 0 or loss == LOGISTIC:
            held[i] = ALL_LANES
        else:
            held[i] = at_least(vector, lines, i, SMALLEST_COST)


@kernel
def descend_gram(
    loss: int,
    vector: bool,
    gram: Floats,  # (n, n padded to a multiple of 16) inner products of rows, bias² included
    coefficient: Floats,
    beta: Floats,  # (n, 16) out
    margins: Floats,  # (n, 16) scratch: what w·x would be
    state: Floats,
    tol: float,
    max_iter: int,
    n_lanes: int,
    seed: np.uint64,
) -> int:
    # The same on inner products: a row visit costs n instead of its non-zeros, which pays for long
    # rows in small clusters. Up to four changes are kept back and brought in together, as each
    # pass over `margins` is bound by memory. Hinge losses only; the caller derives W from beta.
    n = len(gram)
    start(loss, coefficient, beta, state, n_lanes)
    margins[:] = 0.0
    pending = np.zeros((4, LANES), np.float32)
    pending_rows = np.zeros(4, np.int32)
    n_pending = 0
    order = np.arange(n).astype(np.int32)
    random = seed
    zero = np.float32(0.0)
    still = np.float32(STILL * tol)
    for epoch in range(max_iter):
        random = shuffle(order, random)
        state[GRADIENT_MAX] = -HUGE
        state[GRADIENT_MIN] = HUGE
        for k in range(n):
            i = order[k]
            pending_row(vector, margins, gram, pending_rows, pending, n_pending, i, state, MARGIN)
            moved = step(
                vector,
                loss == HINGE,
                state,
                coefficient,
                beta,
                i,
                gram[i, i],
                zero,
                zero,
                ALL_LANES,
                still,
            )
            if moved & ALL_LANES != 0:
                pending_rows[n_pending] = i
                copy_row(vector, state, DELTA, pending, n_pending)
                n_pending += 1
                if n_pending == 4:
                    rank_update(vector, margins, gram, pending_rows, pending, n)
                    n_pending = 0
        if n_pending > 0:
            pending[n_pending:] = 0.0
            rank_update(vector, margins, gram, pending_rows, pending, n)
            n_pending = 0
        awake = live_lanes(state) & ~settled_lanes(state, tol)
        finish_lanes(state, awake)
        if awake == 0:
            return epoch + 1
    return max_iter


@kernel
def start(loss: int, coefficient: Floats, beta: Floats, state: Floats, n_lanes: int) -> None:
    state[:] = 0.0
    state[PER_UNIT] = NO_UNIT
    # A lane without rows has nothing to learn and is finished from the start.
    for i in range(len(coefficient)):
        for lane in range(n_lanes):
            if coefficient[i, lane] != 0.0:
                state[LIVE, lane] = 1.0
    beta[:] = 0.0
    if loss == LOGISTIC:
        for i in range(len(beta)):
            for lane in range(n_lanes):
                c = coefficient[i, lane]
                beta[i, lane] = (
                    math.copysign(min(1e-3 * abs(c), SMALLEST_ALPHA), c) if c != 0 else 0.0
                )


@kernel
def live_lanes(state: Floats) -> int:
    # Bit mask.
    mask = 0
    for lane in range(LANES):
        if state[LIVE, lane] > 0.0:
            mask |= 1 << lane
    return mask


@kernel
def settled_lanes(state: Floats, tol: float) -> int:
    # Bit mask of the lanes whose projected gradients of this epoch span no more than tol.
    mask = 0
    for lane in range(LANES):
        if state[GRADIENT_MAX, lane] - state[GRADIENT_MIN, lane] <= tol:
            mask |= 1 << lane
    return mask


@kernel
def finish_lanes(state: Floats, unfinished: int) -> None:
    for lane in range(LANES):
        if unfinished >> lane & 1 == 0:
            state[LIVE, lane] = 0.0


@inline_kernel
def list_lanes(mask: int, lanes: Indices) -> int:
    # Their numbers; of several, the first one again until they are a multiple of 4.
    rest = np.uint64(mask)
    if rest & (rest - np.uint64(1)) == 0 and rest != 0:  # most often there is one
        lanes[0] = lowest_bit(rest)
        return 1
    count = 0
    while rest != 0:
        lanes[count] = lowest_bit(rest)
        count += 1
        rest &= rest - np.uint64(1)
    while count > 1 and count & 3 != 0:
        lanes[count] = lanes[0]
        count += 1
    return count


@kernel
def shuffle(order: Indices, random: np.uint64) -> np.uint64:
    # Fisher-Yates on xorshift64; multiply-and-shift in place of a division.
    for i in range(len(order) - 1, 0, -1):
        random = random ^ (random << np.uint64(13))
        random = random ^ (random >> np.uint64(7))
        random = random ^ (random << np.uint64(17))
        j = ((random >> np.uint64(32)) * np.uint64(i + 1)) >> np.uint64(32)
        order[i], order[j] = order[j], order[i]
    return random


@kernel
def logistic_step(
    state: Floats,
    coefficient: Floats,
    beta: Floats,
    row: int,
    square: np.float32,
    own: np.float32,
    bias: np.float32,
    inner_tol: float,
) -> tuple[int, int]:
    # For each lane: Newton steps on the smaller one of alpha and c - alpha, guarded by a factor 0.1
    # where a step would leave (0, c).
    moved = 0
    n_steps = 0
    a = np.float64(square)
    for lane in range(LANES):
        signed_cost = np.float64(coefficient[row, lane])
        state[DELTA, lane] = 0.0
        if signed_cost == 0.0 or state[LIVE, lane] == 0.0:
            continue
        y = -1.0 if signed_cost < 0.0 else 1.0
        c = signed_cost * y
        alpha = beta[row, lane] * y
        b = state[MARGIN, lane] + state[DENSE, lane]
        b = y * (b + own * beta[row, lane] + bias * state[BIAS, lane])
        sign = 1.0
        old = alpha
        if 0.5 * a * (c - 2.0 * alpha) + b < 0.0:
            sign = -1.0
            old = c - alpha
        old = max(old, 1e-3 * SMALLEST_ALPHA * c)
        z = 0.1 * old if c - old < 0.5 * c else old
        gradient = a * (z - old) + sign * b + math.log(z / (c - z))
        state[GRADIENT_MAX, lane] = max(state[GRADIENT_MAX, lane], abs(gradient))
        state[GRADIENT_MIN, lane] = 0.0
        steps = 0
        while abs(gradient) >= inner_tol and steps < NEWTON_STEPS:
            trial = z - gradient / (a + c / (c - z) / z)
            z = 0.1 * z if trial <= 0.0 else trial
            gradient = a * (z - old) + sign * b + math.log(z / (c - z))
            steps += 1
        if steps > 0:
            n_steps += steps
            new = z if sign > 0.0 else c - z
            delta = np.float32((new - alpha) * y)
            beta[row, lane] += delta
            state[DELTA, lane] = delta
            state[BIAS, lane] += bias * delta
            if delta != 0.0:
                moved |= 1 << lane
    return moved, n_steps


@kernel
def dual_objective(
    loss: int,
    vector: bool,
    coefficient: Floats,
    beta: Floats,
    own: Floats,
    W: Floats,
    dense_W: Floats,  # of the dense part, in rows of 16 whatever their order
    state: Floats,
    n_lanes: int,
) -> float:
    # Value of the dual, summed over lanes: a lower bound of the primal, equal to it when solved.
    # Lanes without a label are all zeros.
    some = np.empty((1, LANES), np.float32)
    norm = 0.0
    for weights in (W, dense_W):
        for first in range(0, len(weights), SUM_BLOCK):
            squares(vector, weights, first, min(first + SUM_BLOCK, len(weights)), some, 0)
            for lane in range(LANES):
                norm += some[0, lane]
    for lane in range(LANES):
        norm += np.float64(state[BIAS, lane]) ** 2
    if loss == LOGISTIC:
        gain = entropy(coefficient, beta, n_lanes)
    else:
        penalty = np.float32(0.5 if loss == SQUARED_HINGE else 0.0)
        gain = dual_gain(coefficient.reshape(-1), beta.reshape(-1), penalty)
    for first in range(0, len(own), SUM_BLOCK):
        last = min(first + SUM_BLOCK, len(own))
        weighted_squares(vector, beta, own, first, last, some, 0)
        for lane in range(LANES):
            norm += some[0, lane]
    return gain - 0.5 * norm


@fast_kernel
def dual_gain(coefficient: Floats, beta: Floats, penalty: np.float32) -> float:
    # Sum of alpha - penalty * |coefficient| * alpha²; alpha is 0 where the coefficient is.
    total = 0.0
    for first in range(0, len(beta), SUM_BLOCK):
        block = np.float32(0.0)
        for j in range(first, min(first + SUM_BLOCK, len(beta))):
            alpha = abs(beta[j])
            block += alpha - penalty * abs(coefficient[j]) * alpha * alpha
        total += float(block)
    return total


@kernel
def entropy(coefficient: Floats, beta: Floats, n_lanes: int) -> float:
    # Of alpha within its bounds, for the logistic loss.
    total = 0.0
    for i in range(len(beta)):
        for lane in range(n_lanes):
            size = np.float64(abs(coefficient[i, lane]))
            alpha = np.float64(abs(beta[i, lane]))
            if size == 0.0:
                continue
            for part in (alpha, size - alpha):
                if part > 0.0:
                    total -= part * math.log(part / size)
    return total
