from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.sparse import csr_array, random_array, vstack

from tests.reference import linear as reference
from xmc_core.config import RankersConfig
from xmc_core.errors import ConfigError, ShapeError
from xmc_core.inference import beam as module
from xmc_core.inference.beam import beam_search
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
    assert [len(weights.block) > 0 for weights in trained] == [False, True, False]
    return trained


@pytest.fixture(scope="module", name="slot_labels")
def names():
    labels = np.arange(190)
    labels[100:] = np.random.default_rng(13).permutation(190)[:90] % 100  # copies in other leaves
    return labels.astype(np.int32)


def search(X, levels, *, slot_labels=None, **changes):
    settings = {
        "beam_size": 6, "top_k": 8, "post_processor": ("l3-hinge",), "n_threads": 1,
        "n_labels": levels[-1].n_children if slot_labels is None else 100,
    }  # fmt: skip
    return beam_search(X, levels, slot_labels=slot_labels, **{**settings, **changes})


def expected(X, levels, post_processor, slot_labels, beam_size=6, top_k=8):
    dense = [(level.pointer, *level.to_dense()) for level in levels]
    return [
        reference.beam_search(
            x, dense, beam_size=beam_size, top_k=top_k, post_processor=post_processor,
            slot_labels=slot_labels,
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


def test_small_blocks_and_no_bitmap_change_nothing(X, levels, monkeypatch):
    usual = search(X, levels)
    monkeypatch.setattr(module, "BLOCK_ROWS", 11)
    assert_array_equal(search(X, levels).scores, usual.scores)
    monkeypatch.setattr("xmc_core.rankers.weights.INDEX_BYTES", 0)
    bare = [type(level).from_arrays(level.arrays(), level.n_features) for level in levels]
    assert_array_equal(search(X[:5], bare).scores, usual.scores[:5])
    assert bare[0].index[0].shape == (0, 0)


def test_plain_code_gives_the_same_labels(X, levels):
    fast, plain = search(X, levels), search(X, levels, vector=False)
    assert_array_equal(fast.labels, plain.labels)
    assert_allclose(fast.scores, plain.scores, rtol=1e-4, atol=1e-6)


def test_callers_at_the_same_time_do_not_disturb_each_other(X, levels, slot_labels):
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
    with pytest.raises(ShapeError, match=r"X has 149 features but level 1 was trained on 150"):
        search(csr_array(X[:, :149]), levels)


def test_levels_must_follow_one_another(X, levels):
    with pytest.raises(ShapeError, match=r"level 2 has 40 parents but level 1 has 5 nodes"):
        search(X, [levels[0], levels[2]])
    with pytest.raises(ShapeError, match=r"the last level has 190 nodes, not 100"):
        search(X, levels, n_labels=100)


def test_names_the_post_processor_that_does_not_exist(X, levels):
    with pytest.raises(ConfigError, match=r"'l5-hinge'; choose from none, sigmoid"):
        search(X, levels, post_processor=("l5-hinge",))
