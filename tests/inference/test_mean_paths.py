import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.sparse import csr_array, random_array, vstack

from tests.inference.test_beam import assert_agrees
from tests.rankers.test_weights import chunked
from tests.reference import linear as reference
from xmc_core.config import Config, InferenceConfig
from xmc_core.data import Predictions
from xmc_core.errors import ConfigError, ShapeError
from xmc_core.inference import mean_paths as module
from xmc_core.inference.beam import Searcher, allowed_nodes
from xmc_core.inference.mean_paths import MeanSearcher, make_searcher
from xmc_core.models import XRLinear, train_xr_linear
from xmc_core.tree import LabelTree

N, D, L = 90, 60, 100
POINTERS = (
    np.array([0, 5]),
    np.array([0, 16, 20, 20, 36, 40]),  # a node without children
    np.concatenate([np.arange(0, 160, 4), [190]]),  # one wide leaf
)
SLOT_LABELS = np.concatenate(
    [
        np.arange(L),
        np.random.default_rng(1).permutation(L)[:60],
        np.random.default_rng(2).permutation(L)[:30],
    ]
).astype(np.int32)
"""One to three leaves a label, none twice."""

KINDS = [
    (("l3-hinge",) * 3, 0.0),
    (("l1-hinge", "l2-hinge", "l4-hinge"), 0.0),
    (("sigmoid",) * 3, 0.0),
    (("l3-hinge", "l3-hinge", "none"), 0.0),
    (("l3-hinge", "l3-hinge", "none"), 0.3),
    (("sigmoid", "sigmoid", "none"), 0.05),
    (("sigmoid", "none", "l2-hinge"), 0.0),
    (("none", "l3-hinge", "sigmoid"), 0.0),
    (("none",) * 3, 0.0),
]


@pytest.fixture(scope="module", name="X")
def samples():
    X = random_array((N, D), density=0.2, rng=np.random.default_rng(11)).toarray()
    X[[0, 40]] = 0  # rows without features
    return csr_array(X.astype(np.float32))


@pytest.fixture(scope="module", name="levels")
def rankers():
    return levels_with(np.random.default_rng(12), POINTERS, SLOT_LABELS)


def levels_with(rng, pointers, slot_labels, values=None):
    """Levels in which all slots of a label have the weights of its first."""
    levels = []
    for pointer in pointers:
        shape = (pointer[-1], D)
        W = rng.normal(size=shape) * (rng.random(shape) < 0.5)
        b = rng.normal(size=pointer[-1]) * 0.3
        if values is not None:
            W, b = rng.choice(values, shape), rng.choice(values, pointer[-1])
        if pointer is pointers[-1]:
            _, first, name = np.unique(slot_labels, return_index=True, return_inverse=True)
            W, b = W[first[name]], b[first[name]]
        levels.append(chunked(W.astype(np.float32), b.astype(np.float32), pointer, "single"))
    return levels


def searcher(levels, paths="mean", *, slot_labels=SLOT_LABELS, n_labels=L, **changes):
    how = {"post_processor": ("l3-hinge",), **changes}
    return make_searcher(paths, levels, slot_labels=slot_labels, n_labels=n_labels, **how)


def search(X, levels, paths="mean", *, beam_size=12, top_k=8, n_threads=1, vector=True, **changes):
    return searcher(levels, paths, **changes).search(
        X, beam_size=beam_size, top_k=top_k, n_threads=n_threads, vector=vector
    )


def expected(X, levels, post_processor, *, slot_labels=SLOT_LABELS, **how):
    dense = [(level.pointer, *level.to_dense()) for level in levels]
    return [
        reference.beam_search(
            x, dense, post_processor=post_processor, slot_labels=slot_labels, paths="mean", **how
        )
        for x in X.toarray().astype(float)
    ]


def all_pairs(found, n_labels=L):
    indptr = np.arange(len(found.labels) + 1) * n_labels
    ones = np.ones(found.labels.size)
    return csr_array((ones, found.labels.reshape(-1), indptr), (len(found.labels), n_labels))


