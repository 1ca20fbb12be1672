"""Where a model is good: by frequency of the labels, by clusters reached, label by label.

Averages over samples are ruled by the few labels that are everywhere. These figures are not.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from xmc_core.data import Predictions
from xmc_core.errors import ShapeError
from xmc_core.metrics.matching import (
    check_predictions,
    contains,
    find_hits,
    ground_truth,
    pair_keys,
    top_labels,
)
from xmc_core.metrics.ranking import (
    KS,
    RowScores,
    inverse_propensity,
    largest_per_row,
    percent,
    row_scores,
)
from xmc_core.parallel import row_blocks
from xmc_core.types import Flags, Pointers, SparseRows

DECILES = 10
GROUPS = ("head", "torso", "tail")
ROWS_AT_ONCE = 65_536
"""Test rows whose (label, cluster) pairs are laid out at the same time."""


@dataclass(frozen=True, slots=True)
class LabelCounts:
    """Outcome of the k best labels of every row, label by label: each (n_labels,)."""

    hits: Pointers
    predicted: Pointers
    true: Pointers


@dataclass(frozen=True, slots=True)
class Slice:
    """A tenth of the training labels, by how often they occur there."""

    decile: int
    """1 holds the most frequent labels, 10 the rarest."""

    labels: int
    train_positives: int
    test_positives: int
    recall: float
    """Hits among the slice's positives in percent, pooled; nan if the test split has none."""

    precision: float
    """Hits among the predictions of the slice's labels in percent; nan if there are none."""

    psp: float
    """Percentage points that the slice contributes to PSP@k."""

    @property
    def group(self) -> str:
        """One of GROUPS, see `group_of`."""
        return group_of(self.decile)


def count_by_label(predictions: Predictions, Y_test: SparseRows, k: int) -> LabelCounts:
    """Hits, predictions and positives of each label when every row is given its k best labels."""
    truth = ground_truth(Y_test)
    check_predictions(predictions, truth)
    labels = top_labels(predictions, k)
    n_labels = truth.shape[1]
    return LabelCounts(
        hits=np.bincount(labels[find_hits(labels, truth)], minlength=n_labels),
        predicted=np.bincount(labels[labels >= 0], minlength=n_labels),
        true=np.bincount(truth.indices, minlength=n_labels),
    )


def threshold_for_mean(predictions: Predictions, labels_per_row: float) -> float:
    """The score from which on rows are given so many labels on average, as far as lists reach.

    It takes no truth to find it, so figures at this threshold are fair on any test split: a system
    says as many labels as training rows have (the proportional cut of Yang, "A Study on
    Thresholding Strategies for Text Categorization", SIGIR 2001).
    """
    scores = np.sort(predictions.scores[predictions.labels >= 0])[::-1]
    wanted = round(labels_per_row * len(predictions.labels))
    return float(scores[min(max(wanted, 1), len(scores)) - 1]) if len(scores) else 0.0


def label_coverage(predictions: Predictions, Y_test: SparseRows, k: int) -> float:
    """Percent of the test split's labels that are right at least once among the k best of a row."""
    counts = count_by_label(predictions, Y_test, k)
    return percent(float((counts.hits > 0).sum()), float((counts.true > 0).sum()))


def f1_scores(predictions: Predictions, Y_test: SparseRows, k: int) -> tuple[float, float]:
    """Macro and micro F1 in percent, when the k best labels of each row are taken as its labels.

    Macro is the mean over the labels that are true or predicted somewhere; for all others F1 is
    0 / 0. Micro pools the counts of all labels first.
    """
    return _f1(count_by_label(predictions, Y_test, k))


def _f1(counts: LabelCounts) -> tuple[float, float]:
    found, wanted = 2.0 * counts.hits, (counts.predicted + counts.true).astype(np.float64)
    seen = wanted > 0
    macro = 100.0 * float(np.mean(found[seen] / wanted[seen])) if seen.any() else 0.0
    return macro, percent(float(found.sum()), float(wanted.sum()))


