import numpy as np
import pytest
from numpy.testing import assert_allclose

from tests.metrics.conftest import truth_matrix
from tests.reference import calibration as reference
from tests.reference import metrics as slow
from xmc_core.data import Predictions
from xmc_core.errors import DataError
from xmc_core.metrics.promises import above
from xmc_core.metrics.reliability import (
    BINS,
    are_probabilities,
    calibration_error,
    reliability,
)


def made(n_rows: int, *, power: float = 1.0) -> tuple[Predictions, list[set[int]]]:
    """Labels that apply with a probability; what is given is its power."""
    rng = np.random.default_rng(6)
    true = -np.sort(-rng.random((n_rows, 4)), axis=1)
    labels = np.argsort(rng.random((n_rows, 9)), axis=1)[:, :4].astype(np.int32)
    labels[::7, 3] = -1
    truth = [
        {int(label) for label, p in zip(row, own, strict=True) if rng.random() < p} - {-1}
        for row, own in zip(labels, true, strict=True)
    ]
    scores = np.where(labels >= 0, true**power, -np.inf).astype(np.float32)
    return Predictions(labels, scores), truth


def test_the_error_agrees_with_the_reference():
    predictions, truth = made(50, power=2.0)
    Y = truth_matrix(truth, 9)
    for k in (1, 3, 9):
        pairs = [
            (float(score), int(label) in true)
            for labels, scores, true in zip(
                predictions.labels, predictions.scores, truth, strict=True
            )
            for label, score in list(zip(labels, scores, strict=True))[:k]
            if label >= 0
        ]
        expected = reference.expected_error([p for p, _ in pairs], [h for _, h in pairs], BINS)
        assert calibration_error(predictions, Y, k) == pytest.approx(expected)
        assert reliability(predictions, Y, k).error == pytest.approx(expected)


def test_true_probabilities_have_next_to_no_error_and_wrong_ones_what_they_are_off_by():
    right, truth = made(8_000)
    assert calibration_error(right, truth_matrix(truth, 9), 4) < 1.5
    wrong, truth = made(8_000, power=2.0)
    # The mean of p - p^2 over all p is a sixth.
    assert calibration_error(wrong, truth_matrix(truth, 9), 4) == pytest.approx(100 / 6, abs=1.0)


def test_a_diagram_holds_every_pair_once_and_its_intervals_hold_the_share():
    predictions, truth = made(400)
    bins = reliability(predictions, truth_matrix(truth, 9), 4, seed=3)
    assert bins.pairs.sum() == (predictions.labels >= 0).sum()
    assert bins.pairs.max() - bins.pairs.min() <= 1
    assert np.all(np.diff(bins.confidence) > 0)
    assert np.all((bins.low <= bins.hits) & (bins.hits <= bins.high))
    again = reliability(predictions, truth_matrix(truth, 9), 4, seed=3)
    assert_allclose(again.low, bins.low, rtol=0)


def test_few_pairs_are_bins_of_their_own():
    predictions = Predictions(np.array([[0, 1]], np.int32), np.array([[0.75, 0.5]], np.float32))
    Y = truth_matrix([{0}], 2)
    bins = reliability(predictions, Y, 5)
    assert bins.confidence.tolist() == [50.0, 75.0]
    assert bins.hits.tolist() == [0.0, 100.0]
    assert calibration_error(predictions, Y, 5) == pytest.approx(37.5)
    assert calibration_error(predictions, Y, 1) == pytest.approx(25.0)


def test_no_answers_have_no_error():
    empty = Predictions(np.full((2, 3), -1, np.int32), np.full((2, 3), -np.inf, np.float32))
    assert not are_probabilities(empty)


def test_margins_are_no_probabilities():
    predictions, truth = made(20)
    margins = Predictions(predictions.labels, predictions.scores - 0.5)
    assert are_probabilities(predictions)
    assert not are_probabilities(margins)
    with pytest.raises(DataError, match="no probabilities and have no calibration error"):
        reliability(margins, truth_matrix(truth, 9), 4)


def test_what_is_left_above_a_threshold_agrees_with_the_reference():
    predictions, truth = made(60)
    thresholds = [0.0, 0.25, float(predictions.scores[3, 1]), 0.9, 1.5]
    found = above(predictions, truth_matrix(truth, 9), thresholds)
    for row, threshold in zip(found, thresholds, strict=True):
        expected = slow.above(threshold, predictions.scores, predictions.labels, truth)
        assert_allclose(row, expected)
    assert np.isnan(found[-1, 0])
    assert found[-1, 1:].tolist() == [0.0, 0.0]
    assert found[0, 2] == 100.0


def test_equal_probabilities_do_not_depend_on_the_order_of_rows():
    predictions, truth = made(400)
    few = np.where(predictions.labels >= 0, np.ceil(predictions.scores * 3) / 3, -np.inf)
    order = np.random.default_rng(4).permutation(400)
    errors = [
        calibration_error(
            Predictions(predictions.labels[rows], few[rows].astype(np.float32)),
            truth_matrix([truth[row] for row in rows], 9),
            4,
        )
        for rows in (np.arange(400), order, np.argsort([len(true) for true in truth]))
    ]
    assert errors == pytest.approx([errors[0]] * 3)