@pytest.mark.parametrize("n_rows", [N, 7, 1])
@pytest.mark.parametrize("top_k", [1, 8, 60])  # 60: for some rows more than a beam reaches
@pytest.mark.parametrize(("post_processor", "path_weight"), KINDS)
def test_agrees_with_the_reference(X, levels, post_processor, path_weight, top_k, n_rows):
    how = {"path_weight": path_weight, "top_k": top_k, "beam_size": 12}
    found = search(X[:n_rows], levels, post_processor=post_processor, **how)
    wanted = expected(X[:n_rows], levels, post_processor, **how)
    assert top_k < 60 or n_rows < N or min(map(len, wanted)) < 60
    assert_agrees(found, wanted)


@pytest.mark.parametrize(("post_processor", "path_weight"), KINDS)
def test_it_differs_from_the_best_path_unless_the_path_does_not_count(
    X, levels, post_processor, path_weight
):
    how = {"post_processor": post_processor, "path_weight": path_weight}
    best, mean = (search(X, levels, paths, **how) for paths in ("best", "mean"))
    counts = post_processor[-1] != "none" or path_weight > 0
    assert np.any(best.labels != mean.labels) == counts
    assert np.any(best.scores != mean.scores) == counts


@pytest.mark.parametrize("name", ["sigmoid", "l1-hinge", "l2-hinge", "l3-hinge", "l4-hinge"])
def test_a_log_post_processor_ranks_the_same_and_gives_logarithms(X, levels, name):
    usual = search(X, levels, post_processor=(name,))
    logs = search(X, levels, post_processor=(f"log-{name}",))
    assert_array_equal(logs.labels, usual.labels)
    assert_allclose(np.exp(logs.scores), usual.scores, rtol=1e-5, atol=1e-44)
    assert logs.scores.max() <= 0


def test_scores_that_round_to_zero_are_ranked_by_their_logarithms(X, levels):
    far = csr_array(X * np.float32(40))
    usual = search(far, levels, post_processor=("l4-hinge",), top_k=60)
    logs = search(far, levels, post_processor=("log-l4-hinge",), top_k=60)
    assert np.any(usual.scores == 0)
    assert_array_equal(usual.labels, logs.labels)


def test_labels_with_one_leaf_in_the_beam_keep_their_score(X, levels):
    how = {"post_processor": ("l3-hinge", "l3-hinge", "none"), "path_weight": 0.2, "top_k": L}
    best, mean = (search(X, levels, paths, **how) for paths in ("best", "mean"))
    upper = Searcher(levels[:2], post_processor=("l3-hinge",), slot_labels=None, n_labels=40)
    leaves = upper.search(X, beam_size=12, top_k=12, n_threads=1)
    leaf_of = np.repeat(np.arange(40), np.diff(POINTERS[-1]))
    n_lower = 0
    for row in range(N):
        held = np.isin(leaf_of, leaves.labels[row])
        several = np.bincount(SLOT_LABELS[held], minlength=L) > 1
        scores = [dict(zip(p.labels[row], p.scores[row], strict=True)) for p in (best, mean)]
        assert scores[0].keys() == scores[1].keys()
        for label in scores[0].keys() - {-1}:
            assert scores[1][label] <= scores[0][label]
            assert several[label] or scores[1][label] == scores[0][label]
            n_lower += scores[1][label] < scores[0][label]
    assert n_lower > 50


@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("changes", [{"BLOCK_ROWS": 7, "ALONE": 0}, {}])
def test_rows_get_the_same_bits_alone_in_any_company_and_on_any_threads(
    X, levels, monkeypatch, changes, dense
):
    for name, value in changes.items():
        monkeypatch.setattr(module, name, value)
    how = {"post_processor": ("sigmoid", "l3-hinge", "none"), "path_weight": 0.3, "top_k": 3}
    rows = X.toarray() if dense else X
    usual = search(X, levels, **how)
    plenty = np.vstack([rows] * 5) if dense else csr_array(vstack([rows] * 5))
    for n_threads in (1, 2, 7):
        found = search(plenty, levels, n_threads=n_threads, **how)
        assert_array_equal(found.labels, np.vstack([usual.labels] * 5))
        assert_array_equal(found.scores, np.vstack([usual.scores] * 5))
    for row in range(0, N, 9):
        alone = search(rows[row : row + 1], levels, **how)
        assert_array_equal(alone.labels[0], usual.labels[row])
        assert_array_equal(alone.scores[0], usual.scores[row])


