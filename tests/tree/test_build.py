from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.sparse import csr_array, random_array

from tests.reference import features as reference
from tests.shared_data import shared_labels, shared_texts
from xmc_core.config import TfidfConfig, TreeConfig
from xmc_core.data.rows import Rows
from xmc_core.errors import DataError
from xmc_core.features.label_features import label_centroids
from xmc_core.features.tfidf import fit_tfidf
from xmc_core.tree import build_label_tree
from xmc_core.tree.kmeans import SUBTREE_ROWS, cluster_rows, prune_rows
from xmc_core.types import SparseRows


def unit_rows(n_rows: int, n_features: int, seed: int) -> SparseRows:
    """Sparse rows around a few topics, some of them empty."""
    random = np.random.default_rng(seed)
    topics = random_array((6, n_features), density=0.2, rng=random).toarray()
    noise = random_array((n_rows, n_features), density=0.1, rng=random).toarray()
    rows = topics[random.integers(6, size=n_rows)] * (random.random((n_rows, n_features)) < 0.3)
    rows += noise
    rows[random.random(n_rows) < 0.05] = 0
    return csr_array(reference.unit_rows(rows).astype(np.float32))


@pytest.mark.parametrize("levels", [1, 3, 4])
@pytest.mark.parametrize("seed", range(6))
def test_clusters_agree_with_the_reference(levels, seed):
    Z = unit_rows(100 + seed, 80, seed)
    order, bounds = cluster_rows(Z, levels, max_iter=20, seed=seed)
    expected = reference.clusters(Z.toarray().astype(float), levels, seed, 20)
    assert [part.tolist() for part in np.split(order, bounds[1:-1])] == expected


def test_large_and_small_nodes_agree_with_the_reference():
    Z = unit_rows(SUBTREE_ROWS + 300, 60, 9)
    order, bounds = cluster_rows(Z, 3, max_iter=6, seed=4)
    expected = reference.clusters(Z.toarray().astype(float), 3, 4, 6)
    assert [part.tolist() for part in np.split(order, bounds[1:-1])] == expected


def beside_an_embedding(Z: SparseRows, n_dims: int = 40) -> SparseRows:
    """Rows and as many dense columns, which bytes hold exactly; unit length in all."""
    values = np.random.default_rng(8).integers(-127, 128, (Z.shape[0], n_dims))
    values[:, 0] = 127
    values[:, 3] = 0  # stored all the same
    joined = np.hstack([Z.toarray().astype(float), values / 1000])
    stored = np.hstack([Z.toarray() != 0, np.ones_like(values, bool)])
    unit = reference.unit_rows(joined).astype(np.float32)
    pointer = np.concatenate([[0], stored.sum(axis=1).cumsum()])
    return csr_array((unit[stored], np.nonzero(stored)[1], pointer), shape=unit.shape)


@pytest.mark.parametrize("n_rows", [150, SUBTREE_ROWS + 200])
def test_dense_columns_lie_apart_and_clusters_agree_with_the_reference(n_rows):
    Z = beside_an_embedding(unit_rows(n_rows, 60, 3))
    parted = Rows.of(Z)
    assert parted.dense.n_dims == 40
    order, bounds = cluster_rows(parted.left, 3, dense=parted.dense, max_iter=6, seed=4)
    expected = reference.clusters(Z.toarray().astype(float), 3, 4, 6)
    assert [part.tolist() for part in np.split(order, bounds[1:-1])] == expected


def test_dense_columns_are_not_pruned():
    Z = beside_an_embedding(unit_rows(300, 60, 3))
    config = TreeConfig(max_leaf_size=40, max_iter=6, max_features=100)
    grown = build_label_tree(Z, config).slot_labels
    assert_array_equal(build_label_tree(Z, replace(config, max_features=5)).slot_labels, grown)


def test_is_identical_on_one_thread_and_on_many():
    Z = unit_rows(3 * SUBTREE_ROWS, 200, 1)
    config = TreeConfig(max_leaf_size=20, max_features=10)
    one = build_label_tree(Z, config, n_threads=1)
    many = build_label_tree(Z, config, n_threads=4)
    assert_array_equal(one.slot_labels, many.slot_labels)


def test_another_seed_grows_another_tree():
    Z = unit_rows(300, 80, 1)
    trees = [build_label_tree(Z, TreeConfig(max_leaf_size=20, seed=seed)) for seed in (0, 0, 1)]
    assert_array_equal(trees[0].slot_labels, trees[1].slot_labels)
    assert np.any(trees[0].slot_labels != trees[2].slot_labels)


