"""What holds of every tree, whatever the labels look like."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_allclose, assert_array_equal
from scipy.sparse import csr_array

from tests.reference import features as reference
from xmc_core.config import TreeConfig
from xmc_core.features.label_features import label_centroids
from xmc_core.tree import build_label_tree
from xmc_core.tree.kmeans import cluster_rows

# Small whole numbers: empty rows, equal rows, equal columns and ties are common.
counts = st.integers(-1, 2).map(float)
shapes = st.tuples(st.integers(1, 70), st.integers(1, 10))
matrices = shapes.flatmap(lambda shape: arrays(np.float64, shape, elements=counts))
trees = st.builds(
    TreeConfig,
    branching=st.integers(2, 6),
    max_leaf_size=st.integers(1, 12),
    max_iter=st.integers(1, 5),
    max_features=st.integers(0, 4),
    seed=st.integers(0, 5),
)


def rows(matrix):
    return csr_array(reference.unit_rows(matrix).astype(np.float32))


@given(matrices, trees)
@settings(max_examples=200, deadline=None)
def test_every_label_has_one_place_in_leaves_that_differ_by_one_at_most(matrix, config):
    tree = build_label_tree(rows(matrix), config, n_threads=1)
    assert_array_equal(np.sort(tree.slot_labels), np.arange(len(matrix)))
    sizes = np.diff(tree.pointers[-1])
    assert 1 <= sizes.min() <= sizes.max() <= min(sizes.min() + 1, config.max_leaf_size)
    assert tree.n_leaves < 2 * max(1, len(matrix) / config.max_leaf_size)
    for pointer in tree.pointers[:-1]:
        assert 1 <= np.diff(pointer).min() <= np.diff(pointer).max() <= config.branching


@given(matrices, trees)
@settings(max_examples=100, deadline=None)
def test_the_same_labels_give_the_same_tree_on_any_number_of_threads(matrix, config):
    one = build_label_tree(rows(matrix), config, n_threads=1)
    many = build_label_tree(rows(matrix), config, n_threads=3)
    assert_array_equal(one.slot_labels, many.slot_labels)


@given(matrices, trees, st.integers(1, 4))
@settings(max_examples=100, deadline=None)
def test_features_that_no_label_has_change_nothing(matrix, config, more):
    wider = np.pad(matrix, ((0, 0), (more, more)))
    assert_array_equal(
        build_label_tree(rows(matrix), config).slot_labels,
        build_label_tree(rows(wider), config).slot_labels,
    )


@given(st.integers(1, 60), st.integers(0, 4), st.integers(0, 3))
@settings(max_examples=50, deadline=None)
def test_equal_labels_stay_in_the_order_of_their_numbers(n_labels, n_features, seed):
    Z = rows(np.ones((n_labels, n_features)))
    order, _ = cluster_rows(Z, 3, max_iter=4, seed=seed)
    assert_array_equal(order, np.arange(n_labels))


@st.composite
def samples(draw):
    n = draw(st.integers(1, 30))
    X = draw(arrays(np.float64, (n, draw(st.integers(1, 8))), elements=counts))
    Y = draw(arrays(np.float64, (n, draw(st.integers(1, 8))), elements=st.sampled_from([0.0, 1.0])))
    return X, Y


@given(samples(), st.integers(0, 5))
@settings(max_examples=200, deadline=None)
def test_centroids_agree_with_the_reference_on_ties_and_equal_columns(data, max_features):
    X, Y = data
    doubled = np.hstack([X, X])  # every column has an equal one
    Z = label_centroids(
        csr_array(Y.astype(np.float32)),
        csr_array(doubled.astype(np.float32)),
        max_features=max_features,
        n_threads=1,
    )
    expected = reference.label_centroids(Y, doubled, max_features)
    assert_allclose(Z.toarray(), expected, atol=1e-6)
