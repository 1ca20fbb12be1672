from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.sparse import csr_array, random_array, vstack

from tests.rankers.test_weights import chunked
from tests.reference import linear as reference
from xmc_core.config import RankersConfig
from xmc_core.errors import ConfigError, DataError, ShapeError
from xmc_core.inference import beam as module
from xmc_core.inference.beam import Searcher, allowed_nodes
from xmc_core.kernels.chunks import BITMAP
from xmc_core.rankers.train import train_level

N, D = 90, 150
POINTERS = (
    np.array([0, 5]),
    np.array([0, 16, 20, 20, 36, 40]),  # a node without children
    np.concatenate([np.arange(0, 160, 4), [190]]),  # one wide leaf
)


@pytest.fixture(scope="module", name="X")
def samples():
    rng = np.random.default_rng(11)
    X = random_array((N, D), density=0.1, rng=rng).toarray().astype(np.float32)
    X[[0, 40]] = 0  # rows without features
    return csr_array(X)


@pytest.fixture(scope="module", name="levels")
def rankers(X):
    rng = np.random.default_rng(12)
    trained = []
    for number, pointer in enumerate(POINTERS, start=1):
        targets = csr_array((rng.random((N, pointer[-1])) < 0.1).astype(np.float32))
        config = RankersConfig(threshold=((0.0, 0.1)[number == 3],), cost=(2.0,))
        weights, _ = train_level(
            X, targets, pointer, None, config=config, level=number, depth=3, n_threads=2
        )
        trained.append(weights)
    assert [weights.widest for weights in trained] == [5, 16, 34]
    return trained


@pytest.fixture(scope="module", name="slot_labels")
def names():
    labels = np.arange(190)
    labels[100:] = np.random.default_rng(13).permutation(190)[:90] % 100  # copies in other leaves
    return labels.astype(np.int32)


def searcher(levels, *, slot_labels=None, allowed=None, **changes):
    settings = {
        "post_processor": ("l3-hinge",),
        "n_labels": levels[-1].n_children if slot_labels is None else 100,
    }
    return Searcher(levels, slot_labels=slot_labels, allowed=allowed, **{**settings, **changes})


def search(X, levels, *, slot_labels=None, allowed=None, **changes):
    how = {"beam_size": 6, "top_k": 8, "n_threads": 1}
    how.update({name: changes.pop(name) for name in (*how, "vector") if name in changes})
    return searcher(levels, slot_labels=slot_labels, allowed=allowed, **changes).search(X, **how)


def expected(X, levels, post_processor, slot_labels, beam_size=6, top_k=8, path_weight=0.0):
    dense = [(level.pointer, *level.to_dense()) for level in levels]
    return [
        reference.beam_search(
            x, dense, beam_size=beam_size, top_k=top_k, post_processor=post_processor,
            slot_labels=slot_labels, path_weight=path_weight,
        )
        for x in X.toarray().astype(float)
    ]  # fmt: skip


def assert_agrees(predictions, wanted):
    for labels, scores, row in zip(predictions.labels, predictions.scores, wanted, strict=True):
        found = labels >= 0
        assert found.sum() == len(row)
        assert_allclose(scores[found], [score for _, score in row], rtol=2e-4, atol=1e-6)
        exact = np.array([score for _, score in row])
        for place, (label, score) in enumerate(row):
            near = np.abs(exact - score) < 1e-5 + 2e-4 * abs(score)
            if near.sum() == 1:  # equal but for rounding may change places
                assert labels[place] == label
        assert np.all(scores[~found] == -np.inf)


@pytest.mark.parametrize("rows", [N, 7])
@pytest.mark.parametrize("with_copies", [False, True])
@pytest.mark.parametrize(
    "post_processor",
    [
        ("l3-hinge",) * 3,
        ("l1-hinge", "l2-hinge", "l4-hinge"),
        ("sigmoid",) * 3,
        ("l3-hinge", "l3-hinge", "none"),
        ("sigmoid", "none", "l2-hinge"),
        ("none",) * 3,
    ],
)
def test_agrees_with_the_reference(X, levels, slot_labels, post_processor, with_copies, rows):
    named = slot_labels if with_copies else None
    X = X[:rows]
    found = search(X, levels, slot_labels=named, post_processor=post_processor)
    assert_agrees(found, expected(X, levels, post_processor, named))


