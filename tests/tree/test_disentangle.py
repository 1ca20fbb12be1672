import math
from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from scipy.sparse import csr_array, random_array

from tests.reference import features as reference
from xmc_core.config import DisentangleConfig
from xmc_core.errors import ShapeError
from xmc_core.tree import LabelTree, disentangle_tree
from xmc_core.tree import disentangle as module

N_LABELS = 60
LEAVES = [list(range(start, start + 5)) for start in range(0, N_LABELS, 5)]


def ones(n_rows: int, n_columns: int, density: float, seed: int):
    matrix = random_array((n_rows, n_columns), density=density, rng=np.random.default_rng(seed))
    return csr_array((matrix != 0).astype(np.float32))


def scored(beams, seed: int):
    """Scores that are sums of powers of two, so that their order does not hang on rounding."""
    rng = np.random.default_rng(seed)
    return csr_array((rng.integers(1, 9, beams.nnz) / 8, beams.indices, beams.indptr), beams.shape)


@pytest.fixture(scope="module")
def tree():
    return LabelTree.from_leaves(LEAVES, branching=4)


@pytest.fixture(scope="module", name="Y")
def labels():
    used = np.ones(N_LABELS, np.float32)
    used[[7, 30]] = 0  # labels without a sample
    Y = csr_array(ones(150, N_LABELS, 0.05, 1).multiply(used))
    Y.eliminate_zeros()
    Y.sort_indices()
    return Y


@pytest.fixture(scope="module")
def beams():
    return scored(ones(150, len(LEAVES), 0.3, 2), 5)


def leaves_of(tree: LabelTree) -> list[list[int]]:
    return [tree.leaf_labels(leaf).tolist() for leaf in range(tree.n_leaves)]


FREE = DisentangleConfig(max_clusters=2, min_gain=1, popularity=0.0, capacity=0.0, budget=0.0)


@pytest.mark.parametrize("popularity", [0.0, 0.5])
@pytest.mark.parametrize("min_gain", [1, 2])
@pytest.mark.parametrize("max_clusters", [1, 2, 3, 50])
def test_agrees_with_the_reference(tree, Y, beams, max_clusters, min_gain, popularity):
    expected = reference.disentangled(
        LEAVES, Y.toarray(), beams.toarray(), max_clusters, N_LABELS, min_gain, popularity
    )
    config = replace(FREE, max_clusters=max_clusters, min_gain=min_gain, popularity=popularity)
    assert leaves_of(disentangle_tree(tree, Y, beams, config)) == expected


def test_agrees_with_the_reference_on_a_tree_that_already_overlaps(tree, Y, beams):
    config = replace(FREE, max_clusters=3)
    once = disentangle_tree(tree, Y, beams, config)
    assert once.n_slots > N_LABELS
    others = scored(ones(150, len(LEAVES), 0.1, 3), 6)
    expected = reference.disentangled(leaves_of(once), Y.toarray(), others.toarray(), 3, N_LABELS)
    assert leaves_of(disentangle_tree(once, Y, others, config)) == expected


def test_a_second_leaf_is_for_samples_that_the_first_one_misses():
    tree = LabelTree.from_leaves([[0], [1], [2]], branching=4)
    Y = csr_array(np.array([[1, 0, 0]] * 5 + [[0, 1, 0], [0, 0, 1]], np.float32))
    beams = [[1, 1, 0], [1, 1, 0], [1, 1, 0], [0, 0, 1], [0, 0, 1], [0, 1, 0], [0, 0, 1]]
    config = replace(FREE, min_gain=2)
    result = disentangle_tree(tree, Y, csr_array(np.array(beams, np.float32)), config)
    assert leaves_of(result) == [[0], [1], [0, 2]]  # 1 meets three samples, all of them at home
    stricter = replace(FREE, min_gain=3)
    result = disentangle_tree(tree, Y, csr_array(np.array(beams, np.float32)), stricter)
    assert leaves_of(result) == [[0], [1], [2]]


def test_a_bound_that_is_never_reached_changes_nothing(tree, Y, beams):
    free = disentangle_tree(tree, Y, beams, DisentangleConfig(max_clusters=2, capacity=0.0))
    bounded = disentangle_tree(tree, Y, beams, DisentangleConfig(max_clusters=2, capacity=50.0))
    assert leaves_of(free) == leaves_of(bounded)


