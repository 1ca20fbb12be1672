"""The champion's gate, on predictions whose quality is known."""

import numpy as np

from orchestration import gate
from tests.orchestration.stores import N_LABELS, N_TEST, predictions, small_dataset
from xmc_core.config import Config
from xmc_core.data import Predictions

DATA = small_dataset()
CONFIG = Config()


def judge(challenger: Predictions, champion: Predictions):
    return gate.judge(challenger, champion, DATA, CONFIG)


def test_a_better_challenger_passes():
    found = judge(predictions(right=0.9), predictions(right=0.3, seed=1))
    assert found.passed
    assert set(found.results) == set(gate.METRICS)


def test_a_much_worse_challenger_is_refused_and_the_reason_names_the_metric():
    found = judge(predictions(right=0.2), predictions(right=0.9))
    assert not found.passed
    assert "P@1" in found.reason
    assert "worse than the champion by more than its noise" in found.reason


def test_an_equal_challenger_passes():
    assert judge(predictions(right=0.5), predictions(right=0.5)).passed


def test_a_difference_within_the_noise_passes():
    champion = predictions(right=0.6)
    labels = champion.labels.copy()
    labels[0] = labels[0][::-1]  # one row of forty turned over
    assert judge(Predictions(labels, champion.scores), champion).passed


def test_labels_are_matched_by_name_not_by_number():
    original = predictions(right=0.8)
    order = np.random.default_rng(0).permutation(N_LABELS)
    names = [DATA.label_names[label] for label in order]
    place = np.argsort(order).astype(np.int32)
    foreign = Predictions(place[original.labels], original.scores)
    found = gate.renumber(foreign, names, DATA.label_names)
    np.testing.assert_array_equal(found.labels, original.labels)


def test_a_label_that_is_gone_leaves_a_gap_at_the_end():
    told = Predictions(np.array([[2, 1, 0]], np.int32), np.array([[3, 2, 1]], np.float32))
    found = gate.renumber(told, ["a", "gone", "c"], ["c", "a"])
    assert found.labels.tolist() == [[0, 1, -1]]
    assert found.scores.tolist() == [[3, 1, -np.inf]]


def test_padding_stays_padding():
    told = Predictions(np.array([[0, -1]], np.int32), np.array([[1, -np.inf]], np.float32))
    assert gate.renumber(told, ["a"], ["b", "a"]).labels.tolist() == [[1, -1]]


def test_the_stores_of_these_tests_are_what_they_say():
    assert len(predictions(right=1.0).labels) == N_TEST
    assert judge(predictions(right=1.0), predictions(right=1.0)).results["P@1"].difference == 0