@pytest.mark.parametrize("with_copies", [False, True])
@pytest.mark.parametrize("first", ["l3-hinge", "sigmoid"])
def test_a_margin_may_count_the_path_above_it(X, levels, slot_labels, first, with_copies):
    named = slot_labels if with_copies else None
    how = (first, first, "none")
    found = search(X, levels, slot_labels=named, post_processor=how, path_weight=0.3)
    assert_agrees(found, expected(X, levels, how, named, path_weight=0.3))
    without = search(X, levels, slot_labels=named, post_processor=how)
    assert np.any(found.labels != without.labels)
    pairs = found.to_csr(100 if with_copies else 190)
    asked = searcher(levels, slot_labels=named, post_processor=how, path_weight=0.3)
    again = asked.score(X, pairs, n_threads=1)
    if with_copies:  # one may lie where the beam did not look
        assert np.all(again.data >= pairs.data - 1e-5)
    else:
        assert_allclose(again.data, pairs.data, rtol=1e-5, atol=1e-6)


def test_a_path_of_bare_margins_has_no_logarithm(levels):
    with pytest.raises(ConfigError, match=r"inference.path_weight needs factors at the levels"):
        searcher(levels, post_processor=("none",) * 3, path_weight=0.1)


@pytest.mark.parametrize("form", [BITMAP, 2, 0])
@pytest.mark.parametrize("vector", [False, True])
def test_bits_do_not_depend_on_how_features_are_found(X, levels, monkeypatch, form, vector):
    """In a bitmap, in buckets of four hashed features, in buckets of one."""

    def planned(n_rows, bits):
        return np.full(len(n_rows), form, np.uint8), np.uint8

    wanted = search(X, levels, vector=vector)
    monkeypatch.setattr("xmc_core.rankers.weights.plan_buckets", planned)
    parts = [(*level.to_dense(), level.pointer) for level in levels]
    found = search(X, [chunked(W, b, pointer) for W, b, pointer in parts], vector=vector)
    assert_array_equal(found.labels, wanted.labels)
    assert_array_equal(found.scores, wanted.scores)


def test_rows_get_the_same_bits_alone_and_in_any_company(X, levels, slot_labels):
    together = search(X, levels, slot_labels=slot_labels)
    plenty = csr_array(vstack([X] * 5))
    repeated = search(plenty, levels, slot_labels=slot_labels)
    assert_array_equal(repeated.labels, np.tile(together.labels, (5, 1)))
    assert_array_equal(repeated.scores, np.tile(together.scores, (5, 1)))
    for i in range(N):
        alone = search(X[i : i + 1], levels, slot_labels=slot_labels)
        assert_array_equal(alone.labels[0], together.labels[i])
        assert_array_equal(alone.scores[0], together.scores[i])


def test_is_identical_on_one_thread_and_on_many(X, levels):
    alone = search(X, levels)
    for n_threads in (2, 7):
        many = search(X, levels, n_threads=n_threads)
        assert_array_equal(many.labels, alone.labels)
        assert_array_equal(many.scores, alone.scores)


@pytest.mark.parametrize("changes", [{"BLOCK_ROWS": 7, "ALONE": 0}, {"HELD_WORK": 0}])
def test_how_rows_are_cut_into_calls_changes_nothing(X, levels, monkeypatch, changes):
    usual = search(X, levels)
    for name, value in changes.items():
        monkeypatch.setattr(module, name, value)
    for n_rows in (N, 5, 1):
        found = search(X[:n_rows], levels, n_threads=2)
        assert_array_equal(found.labels, usual.labels[:n_rows])
        assert_array_equal(found.scores, usual.scores[:n_rows])


