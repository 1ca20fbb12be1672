"""All figures of one model on the test split of a data set: what metrics.json keeps."""

from typing import Any

from xmc_core.config import Config
from xmc_core.data import Dataset, Predictions
from xmc_core.metrics.ranking import KS, RowScores, evaluate, rounded, row_scores
from xmc_core.metrics.reliability import are_probabilities, calibration_error
from xmc_core.metrics.slices import f1_scores, label_coverage, threshold_for_mean

SUMMARY = ("P@1", "P@3", "P@5", "nDCG@5", "PSP@1", "PSP@5")
"""Metrics of the table that everybody sees."""

CUT = 5
"""F1 at a fixed rank, slices and the calibration error look at the five best labels."""


def all_metrics(
    predictions: Predictions, dataset: Dataset, config: Config, *, threshold: float | None = None
) -> dict[str, float]:
    """Percent by name, four decimals: what `evaluate` gives, and the figures about labels.

    coverage@k; macro-F1@5 and micro-F1@5, the five best labels taken as a row's labels; macro-F1
    and micro-F1, those that score `threshold` or more (None: as many as training rows have on
    average, see `threshold_for_mean`); where scores are probabilities ECE@1 and ECE@5.

    Errors are those of `evaluate`.
    """
    Y_test = dataset.Y_test
    metrics = evaluate(predictions, Y_test, **frequencies(dataset, config))
    for k in KS:
        metrics[f"coverage@{k}"] = label_coverage(predictions, Y_test, k)
    metrics[f"macro-F1@{CUT}"], metrics[f"micro-F1@{CUT}"] = f1_scores(predictions, Y_test, CUT)
    if threshold is None:
        threshold = threshold_for_mean(predictions, dataset.Y_train.nnz / dataset.Y_train.shape[0])
    passed = predictions.at_least(threshold)
    width = max(predictions.labels.shape[1], 1)
    metrics["macro-F1"], metrics["micro-F1"] = f1_scores(passed, Y_test, width)
    if are_probabilities(predictions):
        for k in (1, CUT):
            metrics[f"ECE@{k}"] = calibration_error(predictions, Y_test, k)
    return rounded(metrics)


def row_figures(predictions: Predictions, dataset: Dataset, config: Config) -> dict[str, RowScores]:
    """What `evaluate` gives row by row, for intervals and tests; the summary's figures first."""
    scores = row_scores(predictions, dataset.Y_test, **frequencies(dataset, config))
    return {name: scores[name] for name in (*SUMMARY, *(n for n in scores if n not in SUMMARY))}


def frequencies(dataset: Dataset, config: Config) -> dict[str, Any]:
    """What the propensities are made of: training frequencies, and the data set's constants."""
    return {
        "label_counts": dataset.label_counts,
        "n_train": dataset.Y_train.shape[0],
        "a": config.dataset.propensity_a,
        "b": config.dataset.propensity_b,
    }
