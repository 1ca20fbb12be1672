"""Metrics one row and one label at a time, straight from their definitions.

Rows of predictions are lists of labels, best first; rows of truth are sets. Everything is in
percent.
"""

import math
from collections.abc import Sequence

Ranked = Sequence[Sequence[int]]
Truth = Sequence[set[int]]


def propensity(count: float, n: int, a: float = 0.55, b: float = 1.5) -> float:
    c = (math.log(n) - 1) * (b + 1) ** a
    return 1 / (1 + c * math.exp(-a * math.log(count + b)))


def precision_at(k: int, ranked: Ranked, truth: Truth) -> float:
    per_row = []
    for labels, true in zip(ranked, truth, strict=True):
        per_row.append(sum(label in true for label in labels[:k]) / k)
    return 100 * sum(per_row) / len(per_row)


def recall_at(k: int, ranked: Ranked, truth: Truth) -> float:
    per_row = []
    for labels, true in zip(ranked, truth, strict=True):
        if true:
            per_row.append(sum(label in true for label in labels[:k]) / len(true))
    return 100 * sum(per_row) / len(per_row)


def discounted(gains: Sequence[float]) -> float:
    return sum(gain / math.log2(rank + 1) for rank, gain in enumerate(gains, start=1))


def ndcg_at(k: int, ranked: Ranked, truth: Truth) -> float:
    per_row = []
    for labels, true in zip(ranked, truth, strict=True):
        if true:
            got = discounted([float(label in true) for label in labels[:k]])
            per_row.append(got / discounted([1.0] * min(k, len(true))))
    return 100 * sum(per_row) / len(per_row)


def psp_at(k: int, ranked: Ranked, truth: Truth, propensities: Sequence[float]) -> float:
    got, best = 0.0, 0.0
    for labels, true in zip(ranked, truth, strict=True):
        got += sum(1 / propensities[label] for label in labels[:k] if label in true) / k
        best += sum(sorted((1 / propensities[label] for label in true), reverse=True)[:k]) / k
    return 100 * got / best


def psndcg_at(k: int, ranked: Ranked, truth: Truth, propensities: Sequence[float]) -> float:
    got, best = 0.0, 0.0
    for labels, true in zip(ranked, truth, strict=True):
        if true:
            ideal = discounted([1.0] * min(k, len(true)))
            gains = [1 / propensities[label] if label in true else 0.0 for label in labels[:k]]
            got += discounted(gains) / ideal
            weights = sorted((1 / propensities[label] for label in true), reverse=True)
            best += discounted(weights[:k]) / ideal
    return 100 * got / best


def evaluate(
    ranked: Ranked, truth: Truth, counts: Sequence[int], n_train: int, ks: Sequence[int]
) -> dict[str, float]:
    propensities = [propensity(count, n_train) for count in counts]
    metrics = {}
    for k in ks:
        metrics[f"P@{k}"] = precision_at(k, ranked, truth)
        metrics[f"R@{k}"] = recall_at(k, ranked, truth)
        metrics[f"nDCG@{k}"] = ndcg_at(k, ranked, truth)
        metrics[f"PSP@{k}"] = psp_at(k, ranked, truth, propensities)
        metrics[f"PSnDCG@{k}"] = psndcg_at(k, ranked, truth, propensities)
    return metrics


def coverage_at(k: int, ranked: Ranked, truth: Truth) -> float:
    found = {
        label
        for labels, true in zip(ranked, truth, strict=True)
        for label in labels[:k]
        if label in true
    }
    return 100 * len(found) / len(set().union(*truth))


def f1_at(k: int, ranked: Ranked, truth: Truth, n_labels: int) -> tuple[float, float]:
    each, totals = [], [0, 0, 0]
    for label in range(n_labels):
        hit = false_alarm = missed = 0
        for labels, true in zip(ranked, truth, strict=True):
            predicted = label in labels[:k]
            hit += predicted and label in true
            false_alarm += predicted and label not in true
            missed += not predicted and label in true
        if hit + false_alarm + missed:
            each.append(2 * hit / (2 * hit + false_alarm + missed))
        totals = [t + n for t, n in zip(totals, (hit, false_alarm, missed), strict=True)]
    micro = 2 * totals[0] / (2 * totals[0] + totals[1] + totals[2])
    return 100 * sum(each) / len(each), 100 * micro


def matcher_recall(beams: Truth, leaves: Sequence[Sequence[int]], truth: Truth) -> float:
    per_row = []
    for reached, true in zip(beams, truth, strict=True):
        if true:
            found = {label for leaf in reached for label in leaves[leaf]}
            per_row.append(len(found & true) / len(true))
    return 100 * sum(per_row) / len(per_row)


def within(truth: Truth, labels: set[int]) -> list[set[int]]:
    """Truth as if only these labels were asked for."""
    return [true & labels for true in truth]


def holm(p_values: Sequence[float]) -> list[float]:
    """Corrected p: the largest, over all p up to one's own, of p times the number not smaller."""
    n = len(p_values)
    ascending = sorted(p_values)
    return [
        min(1.0, max((n - place) * p for place, p in enumerate(ascending) if p <= own))
        for own in p_values
    ]


def above(
    threshold: float, scores: Sequence[Sequence[float]], ranked: Ranked, truth: Truth
) -> tuple[float, float, float]:
    """Precision, recall and rows answered when only labels that score so much are given."""
    given = right = answered = 0
    for row, labels, true in zip(scores, ranked, truth, strict=True):
        kept = [label for score, label in zip(row, labels, strict=True) if score >= threshold]
        given, right = given + len(kept), right + len(true.intersection(kept))
        answered += bool(kept)
    total = sum(len(true) for true in truth)
    precision = 100 * right / given if given else math.nan
    return precision, 100 * right / total, 100 * answered / len(ranked)


def variation_of_information(one: Sequence[int], other: Sequence[int]) -> float:
    """H(one | other) + H(other | one) in bits, item by item."""

    def unsaid(a: Sequence[int], b: Sequence[int]) -> float:
        """H(a | b): how surprising an item's group in a is, once its group in b is known."""
        bits = 0.0
        for group_a, group_b in zip(a, b, strict=True):
            together = sum(x == group_a and y == group_b for x, y in zip(a, b, strict=True))
            bits -= math.log2(together / b.count(group_b)) / len(a)
        return bits

    return unsaid(one, other) + unsaid(other, one)
