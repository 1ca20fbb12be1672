import numpy as np
import pytest
from scipy.sparse import csr_array

from xmc_core.errors import ShapeError
from xmc_core.tree import LabelTree
from xmc_core.tree.describe import TreeGuide

TERMS = ["the", "wine", "red wine", "dog", "lazy dog"]
NAMES = ["merlot", "cabernet", "poodle", "beagle"]
TREE = LabelTree.from_leaves([[0, 1], [2, 3]], branching=2)
FEATURES = csr_array(
    np.array(
        [
            [0.5, 0.8, 0.3, 0.0, 0.0, 0.1],
            [0.5, 0.6, 0.1, 0.0, 0.0, 0.9],
            [0.5, 0.0, 0.0, 0.3, 0.8, 0.1],
            [0.5, 0.0, 0.0, 0.2, 0.6, 0.0],
        ],
        np.float32,
    )
)


GUIDE = TreeGuide(TREE, FEATURES, TERMS, NAMES)


def test_names_the_words_that_set_a_leaf_apart():
    assert GUIDE.leaf(0).words == ("wine",)
    assert GUIDE.leaf(1).words == ("lazy dog",)


def test_the_label_closest_to_the_centre_comes_first():
    guide = TreeGuide(TREE, FEATURES[:, :5], TERMS, NAMES)
    assert guide.leaf(1).labels == ("poodle", "beagle")


def test_reads_as_a_sentence_and_says_what_it_leaves_out():
    assert str(GUIDE.leaf(1, n_labels=1)) == "(lazy dog): poodle; and 1 more"


def test_an_upper_node_speaks_for_all_labels_below():
    tree = LabelTree.from_leaves([[0], [1], [2], [3], [0]], branching=2)
    guide = TreeGuide(tree, FEATURES, TERMS, NAMES)
    assert tree.level_sizes == (2, 3, 5, 5)
    left = guide.node(1, 0)
    assert set(left.labels) == set(NAMES)
    assert left.words == ()  # all labels are not apart from all labels
    assert guide.node(2, 1).words == ("lazy dog",)
    assert set(guide.node(2, 1).labels) == {"poodle", "beagle"}


def test_a_label_in_several_leaves_is_one_label_of_their_parent():
    tree = LabelTree.from_leaves([[0, 1], [1, 2], [3], [3]], branching=2)
    told = TreeGuide(tree, FEATURES, TERMS, NAMES).node(1, 0)
    assert told.n_labels == 3
    assert sorted(told.labels) == ["cabernet", "merlot", "poodle"]


def test_a_leaf_of_labels_without_features_has_no_words():
    guide = TreeGuide(TREE, csr_array((4, 5), dtype=np.float32), TERMS, NAMES)
    assert str(guide.leaf(0)) == "(no words): merlot; cabernet"


def test_an_empty_leaf_is_described_as_such():
    tree = LabelTree.from_leaves([[0, 1, 2, 3], []], branching=2)
    assert str(TreeGuide(tree, FEATURES, TERMS, NAMES).leaf(1)) == "(no words): no labels"


def test_refuses_names_that_do_not_fit_the_tree():
    with pytest.raises(ShapeError, match=r"4 labels, but there are 3 rows"):
        TreeGuide(TREE, FEATURES[:3], TERMS, NAMES)
    with pytest.raises(ShapeError, match=r"7 terms but only 6 label features"):
        TreeGuide(TREE, FEATURES, [*TERMS, "x", "y"], NAMES)
