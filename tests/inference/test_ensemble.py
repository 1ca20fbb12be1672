import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.sparse import csr_array

from tests.reference import ensemble as slow
from xmc_core.config import AVERAGES
from xmc_core.data import Predictions
from xmc_core.errors import ConfigError, DataError, ShapeError
from xmc_core.inference.ensemble import BLOCK_ROWS, average_predictions, average_scores


def predictions(rows, width):
    """Rows of (label, score), padded."""
    labels = np.full((len(rows), width), -1, np.int32)
    scores = np.full((len(rows), width), -np.inf, np.float32)
    for row, entries in enumerate(rows):
        for place, (label, score) in enumerate(entries):
            labels[row, place], scores[row, place] = label, score
    return Predictions(labels, scores)


def ranked(found, row):
    return [
        (label, score)
        for label, score in zip(found.labels[row].tolist(), found.scores[row].tolist(), strict=True)
        if label >= 0
    ]


# Eighths: sums of them are exact, so equal sums are equal on both sides.
lists = st.lists(
    st.tuples(st.integers(0, 6), st.integers(-24, 24).map(lambda n: n / 8)), max_size=5
).map(lambda entries: sorted(entries, key=lambda entry: -entry[1]))
asked = st.integers(1, 3).flatmap(
    lambda n_members: st.lists(
        st.lists(lists, min_size=n_members, max_size=n_members), min_size=1, max_size=4
    )
)


@pytest.mark.parametrize("how", AVERAGES)
@settings(max_examples=150, deadline=None)
@given(rows=asked, narrow=st.booleans())
def test_is_the_slow_average(how, rows, narrow):
    """Any lists: labels twice, empty ones, members of different width, ties."""
    members, widths = [], []
    for number in range(len(rows[0])):
        longest = max(len(row[number]) for row in rows)
        widths.append(longest if narrow else 5)
        members.append(predictions([row[number] for row in rows], widths[-1]))
    found = average_predictions(members, how, top_k=20)
    for row, own in enumerate(rows):
        expected = slow.average(own, how, max(widths))
        got = ranked(found, row)
        scores = dict(expected)
        assert_allclose([s for _, s in got], [s for _, s in expected], rtol=1e-6)
        assert {label for label, _ in got} == set(scores)
        assert len(got) == len(scores)  # no label twice
        assert_allclose([s for _, s in got], [scores[label] for label, _ in got], rtol=1e-6)
        if how == "rank":  # whole numbers: ties are ties
            assert [label for label, _ in got] == [label for label, _ in expected]


def test_equal_means_come_in_the_order_of_first_appearance():
    one = predictions([[(9, 0.5), (4, 0.25)]], 2)
    two = predictions([[(4, 0.5), (9, 0.25)]], 2)
    for how in AVERAGES:
        assert average_predictions([one, two], how).labels.tolist() == [[9, 4]]
        assert average_predictions([two, one], how).labels.tolist() == [[4, 9]]


@pytest.mark.parametrize("how", AVERAGES)
def test_a_longer_answer_begins_with_the_shorter_one(how):
    rng = np.random.default_rng(0)
    members = [made(rng, 50) for _ in range(3)]
    long = average_predictions(members, how, top_k=12)
    short = average_predictions(members, how, top_k=4)
    assert_array_equal(long.labels[:, :4], short.labels)
    assert_array_equal(long.scores[:, :4], short.scores)
    assert average_predictions(members, how).labels.shape == (50, 10)


def made(rng, n_rows, width=10, n_labels=30):
    labels = rng.permuted(np.tile(np.arange(n_labels, dtype=np.int32), (n_rows, 1)), axis=1)
    scores = -np.sort(-rng.normal(size=(n_rows, width)).astype(np.float32), axis=1)
    return Predictions(labels[:, :width], scores)


@pytest.mark.parametrize("how", AVERAGES)
def test_threads_and_neighbouring_rows_change_nothing(how):
    rng = np.random.default_rng(1)
    members = [made(rng, 2 * BLOCK_ROWS + 7) for _ in range(2)]
    one = average_predictions(members, how, n_threads=1)
    three = average_predictions(members, how, n_threads=3)
    some = slice(BLOCK_ROWS - 3, BLOCK_ROWS + 3)
    part = average_predictions([Predictions(m.labels[some], m.scores[some]) for m in members], how)
    for name in ("labels", "scores"):
        assert_array_equal(getattr(one, name), getattr(three, name))
        assert_array_equal(getattr(one, name)[some], getattr(part, name))


