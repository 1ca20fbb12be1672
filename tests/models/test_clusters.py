import numpy as np
import pytest
from numpy.testing import assert_array_equal
from scipy.sparse import csr_array

from xmc_core.config import Config
from xmc_core.inference.reach import recall_of_beam
from xmc_core.models.clusters import find_clusters
from xmc_core.models.levels import fold_of_rows, held_out_beams, train_levels
from xmc_core.models.xr_linear import XRLinear, train_xr_linear
from xmc_core.tree import LabelTree

TOPICS, PER_TOPIC, N = 4, 5, 400
AMBIGUOUS = TOPICS * PER_TOPIC
"""A label of two topics, 0 and 2, that have nothing else in common."""

CONFIG = Config().replace(
    **{
        "disentangle.beam_size": 1,
        "disentangle.max_clusters": 2,
        "disentangle.capacity": 1.0,
        "inference.beam_size": 1,
    }
)


@pytest.fixture(scope="module", name="data")
def topics():
    """Documents of one topic each: its words, and one to three of its labels."""
    rng = np.random.default_rng(5)
    topic = rng.integers(0, TOPICS, N)
    X, Y = np.zeros((N, 12 * TOPICS), np.float32), np.zeros((N, AMBIGUOUS + 1), np.float32)
    for row, own in enumerate(topic):
        labels = rng.choice(PER_TOPIC, rng.integers(1, 4), replace=False) + own * PER_TOPIC
        Y[row, labels] = 1
        X[row, own * 12 + labels % PER_TOPIC] = 1
        X[row, own * 12 + rng.integers(PER_TOPIC, 12, 3)] = 1
        if own in (0, 2) and rng.random() < 0.4:
            Y[row, AMBIGUOUS] = 1
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    return csr_array(X), csr_array(Y), topic


@pytest.fixture(scope="module", name="tree")
def one_leaf_a_topic():
    leaves = [[*range(own * PER_TOPIC, (own + 1) * PER_TOPIC)] for own in range(TOPICS)]
    leaves[0].append(AMBIGUOUS)
    return LabelTree.from_leaves(leaves, branching=2)


def leaves_of(tree: LabelTree, label: int) -> list[int]:
    return [leaf for leaf in range(tree.n_leaves) if label in tree.leaf_labels(leaf)]


def test_a_label_of_two_topics_lands_in_both_clusters(data, tree):
    X, Y, topic = data
    found = find_clusters(X, Y, tree, CONFIG)
    assert leaves_of(found.tree, AMBIGUOUS) == [0, 2]
    assert all(len(leaves_of(found.tree, label)) == 1 for label in range(AMBIGUOUS))

    model = train_xr_linear(X, Y, CONFIG, tree=found.tree)
    named = model.predict(X, top_k=AMBIGUOUS + 1).labels
    from_home_alone = (
        train_xr_linear(X, Y, CONFIG, tree=tree).predict(X, top_k=AMBIGUOUS + 1).labels
    )
    theirs = np.flatnonzero((Y.toarray()[:, AMBIGUOUS] > 0) & (topic == 2))
    assert np.all((named[theirs] == AMBIGUOUS).any(axis=1))
    assert not np.any(from_home_alone[theirs] == AMBIGUOUS)


def test_one_cluster_a_label_lets_it_move_and_no_more(data, tree):
    X, Y, _ = data
    config = CONFIG.replace(**{"disentangle.max_clusters": 1})
    found = find_clusters(X, Y, tree, config).tree
    assert found.n_slots == tree.n_labels
    assert leaves_of(found, AMBIGUOUS) in ([0], [2])


def test_rounds_go_on_while_beams_reach_more(data):
    X, Y, _ = data
    shuffled = np.random.default_rng(3).permutation(AMBIGUOUS + 1)  # a bad tree to begin with
    tree = LabelTree.from_leaves(np.array_split(shuffled, TOPICS), branching=2)
    config = CONFIG.replace(**{"disentangle.rounds": 6})
    found = find_clusters(X, Y, tree, config)
    best = found.recalls.index(max(found.recalls))
    assert best >= 2
    assert list(found.recalls[: best + 1]) == sorted(set(found.recalls))
    assert len(found.recalls) - 1 in (best, best + 1)
    assert recall_of_beam(found.tree, Y, found.beams) == max(found.recalls)


