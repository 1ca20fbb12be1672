"""Do probabilities mean what they say? Of all labels given with 70 %, 70 % should be right."""

from dataclasses import dataclass

import numpy as np

from xmc_core.data import Predictions
from xmc_core.errors import DataError
from xmc_core.metrics.bootstrap import CONFIDENCE, draw_sums
from xmc_core.metrics.matching import check_predictions, find_hits, ground_truth
from xmc_core.types import Doubles, Pointers, SparseRows

BINS = 15
"""Bins of the expected calibration error, of equally many pairs each. Bins of equal width would be
ruled by the many low scores of long lists, with a handful of pairs at the top."""

DRAWS = 500
"""Bootstrap draws behind the intervals of a reliability diagram."""


@dataclass(frozen=True, slots=True, eq=False)
class Reliability:
    """Pairs of (row, label) by probability, in bins of equally many: each (n_bins,), percent."""

    confidence: Doubles
    """Mean probability."""

    hits: Doubles
    """Share of the pairs that are right."""

    low: Doubles
    high: Doubles
    """95% interval of `hits`, from rows drawn with repetition."""

    pairs: Doubles
    """How many; no percentage."""

    @property
    def error(self) -> float:
        """Expected calibration error: mean distance of confidence and hits over all pairs, percent
        (Naeini, Cooper and Hauskrecht, AAAI 2015, with bins of equally many pairs)."""
        gaps = np.abs(self.confidence - self.hits)
        return float(np.average(gaps, weights=self.pairs)) if len(self.pairs) else 0.0


def are_probabilities(predictions: Predictions) -> bool:
    """Whether all scores lie between 0 and 1; margins do not."""
    scores = predictions.scores[predictions.labels >= 0]
    return bool(len(scores)) and bool(scores.min() >= 0.0) and bool(scores.max() <= 1.0)


def reliability(
    predictions: Predictions, Y_test: SparseRows, k: int, *, bins: int = BINS, seed: int = 0
) -> Reliability:
    """Compare the probabilities of the k best labels of each row with how often these are right.

    With fewer pairs than bins there is a bin for each pair.

    Raises DataError if a score is no probability, ShapeError if predictions and Y_test do not fit.
    """
    confidence, hit, rows = _pairs(predictions, Y_test, k)
    numbers = _bins(confidence, bins)
    n_bins = int(numbers.max(initial=-1)) + 1
    n_rows = len(predictions.labels)
    if n_bins == 0:
        none = np.zeros(0)
        return Reliability(none, none, none, none, none)
    cell = rows * n_bins + numbers
    shape, size = (n_rows, n_bins), n_rows * n_bins
    right = np.bincount(cell, hit, size).reshape(shape)
    pairs = np.bincount(cell, minlength=size).reshape(shape).astype(np.float64)
    drawn = draw_sums(np.hstack([right, pairs]), DRAWS, seed)
    shares = drawn[:, :n_bins] / np.maximum(drawn[:, n_bins:], 1.0)
    tail = (1.0 - CONFIDENCE) / 2.0
    low, high = np.quantile(shares, [tail, 1.0 - tail], axis=0)
    total = pairs.sum(axis=0)
    sums = np.bincount(numbers, confidence, n_bins)
    return Reliability(
        confidence=100.0 * sums / total,
        hits=100.0 * right.sum(axis=0) / total,
        low=100.0 * low,
        high=100.0 * high,
        pairs=total,
    )


def calibration_error(predictions: Predictions, Y_test: SparseRows, k: int) -> float:
    """Expected calibration error of the k best labels of each row, percent; see `Reliability`."""
    confidence, hit, _ = _pairs(predictions, Y_test, k)
    numbers = _bins(confidence, BINS)
    gaps = np.abs(np.bincount(numbers, confidence - hit))
    return 100.0 * float(gaps.sum()) / max(len(hit), 1)


def _pairs(
    predictions: Predictions, Y_test: SparseRows, k: int
) -> tuple[Doubles, Doubles, Pointers]:
    """Probability, hit (0 or 1) and row of each pair among the k best."""
    if not are_probabilities(predictions):
        raise DataError(
            "scores are not all between 0 and 1, so they are no probabilities and have no "
            "calibration error; see calibration.method."
        )
    truth = ground_truth(Y_test)
    check_predictions(predictions, truth)
    labels = predictions.labels[:, :k]
    given = labels >= 0
    hit = find_hits(labels, truth)[given].astype(np.float64)
    return predictions.scores[:, :k][given].astype(np.float64), hit, np.nonzero(given)[0]


def _bins(confidence: Doubles, bins: int) -> Pointers:
    """Number of each pair's bin; equal probabilities are in one, or figures would depend on the
    order of rows."""
    n_pairs = len(confidence)
    order = np.argsort(confidence, kind="stable")
    ascending = confidence[order]
    cuts = ascending[np.arange(1, min(bins, n_pairs)) * n_pairs // max(min(bins, n_pairs), 1)]
    starts = np.unique(np.concatenate([[0], np.searchsorted(ascending, cuts)]))
    numbers = np.empty(n_pairs, np.int64)
    numbers[order] = np.searchsorted(starts, np.arange(n_pairs), side="right") - 1
    return numbers
