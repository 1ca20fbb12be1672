"""Weights of dense columns in bytes, beside numpy."""

import numpy as np
import pytest
from numba import njit
from numpy.testing import assert_allclose, assert_array_equal

from xmc_core.kernels import dense_lanes, simd
from xmc_core.kernels._compile import kernel
from xmc_core.kernels.coordinate_descent import list_lanes
from xmc_core.kernels.lanes import DELTA, DENSE, LANES, N_STATE, UNIT

CHOICES = [[3], [1, 4, 9], [0, 2, 5, 7], [0, 1, 2, 3, 9, 12], list(range(8)), list(range(2, 15)),
           list(range(16))]  # fmt: skip


@kernel
def dots(vector, B, mask, values, place, total, scale, state):
    lanes = np.zeros(LANES + 3, np.int32)
    count = list_lanes(mask, lanes)
    dense_lanes.lane_dots(
        vector, B, lanes, count, mask, values, place, total, scale, values.shape[1], state
    )
    return count


def some_bytes(n_dims, seed=4):
    rng = np.random.default_rng(seed)
    B = rng.integers(28, 229, (LANES, n_dims + 64)).astype(np.uint8)
    values = rng.integers(-127, 128, (3, n_dims)).astype(np.int8)
    state = np.zeros((N_STATE, LANES), np.float32)
    state[UNIT] = rng.random(LANES)
    return B, values, state


def as_bits(lanes):
    return sum(1 << lane for lane in lanes)


@pytest.mark.parametrize("vector", [True, False])
@pytest.mark.parametrize("n_dims", [64, 192])
@pytest.mark.parametrize("chosen", CHOICES, ids=len)
def test_products_of_bytes_are_what_numpy_says(chosen, n_dims, vector):
    B, values, state = some_bytes(n_dims)
    total = int(values[2].astype(int).sum())
    count = dots(vector, B, as_bits(chosen), values, 2, total, np.float32(0.5), state)
    assert count == 1 or (count % 4 == 0 and len(chosen) <= count < len(chosen) + 4)
    weights = state[UNIT][:, None] * (B[:, :n_dims].astype(np.float64) - 128)
    expected = 0.5 * weights @ values[2].astype(np.float64)
    assert_allclose(state[DENSE, chosen], expected[chosen], rtol=1e-5, atol=1e-5)


@pytest.mark.skipif(not simd.HAVE_VECTOR_CODE, reason="llvmlite cannot express the vector code")
@pytest.mark.parametrize("chosen", CHOICES, ids=len)
def test_processors_without_products_of_bytes_say_the_same(chosen):
    from xmc_core.kernels import dense_ir

    lanes = np.zeros(LANES + 3, np.int32)
    count = list_lanes(as_bits(chosen), lanes)
    one_by_one = dense_ir.make_lane_dots(count, in_fours=False, spreads=False)

    @njit
    def products(B, lanes, count, mask, values, total, scale, state):
        one_by_one(B, lanes, count, mask, values, 1, total, scale, values.shape[1], state)

    B, values, state = some_bytes(128)
    B[:, :5], values[1, :5] = 255, [127, -127, 127, -127, 127]  # the largest products
    total = int(values[1].astype(int).sum())
    expected = state.copy()
    dots(False, B, as_bits(chosen), values, 1, total, np.float32(0.5), expected)
    products(B, lanes, count, as_bits(chosen), values, total, np.float32(0.5), state)
    assert_allclose(state[DENSE, chosen], expected[DENSE, chosen], rtol=1e-6)


@kernel
def moved(vector, V, B, lanes, values, place, scale, state):
    dense_lanes.move_lanes(vector, V, B, lanes, values, place, scale, values.shape[1], state)


