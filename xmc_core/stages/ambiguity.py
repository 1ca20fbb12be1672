"""The most ambiguous labels of a tree, with names and words."""

from functools import cache

from xmc_core.metrics.ambiguity import Ambiguous, AmbiguousLabel, ToldCluster
from xmc_core.tree.ambiguity import LabelCase, most_ambiguous
from xmc_core.tree.describe import TreeGuide
from xmc_core.types import SparseRows

WORDS = 4


def ambiguous_labels(
    guide: TreeGuide, Y: SparseRows, beams: SparseRows, most: int, n_words: int = WORDS
) -> Ambiguous:
    """At most `most` labels that live in several clusters of the guide's tree, as
    `xmc_core.tree.ambiguity.most_ambiguous` orders them."""

    @cache
    def words(leaf: int) -> tuple[str, ...]:
        return guide.leaf(leaf, n_words=n_words, n_labels=0).words

    def told(case: LabelCase) -> AmbiguousLabel:
        clusters = tuple(
            ToldCluster(own.leaf, words(own.leaf), own.reached, own.alone) for own in case.clusters
        )
        name = guide.label_names[case.label]
        return AmbiguousLabel(name, case.documents, case.missed, 100 * case.ambiguity, clusters)

    cases, n_several = most_ambiguous(guide.tree, Y, beams, most)
    return Ambiguous([told(case) for case in cases], n_several, guide.tree.n_labels)
