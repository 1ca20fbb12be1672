"""Which rows are held out, and that nobody who trains has seen them."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from scipy.sparse import csr_array

from xmc_core.config import Config
from xmc_core.data import Predictions
from xmc_core.errors import ConfigError, DataError
from xmc_core.models import calibrate as module
from xmc_core.models.calibrate import calibrate, held_out

N_ROWS, N_LABELS = 100, 4
Y = csr_array((np.arange(N_ROWS)[:, None] % N_LABELS == np.arange(N_LABELS)).astype(np.float32))


def settings(**changes) -> Config:
    return Config().replace(
        **{"calibration.method": "isotonic"}
        | {f"calibration.{name}": value for name, value in changes.items()}
    )


class Answers:
    """A model that gives every row its own number, remembers what it was trained on, and is right
    in its first place for even rows."""

    def __init__(self) -> None:
        self.calls: list[tuple[np.ndarray, np.ndarray]] = []

    def __call__(self, kept: np.ndarray, out: np.ndarray) -> Predictions:
        self.calls.append((kept, out))
        right = out % N_LABELS
        wrong = (right + 1) % N_LABELS
        even = (out % 2 == 0)[:, None]
        labels = np.where(even, np.stack([right, wrong], 1), np.stack([wrong, right], 1))
        scores = np.stack([out + 1.0, out], axis=1)
        return Predictions(labels.astype(np.int32), scores.astype(np.float32))


@pytest.mark.parametrize(("share", "folds", "run"), [(0.2, 1, 1), (0.2, 5, 1), (0.25, 3, 10)])
def test_each_fold_trains_on_all_rows_that_it_does_not_predict(share, folds, run):
    answers = Answers()
    predictions, truth = held_out(Y, settings(share=share, folds=folds, run=run), answers)
    assert len(answers.calls) == folds
    everything = []
    for kept, out in answers.calls:
        assert len(out) == N_ROWS * share
        assert sorted([*kept, *out]) == list(range(N_ROWS))
        assert np.all(np.diff(out) > 0)
        everything += out.tolist()
    assert len(set(everything)) == len(everything)  # no row is held out twice
    # Predictions and truth are of the same rows, in the same order.
    assert_array_equal(predictions.scores[:, 1], everything)
    assert_array_equal(truth.indices, np.array(everything) % N_LABELS)
    if run > 1:
        gaps = sum((np.diff(out) > 1).sum() for _, out in answers.calls)
        assert gaps <= folds * (N_ROWS * share / run + 1)


def test_the_curves_are_those_of_the_held_out_rows():
    calibration = calibrate(Y, settings(share=0.5), Answers())
    assert calibration.facts["rows"] == 50
    assert calibration.facts["pairs"] == 100
    # Half of all pairs are right, whatever the score.
    found = calibration.probabilities(np.zeros(3, np.int32), np.array([0.0, 50.0, 99.0]))
    assert np.all(np.abs(found - 0.5) < 0.25)


def test_a_stored_zero_is_no_label():
    stored = Y.copy()
    stored.data[:50] = 0.0
    _, truth = held_out(stored, settings(share=0.5), Answers())
    assert truth.nnz < 50


def test_large_sets_hold_out_no_more_than_enough(monkeypatch):
    monkeypatch.setattr(module, "MOST_ROWS", 7)
    answers = Answers()
    held_out(Y, settings(folds=2), answers)
    assert [len(out) for _, out in answers.calls] == [7, 7]


def test_equal_seeds_hold_out_the_same_rows():
    first, second, other = Answers(), Answers(), Answers()
    held_out(Y, settings(), first)
    held_out(Y, settings(), second)
    held_out(Y, settings().replace(seed=1), other)
    assert_array_equal(first.calls[0][1], second.calls[0][1])
    assert first.calls[0][1].tolist() != other.calls[0][1].tolist()


def test_too_few_rows_are_said():
    with pytest.raises(DataError, match="4 training rows are too few to hold out 20% of them"):
        held_out(Y[:4], settings(), Answers())


def test_settings_out_of_range_are_refused():
    for changes, words in (
        ({"share": 0.6}, "calibration.share must be above 0 and at most .5"),
        ({"share": 0.0}, "calibration.share"),
        ({"folds": 6}, "calibration.folds must be at most 1 / calibration.share"),
        ({"folds": 0}, "calibration.folds must be at least 1"),
        ({"run": 0}, "calibration.run must be at least 1"),
        ({"label_positives": -1}, "calibration.label_positives"),
        ({"method": "sigmoid"}, "calibration.method must be one of none, isotonic, platt"),
    ):
        with pytest.raises(ConfigError, match=words):
            settings(**changes)
    settings(share=0.1, folds=10)
