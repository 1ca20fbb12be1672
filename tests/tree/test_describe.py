import numpy as np
import pytest
from scipy.sparse import csr_array

from xmc_core.errors import ShapeError
from xmc_core.tree import LabelTree
from xmc_core.tree.describe import describe_leaf, describe_leaves

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


def test_names_the_words_that_set_a_leaf_apart():
    assert describe_leaf(TREE, 0, FEATURES, TERMS, NAMES).words == ("wine",)
    assert describe_leaf(TREE, 1, FEATURES, TERMS, NAMES).words == ("lazy dog",)


def test_the_label_closest_to_the_centre_comes_first():
    assert describe_leaf(TREE, 1, FEATURES[:, :5], TERMS, NAMES).labels == ("poodle", "beagle")


def test_reads_as_a_sentence_and_says_what_it_leaves_out():
    description = describe_leaf(TREE, 1, FEATURES, TERMS, NAMES, n_labels=1)
    assert str(description) == "leaf 1 (lazy dog): poodle; and 1 more"


def test_several_leaves_are_described_as_one_by_one():
    together = describe_leaves(TREE, [1, 0], FEATURES, TERMS, NAMES)
    assert together == [describe_leaf(TREE, leaf, FEATURES, TERMS, NAMES) for leaf in (1, 0)]


def test_a_leaf_of_labels_without_features_has_no_words():
    description = describe_leaf(TREE, 0, csr_array((4, 5), dtype=np.float32), TERMS, NAMES)
    assert str(description) == "leaf 0 (no words): merlot; cabernet"


def test_an_empty_leaf_is_described_as_such():
    tree = LabelTree.from_leaves([[0, 1, 2, 3], []], branching=2)
    assert str(describe_leaf(tree, 1, FEATURES, TERMS, NAMES)) == "leaf 1 (no words): no labels"


def test_refuses_names_that_do_not_fit_the_tree():
    with pytest.raises(ShapeError, match=r"4 labels, but there are 3 rows"):
        describe_leaf(TREE, 0, FEATURES[:3], TERMS, NAMES)
    with pytest.raises(ShapeError, match=r"7 terms but only 6 label features"):
        describe_leaf(TREE, 0, FEATURES, [*TERMS, "x", "y"], NAMES)