@pytest.mark.parametrize("own_room", [False, True])
@pytest.mark.parametrize("capacity", [0.01, 0.2, 1.0])
@pytest.mark.parametrize("max_clusters", [1, 2])
def test_no_leaf_exceeds_its_capacity_and_no_label_is_lost(
    tree, Y, max_clusters, capacity, own_room
):
    crowded = ones(150, len(LEAVES), 0.05, 4).toarray()
    crowded[:, 0] = 1  # every beam goes to leaf 0
    config = DisentangleConfig(
        max_clusters=max_clusters, min_gain=1, capacity=capacity, budget=0.0, own_room=own_room
    )
    result = disentangle_tree(tree, Y, csr_array(crowded), config)
    share = (1 + capacity) * N_LABELS / len(LEAVES)
    largest = np.diff(result.pointers[-1]).max()
    if own_room:  # labels in leaf 0 are covered by it, and nobody wants a second place there
        assert math.ceil(share) <= largest <= math.ceil(max_clusters * share)
    else:
        assert largest == math.ceil(max_clusters * share)
    assert len(result.labels_without_leaf()) == 0
    assert np.diff(result.label_leaves().indptr).max() <= max_clusters


def test_second_clusters_may_have_room_of_their_own():
    # Five labels want leaf 0 alone; 4 wants leaf 2 for four of its samples and leaf 0 for three.
    tree = LabelTree.from_leaves([[0, 1], [2, 3], [4, 5]], branching=4)
    named = [0, 1, 2, 3, 5] * 2 + [4] * 7
    Y = csr_array(np.eye(6, dtype=np.float32)[named])
    beams = csr_array(np.array([[1, 0, 0]] * 10 + [[0, 0, 1]] * 4 + [[1, 0, 0]] * 3, np.float32))
    config = replace(FREE, min_gain=3, capacity=1e-6)

    def in_leaf_0(own_room):
        result = disentangle_tree(tree, Y, beams, replace(config, own_room=own_room))
        return result.leaf_labels(0).tolist()

    assert in_leaf_0(False) == [0, 1, 2, 3, 5]  # five places: 2 * 2, and a little more
    assert in_leaf_0(True) == [0, 1, 2, 4]  # three for first clusters


@pytest.fixture(scope="module")
def crowd():
    """300 labels in 20 leaves of 15, and beams that hold the first leaves more often."""
    tree = LabelTree.from_leaves([list(range(n, n + 15)) for n in range(0, 300, 15)], branching=5)
    Y = ones(900, 300, 0.02, 7)
    rng = np.random.default_rng(8)
    beams = csr_array((rng.random((900, 20)) < np.linspace(0.5, 0.05, 20)).astype(np.float32))
    return tree, Y, scored(beams, 9)


def looks(tree: LabelTree, beams: csr_array) -> float:
    """Tiles of sixteen children that all beams look at: at the root, at each of its four nodes of
    five leaves, and at the leaves that they hold."""
    held = np.bincount(beams.indices, minlength=tree.n_leaves)
    asking = np.count_nonzero(np.diff(beams.indptr))
    return float(5 * asking + held @ np.ceil(np.diff(tree.pointers[-1]) / 16))


@pytest.mark.parametrize("capacity", [0.0, 1.0])
@pytest.mark.parametrize("max_clusters", [1, 2])
def test_beams_hold_no_more_tiles_than_the_budget_allows(crowd, max_clusters, capacity):
    beams = crowd[2]
    config = replace(FREE, max_clusters=max_clusters, capacity=capacity)
    free = looks(disentangle_tree(*crowd, config), beams)
    equal = looks(crowd[0], beams)
    spent = []
    for budget in (0.01, 0.05, 0.15):
        result = disentangle_tree(*crowd, replace(config, budget=budget))
        assert len(result.labels_without_leaf()) == 0
        spent.append(looks(result, beams) / equal - 1)
        assert spent[-1] <= budget
    assert spent == sorted(spent)
    assert 0.1 < spent[-1] < free / equal - 1


def test_a_budget_that_pays_for_everything_changes_nothing(crowd):
    config = replace(FREE, capacity=1.0)
    all_paid = disentangle_tree(*crowd, replace(config, budget=100.0))
    assert leaves_of(all_paid) == leaves_of(disentangle_tree(*crowd, config))


def test_places_beyond_a_tile_go_where_they_give_most_for_their_cost():
    # Eighteen labels want each of the first two leaves. A hundred more beams hold the second one.
    tree = LabelTree.from_leaves(
        [list(range(16)), list(range(16, 32)), [32, 33, 34, 35]], branching=3
    )
    wanted = [*range(16), 32, 33, *range(16, 32), 34, 35]
    Y = csr_array(np.vstack([np.eye(36)[wanted], np.zeros((100, 36))]).astype(np.float32))
    beams = np.repeat(np.eye(3)[[0, 1, 1]], [18, 18, 100], axis=0).astype(np.float32)
    config = replace(FREE, max_clusters=1, budget=0.2)
    result = disentangle_tree(tree, Y, csr_array(beams), config)
    assert [len(leaf) for leaf in leaves_of(result)] == [18, 16, 2]


