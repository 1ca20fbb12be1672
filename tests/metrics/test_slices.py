import math

import numpy as np
import pytest
from scipy.sparse import csr_array

from tests.metrics.conftest import predictions_of, truth_matrix
from tests.reference import metrics as reference
from xmc_core.errors import ShapeError
from xmc_core.metrics import (
    evaluate,
    f1_scores,
    label_coverage,
    matcher_recall,
    slice_by_frequency,
    slices,
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