@pytest.mark.parametrize("n_labels", [1, 7, 16, 17, 100, 257])
@pytest.mark.parametrize("max_leaf_size", [1, 2, 16])
def test_every_label_has_one_leaf_and_leaves_are_equal_in_size(n_labels, max_leaf_size):
    config = TreeConfig(max_leaf_size=max_leaf_size, branching=4)
    tree = build_label_tree(unit_rows(n_labels, 40, n_labels), config)
    assert_array_equal(np.sort(tree.slot_labels), np.arange(n_labels))
    sizes = np.diff(tree.pointers[-1])
    assert sizes.max() - sizes.min() <= 1
    assert sizes.min() >= 1
    assert sizes.max() <= max_leaf_size
    assert all(np.diff(pointer).max() <= 4 for pointer in tree.pointers[:-1])


def test_the_number_of_leaves_is_the_smallest_power_of_two_that_fits():
    Z = unit_rows(130, 40, 0)
    assert build_label_tree(Z, TreeConfig(max_leaf_size=65)).n_leaves == 2
    assert build_label_tree(Z, TreeConfig(max_leaf_size=64)).n_leaves == 4


def test_labels_that_fit_one_leaf_hang_below_the_root():
    tree = build_label_tree(unit_rows(10, 20, 0), TreeConfig(max_leaf_size=10))
    assert tree.level_sizes == (10,)
    assert tree.n_leaves == 1


def test_labels_without_features_are_spread_over_the_leaves():
    tree = build_label_tree(csr_array((64, 30), dtype=np.float32), TreeConfig(max_leaf_size=8))
    assert_array_equal(tree.slot_labels, np.arange(64))


def test_equal_labels_are_split_by_their_number():
    Z = csr_array(np.full((40, 4), 0.5, np.float32))
    tree = build_label_tree(Z, TreeConfig(max_leaf_size=10))
    assert_array_equal(tree.slot_labels, np.arange(40))


def test_like_labels_end_up_in_one_leaf():
    topics = np.tile(np.eye(2), (20, 4))  # label l is about topic l % 2
    noise = np.random.default_rng(0).random(topics.shape)
    Z = csr_array(reference.unit_rows(topics + noise).astype(np.float32))
    for seed in range(5):
        tree = build_label_tree(Z, TreeConfig(max_leaf_size=20, seed=seed))
        assert [len(set(tree.leaf_labels(leaf) % 2)) for leaf in range(2)] == [1, 1]


def test_equal_rows_are_not_taken_as_both_centres():
    """Most rows are the same; a pair of equal centres would split them by their number alone."""
    rows = np.tile([0.0, 0.6, 0.8], (20, 1))
    rows[[1, 18]] = [1.0, 0.0, 0.0]
    Z = csr_array(rows.astype(np.float32))
    for seed in range(5):
        tree = build_label_tree(Z, TreeConfig(max_leaf_size=10, seed=seed))
        leaves = [set(tree.leaf_labels(leaf).tolist()) for leaf in range(2)]
        assert any({1, 18} <= leaf for leaf in leaves)


@pytest.mark.parametrize("name", ["eurlex-titles"])
def test_leaves_of_real_labels_are_more_alike_than_chance(name):
    """The mean cosine of a label to its leaf's centre; 0.3 for shuffled leaves, 0.47 measured."""
    _, X = fit_tfidf(shared_texts(name), TfidfConfig())
    Z = label_centroids(shared_labels(name), X, max_features=256)
    tree = build_label_tree(Z, TreeConfig())
    centres = csr_array(tree.label_leaves().T @ Z)
    cohesion = np.sqrt(centres.multiply(centres).sum(axis=1)).sum() / tree.n_labels
    assert cohesion > 0.45


@pytest.mark.parametrize("max_features", [1, 3, 25])
def test_pruning_agrees_with_the_reference(max_features):
    Z = unit_rows(50, 60, 3)
    expected = reference.unit_rows(reference.strongest(Z.toarray().astype(float), max_features))
    pruned = prune_rows(Z, max_features)
    assert_allclose(pruned.toarray(), expected, atol=1e-6)
    assert np.diff(pruned.indptr).max() <= max_features


def test_rows_that_are_short_enough_are_not_copied():
    Z = unit_rows(50, 60, 3)
    assert prune_rows(Z, 60) is Z
    assert prune_rows(Z, 0) is Z


def test_any_sparse_matrix_of_label_features_will_do():
    Z = random_array((60, 300), density=0.1, format="csr", rng=np.random.default_rng(3))
    config = TreeConfig(max_leaf_size=5, max_features=10)
    wanted = build_label_tree(csr_array(Z), config).slot_labels
    for other in (Z.tocsc(), Z.tocoo(), Z.toarray()):
        assert_array_equal(build_label_tree(other, config).slot_labels, wanted)


def test_refuses_to_grow_a_tree_without_labels():
    with pytest.raises(DataError, match=r"at least one label"):
        build_label_tree(csr_array((0, 5), dtype=np.float32), TreeConfig())
