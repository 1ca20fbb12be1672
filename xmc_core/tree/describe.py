"""What a cluster is about, for people."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from xmc_core.errors import ShapeError
from xmc_core.tree.label_tree import LabelTree
from xmc_core.types import Doubles, SparseRows


@dataclass(frozen=True, slots=True)
class LeafDescription:
    """Labels and telling words of one leaf."""

    leaf: int
    n_labels: int
    words: tuple[str, ...]
    """Strongest first."""

    labels: tuple[str, ...]
    """The most typical first: those closest to the leaf's centre."""

    def __str__(self) -> str:
        more = self.n_labels - len(self.labels)
        labels = "; ".join(self.labels) or "no labels"
        if more > 0:
            labels += f"; and {more:,} more"
        return f"leaf {self.leaf} ({', '.join(self.words) or 'no words'}): {labels}"


def describe_leaf(
    tree: LabelTree,
    leaf: int,
    label_features: SparseRows,
    terms: Sequence[str],
    label_names: Sequence[str],
    *,
    n_words: int = 8,
    n_labels: int = 8,
) -> LeafDescription:
    """Name a leaf's telling words and its most typical labels.

    A word tells a leaf apart if its mean weight p over the leaf's labels is high in itself and high
    against its mean weight q over all labels: words are ranked by p ln(p / q), their part of the
    Kullback-Leibler divergence.

    Parameters
    ----------
    label_features : (n_labels, n_features)
        What the tree was grown on. Columns from len(terms) on have no name and are not words.
    terms : names of the first len(terms) features
    """
    return describe_leaves(
        tree, [leaf], label_features, terms, label_names, n_words=n_words, n_labels=n_labels
    )[0]


def describe_leaves(
    tree: LabelTree,
    leaves: Sequence[int],
    label_features: SparseRows,
    terms: Sequence[str],
    label_names: Sequence[str],
    *,
    n_words: int = 8,
    n_labels: int = 8,
) -> list[LeafDescription]:
    """`describe_leaf` for several leaves; the mean over all labels is taken only once."""
    if label_features.shape[0] != tree.n_labels or len(label_names) < tree.n_labels:
        raise ShapeError(
            f"the tree has {tree.n_labels:,} labels, but there are {label_features.shape[0]:,} "
            f"rows of label features and {len(label_names):,} label names."
        )
    if len(terms) > label_features.shape[1]:
        raise ShapeError(
            f"there are {len(terms):,} terms but only {label_features.shape[1]:,} label features; "
            "give the terms of the vectorizer that made them."
        )
    overall = label_features.sum(axis=0, dtype=np.float64) / tree.n_labels
    return [
        _describe(tree, leaf, label_features, overall, terms, label_names, n_words, n_labels)
        for leaf in leaves
    ]


def _describe(
    tree: LabelTree,
    leaf: int,
    label_features: SparseRows,
    overall: Doubles,
    terms: Sequence[str],
    label_names: Sequence[str],
    n_words: int,
    n_labels: int,
) -> LeafDescription:
    labels = tree.leaf_labels(leaf)
    rows = label_features[labels]
    centre = rows.sum(axis=0, dtype=np.float64) / max(1, len(labels))
    typical = np.argsort(-(rows @ centre), kind="stable")[:n_labels]
    return LeafDescription(
        leaf=leaf,
        n_labels=len(labels),
        words=_telling_words(centre, overall, terms, n_words),
        labels=tuple(label_names[label] for label in labels[typical]),
    )


def _telling_words(
    centre: Doubles, overall: Doubles, terms: Sequence[str], n_words: int
) -> tuple[str, ...]:
    """Of "declaration" and "declaration of", only the stronger."""
    known = np.flatnonzero(centre[: len(terms)] > overall[: len(terms)])
    strength = centre[known] * np.log(centre[known] / overall[known])
    words: list[str] = []
    for feature in known[np.argsort(-strength, kind="stable")]:
        if len(words) == n_words:
            break
        padded = f" {terms[feature]} "
        if not any(padded in f" {word} " or f" {word} " in padded for word in words):
            words.append(terms[feature])
    return tuple(words)
