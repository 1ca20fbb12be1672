"""Weights of dense columns in bytes, beside numpy."""

import numpy as np
import pytest
from numba import njit
from numpy.testing import assert_allclose

from xmc_core.kernels import dense_lanes, simd
from xmc_core.kernels._compile import kernel
from xmc_core.kernels.coordinate_descent import list_lanes
from xmc_core.kernels.dense_rows import DenseRows
from xmc_core.kernels.lanes import (
    DELTA,
    DENSE,
    LANES,
    N_STATE,
    NO_UNIT,
    ORIGIN,
    PARTS,
    PER_UNIT,
    UNIT,
)

CHOICES = [[3], [1, 4, 9], [0, 2, 5, 7], [0, 1, 2, 3, 9, 12], list(range(8)), list(range(2, 15)),
           list(range(16))]  # fmt: skip


@kernel
def dots(vector, fine, B, C, mask, values, place, total, scale, state):
    lanes = np.zeros(LANES + 3, np.int32)
    count = list_lanes(mask, lanes)
    dense_lanes.lane_dots(
        vector, fine, B, C, lanes, count, mask, values, place, total, scale, values.shape[1], state
    )
    return count


def some_bytes(n_dims, seed=4):
    rng = np.random.default_rng(seed)
    B, C = rng.integers(28, 229, (2, n_dims // 64, LANES, 64)).astype(np.uint8)
    values = rng.integers(-127, 128, (3, n_dims)).astype(np.int8)
    state = np.zeros((N_STATE, LANES), np.float32)
    state[UNIT] = rng.random(LANES)
    return B, C, values, state


def as_bits(lanes):
    return sum(1 << lane for lane in lanes)


def by_lane(planes):
    return planes.astype(np.float64).transpose(1, 0, 2).reshape(LANES, -1)


def in_units(fine, B, C):
    low = by_lane(C) - 128 if fine else 0
    return by_lane(B) - 128 + low / 256


@pytest.mark.parametrize("vector", [True, False])
@pytest.mark.parametrize("fine", [True, False])
@pytest.mark.parametrize("n_dims", [64, 192])
@pytest.mark.parametrize("chosen", CHOICES, ids=len)
def test_products_of_bytes_are_what_numpy_says(chosen, n_dims, fine, vector):
    B, C, values, state = some_bytes(n_dims)
    total = int(values[2].astype(int).sum())
    count = dots(vector, fine, B, C, as_bits(chosen), values, 2, total, np.float32(0.5), state)
    assert count == 1 or (count % 4 == 0 and len(chosen) <= count < len(chosen) + 4)
    weights = state[UNIT][:, None] * in_units(fine, B, C)
    expected = 0.5 * weights @ values[2].astype(np.float64)
    assert_allclose(state[DENSE, chosen], expected[chosen], rtol=1e-5, atol=0.1)  # of thousands


@pytest.mark.skipif(not simd.HAVE_VECTOR_CODE, reason="llvmlite cannot express the vector code")
@pytest.mark.parametrize("fine", [True, False])
@pytest.mark.parametrize("chosen", CHOICES, ids=len)
def test_processors_without_products_of_bytes_say_the_same(chosen, fine):
    from xmc_core.kernels import dense_ir

    lanes = np.zeros(LANES + 3, np.int32)
    count = list_lanes(as_bits(chosen), lanes)
    one_by_one = dense_ir.make_lane_dots(in_fours=False, spreads=False)

    @njit
    def products(B, C, lanes, count, mask, values, total, scale, state):
        width = values.shape[1]
        one_by_one(fine, B, C, lanes, count, mask, values, 1, total, scale, width, state)

    B, C, values, state = some_bytes(128)
    B[0, :, :5], values[1, :5] = 255, [127, -127, 127, -127, 127]  # the largest products
    total = int(values[1].astype(int).sum())
    expected = state.copy()
    dots(False, fine, B, C, as_bits(chosen), values, 1, total, np.float32(0.5), expected)
    products(B, C, lanes, count, as_bits(chosen), values, total, np.float32(0.5), state)
    assert_allclose(state[DENSE, chosen], expected[DENSE, chosen], rtol=1e-5, atol=0.1)


@kernel
def moved(vector, fine, V, B, C, lanes, values, place, scale, state):
    dense_lanes.move_lanes(
        vector, fine, V, B, C, lanes, values, place, scale, values.shape[1], state
    )


@pytest.mark.parametrize("vector", [True, False])
@pytest.mark.parametrize("fine", [True, False])
@pytest.mark.parametrize("n_dims", [64, 192])
def test_weights_follow_and_bytes_stay_near_them_whatever_their_size(n_dims, fine, vector):
    rng = np.random.default_rng(5)
    values = rng.integers(-127, 128, (40, n_dims)).astype(np.int8)
    values[:, 0] = 127
    values[:, 5] = 0  # a column of zeros
    V = np.full((LANES, n_dims + LANES), ORIGIN, np.int32)
    B, C = np.full((2, n_dims // 64, LANES, 64), 128, np.uint8)
    state = np.zeros((N_STATE, LANES), np.float32)
    state[PER_UNIT] = NO_UNIT
    expected, lost = np.zeros((LANES, n_dims)), np.zeros(LANES)
    for round_ in range(300):
        # Small ones at first, then large ones of one sign, which outgrow every unit, then small.
        size = 10.0 ** (3 * np.sin(round_ / 40))
        chosen = np.flatnonzero(rng.random(LANES) < 0.3)
        state[DELTA] = size * (rng.random(LANES) - 0.2)
        row = rng.integers(len(values))
        lanes = as_bits(chosen.tolist())
        moved(vector, fine, V, B, C, lanes, values, row, np.float32(0.01), state)
        expected[chosen] += 0.01 * state[DELTA, chosen, None].astype(float) * values[row]
        weights = state[UNIT][:, None] * in_units(fine, B, C)
        lost[chosen] += (127 / 2 + 1) / PARTS * state[UNIT, chosen]  # step and weight are rounded
        room = (0.51 / 256 if fine else 0.51) * state[UNIT] + lost + 1e-6 * np.abs(expected).max()
        assert np.all(np.abs(weights - expected).max(axis=1) <= room)
    assert lost.max() < 0.2 * state[UNIT].max()
    assert np.abs(B.astype(int) - 128).max() <= 101
    assert np.all(np.abs(by_lane(B) - 128).max(axis=1) >= 12)  # units are not wasted
    kept = np.zeros((LANES, n_dims - 7), np.float32)
    dense_lanes.weights_in_order(V, state, kept)
    close = 1e-4 * np.abs(expected).max()
    assert_allclose(kept, expected[:, : n_dims - 7], rtol=1e-4, atol=close)


@pytest.mark.skipif(not simd.HAVE_VECTOR_CODE, reason="llvmlite cannot express the vector code")
@pytest.mark.parametrize("in_pairs", [True, False])
@pytest.mark.parametrize("fine", [True, False])
def test_all_forms_of_an_update_give_the_same_bytes(fine, in_pairs):
    from xmc_core.kernels import dense_ir

    if in_pairs and not dense_ir.ADDS_PRODUCTS:
        pytest.skip("this processor has no such instruction (AVX-512 VNNI)")
    B, C, values, _ = some_bytes(192)
    far = 90 * int(PARTS)
    rng = np.random.default_rng(6)
    V = ORIGIN + rng.integers(-far, far, (LANES, 192 + LANES)).astype(np.int32)
    found = []
    for form in (dense_lanes.plain_lane_add, dense_ir.make_lane_add(in_pairs)):

        @njit
        def add(V, B, C, step, form=form):
            return form(fine, V, B, C, 7, values, 1, step, 192)

        mine = V.copy(), B.copy(), C.copy()
        answers = [add(*mine, step) for step in (3000, -13000, 1)]
        assert set(answers) == {True, False}
        found.append((answers, *(array.tobytes() for array in mine)))
    assert found[0] == found[1]


def test_weights_are_sums_of_rows():
    _, _, values, _ = some_bytes(64)
    scales, nothing = np.array([0.5, 2, 0.1], np.float32), np.zeros(0, np.float32)
    dense = DenseRows(values, np.zeros(0, np.int32), scales, nothing, 0, 40)
    beta = np.random.default_rng(7).normal(size=(2, LANES)).astype(np.float32)
    out = np.ones((LANES, 40), np.float32)
    dense_lanes.weights_of_rows(dense, np.array([2, 0], np.int32), beta, out)
    E = scales[:, None] * values[:, :40].astype(np.float64)
    assert_allclose(out, beta.T @ E[[2, 0]], rtol=1e-4, atol=1e-4)
