"""Thresholds for a wanted precision: what held-out rows promised, and what the test split shows."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from xmc_core.data import Predictions
from xmc_core.metrics.matching import check_predictions, find_hits, ground_truth
from xmc_core.metrics.ranking import percent
from xmc_core.types import Doubles, SparseRows

POINT_COLUMNS = ("precision", "recall", "answered")


@dataclass(frozen=True, slots=True)
class Promise:
    """One wanted precision. All but the threshold in percent."""

    wanted: float
    threshold: float
    held_out: tuple[float, float, float]
    """Precision, recall, and rows with an answer; seen when the curve was fitted."""

    test: tuple[float, float, float]
    """The same on the test split."""


def above(
    predictions: Predictions, Y_test: SparseRows, thresholds: Sequence[float] | Doubles
) -> Doubles:
    """(n_thresholds, 3) precision, recall and rows with an answer, in percent, when only labels are
    given that score at least so much. Precision is nan where nothing is given."""
    truth = ground_truth(Y_test)
    check_predictions(predictions, truth)
    given = predictions.labels >= 0
    hits = find_hits(predictions.labels, truth)
    ascending = np.sort(predictions.scores[given])
    right = np.sort(predictions.scores[hits])
    best = np.sort(np.where(given, predictions.scores, -np.inf).max(axis=1, initial=-np.inf))
    told = np.empty((len(thresholds), len(POINT_COLUMNS)))
    for place, threshold in enumerate(np.asarray(thresholds, np.float32)):
        n_given, n_right, n_answered = (
            len(scores) - int(np.searchsorted(scores, threshold))
            for scores in (ascending, right, best)
        )
        told[place] = (
            100.0 * n_right / n_given if n_given else float("nan"),
            percent(n_right, truth.nnz),
            percent(n_answered, len(best)),
        )
    return told
