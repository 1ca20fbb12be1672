"""Calibration one pair at a time, straight from definitions."""

import math
from collections.abc import Sequence


def isotonic(levels: Sequence[float], weights: Sequence[float]) -> list[float]:
    """Pool adjacent violators: merge neighbours until none descends."""
    blocks: list[list[float]] = []  # level, weight, length
    for level, weight in zip(levels, weights, strict=True):
        blocks.append([level, weight, 1])
        while len(blocks) > 1 and blocks[-2][0] >= blocks[-1][0]:
            (a, v, n), (b, w, m) = blocks[-2:]
            blocks[-2:] = [[(a * v + b * w) / (v + w), v + w, n + m]]
    return [level for level, _, length in blocks for _ in range(int(length))]


def sigmoid(z: float) -> float:
    return 1 / (1 + math.exp(-z))


def platt_loss(
    slope: float, intercept: float, scores: Sequence[float], hits: Sequence[bool]
) -> float:
    n, m = sum(hits), len(hits) - sum(hits)
    loss = 0.0
    for score, hit in zip(scores, hits, strict=True):
        target = (n + 1) / (n + 2) if hit else 1 / (m + 2)
        p = sigmoid(slope * score + intercept)
        loss -= target * math.log(p) + (1 - target) * math.log(1 - p)
    return loss


def shift_loss(
    shift: float, log_odds: Sequence[float], hits: Sequence[bool], deviation: float
) -> float:
    """Minus the log posterior of one label's shift."""
    loss = shift**2 / (2 * deviation**2)
    for z, hit in zip(log_odds, hits, strict=True):
        p = sigmoid(z + shift)
        loss -= math.log(p if hit else 1 - p)
    return loss


def operating_point(
    threshold: float, scores: Sequence[Sequence[float]], hits: Sequence[Sequence[bool]], n_true: int
) -> tuple[float, float, float]:
    """Precision, recall and share of rows with an answer, percent."""
    given = right = answered = 0
    for row, marks in zip(scores, hits, strict=True):
        kept = [mark for score, mark in zip(row, marks, strict=True) if score >= threshold]
        given, right, answered = given + len(kept), right + sum(kept), answered + bool(kept)
    return 100 * right / given, 100 * right / n_true, 100 * answered / len(scores)


def expected_error(probabilities: Sequence[float], hits: Sequence[bool], n_bins: int) -> float:
    """Percent: mean distance of confidence and share of hits, over bins of equally many pairs."""
    pairs = sorted(zip(probabilities, hits, strict=True), key=lambda pair: pair[0])
    total = 0.0
    for number in range(n_bins):
        first, last = (len(pairs) * edge // n_bins for edge in (number, number + 1))
        own = pairs[first:last]
        if own:
            total += abs(sum(p for p, _ in own) - sum(h for _, h in own))
    return 100 * total / len(pairs)