def test_plain_code_gives_the_same_labels(X, levels):
    fast, plain = search(X, levels), search(X, levels, vector=False)
    assert_array_equal(fast.labels, plain.labels)
    assert_allclose(fast.scores, plain.scores, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("post_processor", "path_weight"), KINDS)
def test_scores_of_pairs_are_those_of_a_beam_that_keeps_everything(
    X, levels, post_processor, path_weight
):
    whole = searcher(levels, post_processor=post_processor, path_weight=path_weight)
    found = whole.search(X, beam_size=40, top_k=L, n_threads=1)
    assert found.labels.min() >= 0
    scores = whole.score(X, all_pairs(found), n_threads=2)
    assert_array_equal(scores.indices, found.labels.reshape(-1))
    assert_array_equal(scores.data, found.scores.reshape(-1))
    few = csr_array(random_array((N, L), density=0.03, rng=np.random.default_rng(1)))
    few.data[:] = 1
    assert_array_equal(
        whole.score(X.toarray(), few, n_threads=1).toarray(), scores.toarray() * few.toarray()
    )


def test_pairs_of_a_label_in_no_leaf_have_no_score_and_their_shape_is_checked(X, levels):
    whole = searcher(levels, n_labels=L + 1)
    pairs = csr_array((np.ones(2), ([3, 4], [L, 5])), (N, L + 1))
    scores = whole.score(X, pairs, n_threads=1)
    assert scores.data[0] == -np.inf
    assert scores.data[1] > 0
    with pytest.raises(ShapeError, match=r"pairs are \(90, 99\), expected \(90, 101\)"):
        whole.score(X, csr_array((N, 99), dtype=np.float32), n_threads=1)


def test_an_allow_list_holds_in_the_beam_too(X, levels):
    labels = np.random.default_rng(3).permutation(L)[:12]
    allowed = allowed_nodes(levels, SLOT_LABELS, labels)
    found = search(X, levels, allowed=allowed, beam_size=40, top_k=20)
    everything = expected(X, levels, ["l3-hinge"] * 3, beam_size=40, top_k=L)
    wanted = [[pair for pair in row if pair[0] in labels] for row in everything]
    assert {len(row) for row in wanted} == {12}
    assert_agrees(found, wanted)


def test_an_allow_list_narrows_the_beam_whose_leaves_count(X, levels):
    labels = np.random.default_rng(3).permutation(L)[:12]
    allowed = allowed_nodes(levels, SLOT_LABELS, labels)
    found = search(X, levels, allowed=allowed, beam_size=6, top_k=20)
    # The reference knows no such list: other nodes are made so bad that they come last.
    barred = [
        chunked(level.to_dense()[0], np.where(flags, level.biases, -50), level.pointer, "single")
        for level, flags in zip(levels[:2], allowed, strict=False)
    ]
    everything = expected(X, [*barred, levels[2]], ["l3-hinge"] * 3, beam_size=6, top_k=L)
    wanted = [[pair for pair in row if pair[0] in labels] for row in everything]
    assert max(map(len, wanted)) < 12
    assert_agrees(found, wanted)
    assert np.any(
        found.scores != search(X, levels, "best", allowed=allowed, beam_size=6, top_k=20).scores
    )


def test_the_beam_is_that_of_the_search_where_products_tie_but_their_logarithms_do_not():
    """Eight nodes of sigmoid(40) or more, each 1.0: the first two are kept, not the largest."""
    pointers = (np.array([0, 8]), np.arange(9), np.arange(9))
    biases = ([40, 41, 42, 43, 44, 45, 46, 47], [1, 3, 5, 7, 9, 11, 13, 15], [1] * 8)
    levels = [
        chunked(np.zeros((8, D), np.float32), np.array(b, np.float32), pointer, "single")
        for b, pointer in zip(biases, pointers, strict=True)
    ]
    found = search(
        csr_array((1, D), dtype=np.float32), levels, slot_labels=np.zeros(8, np.int32), n_labels=1,
        post_processor=("sigmoid", "none", "l2-hinge"), beam_size=2, top_k=1,
    )  # fmt: skip
    assert found.scores.tolist() == [[2.0]]  # of 1 and 3