def test_plain_code_gives_the_same_labels(X, levels):
    fast, plain = search(X, levels), search(X, levels, vector=False)
    assert_array_equal(fast.labels, plain.labels)
    assert_allclose(fast.scores, plain.scores, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("held_work", [0, 1e9])
def test_callers_at_the_same_time_do_not_disturb_each_other(
    X, levels, slot_labels, monkeypatch, held_work
):
    monkeypatch.setattr(module, "HELD_WORK", held_work)
    expected_labels = search(X, levels, slot_labels=slot_labels).labels
    with ThreadPoolExecutor(8) as pool:
        answers = list(
            pool.map(
                lambda i: search(X[i : i + 1], levels, slot_labels=slot_labels, n_threads=2),
                list(range(N)) * 3,
            )
        )
    for i, answer in enumerate(answers):
        assert_array_equal(answer.labels[0], expected_labels[i % N])


def test_upper_levels_alone_give_the_beam(X, levels):
    nodes = search(X, levels[:2], post_processor=("l3-hinge", "l3-hinge"), top_k=6)
    assert nodes.labels.max() < 40
    assert_agrees(nodes, expected(X, levels[:2], ("l3-hinge",) * 2, None, top_k=6))


def test_a_label_appears_once_and_top_k_counts_labels(X, levels, slot_labels):
    found = search(X, levels, slot_labels=slot_labels, beam_size=40, top_k=100)
    for labels in found.labels:
        assert sorted(labels) == list(range(100))


def test_more_labels_than_there_are_is_padded(X, levels):
    found = search(X, levels, beam_size=40, top_k=300)
    assert np.all((found.labels >= 0).sum(axis=1) == 190)
    assert np.all(found.labels[:, 190:] == -1)
    assert np.all(found.scores[:, 190:] == -np.inf)


def test_among_equals_the_smaller_number_wins(levels):
    nothing = csr_array((2, D), dtype=np.float32)
    level = levels[0]
    flat = type(level).from_arrays({**level.arrays(), "biases": np.zeros(5, np.float32)}, D)
    found = search(nothing, [flat], top_k=3)
    assert found.labels.tolist() == [[0, 1, 2], [0, 1, 2]]


def test_no_rows_give_no_predictions(levels):
    found = search(csr_array((0, D), dtype=np.float32), levels)
    assert found.labels.shape == (0, 8)


def test_names_both_sizes_when_features_do_not_match(X, levels):
    with pytest.raises(
        ShapeError, match=r"X is \(90, 149\) but the model was trained on 150 features"
    ):
        search(csr_array(X[:, :149]), levels)


def test_levels_must_follow_one_another(X, levels):
    with pytest.raises(ShapeError, match=r"level 2 has 40 parents but level 1 has 5 nodes"):
        search(X, [levels[0], levels[2]])
    with pytest.raises(ShapeError, match=r"the last level has 190 nodes, not 100"):
        search(X, levels, n_labels=100)


def test_names_the_post_processor_that_does_not_exist(X, levels):
    with pytest.raises(ConfigError, match=r"'l5-hinge'; choose from none, sigmoid"):
        search(X, levels, post_processor=("l5-hinge",))


@pytest.mark.parametrize("name", ["sigmoid", "l1-hinge", "l2-hinge", "l3-hinge", "l4-hinge"])
def test_a_log_post_processor_ranks_the_same_and_gives_logarithms(X, levels, slot_labels, name):
    usual = search(X, levels, slot_labels=slot_labels, post_processor=(name,))
    logs = search(X, levels, slot_labels=slot_labels, post_processor=(f"log-{name}",))
    assert_array_equal(logs.labels, usual.labels)
    assert_allclose(np.exp(logs.scores), usual.scores, rtol=1e-5)
    assert logs.scores.max() <= 0


def test_logarithms_of_bare_margins_are_refused(X, levels):
    with pytest.raises(ConfigError, match="log-sigmoid needs factors at the levels above"):
        search(X, levels, post_processor=("none", "none", "log-sigmoid"))


@pytest.mark.parametrize("n_rows", [N, 1])
def test_dense_rows_are_answered_as_sparse_ones(X, levels, n_rows):
    X = X[:n_rows]
    sparse, dense = search(X, levels), search(X.toarray(), levels)
    assert_array_equal(dense.labels, sparse.labels)
    assert_array_equal(dense.scores, sparse.scores)


def test_the_order_of_a_rows_features_does_not_matter(X, levels):
    backwards = csr_array(X.shape, dtype=np.float32)
    order = np.concatenate(
        [np.arange(a, b)[::-1] for a, b in zip(X.indptr, X.indptr[1:], strict=False)]
    )
    backwards = csr_array((X.data[order], X.indices[order], X.indptr), X.shape)
    assert not backwards.has_sorted_indices
    for n_rows in (N, 3):
        found = search(backwards[:n_rows], levels)
        assert_array_equal(found.scores, search(X[:n_rows], levels).scores)


@pytest.mark.parametrize("post_processor", ["l3-hinge", "sigmoid", "none", "log-l2-hinge"])
def test_scores_of_pairs_are_those_of_the_beam(X, levels, slot_labels, post_processor):
    whole = searcher(levels, slot_labels=slot_labels, post_processor=(post_processor,))
    found = whole.search(X, beam_size=40, top_k=100, n_threads=1)  # every node is kept
    pairs = csr_array(
        (np.ones(found.labels.size), found.labels.reshape(-1), np.arange(N + 1) * 100), (N, 100)
    )
    scores = whole.score(X, pairs, n_threads=2)
    assert_array_equal(scores.indices, pairs.indices)
    assert_array_equal(scores.data, found.scores.reshape(-1))
    few = random_array((N, 100), density=0.03, rng=np.random.default_rng(1), format="csr")
    assert_array_equal(
        whole.score(X, csr_array(few), n_threads=1).toarray(),
        scores.toarray() * (few.toarray() != 0),
    )


def test_pairs_may_be_none_and_their_shape_is_checked(X, levels):
    whole = searcher(levels)
    assert whole.score(X, csr_array((N, 190), dtype=np.float32), n_threads=2).nnz == 0
    with pytest.raises(ShapeError, match=r"pairs are \(90, 189\), expected \(90, 190\)"):
        whole.score(X, csr_array((N, 189), dtype=np.float32), n_threads=1)


def test_an_allow_list_is_brute_force_over_it(X, levels, slot_labels):
    labels = np.random.default_rng(3).permutation(100)[:12]
    allowed = allowed_nodes(levels, slot_labels, labels)
    found = search(X, levels, slot_labels=slot_labels, allowed=allowed, beam_size=40, top_k=20)
    everything = expected(X, levels, ["l3-hinge"] * 3, slot_labels, beam_size=40, top_k=100)
    wanted = [[pair for pair in row if pair[0] in labels] for row in everything]
    assert {len(row) for row in wanted} == {12}
    assert_agrees(found, wanted)


def test_nodes_without_an_allowed_label_leave_the_beam_to_others(X, levels):
    # The beam holds 2 of 40 nodes; the allowed labels lie below a node of its own choice each.
    slots = np.arange(190)
    allowed = allowed_nodes(levels, slots, np.array([3, 157]))
    assert [flags.sum() for flags in allowed] == [2, 2, 2]
    found = search(X, levels, allowed=allowed, beam_size=2, top_k=3)
    assert np.all(np.sort(found.labels[:, :2]) == [3, 157])
    assert np.all(found.labels[:, 2] == -1)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("alone", [False, True])
@pytest.mark.parametrize("dense", [False, True])
def test_features_that_are_not_finite_are_refused(X, levels, value, alone, dense):
    filled = int(np.flatnonzero(np.diff(X.indptr))[0])
    broken = X[filled : filled + 1].copy() if alone else X.copy()
    broken.data[-1] = value
    broken = broken.toarray() if dense else broken
    with pytest.raises(DataError, match="X holds a NaN or an infinity"):
        search(broken, levels)
    pairs = csr_array(np.eye(broken.shape[0], levels[-1].n_children, dtype=np.float32))
    with pytest.raises(DataError, match="X holds a NaN or an infinity"):
        searcher(levels).score(broken, pairs, n_threads=1)


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_agrees_with_the_reference_on_any_small_tree(data):
    """Empty rows, ties, duplicate columns, empty nodes, one label, one row, labels in several
    leaves: weights and features take few values, so that ties are common."""
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    n_features = data.draw(st.integers(1, 40))
    n_rows = data.draw(st.sampled_from([1, 2, 70]))
    pointers = [np.array([0, data.draw(st.integers(1, 4))])]
    for widest in (3, data.draw(st.sampled_from([2, 16, 20, 300]))):
        pointers.append(
            np.concatenate([[0], np.cumsum(rng.integers(0, widest + 1, pointers[-1][-1]))])
        )
        pointers[-1][-1] = max(pointers[-1][-1], 1)
    levels = []
    for number, pointer in enumerate(pointers):
        W = rng.choice([0.0, 0.0, 0.5, -1.0], (pointer[-1], n_features)).astype(np.float32)
        if n_features > 1:
            W[:, 0] = W[:, 1]
        b = rng.choice([0.0, 0.25], pointer[-1]).astype(np.float32)
        levels.append(chunked(W, b, pointer, ("half", "single")[number % 2]))
        assert_array_equal(levels[-1].to_dense()[0], W)
    X = rng.choice([0.0, 0.0, 0.25, 1.0], (n_rows, n_features)).astype(np.float32)
    X[rng.random(n_rows) < 0.2] = 0
    n_slots = int(pointers[-1][-1])
    slot_labels = rng.integers(0, n_slots, n_slots).astype(np.int32)
    name = data.draw(st.sampled_from(["l1-hinge", "l3-hinge", "none"]))
    beam_size, top_k = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 8))
    found = searcher(
        levels, slot_labels=slot_labels, n_labels=n_slots, post_processor=(name,)
    ).search(csr_array(X), beam_size=beam_size, top_k=top_k, n_threads=1)
    wanted = expected(csr_array(X), levels, [name] * 3, slot_labels, beam_size, top_k)
    for labels, scores, row in zip(found.labels, found.scores, wanted, strict=True):
        assert (labels >= 0).sum() == len(row)
        assert_allclose(scores[: len(row)], [score for _, score in row], rtol=1e-5, atol=1e-7)
    if name == "none":  # sums of few binary fractions are exact, and so are ties
        for labels, row in zip(found.labels, wanted, strict=True):
            assert [label for label, _ in row] == labels[labels >= 0].tolist()