def test_a_label_that_finds_no_room_goes_to_the_nearest_leaf_that_has_some():
    tree = LabelTree.from_leaves([[0, 1], [2, 3], [4, 5]], branching=4)
    Y = csr_array(np.eye(6, dtype=np.float32))
    beams = csr_array(np.array([[1, 0, 0]] * 6, np.float32))
    config = DisentangleConfig(max_clusters=1, capacity=0.5)
    result = disentangle_tree(tree, Y, beams, config)
    assert leaves_of(result) == [[0, 1, 2], [3], [4, 5]]


def test_no_leaf_names_a_label_twice_and_labels_ascend(tree, Y, beams):
    for config in (DisentangleConfig(max_clusters=4), DisentangleConfig(capacity=0.1)):
        for leaf in leaves_of(disentangle_tree(tree, Y, beams, config)):
            assert leaf == sorted(set(leaf))


def test_the_upper_levels_stay(tree, Y, beams):
    result = disentangle_tree(tree, Y, beams, DisentangleConfig())
    assert result.level_sizes[:-1] == tree.level_sizes[:-1]
    for one, other in zip(result.pointers[:-1], tree.pointers[:-1], strict=True):
        assert_array_equal(one, other)


def test_labels_that_no_beam_meets_stay_at_home(tree, Y):
    nothing = csr_array((150, len(LEAVES)), dtype=np.float32)
    assert leaves_of(disentangle_tree(tree, Y, nothing, DisentangleConfig())) == LEAVES
    bounded = DisentangleConfig(capacity=0.1)
    assert leaves_of(disentangle_tree(tree, Y, nothing, bounded)) == LEAVES


def test_equal_counts_go_by_score_then_home_then_to_the_smaller_leaf():
    tree = LabelTree.from_leaves([[0], [1], [2]], branching=4)
    Y = csr_array(np.eye(3, dtype=np.float32))
    everywhere = csr_array(np.ones((3, 3), np.float32))
    assert leaves_of(disentangle_tree(tree, Y, everywhere, FREE)) == [[0], [1], [2]]
    elsewhere = csr_array(np.array([[0, 1, 1], [1, 0, 1], [0.5, 1, 0]], np.float32))
    assert leaves_of(disentangle_tree(tree, Y, elsewhere, FREE)) == [[1], [0, 2], []]


def test_a_leaf_that_no_label_wants_is_left_empty():
    tree = LabelTree.from_leaves([[0], [1]], branching=4)
    Y = csr_array(np.eye(2, dtype=np.float32))
    beams = csr_array(np.array([[1, 0], [1, 0]], np.float32))
    result = disentangle_tree(tree, Y, beams, DisentangleConfig(capacity=0.0))
    assert leaves_of(result) == [[0, 1], []]


def test_is_identical_on_one_thread_and_on_many(tree, Y, beams, monkeypatch):
    monkeypatch.setattr(module, "BLOCK_LABELS", 7)
    config = DisentangleConfig(max_clusters=3)
    one = disentangle_tree(tree, Y, beams, config, n_threads=1)
    many = disentangle_tree(tree, Y, beams, config, n_threads=4)
    assert leaves_of(one) == leaves_of(many)


def test_names_the_sizes_that_do_not_match(tree, Y, beams):
    with pytest.raises(ShapeError, match=r"Y has 59 labels but the tree has 60"):
        disentangle_tree(tree, Y[:, 1:], beams, DisentangleConfig())
    with pytest.raises(ShapeError, match=r"beams has 11 leaves but the tree has 12"):
        disentangle_tree(tree, Y, beams[:, 1:], DisentangleConfig())
    with pytest.raises(ShapeError, match=r"Y has 150 samples but beams has 149"):
        disentangle_tree(tree, Y, beams[1:], DisentangleConfig())


def test_every_label_needs_a_leaf_to_start_from():
    tree = LabelTree.from_leaves([[0, 1], [3]], branching=2, n_labels=5)
    Y, beams = csr_array(np.ones((2, 5), np.float32)), csr_array(np.ones((2, 2), np.float32))
    with pytest.raises(ShapeError, match="2 of 5 labels are in no leaf of the tree, such as label"):
        disentangle_tree(tree, Y, beams, DisentangleConfig())