def test_it_goes_on_until_no_other_label_can_come_first(levels, monkeypatch):
    """A hundred labels with a good path and a bad one come before the one with two fair ones."""
    pointers = (np.array([0, 2]), np.array([0, 101, 202]))
    slots = np.tile(np.arange(101), 2).astype(np.int32)
    biases = np.zeros(101)
    biases[100] = -0.5
    flat = [
        chunked(np.zeros((2, D), np.float32), np.array([0.9, -9], np.float32), pointers[0]),
        chunked(np.zeros((202, D), np.float32), np.tile(biases, 2).astype(np.float32), pointers[1]),
    ]
    slots[201] = 101  # label 100 has its good path only
    asked = []
    original = Searcher.search
    monkeypatch.setattr(
        Searcher, "search", lambda self, X, **how: (asked.append(how), original(self, X, **how))[1]
    )
    found = search(
        csr_array((1, D), dtype=np.float32), flat, slot_labels=slots, n_labels=102,
        post_processor=("l1-hinge",), top_k=2,
    )  # fmt: skip
    assert found.labels.tolist() == [[100, 0]]
    assert [how["top_k"] for how in asked] == [2, 4, 8, 16, 32, 64, 102]


def test_a_tie_with_a_label_that_was_not_among_the_first_candidates():
    """By best path 9 (4 and 0), 0 (2 and 0), 5 (2): the first two are candidates; by mean 5 and 9
    have 2, and 0 has 1."""
    pointers, slots = (np.array([0, 3]), np.array([0, 1, 3, 5])), [9, 0, 5, 9, 0]
    levels = [
        chunked(np.zeros((len(b), D), np.float32), np.array(b, np.float32), pointer, "single")
        for b, pointer in zip(([4, 2, 0], [1] * 5), pointers, strict=True)
    ]
    found = search(
        csr_array((1, D), dtype=np.float32), levels, slot_labels=np.array(slots, np.int32),
        n_labels=10, post_processor=("none", "l1-hinge"), top_k=1,
    )  # fmt: skip
    assert found.labels.tolist() == [[5]]
    assert found.scores.tolist() == [[2.0]]


def test_among_equals_the_smaller_number_wins():
    rng = np.random.default_rng(5)
    slots = np.concatenate([np.arange(20), rng.permutation(20)[:12]]).astype(np.int32)
    pointers = (np.array([0, 8]), np.arange(0, 33, 4))
    flat = levels_with(rng, pointers, slots, values=[0.0])
    found = search(
        csr_array((2, D), dtype=np.float32), flat, slot_labels=slots, n_labels=20, top_k=5
    )
    assert found.labels.tolist() == [[0, 1, 2, 3, 4]] * 2


def test_no_rows_give_no_predictions_and_their_columns_are_checked(levels):
    assert search(csr_array((0, D), dtype=np.float32), levels).labels.shape == (0, 8)
    for n_rows in (0, 3):
        with pytest.raises(ShapeError, match="the model was trained on 60 features"):
            search(csr_array((n_rows, D + 1), dtype=np.float32), levels)


def test_where_it_makes_no_difference_the_plain_searcher_is_taken(levels):
    assert isinstance(searcher(levels), MeanSearcher)
    assert isinstance(searcher(levels, "best"), Searcher)
    alone = np.arange(190, dtype=np.int32)
    assert isinstance(searcher(levels, slot_labels=alone, n_labels=190), Searcher)
    bare = ("l3-hinge", "none")
    assert isinstance(searcher(levels, post_processor=bare), Searcher)
    assert isinstance(searcher(levels, post_processor=bare, path_weight=0.1), MeanSearcher)


