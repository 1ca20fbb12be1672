import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from xmc_core.kernels import simd
from xmc_core.kernels._compile import kernel
from xmc_core.kernels.lanes import DENSE, GRADIENT_MAX, GRADIENT_MIN, LANES, LIVE, MARGIN, N_STATE

BIAS = np.float32(0.7)
STILL = np.float32(0.3)


@kernel
def all_pieces(vector, hinge, W, ids, data, out, state, coefficient, beta, squares, own, F, gram):
    simd.dot(vector, W, ids, data, 2, len(ids), out, 1)
    simd.axpy(vector, W, ids, data, 2, len(ids), out, 1)
    masks = np.zeros(len(W) + len(beta), np.int64)
    for row in range(len(W)):
        masks[row] = simd.above(vector, W, row, np.float32(0.5))
    for row in range(len(beta)):
        state[MARGIN] = out[1] * np.float32(row - 5)
        masks[len(W) + row] = simd.step(
            vector,
            hinge,
            state,
            coefficient,
            beta,
            row,
            squares[row],
            own[row],
            BIAS,
            0xFFEF,
            STILL,
        )
    simd.squares(vector, F, 1, len(F), out, 0)
    simd.rank_update(vector, F, gram, ids[:4], beta[:4], len(F))
    return masks


def arguments(n_entries):
    rng = np.random.default_rng(3)

    def normal(*shape):
        return rng.normal(size=shape).astype(np.float32)

    state = np.zeros((N_STATE, LANES), np.float32)
    state[GRADIENT_MAX], state[GRADIENT_MIN] = -3e38, 3e38
    state[LIVE, :13] = 1
    state[DENSE] = normal(LANES)
    coefficient = normal(20, LANES)
    coefficient[rng.random(coefficient.shape) < 0.2] = 0
    beta = (np.sign(coefficient) * rng.random(coefficient.shape)).astype(np.float32)
    beta[rng.random(beta.shape) < 0.5] = 0
    beta = np.clip(beta, -np.abs(coefficient), np.abs(coefficient))
    ids = rng.permutation(30)[:n_entries].astype(np.int32)
    squares, own = np.abs(normal(20)), np.abs(normal(20))
    return [
        normal(30, LANES), ids, normal(n_entries), normal(2, LANES), state, coefficient, beta,
        squares, own, normal(30, LANES), normal(30, 32),
    ]  # fmt: skip


@pytest.mark.parametrize("hinge", [False, True])
@pytest.mark.parametrize("n_entries", [4, 5, 9, 22])
def test_vector_code_agrees_with_its_plain_twin(hinge, n_entries):
    fast, plain = arguments(n_entries), arguments(n_entries)
    fast_masks = all_pieces(True, hinge, *fast)
    plain_masks = all_pieces(False, hinge, *plain)
    assert_array_equal(fast_masks, plain_masks)
    for left, right in zip(fast, plain, strict=True):
        assert_allclose(left, right, rtol=1e-4, atol=1e-5)


def test_a_pair_with_a_small_gradient_stays_as_it_is():
    given = arguments(4)
    coefficient, beta, squares = given[5:8]
    before = beta.copy()
    masks = all_pieces(True, False, *given)[30:]
    moved = masks[:, None] >> np.arange(LANES) & 1 == 1
    assert_array_equal(beta != before, moved)
    assert moved.any()
    # Moves are gradient / curvature, unless alpha ends at 0; none is for a smaller gradient.
    curvature = squares[:, None] + np.abs(coefficient)
    inside = moved & (beta != 0)
    assert (np.abs(beta - before) * curvature)[inside].min() > STILL * 0.999


def test_the_vector_code_is_what_runs_here():
    assert simd.HAVE_VECTOR_CODE


def test_dot_and_axpy_are_what_numpy_says():
    W, ids, data, out, *rest = arguments(9)
    before = W.copy()
    all_pieces(True, False, W, ids, data, out, *rest)
    expected = data[2:] @ before[ids[2:]]
    assert_allclose(out[1], expected, rtol=1e-5, atol=1e-5)
    before[ids[2:]] += data[2:, None] * expected
    assert_allclose(W, before, rtol=1e-4, atol=1e-5)


def test_squares_are_what_numpy_says():
    _, _, _, out, *_, F, _ = everything = arguments(9)
    expected = (F[1:].astype(np.float64) ** 2).sum(axis=0)
    all_pieces(True, False, *everything)
    assert_allclose(out[0], expected, rtol=1e-5)


@kernel
def rows_of_a_tile(vector, F, gram, rows, delta, n, weights, out):
    simd.pending_row(vector, F, gram, rows, delta, n, 7, out, 0)
    simd.weighted_squares(vector, F, weights, 2, len(F), out, 1)
    simd.copy_row(vector, F, 4, out, 2)


@pytest.mark.parametrize("vector", [True, False])
@pytest.mark.parametrize("n", range(5))
def test_rows_of_a_tile_are_what_numpy_says(n, vector):
    rng = np.random.default_rng(5)
    F, gram, delta, weights = (
        rng.normal(size=shape).astype(np.float32)
        for shape in ((30, LANES), (30, 32), (4, LANES), 30)
    )
    rows = rng.permutation(30)[:4].astype(np.int32)
    out = np.zeros((4, LANES), np.float32)
    rows_of_a_tile(vector, F, gram, rows, delta, n, weights, out)
    assert_allclose(out[0], F[7] + gram[rows[:n], 7] @ delta[:n], rtol=1e-5, atol=1e-5)
    assert_allclose(out[1], weights[2:] @ F[2:] ** 2, rtol=1e-4, atol=1e-5)
    assert_array_equal(out[2], F[4])
    assert not out[3].any()


@kernel
def sixteen_products(vector, V, n_dims, out):
    simd.four_by_four(vector, V, 3, V, 8, n_dims, out)


@pytest.mark.parametrize("vector", [True, False])
@pytest.mark.parametrize("n_dims", [64, 192])
def test_four_by_four_are_what_numpy_says(n_dims, vector):
    V = np.random.default_rng(4).normal(size=(LANES, n_dims + LANES)).astype(np.float32)
    four = np.zeros(16, np.float32)
    sixteen_products(vector, V, n_dims, four)
    block = V[3:7, :n_dims] @ V[8:12, :n_dims].T
    assert_allclose(four.reshape(4, 4), block, rtol=1e-4, atol=1e-4)
