"""Averages of ranked lists, one row and one label at a time."""

import math
from collections.abc import Sequence

Ranked = Sequence[tuple[int, float]]
"""(label, score), best first."""


def worth(ranked: Ranked, how: str, longest: int) -> dict[int, float]:
    """What each label of one list is worth."""
    scores: dict[int, float] = {}
    for label, score in ranked:
        scores.setdefault(label, score)
    if how == "sigmoid":
        return {label: 1 / (1 + math.exp(-score)) for label, score in scores.items()}
    if how == "rank":
        return {label: longest - place for place, label in enumerate(scores)}
    total = sum(math.exp(score) for score in scores.values())
    return {label: math.exp(score) / total for label, score in scores.items()}


def average(members: Sequence[Ranked], how: str, longest: int) -> list[tuple[int, float]]:
    """Best first; equal ones as they first appear, member by member."""
    labels = list(dict.fromkeys(label for ranked in members for label, _ in ranked))
    own = [worth(ranked, how, longest) for ranked in members]
    means = {label: sum(values.get(label, 0.0) for values in own) / len(own) for label in labels}
    return sorted(means.items(), key=lambda item: -item[1])