def test_a_path_of_bare_margins_has_no_logarithm(levels):
    with pytest.raises(ConfigError, match=r"inference.path_weight needs factors at the levels"):
        searcher(levels, post_processor=("none",) * 3, path_weight=0.1)


def test_the_setting_travels_with_the_model_and_leaves_nodes_alone(tmp_path, X):
    tree = LabelTree.from_leaves([[0, 1, 2], [1, 3, 4], [2, 4, 5], [0, 5, 6]], branching=2)
    Y = csr_array(random_array((N, 7), density=0.4, rng=np.random.default_rng(6)))
    how = InferenceConfig(post_processor=("l3-hinge", "none"), path_weight=0.3, top_k=7)
    best = train_xr_linear(X, Y, Config(inference=how), tree=tree)
    by_mean = Config().replace(
        **{"inference.paths": "mean", "inference.path_weight": 0.3, "inference.top_k": 7,
           "inference.post_processor": ["l3-hinge", "none"]}
    )  # fmt: skip
    mean = train_xr_linear(X, Y, by_mean, tree=tree)
    mean.save(tmp_path / "model")
    again = XRLinear.load(tmp_path / "model")
    assert again.config.inference.paths == "mean"
    assert_same(again.predict(X), mean.predict(X))
    assert np.any(mean.predict(X).labels != best.predict(X).labels)
    assert_array_equal(mean.predict_leaves(X).toarray(), best.predict_leaves(X).toarray())
    found = mean.predict(X)
    assert_array_equal(mean.score(X, all_pairs(found, 7)).data, found.scores.reshape(-1))
    few = mean.restricted([1, 4, 5]).predict(X)
    assert_same(few, mean.predict(X, allow=[1, 4, 5]))
    assert set(np.unique(few.labels)) == {-1, 1, 4, 5}


def assert_same(one: Predictions, other: Predictions):
    assert_array_equal(one.labels, other.labels)
    assert_array_equal(one.scores, other.scores)


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_agrees_with_the_reference_on_any_small_tree(data):
    """Ties, empty rows and leaves, labels in no leaf and in many."""
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    pointers = [np.array([0, data.draw(st.integers(1, 4))])]
    pointers.append(np.concatenate([[0], np.cumsum(rng.integers(0, 4, pointers[0][-1]))]))
    pointers[-1][-1] = max(pointers[-1][-1], 1)
    n_labels = data.draw(st.integers(1, 12))
    leaves = [
        rng.permutation(n_labels)[: rng.integers(0, n_labels + 1)] for _ in range(pointers[1][-1])
    ]
    leaves[-1] = rng.permutation(n_labels)
    pointers.append(np.concatenate([[0], np.cumsum([len(leaf) for leaf in leaves])]))
    slots = np.concatenate(leaves).astype(np.int32)
    levels = levels_with(rng, pointers, slots, values=[0.0, 0.0, 0.5, -1.0])
    n_rows = data.draw(st.sampled_from([1, 2, 70]))
    X = rng.choice([0.0, 0.0, 0.25, 1.0], (n_rows, D)).astype(np.float32)
    X[:, 4:] = 0  # margins of -5 or more: the reference's products stay above 0
    X = csr_array(X)
    kinds, path_weight = data.draw(st.sampled_from(KINDS))
    how = {
        "beam_size": data.draw(st.integers(1, 6)),
        "top_k": data.draw(st.integers(1, 14)),
        "path_weight": path_weight,
    }
    found = search(X, levels, slot_labels=slots, n_labels=n_labels, post_processor=kinds, **how)
    wanted = expected(X, levels, kinds, slot_labels=slots, **how)
    if kinds == ("none",) * 3:  # sums of few binary fractions are exact, and so are ties
        for labels, row in zip(found.labels, wanted, strict=True):
            assert [label for label, _ in row] == labels[labels >= 0].tolist()
    for labels, scores, row in zip(found.labels, found.scores, wanted, strict=True):
        assert (labels >= 0).sum() == len(row)
        exact = [score for _, score in row]
        assert_allclose(scores[: len(row)], exact, rtol=2e-4, atol=1e-5)