def frequency_deciles(label_counts: NDArray[np.integer]) -> Pointers:
    """(n_labels,) decile of each label by its frequency in training, 1 for the most frequent ones;
    0 for labels that training never shows."""
    occurrences = np.asarray(label_counts)
    known = np.flatnonzero(occurrences > 0)
    by_frequency = known[np.argsort(-occurrences[known], kind="stable")]
    deciles = np.zeros(len(occurrences), np.int64)
    for decile in range(DECILES):
        first, last = (len(known) * edge // DECILES for edge in (decile, decile + 1))
        deciles[by_frequency[first:last]] = decile + 1
    return deciles


def frequency_groups(label_counts: NDArray[np.integer]) -> dict[str, Flags]:
    """(n_labels,) flags of the labels of each decile, "1" to "10", and of head, torso and tail."""
    deciles = frequency_deciles(label_counts)
    groups = {str(decile): deciles == decile for decile in range(1, DECILES + 1)}
    for group in GROUPS:
        members = [decile for decile in range(1, DECILES + 1) if group_of(decile) == group]
        groups[group] = np.isin(deciles, members)
    return groups


def group_of(decile: int) -> str:
    """head: decile 1; torso: 2 to 5; tail: the rarer half of all labels."""
    return "head" if decile == 1 else "torso" if decile <= 5 else "tail"


def within(Y: SparseRows, labels: Flags) -> SparseRows:
    """`Y` as if only these labels, (n_labels,) flags, were asked for; later columns are left out.

    Predictions stay whole when they are judged by it, so P@k of all deciles adds up to P@k, and
    recall, nDCG and the propensity-scored measures say how well these labels are found.
    """
    truth = csr_array(Y)
    kept = np.zeros(truth.shape[1], bool)
    kept[: len(labels)] = labels
    own = truth.copy()
    own.data = np.where(kept[truth.indices], truth.data, 0).astype(truth.data.dtype)
    own.eliminate_zeros()
    return own


def scores_by_group(
    predictions: Predictions,
    Y_test: SparseRows,
    groups: Mapping[str, Flags],
    *,
    label_counts: NDArray[np.integer],
    n_train: int,
    ks: Sequence[int] = KS,
    a: float = 0.55,
    b: float = 1.5,
) -> dict[str, dict[str, RowScores]]:
    """Every measure of `evaluate` row by row, as if only the labels of a group were asked for.

    Groups that the test split knows no label of are left out.
    """
    parts = {name: within(Y_test, labels) for name, labels in groups.items()}
    return {
        name: row_scores(
            predictions, part, label_counts=label_counts, n_train=n_train, ks=ks, a=a, b=b
        )
        for name, part in parts.items()
        if part.nnz
    }


def labels_of_group(counts: LabelCounts, labels: Flags) -> tuple[float, float, float]:
    """Coverage, macro and micro F1 over the labels of a group, percent, from counts at some k."""
    own = LabelCounts(
        *(array[: len(labels)][labels] for array in (counts.hits, counts.predicted, counts.true))
    )
    coverage = percent(float((own.hits > 0).sum()), float((own.true > 0).sum()))
    return coverage, *_f1(own)


def slice_by_frequency(
    predictions: Predictions,
    Y_test: SparseRows,
    *,
    label_counts: NDArray[np.integer],
    n_train: int,
    k: int = 5,
    a: float = 0.55,
    b: float = 1.5,
) -> list[Slice]:
    """Judge the k best labels of each row by frequency decile of the labels.

    Deciles hold equally many labels, not equally many positives, and cover the labels that occur in
    training; equally frequent labels are cut by number. The slices' PSP adds up to PSP@k. With
    fewer than ten labels some deciles are empty and left out.
    """
    truth = ground_truth(Y_test)
    counts = count_by_label(predictions, truth, k)
    inverse = inverse_propensity(label_counts, n_train, truth.shape[1], a=a, b=b)
    occurrences = np.asarray(label_counts)
    deciles = frequency_deciles(occurrences)
    best = float(largest_per_row(inverse[truth.indices], truth.indptr, k).sum())

    slices = []
    for decile in range(1, DECILES + 1):
        labels = np.flatnonzero(deciles == decile)
        if len(labels) == 0:
            continue
        hits, true, predicted = (
            int(array[labels].sum()) for array in (counts.hits, counts.true, counts.predicted)
        )
        slices.append(
            Slice(
                decile=decile,
                labels=len(labels),
                train_positives=int(occurrences[labels].sum()),
                test_positives=true,
                recall=percent(hits, true) if true else float("nan"),
                precision=percent(hits, predicted) if predicted else float("nan"),
                psp=percent(float((counts.hits[labels] * inverse[labels]).sum()), best),
            )
        )
    return slices


def matcher_recall(beams: SparseRows, label_leaves: SparseRows, Y_test: SparseRows) -> float:
    """Percent of a row's labels that lie in a cluster which the beam reaches, mean over rows.

    What the matcher misses no ranker can bring back: this bounds R@k for every k. `beams` is
    (n_test, n_leaves), a stored entry is a cluster reached; `label_leaves` (n_labels, n_leaves) is
    `LabelTree.label_leaves()`. Rows without labels are left out, and labels that the tree does not
    know count as missed, as in R@k. A label in several clusters is found if one is reached.

    Raises ShapeError if the three do not fit together.
    """
    truth = ground_truth(Y_test)
    n_labels, n_leaves = label_leaves.shape
    if beams.shape != (truth.shape[0], n_leaves):
        raise ShapeError(
            f"beams are {beams.shape[0]:,} rows by {beams.shape[1]:,} clusters, but Y_test has "
            f"{truth.shape[0]:,} rows and the tree {n_leaves:,} leaves."
        )
    if truth.shape[1] < n_labels:
        raise ShapeError(f"Y_test has {truth.shape[1]:,} labels but the tree has {n_labels:,}.")
    reached = beams if beams.has_sorted_indices else beams.sorted_indices()
    homeless = np.pad(label_leaves.indptr, (0, truth.shape[1] - n_labels), mode="edge")
    homes = csr_array(
        (label_leaves.data, label_leaves.indices, homeless), shape=(truth.shape[1], n_leaves)
    )

    total, n_rows = 0.0, 0
    for start, end in row_blocks(truth.shape[0], ROWS_AT_ONCE):
        part = truth[start:end]
        n_true = np.diff(part.indptr)
        rows = np.repeat(np.arange(end - start), n_true)
        pair_homes = homes[part.indices]  # one row for each (sample, label) pair
        pairs = np.repeat(np.arange(part.nnz), np.diff(pair_homes.indptr))
        queries = rows[pairs].astype(np.int64) * n_leaves + pair_homes.indices
        hit = contains(pair_keys(reached[start:end]), queries)
        found = np.bincount(pairs[hit], minlength=part.nnz) > 0
        per_row = np.bincount(rows[found], minlength=end - start)
        total += float((per_row / np.maximum(n_true, 1)).sum())
        n_rows += int((n_true > 0).sum())
    return percent(total, n_rows)