def test_extreme_scores_neither_overflow_nor_spread():
    rows = [[(1, 3e38), (2, -3e38), (3, -np.inf)], [(4, -np.inf)]]
    members = [predictions(rows, 3)]
    soft = average_predictions(members, "softmax")
    assert soft.labels.tolist() == [[1, 2, 3], [4, -1, -1]]
    assert soft.scores[0].tolist() == [1.0, 0.0, 0.0]
    assert soft.scores[1, 0] == 0.0  # a label of no worth is still a label
    assert average_predictions(members, "sigmoid").scores[0].tolist() == [1.0, 0.0, 0.0]
    assert np.isneginf(soft.scores[1, 1:]).all()


def test_rows_and_lists_may_be_empty():
    nothing = Predictions(np.empty((0, 3), np.int32), np.empty((0, 3), np.float32))
    assert average_predictions([nothing], "rank").labels.shape == (0, 3)
    narrow = Predictions(np.empty((2, 0), np.int32), np.empty((2, 0), np.float32))
    found = average_predictions([narrow, predictions([[(5, 1.0)], []], 1)], "softmax")
    assert found.labels.tolist() == [[5], [-1]]
    assert found.scores[0, 0] == 0.5


@pytest.mark.parametrize(
    ("members", "how", "top_k", "error", "words"),
    [
        ([2], "mean", None, ConfigError, "no average 'mean'; choose from softmax, sigmoid, rank"),
        ([2], "rank", 0, ConfigError, "top_k must be at least 1, got 0"),
        ([], "rank", None, ShapeError, "predictions for no rows; an average needs at least one"),
        ([2, 3], "rank", None, ShapeError, "for 2 and 3 rows"),
    ],
)
def test_what_has_no_average_is_said(members, how, top_k, error, words):
    with pytest.raises(error, match=words):
        average_predictions([predictions([[]] * n, 1) for n in members], how, top_k=top_k)


@pytest.mark.parametrize("score", [np.nan, np.inf])
def test_a_score_that_is_no_number_is_refused(score):
    with pytest.raises(DataError, match="a score is NaN or infinity"):
        average_predictions([predictions([[(1, score)]], 1)], "softmax")
    with pytest.raises(DataError, match="a score is NaN or infinity"):
        average_scores([csr_array(np.array([[score]], np.float32))], "softmax")


@pytest.mark.parametrize("how", AVERAGES)
def test_scores_of_pairs_are_averaged_as_lists_of_them(how):
    rng = np.random.default_rng(3)
    stored = rng.random((8, 12)) < 0.4
    stored[2] = False
    members = []
    for _ in range(3):
        scores = csr_array(stored.astype(np.float32))
        scores.data[:] = rng.permutation(scores.nnz) / 16  # all different
        members.append(scores)
    found = average_scores(members, how)
    assert_array_equal(found.indices, members[0].indices)
    assert_array_equal(found.indptr, members[0].indptr)
    for row in range(8):
        columns = np.flatnonzero(stored[row])
        own = [
            sorted(((c, float(m[row, c])) for c in columns), key=lambda entry: -entry[1])
            for m in members
        ]
        expected = dict(slow.average(own, how, len(columns)))
        assert_allclose(found[[row]].data, [expected[c] for c in columns], rtol=1e-6)


def test_scores_of_pairs_must_be_of_the_same_pairs():
    one, two = csr_array(np.eye(2, dtype=np.float32)), csr_array(np.ones((2, 2), np.float32))
    with pytest.raises(ShapeError, match="scores of different pairs"):
        average_scores([one, two], "rank")
    with pytest.raises(ShapeError, match="at least one member"):
        average_scores([], "rank")
    with pytest.raises(ConfigError, match="no average 'sum'"):
        average_scores([one], "sum")


def test_a_pair_that_no_path_leads_to_is_worth_nothing():
    scores = csr_array(np.array([[2.0, 1.0, 3.0], [0.0, 1.0, 0.0]], np.float32))
    scores.data[1] = scores.data[3] = -np.inf
    assert average_scores([scores], "softmax").data[[1, 3]].tolist() == [0.0, 0.0]
    assert average_scores([scores], "sigmoid").data[[1, 3]].tolist() == [0.0, 0.0]
    assert average_scores([scores], "rank").data.tolist() == [2.0, 1.0, 3.0, 1.0]
