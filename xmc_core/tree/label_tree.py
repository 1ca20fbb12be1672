"""The hierarchy over the labels: what is searched, trained and fine-tuned along.

Nodes of a level are numbered from left to right, and the children of a node are neighbours, so one
array of pointers per level says everything:

    level 0      the root
    level t      children of node c of level t-1 are the nodes pointers[t-1][c] : pointers[t-1][c+1]
    level depth  the slots: each names one label

The nodes of level depth-1 are the leaves (clusters of labels). In a partition every label has one
slot. In an overlapping tree a label may have several, in different leaves: `slot_labels` says which
label a slot stands for, and everything above the slots works unchanged.

>>> tree = LabelTree.from_leaves([[0, 1, 2], [2, 3]], branching=16)
>>> tree.level_sizes, tree.n_labels, tree.slot_labels.tolist()
((2, 5), 4, [0, 1, 2, 2, 3])
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.sparse import csr_array

from xmc_core.errors import DataError, ShapeError
from xmc_core.persistence import described, fresh_store, read_store, write_store
from xmc_core.types import Indices, Pointers, SparseRows

KIND = "label-tree"


@dataclass(frozen=True, slots=True, eq=False)
class LabelTree:
    """A tree whose bottom slots name labels."""

    pointers: tuple[Pointers, ...]
    """For each level t = 1 .. depth: (nodes of level t-1, plus 1,)."""

    slot_labels: Indices
    """(n_slots,) label of each slot; no label twice within a leaf."""

    n_labels: int

    def __post_init__(self) -> None:
        # Kernels read them in these widths, whatever a matrix of scipy's had.
        pointers = tuple(np.asarray(pointer, np.int64) for pointer in self.pointers)
        object.__setattr__(self, "pointers", pointers)
        object.__setattr__(self, "slot_labels", np.asarray(self.slot_labels, np.int32))
        n_nodes = 1
        for level, pointer in enumerate(self.pointers, start=1):
            if len(pointer) != n_nodes + 1 or pointer[0] != 0 or np.any(np.diff(pointer) < 0):
                raise ShapeError(
                    f"level {level} needs {n_nodes + 1} ascending pointers that start at 0, "
                    f"got {len(pointer)}."
                )
            n_nodes = int(pointer[-1])
        if len(self.slot_labels) != n_nodes:
            raise ShapeError(
                f"the tree has {n_nodes:,} slots but {len(self.slot_labels):,} slot labels."
            )
        if n_nodes and not (self.slot_labels.min() >= 0 and self.slot_labels.max() < self.n_labels):
            raise DataError(f"slot labels must lie in 0 .. {self.n_labels - 1}.")

    @classmethod
    def from_leaves(
        cls, leaves: Sequence[Sequence[int]], *, branching: int, n_labels: int | None = None
    ) -> "LabelTree":
        """Build a tree from the labels of each leaf, in order; upper levels group neighbours.

        Raises DataError if a leaf names a label twice.
        """
        for number, leaf in enumerate(leaves):
            if len(set(leaf)) != len(leaf):
                raise DataError(f"leaf {number} names a label twice; a leaf holds each label once.")
        slots = np.array([label for leaf in leaves for label in leaf], np.int32)
        bottom = np.concatenate([[0], np.cumsum([len(leaf) for leaf in leaves])]).astype(np.int64)
        if n_labels is None:
            n_labels = int(slots.max()) + 1 if len(slots) else 0
        return cls((*group_neighbours(len(leaves), branching), bottom), slots, n_labels)

    @property
    def depth(self) -> int:
        """Levels that are ranked, the labels' own included."""
        return len(self.pointers)

    @property
    def level_sizes(self) -> tuple[int, ...]:
        """Nodes of level 1, 2, ..., depth."""
        return tuple(int(pointer[-1]) for pointer in self.pointers)

    @property
    def n_leaves(self) -> int:
        return len(self.pointers[-1]) - 1

    @property
    def n_slots(self) -> int:
        return len(self.slot_labels)

    def leaf_labels(self, leaf: int) -> Indices:
        """Labels of one leaf."""
        start, end = self.pointers[-1][leaf : leaf + 2]
        return self.slot_labels[start:end]

    def labels_below(self, level: int, node: int) -> Indices:
        """Labels of the slots below a node; one in several leaves may be named several times."""
        start, end = node, node + 1
        for pointer in self.pointers[level:]:
            start, end = pointer[start], pointer[end]
        return self.slot_labels[start:end]

    def path(self, leaf: int) -> list[int]:
        """The nodes from the root to a leaf, one a level."""
        nodes = [leaf]
        for pointer in reversed(self.pointers[:-1]):
            nodes.append(int(np.searchsorted(pointer, nodes[-1], side="right")) - 1)
        return nodes[::-1]

    def leaf_of_slots(self) -> Indices:
        """(n_slots,) leaf of each slot."""
        return parents(self.pointers[-1])

    def labels_without_leaf(self) -> Indices:
        """Labels that no slot names: they could never be predicted."""
        named = np.zeros(self.n_labels, bool)
        named[self.slot_labels] = True
        return np.flatnonzero(~named).astype(np.int32)

    def label_leaves(self) -> SparseRows:
        """(n_labels, n_leaves) CSR of ones: which leaves name a label."""
        ones = np.ones(self.n_slots, np.float32)
        matrix = csr_array(
            (ones, (self.slot_labels, self.leaf_of_slots())), shape=(self.n_labels, self.n_leaves)
        )
        matrix.sort_indices()
        return matrix

    def targets(self, Y: SparseRows) -> list[SparseRows]:
        """What each level has to predict: element t-1 is (n_samples, nodes of level t), CSR.

        A node applies to a sample if one of the sample's labels has a slot below it. The value is
        the sum of those labels' values in `Y` over the slots. At the last level columns are slots.
        """
        if Y.shape[1] != self.n_labels:
            raise ShapeError(f"Y has {Y.shape[1]:,} labels but the tree has {self.n_labels:,}.")
        ones = np.ones(self.n_slots, np.float32)
        label_slots = csr_array(
            (ones, (self.slot_labels, np.arange(self.n_slots))), shape=(self.n_labels, self.n_slots)
        )
        levels = [csr_array(Y @ label_slots)]
        for pointer in reversed(self.pointers[1:]):
            up = child_parents(pointer)
            levels.append(csr_array(levels[-1] @ up))
        for matrix in levels:
            matrix.sort_indices()
        return levels[::-1]

    def save(self, folder: Path) -> None:
        with fresh_store(folder) as fresh:
            write_store(
                fresh,
                KIND,
                arrays={
                    "slot_labels": self.slot_labels,
                    **{f"level{t}.pointers": p for t, p in enumerate(self.pointers, start=1)},
                },
                facts={
                    "depth": self.depth,
                    "labels": self.n_labels,
                    "level_sizes": list(self.level_sizes),
                },
            )

    @classmethod
    def load(cls, folder: Path, *, verify: bool = False) -> "LabelTree":
        """Raises StoreError if the folder is not a complete, unaltered tree."""
        store = read_store(folder, KIND, verify=verify)
        with described(folder, "a label tree"):
            levels = range(1, store.facts["depth"] + 1)
            pointers = tuple(store.arrays[f"level{t}.pointers"] for t in levels)
            return cls(pointers, store.arrays["slot_labels"], store.facts["labels"])


def parents(pointer: Pointers) -> Indices:
    """Parent of each child: [0, 2, 5] -> [0, 0, 1, 1, 1]."""
    return np.repeat(np.arange(len(pointer) - 1, dtype=np.int32), np.diff(pointer))


def child_parents(pointer: Pointers) -> SparseRows:
    """The same as a (children, parents) matrix of ones."""
    n_children = int(pointer[-1])
    ones = np.ones(n_children, np.float32)
    return csr_array(
        (ones, parents(pointer), np.arange(n_children + 1)), shape=(n_children, len(pointer) - 1)
    )


def group_neighbours(n_nodes: int, branching: int) -> tuple[Pointers, ...]:
    """Pointers of the levels above `n_nodes` nodes, at most `branching` children each."""
    levels: list[Pointers] = []
    while n_nodes > branching:
        n_parents = -(-n_nodes // branching)
        bounds = np.minimum(np.arange(n_parents + 1, dtype=np.int64) * branching, n_nodes)
        levels.append(bounds)
        n_nodes = n_parents
    levels.append(np.array([0, n_nodes], np.int64))
    return tuple(levels[::-1])
