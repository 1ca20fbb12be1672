"""How many true labels the clusters that beam search keeps could still give."""

import numpy as np

from xmc_core.tree import LabelTree
from xmc_core.types import SparseRows


def recall_of_beam(tree: LabelTree, Y: SparseRows, beams: SparseRows) -> float:
    """Share of the true labels that lie in a cluster of their row's beam, between 0 and 1.

    `Y` is (n_samples, n_labels), `beams` (n_samples, n_leaves): a stored entry is a cluster that
    the row's beam reached. No ranking below can find the other labels.
    """
    slots = tree.targets(Y)[-1]
    rows = np.repeat(np.arange(slots.shape[0], dtype=np.int64), np.diff(slots.indptr))
    wanted = rows * tree.n_leaves + tree.leaf_of_slots()[slots.indices]
    beam_rows = np.repeat(np.arange(beams.shape[0], dtype=np.int64), np.diff(beams.indptr))
    reached = np.isin(wanted, beam_rows * tree.n_leaves + beams.indices)
    named = rows * tree.n_labels + tree.slot_labels[slots.indices]
    total = len(np.unique(named))
    return len(np.unique(named[reached])) / total if total else 1.0
