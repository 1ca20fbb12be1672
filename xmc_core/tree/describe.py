"""What a cluster is about, for people."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from xmc_core.errors import ShapeError
from xmc_core.tree.label_tree import LabelTree
from xmc_core.types import Doubles, Indices, SparseRows


@dataclass(frozen=True, slots=True)
class Description:
    """Labels and telling words of one node."""

    level: int
    node: int
    n_labels: int
    words: tuple[str, ...]
    """Strongest first."""

    labels: tuple[str, ...]
    """The most typical first: those closest to the centre."""

    def __str__(self) -> str:
        more = self.n_labels - len(self.labels)
        labels = "; ".join(self.labels) or "no labels"
        if more > 0:
            labels += f"; and {more:,} more"
        return f"({', '.join(self.words) or 'no words'}): {labels}"


@dataclass(frozen=True)
class TreeGuide:
    """Tells what the nodes of a tree are about.

    A word tells a node apart if its mean weight p over the node's labels is high in itself and high
    against its mean weight q over all labels: words are ranked by p ln(p / q), their part of the
    Kullback-Leibler divergence.

    Raises ShapeError if the arguments do not fit together.
    """

    tree: LabelTree
    label_features: SparseRows
    """(n_labels, n_features): what the tree was grown on. Columns from len(terms) on have no name
    and are not words."""

    terms: Sequence[str]
    """Names of the first len(terms) features."""

    label_names: Sequence[str]

    def __post_init__(self) -> None:
        n_rows, n_features = self.label_features.shape
        if n_rows != self.tree.n_labels or len(self.label_names) < self.tree.n_labels:
            raise ShapeError(
                f"the tree has {self.tree.n_labels:,} labels, but there are {n_rows:,} "
                f"rows of label features and {len(self.label_names):,} label names."
            )
        if len(self.terms) > n_features:
            raise ShapeError(
                f"there are {len(self.terms):,} terms but only {n_features:,} label features; "
                "give the terms of the vectorizer that made them."
            )

    @cached_property
    def overall(self) -> Doubles:
        """(n_features,) mean weight over all labels."""
        total: Doubles = self.label_features.sum(axis=0, dtype=np.float64)
        return total / self.tree.n_labels

    def leaf(self, leaf: int, *, n_words: int = 8, n_labels: int = 8) -> Description:
        return self.node(self.tree.depth - 1, leaf, n_words=n_words, n_labels=n_labels)

    def node(self, level: int, node: int, *, n_words: int = 8, n_labels: int = 8) -> Description:
        """Describe a node; level 0 is the root, level depth - 1 has the leaves."""
        labels, centre = self.typical_labels(level, node)
        return Description(
            level=level,
            node=node,
            n_labels=len(labels),
            words=self._telling_words(centre, n_words),
            labels=tuple(self.label_names[label] for label in labels[:n_labels]),
        )

    def typical_labels(self, level: int, node: int) -> tuple[Indices, Doubles]:
        """The labels below a node, those closest to its centre first, and the centre."""
        labels = np.unique(self.tree.labels_below(level, node))
        rows = self.label_features[labels]
        centre: Doubles = rows.sum(axis=0, dtype=np.float64) / max(1, len(labels))
        return labels[np.argsort(-(rows @ centre), kind="stable")], centre

    def _telling_words(self, centre: Doubles, n_words: int) -> tuple[str, ...]:
        """Of "declaration" and "declaration of", only the stronger."""
        p, q = centre[: len(self.terms)], self.overall[: len(self.terms)]
        known = np.flatnonzero(p > q)
        strength = p[known] * np.log(p[known] / q[known])
        words: list[str] = []
        for feature in known[np.argsort(-strength, kind="stable")]:
            if len(words) == n_words:
                break
            padded = f" {self.terms[feature]} "
            if not any(padded in f" {word} " or f" {word} " in padded for word in words):
                words.append(self.terms[feature])
        return tuple(words)
