import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from xmc_core.kernels import search_simd as simd
from xmc_core.kernels._compile import kernel


@kernel
def finds(vector, array, values):
    masks = np.zeros(len(values), np.int64)
    for i in range(len(values)):
        masks[i] = simd.find(vector, array, 3, values[i])
    return masks


@kernel
def lanes_at_least(vector, W, threshold):
    return np.array([simd.at_least(vector, W, row, threshold) for row in range(len(W) // 16)])


@kernel
def spread(vector, weights, starts, masks, values, out):
    simd.expand_dot(vector, weights, starts, masks, values, len(starts), out)


@kernel
def floats(bits, plain):
    out = np.empty(len(bits), np.float32)
    for i in range(len(bits)):
        out[i] = simd.plain_half(bits[i]) if plain else simd.half(bits[i])
    return out


def test_every_half_becomes_its_float():
    bits = np.arange(2**16, dtype=np.uint16)
    bits = bits[np.isfinite(bits.view(np.float16))]
    expected = bits.view(np.float16).astype(np.float32)
    assert_array_equal(floats(bits, True), expected)
    assert_array_equal(floats(bits, False), expected)


@pytest.mark.parametrize("vector", [False, True])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_finds_the_entries_that_are_equal(kind, vector):
    array = np.random.default_rng(0).integers(250, 256, 19).astype(kind)
    values = np.arange(248, 256)
    expected = [sum(1 << i for i in range(16) if array[3 + i] == v) for v in values]
    assert_array_equal(finds(vector, array, values), expected)


@pytest.mark.parametrize("vector", [False, True])
def test_names_the_lanes_that_reach_a_threshold(vector):
    W = np.random.default_rng(1).choice([-np.inf, 0.5, 1.0], 64).astype(np.float32)
    expected = [sum(1 << i for i in range(16) if line[i] >= 0.5) for line in W.reshape(4, 16)]
    assert_array_equal(lanes_at_least(vector, W, np.float32(0.5)), expected)


@pytest.mark.parametrize("vector", [False, True])
@pytest.mark.parametrize("n_hits", [0, 1, 2, 7])
@pytest.mark.parametrize("half", [False, True])
def test_packed_weights_go_to_their_lanes(half, n_hits, vector):
    rng = np.random.default_rng(2)
    masks = rng.integers(0, 2**16, 9).astype(np.uint16)
    masks[:2] = 0, 2**16 - 1
    lines = rng.normal(size=(9, 16)).astype(np.float16 if half else np.float32)
    lines[(masks[:, None] >> np.arange(16)) & 1 == 0] = 0
    starts = np.concatenate([[0], np.cumsum((lines != 0).sum(axis=1))])
    packed = lines[lines != 0]
    order = rng.permutation(9)[:n_hits]
    values = rng.normal(size=n_hits).astype(np.float32)
    out = np.full(16, 7, np.float32)
    weights = packed.view(np.uint16) if half else packed
    spread(vector, weights, starts[order], masks[order], values, out)
    assert_allclose(out, values @ lines[order].astype(np.float32), rtol=1e-5, atol=1e-5)


def test_this_machine_is_known():
    assert simd.target_features()
    assert not simd.EXPANDS or simd.CONVERTS_HALVES
