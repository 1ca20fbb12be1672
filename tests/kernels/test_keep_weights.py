import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from tests.reference import linear as reference
from xmc_core.kernels.lanes import LANES
from xmc_core.kernels.sibling_rankers import keep_largest, keep_weights


def unpack(features, masks, weights, n_features):
    """(features, 16) dense."""
    dense, w = np.zeros((n_features, LANES), np.float32), 0
    for feature, mask in zip(features, masks, strict=True):
        for lane in range(LANES):
            if mask >> lane & 1:
                dense[feature, lane] = weights[w]
                w += 1
    assert w == len(weights)
    return dense


@pytest.mark.parametrize("vector", [True, False])
@pytest.mark.parametrize("threshold", [0.0, 0.3, 10.0])
def test_large_weights_are_kept_of_shared_and_of_single_features(threshold, vector):
    rng = np.random.default_rng(2)
    n, n_local, n_shared, n_features = 9, 40, 25, 60
    beta, W = (rng.normal(size=(k, LANES)).astype(np.float32) for k in (n, n_shared))
    W[rng.random(W.shape) < 0.3] = 0
    beta[0, 3], W[0, 5] = threshold, -threshold  # just enough, or nothing at all
    single_row = rng.integers(0, n, n_local - n_shared).astype(np.int32)
    single_value = rng.normal(size=n_local - n_shared).astype(np.float32)
    single_row[0], single_value[0] = 0, 1
    local = rng.choice(n_features, n_local, replace=False).astype(np.int32)
    features, masks = np.empty(n_local, np.int32), np.empty(n_local, np.uint16)
    before = np.array([7, 8], np.float32)
    weights, k, w = keep_weights(
        vector, local, n_shared, single_row, single_value, W, W[:0], n_features, beta,
        np.float32(threshold), features, masks, before, 2,
    )  # fmt: skip
    everything = np.vstack([W, beta[single_row] * single_value[:, None]])
    expected = np.zeros((n_features, LANES), np.float32)
    expected[local] = everything
    expected[np.abs(expected) < np.float32(threshold)] = 0
    assert_array_equal(weights[:2], before)
    assert_array_equal(features[:k], local[expected[local].any(axis=1)])
    assert np.all(masks[:k] > 0)
    assert_array_equal(unpack(features[:k], masks[:k], weights[2 : 2 + w], n_features), expected)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 30), st.integers(1, 12))
def test_the_largest_of_each_lane_stay_and_ties_go_to_the_first_features(seed, n, most):
    rng = np.random.default_rng(seed)
    dense = (rng.integers(-4, 5, (n, LANES)) * (rng.random((n, LANES)) < 0.7)).astype(np.float32)
    used = np.flatnonzero((dense != 0).any(axis=1)).astype(np.int32)
    masks = ((dense[used] != 0) @ (1 << np.arange(LANES))).astype(np.uint16)
    weights = dense[dense != 0]
    k, w = keep_largest(most, used, masks, weights)
    found = unpack(used[:k], masks[:k], weights[:w], n)
    assert_array_equal(found.T, reference.keep_largest(dense.T, most))
