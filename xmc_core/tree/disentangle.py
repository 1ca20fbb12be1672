"""Let a label live in the clusters where the matcher looks for it."""

import numpy as np
from scipy.sparse import csr_array

from xmc_core.config import DisentangleConfig
from xmc_core.errors import ShapeError
from xmc_core.kernels.arguments import read_only
from xmc_core.kernels.assignment import assign_into, place_nearby_into, top_leaves_into
from xmc_core.parallel import map_threads, row_blocks
from xmc_core.tree.label_tree import LabelTree
from xmc_core.types import Indices, SparseRows

BLOCK_LABELS = 1024

WISHES = 8
"""With a capacity, a label bids for up to 8 * max_clusters leaves before it is sent home."""


def disentangle_tree(
    tree: LabelTree,
    Y: SparseRows,
    beams: SparseRows,
    config: DisentangleConfig,
    n_threads: int = -1,
) -> LabelTree:
    """Reassign each label to the leaves that the beams of its training samples reach most often.

    A label whose samples look alike lives in one cluster; one with several meanings, whose samples
    the matcher sends to different clusters, is named in up to max_clusters of them. Leaves are
    chosen by N = Y' M, where M has a one for each leaf in a sample's beam. N is never held: a row
    of it is made and reduced to its best entries, a label at a time. Equal counts go to a leaf that
    names the label already, then to the smaller number. A label that no beam meets stays at home.

    With a capacity, a leaf takes at most ceil((1 + capacity) * max_clusters * labels / leaves)
    labels. Wishes (label, leaf) are granted by falling count; a label that finds all its leaves
    full keeps its old one or gets the nearest with room.

    Parameters
    ----------
    tree : LabelTree
        A partition, or the result of an earlier round.
    Y : (n_samples, n_labels)
    beams : (n_samples, n_leaves)
        Whatever is stored counts as reached; values are not looked at.

    Returns
    -------
    LabelTree
        With the upper levels of `tree`, labels ascending within each leaf. Every label keeps at
        least one leaf. A leaf that no label wants is left empty.

    Raises
    ------
    ShapeError
        If Y or beams do not fit the tree or each other.

    References
    ----------
    Liu, Chang, Yu, Hsieh and Dhillon, "Label Disentanglement in Partition-based Extreme Multilabel
    Classification", NeurIPS 2021, section 3.
    """
    _check(tree, Y, beams)
    n_best = config.max_clusters * (WISHES if config.capacity > 0 else 1)
    home = tree.label_leaves()
    leaves, counts = _top_leaves(Y, beams, home, min(n_best, tree.n_leaves), n_threads)

    if config.capacity > 0:
        labels, slots = _assign_with_room(leaves, counts, home, config)
    else:
        best = np.nonzero(leaves >= 0)
        unmet = np.flatnonzero(leaves[:, 0] < 0)
        stay = csr_array(home[unmet])
        labels = np.concatenate([best[0], np.repeat(unmet, np.diff(stay.indptr))]).astype(np.int32)
        slots = np.concatenate([leaves[best], stay.indices])

    order = np.lexsort((labels, slots))
    pointer = np.zeros(tree.n_leaves + 1, np.int64)
    np.cumsum(np.bincount(slots, minlength=tree.n_leaves), out=pointer[1:])
    return LabelTree((*tree.pointers[:-1], pointer), labels[order], tree.n_labels)


def _top_leaves(
    Y: SparseRows, beams: SparseRows, home: SparseRows, n_best: int, n_threads: int
) -> tuple[Indices, Indices]:
    """(n_labels, n_best) leaves of each label, best first, -1 pads; and their counts."""
    n_labels = Y.shape[1]
    by_label = Y.tocsc()
    label_pointer = read_only(by_label.indptr, np.int64)
    samples = read_only(by_label.indices, np.int32)
    beam_pointer = read_only(beams.indptr, np.int64)
    beam_leaves = read_only(beams.indices, np.int32)
    home_pointer = read_only(home.indptr, np.int64)
    home_leaves = read_only(home.indices, np.int32)
    leaves = np.empty((n_labels, n_best), np.int32)
    counts = np.empty((n_labels, n_best), np.int32)

    def count(block: tuple[int, int]) -> None:
        top_leaves_into(
            label_pointer, samples, beam_pointer, beam_leaves, home_pointer, home_leaves,
            beams.shape[1], *block, leaves, counts,
        )  # fmt: skip

    map_threads(count, row_blocks(n_labels, BLOCK_LABELS), n_threads)
    return leaves, counts


def _assign_with_room(
    leaves: Indices, counts: Indices, home: SparseRows, config: DisentangleConfig
) -> tuple[Indices, Indices]:
    """Labels and leaves of the slots, no leaf over its capacity."""
    n_labels, n_leaves = home.shape
    share = (1 + config.capacity) * config.max_clusters * n_labels / n_leaves
    room = np.full(n_leaves, int(np.ceil(share)), np.int64)
    taken = np.zeros(n_labels, np.int32)

    wishes = np.nonzero(leaves >= 0)
    # A stable sort keeps equal counts in the order of the labels, and a label's own preferences.
    order = np.argsort(-counts[wishes], kind="stable")
    labels = wishes[0][order].astype(np.int32)
    wished = leaves[wishes][order]
    granted = np.empty(len(labels), np.bool_)
    assign_into(labels, wished, config.max_clusters, room, taken, granted)

    left_over = np.flatnonzero(taken == 0).astype(np.int32)
    old = home.indices[home.indptr[left_over]].astype(np.int32)
    placed = np.empty(len(left_over), np.int32)
    place_nearby_into(old, room, placed)
    slots = np.concatenate([wished[granted], placed])
    return np.concatenate([labels[granted], left_over]), slots


def _check(tree: LabelTree, Y: SparseRows, beams: SparseRows) -> None:
    if Y.shape[1] != tree.n_labels:
        raise ShapeError(f"Y has {Y.shape[1]:,} labels but the tree has {tree.n_labels:,}.")
    if beams.shape[1] != tree.n_leaves:
        raise ShapeError(f"beams has {beams.shape[1]:,} leaves but the tree has {tree.n_leaves:,}.")
    if Y.shape[0] != beams.shape[0]:
        raise ShapeError(
            f"Y has {Y.shape[0]:,} samples but beams has {beams.shape[0]:,}; both must hold the "
            "same samples in the same order."
        )