@pytest.mark.parametrize("vector", [True, False])
@pytest.mark.parametrize("n_dims", [64, 192])
def test_weights_follow_and_bytes_stay_near_them_whatever_their_size(n_dims, vector):
    rng = np.random.default_rng(5)
    values = rng.integers(-127, 128, (40, n_dims)).astype(np.int8)
    values[:, 0] = 127
    values[:, 5] = 0  # a column of zeros
    V = np.zeros((LANES, n_dims + LANES), np.float32)
    B = np.full((LANES, n_dims + 64), 128, np.uint8)
    state = np.zeros((N_STATE, LANES), np.float32)
    expected = np.zeros((LANES, n_dims))
    for round_ in range(300):
        # Small ones at first, then large ones of one sign, which outgrow every unit, then small.
        size = 10.0 ** (3 * np.sin(round_ / 40))
        chosen = np.flatnonzero(rng.random(LANES) < 0.3)
        state[DELTA] = size * (rng.random(LANES) - 0.2)
        row = rng.integers(len(values))
        moved(vector, V, B, as_bits(chosen.tolist()), values, row, np.float32(0.01), state)
        expected[chosen] += 0.01 * state[DELTA, chosen, None].astype(float) * values[row]
        weights = state[UNIT][:, None] * (B[:, :n_dims].astype(np.float64) - 128)
        room = 0.51 * state[UNIT][:, None] + 1e-5 * np.abs(expected).max()
        assert np.all(np.abs(weights - expected) <= room)
    assert np.abs(B.astype(int) - 128).max() <= 101
    assert np.all(np.abs(B[:, :n_dims].astype(int) - 128).max(axis=1) >= 12)  # units are not wasted
    order = [dense_lanes.place_in_V(d) for d in range(n_dims)]
    assert sorted(order) == list(range(n_dims))
    assert_allclose(V[:, order], expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


@pytest.mark.skipif(not simd.HAVE_VECTOR_CODE, reason="llvmlite cannot express the vector code")
def test_both_forms_of_an_update_agree():
    B, values, _ = some_bytes(192)
    V = np.random.default_rng(6).normal(size=(LANES, 192 + LANES)).astype(np.float32)
    found = []
    for form in (dense_lanes.plain_lane_add, dense_lanes.vector_lane_add):

        @njit
        def add(V, B, change, form=form):
            return form(V, B, 7, values, 1, change, np.float32(20.0), 192)

        for change in (np.float32(1e-3), np.float32(-0.05)):
            mine = V.copy(), B.copy()
            found.append((add(*mine, change), *mine))
    for (far, W, C), (far_too, W_too, C_too) in zip(found[:2], found[2:], strict=True):
        assert far == far_too
        assert_allclose(W, W_too, rtol=1e-6, atol=1e-7)
        assert np.abs(C.astype(int) - C_too).max() <= 1  # where rounding is a tie
    assert [far for far, *_ in found[:2]] == [False, True]


@pytest.mark.parametrize("n_dims", [40, 64])
def test_the_exact_form_and_the_sum_over_rows_are_what_numpy_says(n_dims):
    _, values, state = some_bytes(64)
    values[:, n_dims:] = 0
    V = np.random.default_rng(7).normal(size=(LANES, 64)).astype(np.float32)
    before = V.copy()
    state[DELTA] = np.linspace(-1, 1, LANES)
    lanes = np.array([2, 5, 9, 11, 0, 0, 0, 0], np.int32)
    dense_lanes.exact_lane_dots(V, lanes, 4, values, 1, np.float32(0.5), 64, state)
    expected = 0.5 * V @ values[1].astype(np.float32)
    assert_allclose(state[DENSE, lanes[:4]], expected[lanes[:4]], rtol=1e-4, atol=1e-4)
    dense_lanes.exact_move_lanes(V, as_bits([3, 4]), values, 2, np.float32(0.25), state)
    before[3:5] += 0.25 * state[DELTA, 3:5, None] * values[2]
    assert_allclose(V, before, rtol=1e-6, atol=1e-6)
    assert_array_equal(V[5:], before[5:])
