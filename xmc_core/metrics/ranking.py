"""Precision, recall, nDCG and their propensity-scored forms at k.

Conventions are those of the Extreme Classification Repository's tools:

- P@k divides the hits by k, also where a sample has fewer than k labels. A sample without labels is
  kept and scores 0.
- R@k divides by the number of a sample's labels; nDCG@k by the best DCG possible, which is that of
  min(k, number of labels) hits. Both leave out samples without labels, where they are 0 / 0 (the
  repository's tools count those as 0; on its own data sets there are none in question).
- PSP@k weights each hit with the inverse propensity of its label. Its sum over all samples is
  divided by the sum that perfect predictions would reach, not averaged sample by sample. PSnDCG@k
  likewise, after each sample's discounted sum, and that of perfect predictions, was divided by the
  best DCG possible.
- Columns of Y_test beyond the training labels are labels that no model could know. They count as
  missed. So does every place, up to k, for which a row of predictions names no label.

Each of these is a sum over samples divided by a sum over samples, and so a `RowScores`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from xmc_core.data import Predictions
from xmc_core.errors import ConfigError, ShapeError
from xmc_core.metrics.matching import check_predictions, find_hits, ground_truth, top_labels
from xmc_core.metrics.propensity import jain_propensity
from xmc_core.parallel import row_blocks
from xmc_core.types import Doubles, SparseRows

KS = (1, 3, 5, 10)
NAMES = tuple(f"{kind}@{k}" for k in KS for kind in ("P", "R", "nDCG", "PSP", "PSnDCG"))
"""What `evaluate` gives."""

ROWS_AT_ONCE = 65_536


@dataclass(frozen=True, slots=True, eq=False)
class RowScores:
    """One metric before averaging: 100 * sum(gain) / sum(weight)."""

    gain: Doubles
    """(n_samples,)."""

    weight: Doubles
    """(n_samples,); 1 for P@k, the gain of perfect predictions for PSP@k."""

    def __post_init__(self) -> None:
        if self.gain.shape != self.weight.shape or self.gain.ndim != 1:
            raise ShapeError(f"gain is {self.gain.shape} but weight is {self.weight.shape}.")

    @property
    def value(self) -> float:
        """The metric, in percent."""
        return percent(float(self.gain.sum()), float(self.weight.sum()))


def evaluate(
    predictions: Predictions,
    Y_test: SparseRows,
    *,
    label_counts: NDArray[np.integer],
    n_train: int,
    ks: Sequence[int] = KS,
    a: float = 0.55,
    b: float = 1.5,
) -> dict[str, float]:
    """Judge ranked labels; conventions are at the top of this module.

    Parameters
    ----------
    predictions : n_test rows, best label first
    Y_test : (n_test, n_labels or more) CSR
        A stored non-zero means that the label applies.
    label_counts : (n_labels or more,), training samples
        Positives per label in the training split; columns beyond it count as never seen.
    n_train : training samples
    ks : ranks to cut at
    a, b : constants of the propensity, see `jain_propensity`

    Returns
    -------
    Percent by name: "P@1", "R@1", "nDCG@1", "PSP@1", "PSnDCG@1", "P@3", ...

    Raises
    ------
    ShapeError
        If the rows or the labels of predictions, Y_test and label_counts do not fit together.
    DataError
        If Y_test has no label at all, or a row of predictions names a label twice.
    """
    truth = ground_truth(Y_test)
    check_predictions(predictions, truth)
    inverse = inverse_propensity(label_counts, n_train, truth.shape[1], a=a, b=b)
    sums: dict[str, Doubles] = {}
    for start, end in row_blocks(truth.shape[0], ROWS_AT_ONCE):
        part = Predictions(predictions.labels[start:end], predictions.scores[start:end])
        for name, rows in _score(part, truth[start:end], inverse, ks).items():
            both = np.array([rows.gain.sum(), rows.weight.sum()])
            sums[name] = sums.get(name, np.zeros(2)) + both
    return {name: percent(float(gain), float(weight)) for name, (gain, weight) in sums.items()}


def row_scores(
    predictions: Predictions,
    Y_test: SparseRows,
    *,
    label_counts: NDArray[np.integer],
    n_train: int,
    ks: Sequence[int] = KS,
    a: float = 0.55,
    b: float = 1.5,
) -> dict[str, RowScores]:
    """The same metrics sample by sample, for the bootstrap; parameters as in `evaluate`."""
    truth = ground_truth(Y_test)
    check_predictions(predictions, truth)
    inverse = inverse_propensity(label_counts, n_train, truth.shape[1], a=a, b=b)
    return _score(predictions, truth, inverse, ks)


def inverse_propensity(
    label_counts: NDArray[np.integer], n_train: int, n_columns: int, *, a: float, b: float
) -> Doubles:
    """(n_columns,) weight of a hit in PSP@k. Columns beyond `label_counts` were never seen."""
    label_counts = np.asarray(label_counts).ravel()  # the sum of a csr_matrix is a matrix
    if len(label_counts) > n_columns:
        raise ShapeError(
            f"label_counts has {len(label_counts):,} labels but Y_test has {n_columns:,} columns; "
            "Y_test needs a column for every training label."
        )
    counts = np.pad(label_counts, (0, n_columns - len(label_counts)))
    inverse: Doubles = 1.0 / jain_propensity(counts, n_train, a=a, b=b)
    return inverse


def percent(gain: float, weight: float) -> float:
    """100 * gain / weight, and 0 where there is nothing to gain."""
    return 100.0 * gain / weight if weight > 0.0 else 0.0


def rounded(metrics: Mapping[str, float]) -> dict[str, float]:
    """The four decimals that metrics.json keeps."""
    return {name: round(value, 4) for name, value in metrics.items()}


def plain_name(metric: str) -> str:
    """A metric's name for tools that allow letters, digits and underscores only.

    >>> plain_name("P@1"), plain_name("nDCG@5"), plain_name("macro-F1@5")
    ('precision_at_1', 'ndcg_at_5', 'macro_f1_at_5')
    """
    kind, _, k = metric.partition("@")
    kind = {"P": "precision", "R": "recall"}.get(kind, kind.lower().replace("-", "_"))
    return f"{kind}_at_{k}" if k else kind


def _score(
    predictions: Predictions, truth: SparseRows, inverse: Doubles, ks: Sequence[int]
) -> dict[str, RowScores]:
    if not ks or min(ks) < 1:
        raise ConfigError(f"ks must name at least one rank, each at least 1, got {tuple(ks)}.")
    deepest = max(ks)
    labels = top_labels(predictions, deepest)
    hits = find_hits(labels, truth)
    n_true = np.diff(truth.indptr)
    ones, has_labels = np.ones(len(n_true)), (n_true > 0).astype(np.float64)

    discounts = 1.0 / np.log2(np.arange(deepest) + 2.0)
    best_dcg = np.concatenate([[0.0], np.cumsum(discounts)])  # by number of hits
    gains = np.where(hits, inverse[labels], 0.0)  # label -1 is no hit: what it reads is dropped
    best_gains = largest_per_row(inverse[truth.indices], truth.indptr, deepest)

    hit_sums = np.cumsum(hits, axis=1, dtype=np.float64)
    dcg = np.cumsum(hits * discounts, axis=1)
    gain_sums, best_gain_sums = np.cumsum(gains, axis=1), np.cumsum(best_gains, axis=1)
    ps_dcg = np.cumsum(gains * discounts, axis=1)
    best_ps_dcg = np.cumsum(best_gains * discounts, axis=1)

    scores: dict[str, RowScores] = {}
    for k in ks:
        ideal = best_dcg[np.clip(n_true, 1, k)]
        last = k - 1
        scores[f"P@{k}"] = RowScores(hit_sums[:, last] / k, ones)
        scores[f"R@{k}"] = RowScores(hit_sums[:, last] / np.maximum(n_true, 1), has_labels)
        scores[f"nDCG@{k}"] = RowScores(dcg[:, last] / ideal, has_labels)
        scores[f"PSP@{k}"] = RowScores(gain_sums[:, last] / k, best_gain_sums[:, last] / k)
        scores[f"PSnDCG@{k}"] = RowScores(ps_dcg[:, last] / ideal, best_ps_dcg[:, last] / ideal)
    return scores


def largest_per_row(values: Doubles, indptr: NDArray[np.integer], k: int) -> Doubles:
    """(n_rows, k) largest values of each CSR row, descending, zeros behind them."""
    n_rows = len(indptr) - 1
    rows = np.repeat(np.arange(n_rows), np.diff(indptr))
    descending = np.lexsort((-values, rows))  # stays within rows, which are already in order
    ranks = np.arange(len(values)) - np.repeat(indptr[:-1], np.diff(indptr))
    kept = ranks < k
    largest = np.zeros((n_rows, k))
    largest[rows[kept], ranks[kept]] = values[descending][kept]
    return largest
