"""What the beams of rows held out say for each cluster of a label."""

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

from xmc_core.tree.disentangle import check_beams
from xmc_core.tree.label_tree import LabelTree
from xmc_core.types import Indices, Pointers, SparseRows


@dataclass(frozen=True, slots=True)
class ClusterCase:
    """One cluster of a label."""

    leaf: int
    reached: int
    """Documents of the label whose beam reaches this cluster."""

    alone: int
    """Those of them whose beam reaches none of the label's other clusters."""


@dataclass(frozen=True, slots=True)
class LabelCase:
    """All clusters of a label, those that most of its documents reach first."""

    label: int
    documents: int
    """Training documents of the label."""

    found: int
    """Those whose beam reaches a cluster of the label."""

    clusters: tuple[ClusterCase, ...]

    @property
    def missed(self) -> int:
        """Documents whose beam reaches no cluster of the label."""
        return self.documents - self.found

    @property
    def only_with_several(self) -> int:
        """Documents that would be missed, too, if the label kept its first cluster alone."""
        return self.found - self.clusters[0].reached if self.clusters else 0

    @property
    def ambiguity(self) -> float:
        """The same as a share of all documents of the label. With two clusters it is at most 1/2,
        where each finds one half of the documents; 0 says that one cluster would do."""
        return self.only_with_several / self.documents if self.documents else 0.0


@dataclass(frozen=True, slots=True)
class Reach:
    """A document of a label whose beam reaches a certain cluster."""

    document: int
    score: float
    """Of the cluster in the beam, 0 to 1."""

    alone: bool
    """Whether the beam reaches none of the label's other clusters."""


def label_case(tree: LabelTree, Y: SparseRows, beams: SparseRows, label: int) -> LabelCase:
    """Count what speaks for each cluster of one label; see `most_ambiguous`."""
    check_beams(tree, Y, beams)
    return _count(tree, Y, beams, np.array([label], np.int32)).case(0)


def most_ambiguous(
    tree: LabelTree, Y: SparseRows, beams: SparseRows, most: int
) -> tuple[list[LabelCase], int]:
    """The labels that live in several clusters, by falling ambiguity, and how many there are.

    Of equal ambiguity, the label with more documents that one cluster would miss comes first, then
    the one with the smaller number.

    Parameters
    ----------
    tree : LabelTree
        With the leaves that the beams were searched in; its labels may have been reassigned since.
    Y : (n_samples, n_labels)
    beams : (n_samples, n_leaves)
        Of a matcher that has not seen the row. Whatever is stored counts as reached.
    most
        At most so many labels are returned.

    Raises
    ------
    ShapeError
        If Y or beams do not fit the tree or each other.
    """
    check_beams(tree, Y, beams)
    several = np.flatnonzero(np.bincount(tree.slot_labels, minlength=tree.n_labels) > 1)
    counts = _count(tree, Y, beams, several.astype(np.int32))
    if not len(several):
        return [], 0
    gained = counts.found - np.maximum.reduceat(counts.reached, counts.pointer[:-1])
    ambiguity = gained / np.maximum(counts.documents, 1)
    order = np.lexsort((several, -gained, -ambiguity))
    return [counts.case(place) for place in order[:most].tolist()], len(several)


def strongest_documents(
    tree: LabelTree, Y: SparseRows, beams: SparseRows, label: int, leaf: int, most: int
) -> list[Reach]:
    """The documents of a label that say most for one of its clusters: first those that no other
    cluster of the label would find, each kind by falling score of the cluster in their beam."""
    check_beams(tree, Y, beams)
    rows = np.sort(Y.tocsc()[:, [label]].indices)
    clusters = _leaves_of(tree, label)
    own = csr_array(beams[rows])[:, clusters]
    scores = own.toarray()
    stored = csr_array((np.ones(own.nnz, np.int8), own.indices, own.indptr), own.shape).toarray()
    place = int(np.flatnonzero(clusters == leaf)[0])
    alone = stored.sum(axis=1) == 1
    reached = np.flatnonzero(stored[:, place])
    order = np.lexsort((rows[reached], -scores[reached, place], ~alone[reached]))
    return [
        Reach(int(rows[i]), float(scores[i, place]), bool(alone[i]))
        for i in reached[order][:most].tolist()
    ]


@dataclass(frozen=True, slots=True, eq=False)
class _Counts:
    """Of several labels; the clusters of label i are pointer[i] : pointer[i + 1]."""

    labels: Indices
    documents: Pointers
    found: Pointers
    pointer: Pointers
    leaves: Indices
    reached: Pointers
    alone: Pointers

    def case(self, place: int) -> LabelCase:
        clusters = [
            ClusterCase(int(self.leaves[slot]), int(self.reached[slot]), int(self.alone[slot]))
            for slot in range(*self.pointer[place : place + 2].tolist())
        ]
        clusters.sort(key=lambda cluster: (-cluster.reached, -cluster.alone, cluster.leaf))
        return LabelCase(
            int(self.labels[place]),
            int(self.documents[place]),
            int(self.found[place]),
            tuple(clusters),
        )


def _count(tree: LabelTree, Y: SparseRows, beams: SparseRows, labels: Indices) -> _Counts:
    own = csr_array(tree.label_leaves()[labels])
    n_clusters = np.diff(own.indptr)
    taken = csr_array(Y[:, labels])
    rows, columns = _rows(taken), taken.indices

    # Each document of a label once for each cluster of the label.
    counts = n_clusters[columns]
    pair = np.repeat(np.arange(len(columns)), counts)
    before = np.cumsum(counts) - counts
    slot = np.arange(len(pair)) + np.repeat(own.indptr[columns] - before, counts)
    wanted = rows[pair] * tree.n_leaves + own.indices[slot]
    met = np.isin(wanted, _rows(beams) * tree.n_leaves + beams.indices)

    clusters_met = np.bincount(pair[met], minlength=len(columns))
    alone = met & (clusters_met[pair] == 1)
    return _Counts(
        labels,
        documents=np.bincount(columns, minlength=len(labels)),
        found=np.bincount(columns[clusters_met > 0], minlength=len(labels)),
        pointer=own.indptr.astype(np.int64),
        leaves=own.indices,
        reached=np.bincount(slot[met], minlength=own.nnz),
        alone=np.bincount(slot[alone], minlength=own.nnz),
    )


def _rows(matrix: SparseRows) -> Pointers:
    """The row of each stored entry."""
    return np.repeat(np.arange(matrix.shape[0], dtype=np.int64), np.diff(matrix.indptr))


def _leaves_of(tree: LabelTree, label: int) -> Indices:
    return tree.leaf_of_slots()[np.flatnonzero(tree.slot_labels == label)]
