"""All figures of one model on one test split: what metrics.json keeps."""

import numpy as np
from numpy.typing import NDArray

from xmc_core.data import Predictions
from xmc_core.metrics.ranking import KS, evaluate, rounded
from xmc_core.metrics.reliability import are_probabilities, calibration_error
from xmc_core.metrics.slices import f1_scores, label_coverage, threshold_for_mean
from xmc_core.types import SparseRows

CUT = 5
"""F1 at a fixed rank, slices and the calibration error look at the five best labels."""


def all_metrics(
    predictions: Predictions,
    Y_test: SparseRows,
    *,
    label_counts: NDArray[np.integer],
    n_train: int,
    a: float = 0.55,
    b: float = 1.5,
    threshold: float | None = None,
) -> dict[str, float]:
    """What `evaluate` gives, and the figures about labels: percent by name, four decimals.

    coverage@k; macro-F1@5 and micro-F1@5, the five best labels taken as a row's labels; macro-F1
    and micro-F1, those that score `threshold` or more (None: as many as training rows have on
    average, see `threshold_for_mean`); where scores are probabilities ECE@1 and ECE@5.

    Parameters and errors are those of `evaluate`.
    """
    metrics = evaluate(predictions, Y_test, label_counts=label_counts, n_train=n_train, a=a, b=b)
    for k in KS:
        metrics[f"coverage@{k}"] = label_coverage(predictions, Y_test, k)
    metrics[f"macro-F1@{CUT}"], metrics[f"micro-F1@{CUT}"] = f1_scores(predictions, Y_test, CUT)
    if threshold is None:
        threshold = threshold_for_mean(predictions, float(np.sum(label_counts)) / n_train)
    width = predictions.labels.shape[1]
    passed = predictions.at_least(threshold)
    metrics["macro-F1"], metrics["micro-F1"] = f1_scores(passed, Y_test, max(width, 1))
    if are_probabilities(predictions):
        for k in (1, CUT):
            metrics[f"ECE@{k}"] = calibration_error(predictions, Y_test, k)
    return rounded(metrics)