def test_nothing_moves_where_the_beam_reaches_all(data, tree):
    X, Y, _ = data
    config = CONFIG.replace(**{"disentangle.beam_size": TOPICS, "disentangle.rounds": 3})
    assert find_clusters(X, Y, tree, config).tree is tree


def test_a_row_is_searched_by_rankers_that_have_not_seen_it(data, tree):
    X, Y, _ = data
    part = fold_of_rows(N, 2)
    beams = held_out_beams(X, Y, tree, CONFIG).toarray()
    for out in (0, 1):
        kept = part != out
        levels = train_levels(csr_array(X[kept]), csr_array(Y[kept]), tree, CONFIG)
        model = XRLinear(tree, tuple(weights for weights, _ in levels), CONFIG, X.shape[1])
        expected = model.predict_leaves(csr_array(X[~kept]), 1).toarray()
        assert_array_equal(beams[~kept], expected)


def test_with_one_part_rows_are_searched_by_rankers_that_know_them(data, tree):
    X, Y, _ = data
    config = CONFIG.replace(**{"rankers.folds": 1})
    expected = train_xr_linear(X, Y, config, tree=tree).predict_leaves(X, 1)
    assert_array_equal(held_out_beams(X, Y, tree, config).toarray(), expected.toarray())


@pytest.mark.parametrize("n_rows", [1, 2, 7, 100, 10_000])
@pytest.mark.parametrize("folds", [1, 2, 5])
def test_every_row_is_in_one_part_and_runs_stay_together(n_rows, folds):
    part = fold_of_rows(n_rows, folds)
    assert len(part) == n_rows
    assert set(part) == set(range(min(folds, n_rows)))
    if n_rows == 10_000:
        assert np.all(part.reshape(-1, 100) == part[::100, None])


def test_held_out_rows_become_negatives(data, tree):
    X, Y, _ = data
    kinds = {"rankers.negatives": [["teacher_forcing"], ["teacher_forcing", "held_out"]]}
    config = CONFIG.replace(**kinds)
    beams = held_out_beams(X, Y, tree, config)
    found = train_xr_linear(X, Y, config, tree=tree)
    given = CONFIG.replace(
        **{"rankers.negatives": [["teacher_forcing"], ["teacher_forcing", "given"]]}
    )
    expected = train_xr_linear(X, Y, given, tree=tree, given={tree.depth: beams})
    for one, other in zip(found.levels, expected.levels, strict=True):
        assert_array_equal(one.to_dense()[0], other.to_dense()[0])
    known = train_xr_linear(X, Y, config, tree=tree, beams=beams)
    assert_array_equal(known.levels[-1].to_dense()[0], found.levels[-1].to_dense()[0])


def test_the_same_on_one_thread_and_on_many(data, tree):
    X, Y, _ = data
    one, many = (
        find_clusters(X, Y, tree, CONFIG.replace(**{"n_threads": n, "disentangle.rounds": 2}))
        for n in (1, 4)
    )
    assert_array_equal(one.tree.slot_labels, many.tree.slot_labels)
    assert_array_equal(one.beams.data, many.beams.data)
    assert one.recalls == many.recalls


def test_rows_of_the_users_choice_do_not_stop_the_search_for_clusters(data):
    X, Y, _ = data
    kinds = {"rankers.negatives": [["given"]], "tree.max_leaf_size": 4, "tree.branching": 2}
    config = CONFIG.replace(**kinds)
    known = train_xr_linear(X, Y, CONFIG.replace(**{"tree.max_leaf_size": 4, "tree.branching": 2}))
    assert known.tree.depth > 2
    everything = {
        level: csr_array(np.ones((N, known.tree.level_sizes[level - 2]), np.float32))
        for level in range(2, known.tree.depth + 1)
    }
    model = train_xr_linear(X, Y, config, given=everything)
    assert len(model.tree.labels_without_leaf()) == 0
