from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from scipy.sparse import csr_array

from xmc_core.errors import DataError, ShapeError, StoreError
from xmc_core.tree import LabelTree
from xmc_core.tree.label_tree import child_parents, group_neighbours, parents


@pytest.fixture
def tree() -> LabelTree:
    """Five leaves under two nodes; labels 2 and 6 live in two leaves, label 7 in none."""
    leaves = [[0, 1], [2, 3], [4, 2], [5, 6], [6]]
    return LabelTree.from_leaves(leaves, branching=3, n_labels=8)


def test_levels_group_neighbours_from_the_leaves_up(tree):
    assert tree.level_sizes == (2, 5, 9)
    assert [pointer.tolist() for pointer in tree.pointers] == [
        [0, 2],
        [0, 3, 5],
        [0, 2, 4, 6, 8, 9],
    ]
    assert (tree.depth, tree.n_leaves, tree.n_slots, tree.n_labels) == (3, 5, 9, 8)


@given(st.integers(1, 5000), st.integers(2, 40))
def test_every_node_has_one_parent_and_no_parent_has_too_many_children(n_nodes, branching):
    levels = group_neighbours(n_nodes, branching)
    assert len(levels[0]) == 2
    assert levels[-1][-1] == n_nodes
    for upper, lower in pairwise(levels):
        assert upper[-1] == len(lower) - 1
    for pointer in levels:
        children = np.diff(pointer)
        assert children.min() >= 1
        assert children.max() <= branching


def test_a_node_applies_where_a_label_below_it_does(tree):
    Y = np.zeros((4, 8), np.float32)
    Y[0, [0, 2]] = 1
    Y[1, 6] = 1
    Y[2, 7] = 1
    levels = [level.toarray() for level in tree.targets(csr_array(Y))]
    # One label at a time, one slot at a time.
    slots = np.zeros((4, 9))
    for sample in range(4):
        for slot, label in enumerate(tree.slot_labels):
            slots[sample, slot] = Y[sample, label]
    assert_array_equal(levels[2], slots)
    assert_array_equal(levels[1], np.add.reduceat(slots, tree.pointers[2][:-1], axis=1))
    assert_array_equal(levels[0], [[3, 0], [0, 2], [0, 0], [0, 0]])


def test_targets_refuse_labels_that_the_tree_does_not_know(tree):
    with pytest.raises(ShapeError, match=r"Y has 9 labels but the tree has 8"):
        tree.targets(csr_array(np.zeros((2, 9), np.float32)))


def test_tells_the_labels_of_a_leaf_and_the_leaves_of_a_label(tree):
    assert tree.leaf_labels(2).tolist() == [4, 2]
    assert tree.leaf_of_slots().tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4]
    leaves = tree.label_leaves()
    assert [leaves[[label]].indices.tolist() for label in (0, 2, 6, 7)] == [[0], [1, 2], [3, 4], []]


def test_tells_the_labels_that_could_never_be_predicted(tree):
    assert tree.labels_without_leaf().tolist() == [7]


def test_parents_of_children_as_a_list_and_as_a_matrix():
    pointer = np.array([0, 2, 2, 5], np.int64)
    assert parents(pointer).tolist() == [0, 0, 2, 2, 2]
    expected = [[1, 0, 0], [1, 0, 0], [0, 0, 1], [0, 0, 1], [0, 0, 1]]
    assert_array_equal(child_parents(pointer).toarray(), expected)


def test_a_saved_tree_comes_back(tree, tmp_path):
    tree.save(tmp_path / "tree")
    loaded = LabelTree.load(tmp_path / "tree")
    assert_array_equal(loaded.slot_labels, tree.slot_labels)
    assert loaded.n_labels == 8
    for one, other in zip(loaded.pointers, tree.pointers, strict=True):
        assert_array_equal(one, other)


def test_an_empty_leaf_is_allowed(tree, tmp_path):
    hollow = LabelTree.from_leaves([[0], [], [1]], branching=2)
    hollow.save(tmp_path)
    assert LabelTree.load(tmp_path).leaf_labels(1).tolist() == []
    assert hollow.targets(csr_array(np.eye(2, dtype=np.float32)))[1].toarray().tolist() == [
        [1, 0, 0],
        [0, 0, 1],
    ]


def test_refuses_a_label_twice_in_a_leaf():
    with pytest.raises(DataError, match=r"leaf 1 names a label twice"):
        LabelTree.from_leaves([[0], [1, 2, 1]], branching=2)


def test_refuses_levels_that_do_not_fit():
    root, bottom = np.array([0, 2], np.int64), np.array([0, 2, 3], np.int64)
    with pytest.raises(ShapeError, match=r"level 2 needs 3 ascending pointers .* got 2"):
        LabelTree((root, root), np.arange(3, dtype=np.int32), 3)
    with pytest.raises(ShapeError, match=r"has 3 slots but 2 slot labels"):
        LabelTree((root, bottom), np.arange(2, dtype=np.int32), 3)
    with pytest.raises(DataError, match=r"must lie in 0 .. 1"):
        LabelTree((root, bottom), np.arange(3, dtype=np.int32), 2)


def test_refuses_a_folder_of_another_kind(tmp_path):
    with pytest.raises(StoreError):
        LabelTree.load(tmp_path)


def test_knows_the_way_to_a_leaf_and_the_labels_below_a_node():
    tree = LabelTree.from_leaves([[0, 1], [2], [3, 4], [1], []], branching=2)
    assert tree.level_sizes == (2, 3, 5, 6)
    assert [tree.path(leaf) for leaf in (0, 2, 4)] == [[0, 0, 0, 0], [0, 0, 1, 2], [0, 1, 2, 4]]
    assert tree.labels_below(0, 0).tolist() == [0, 1, 2, 3, 4, 1]
    assert tree.labels_below(1, 1).tolist() == []
    assert tree.labels_below(2, 1).tolist() == [3, 4, 1]
    assert tree.labels_below(3, 0).tolist() == [0, 1]
