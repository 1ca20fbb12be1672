import math

import numpy as np
import pytest
from scipy.sparse import csr_array

from tests.metrics.conftest import predictions_of, truth_matrix
from tests.reference import metrics as reference
from xmc_core.data import Predictions
from xmc_core.errors import ShapeError
from xmc_core.metrics import (
    evaluate,
    f1_scores,
    label_coverage,
    matcher_recall,
    slice_by_frequency,
    slices,
)
from xmc_core.metrics.slices import (
    GROUPS,
    count_by_label,
    frequency_deciles,
    frequency_groups,
    group_of,
    labels_of_group,
    scores_by_group,
    threshold_for_mean,
    within,
)
from xmc_core.tree import LabelTree


@pytest.mark.parametrize("k", [1, 5])
def test_coverage_and_f1_agree_with_the_reference(judged, k):
    n_labels = judged.Y.shape[1]
    coverage = reference.coverage_at(k, judged.ranked, judged.truth)
    assert label_coverage(judged.predictions, judged.Y, k) == pytest.approx(coverage)
    both = reference.f1_at(k, judged.ranked, judged.truth, n_labels)
    assert f1_scores(judged.predictions, judged.Y, k) == pytest.approx(both)


@pytest.fixture
def overlapping() -> LabelTree:
    """Thirty known labels; every third lives in a second leaf too."""
    leaves = [list(range(start, start + 5)) for start in range(0, 30, 5)]
    for label in range(0, 30, 3):
        leaves[(label // 5 + 2) % 6].append(label)
    return LabelTree.from_leaves(leaves, branching=3, n_labels=30)


def beams_of(reached: list[set[int]], n_leaves: int) -> csr_array:
    matrix = truth_matrix(reached, n_leaves)
    matrix.data[::2] = 0.0  # a cluster reached with score 0 is reached all the same
    return matrix


def test_matcher_recall_agrees_with_the_reference(judged, overlapping, monkeypatch):
    rng = np.random.default_rng(3)
    reached = [set(rng.choice(6, 2, replace=False).tolist()) for _ in judged.truth]
    leaves = [overlapping.leaf_labels(leaf).tolist() for leaf in range(6)]
    expected = reference.matcher_recall(reached, leaves, judged.truth)
    beams, homes = beams_of(reached, 6), overlapping.label_leaves()
    assert matcher_recall(beams, homes, judged.Y) == pytest.approx(expected)
    monkeypatch.setattr(slices, "ROWS_AT_ONCE", 9)
    assert matcher_recall(beams, homes, judged.Y) == pytest.approx(expected)


def test_a_label_in_two_clusters_is_found_once_by_either():
    tree = LabelTree.from_leaves([[0, 1], [1, 2]], branching=4)
    Y = truth_matrix([{1}, {1}, {1, 2}, {0}], 3)
    beams = truth_matrix([{0}, {1}, {0, 1}, {1}], 2)
    assert matcher_recall(beams, tree.label_leaves(), Y) == 75.0


def test_names_the_sizes_when_beams_do_not_fit(judged, overlapping):
    beams = csr_array((79, 6), dtype=np.float32)
    with pytest.raises(ShapeError, match="79 rows by 6 clusters, but Y_test has 80 rows"):
        matcher_recall(beams, overlapping.label_leaves(), judged.Y)


def test_deciles_hold_every_known_label_once_most_frequent_first(judged):
    rows = slice_by_frequency(
        judged.predictions, judged.Y, label_counts=judged.counts, n_train=judged.n_train
    )
    assert [row.decile for row in rows] == list(range(1, 11))
    assert [row.labels for row in rows] == [3] * 10
    assert sum(row.train_positives for row in rows) == judged.counts.sum()
    heads = [row.train_positives for row in rows]
    assert heads == sorted(heads, reverse=True)
    assert [row.group for row in rows] == ["head"] + ["torso"] * 4 + ["tail"] * 5


def test_decile_figures_pool_to_those_of_the_whole(judged):
    rows = slice_by_frequency(
        judged.predictions, judged.Y, label_counts=judged.counts, n_train=judged.n_train, k=5
    )
    whole = evaluate(
        judged.predictions, judged.Y, label_counts=judged.counts, n_train=judged.n_train
    )
    assert sum(row.psp for row in rows) == pytest.approx(whole["PSP@5"])
    hits = sum(row.recall * row.test_positives / 100 for row in rows if row.test_positives)
    assert hits == pytest.approx(whole["P@5"] / 100 * 5 * len(judged.truth))


def test_a_decile_that_the_test_split_never_asks_for_has_no_recall():
    found = slice_by_frequency(
        predictions_of([[0]], 1),
        truth_matrix([{0}], 2),
        label_counts=np.array([9, 1]),
        n_train=10,
        k=1,
    )
    assert [row.labels for row in found] == [1, 1]  # two labels fill two of the ten deciles
    assert found[0].recall == 100.0
    assert math.isnan(found[1].recall)
    assert math.isnan(found[1].precision)


def test_deciles_hold_equally_many_known_labels_by_frequency(judged):
    deciles = frequency_deciles(judged.counts)
    assert np.bincount(deciles).tolist() == [4, *[3] * 10]  # four labels were never seen
    for decile in range(1, 10):
        least = judged.counts[deciles == decile].min()
        assert least >= judged.counts[deciles == decile + 1].max()
    groups = frequency_groups(judged.counts)
    assert [int(groups[name].sum()) for name in GROUPS] == [3, 12, 15]
    assert np.array_equal(groups["tail"], deciles > 5)
    assert [group_of(decile) for decile in (1, 2, 5, 6, 10)] == [
        "head", "torso", "torso", "tail", "tail"
    ]  # fmt: skip


def test_few_labels_leave_deciles_empty():
    deciles = frequency_deciles(np.array([5, 9, 0]))
    assert deciles[2] == 0
    assert 0 < deciles[1] < deciles[0]
    assert sum(int(flags.sum()) for name, flags in frequency_groups([5, 9]).items()
               if name in GROUPS) == 2  # fmt: skip


def test_every_measure_of_a_group_agrees_with_the_reference(judged):
    groups = frequency_groups(judged.counts)
    found = scores_by_group(
        judged.predictions, judged.Y, groups, label_counts=judged.counts, n_train=judged.n_train
    )
    assert list(found) == [*map(str, range(1, 11)), *GROUPS]
    for group, measures in found.items():
        labels = set(np.flatnonzero(groups[group]).tolist())
        truth = reference.within(judged.truth, labels)
        expected = reference.evaluate(
            judged.ranked, truth, judged.counts, judged.n_train, (1, 3, 5, 10)
        )
        assert set(measures) == set(expected)
        for name, value in expected.items():
            assert measures[name].value == pytest.approx(value), (group, name)


def test_precisions_of_all_deciles_add_up(judged):
    settings = {"label_counts": judged.counts, "n_train": judged.n_train}
    groups = {str(d): frequency_groups(judged.counts)[str(d)] for d in range(1, 11)}
    found = scores_by_group(judged.predictions, judged.Y, groups, **settings)
    total = sum(measures["P@5"].value for measures in found.values())
    # Labels that training never showed are in no decile, and are never predicted here.
    assert total == pytest.approx(evaluate(judged.predictions, judged.Y, **settings)["P@5"])


def test_figures_about_a_groups_labels_agree_with_the_reference(judged):
    groups = frequency_groups(judged.counts)
    counts = count_by_label(judged.predictions, judged.Y, 5)
    for name in GROUPS:
        labels = set(np.flatnonzero(groups[name]).tolist())
        truth = reference.within(judged.truth, labels)
        ranked = [[label for label in row[:5] if label in labels] for row in judged.ranked]
        coverage, macro, micro = labels_of_group(counts, groups[name])
        assert coverage == pytest.approx(reference.coverage_at(5, ranked, truth))
        expected = reference.f1_at(5, ranked, truth, judged.Y.shape[1])
        assert (macro, micro) == pytest.approx(expected)


def test_a_group_without_labels_in_the_test_split_is_left_out():
    Y = truth_matrix([{0}, {0, 1}], 3)
    predictions = predictions_of([[0], [1]], 2)
    groups = {"some": np.array([True, False, False]), "none": np.array([False, False, True])}
    found = scores_by_group(predictions, Y, groups, label_counts=np.array([3, 2, 1]), n_train=9)
    assert list(found) == ["some"]
    counts = count_by_label(predictions, Y, 1)
    assert labels_of_group(counts, groups["none"]) == (0.0, 0.0, 0.0)


def test_the_callers_matrix_stays_whole(judged):
    before = judged.Y.copy()
    some = within(judged.Y, frequency_groups(judged.counts)["head"])
    assert some.nnz < judged.Y.nnz
    assert (before != judged.Y).nnz == 0


def test_the_threshold_gives_as_many_labels_as_wanted():
    scores = np.array([[0.9, 0.4], [0.8, 0.7], [0.3, -np.inf]], np.float32)
    labels = np.array([[0, 1], [1, 0], [2, -1]], np.int32)
    predictions = Predictions(labels, scores)
    for labels_per_row, expected in ((1.0, 0.7), (4 / 3, 0.4), (9.0, 0.3), (0.0, 0.9)):
        found = threshold_for_mean(predictions, labels_per_row)
        assert found == pytest.approx(expected, abs=1e-6)
        if 1 <= labels_per_row <= 4 / 3:
            kept = predictions.at_least(found).labels >= 0
            assert kept.sum() == round(3 * labels_per_row)
    none = Predictions(np.full((2, 1), -1, np.int32), np.full((2, 1), -np.inf, np.float32))
    assert threshold_for_mean(none, 2.0) == 0.0
