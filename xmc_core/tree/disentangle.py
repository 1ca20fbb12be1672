"""Let a label live in the clusters where the matcher looks for it."""

from dataclasses import dataclass

import numpy as np

from xmc_core.config import DisentangleConfig
from xmc_core.errors import ShapeError
from xmc_core.kernels.arguments import read_only
from xmc_core.kernels.assignment import cover_into, grant_into, place_nearby_into, wishes_into
from xmc_core.kernels.lanes import LANES
from xmc_core.parallel import map_threads, row_blocks
from xmc_core.tree.label_tree import LabelTree
from xmc_core.types import Doubles, Flags, Floats, Indices, Pointers, SparseRows

BLOCK_LABELS = 1024

UNPOPULAR = 0.1
"""Of the mean: so much is added to how often beams hold a leaf, which may be never."""

MIN_SHARE = 0.005
"""Of the beams that hold an average leaf: so many rows must gain, too, whatever min_gain says. A
label costs every row whose beam holds the leaf (647 thousand documents: 15 rows instead of 4)."""

WISHES = 8
"""With a capacity, a label bids for up to 8 leaves in each turn."""


def disentangle_tree(
    tree: LabelTree,
    Y: SparseRows,
    beams: SparseRows,
    config: DisentangleConfig,
    n_threads: int = -1,
) -> LabelTree:
    """Reassign each label to the leaves where the beams of its training samples can find it.

    A label whose samples look alike lives in one cluster; one with several meanings, whose samples
    the matcher sends to different clusters, is named in up to max_clusters of them. Of the paper's
    objective, the number of true labels that lie in a cluster of their sample's beam, this is the
    greedy maximum: a label goes where most of its samples' beams go, then where most of those go
    that the first leaf misses, as long as these are at least min_gain. The paper counts samples
    anew for every leaf, covered or not: its second clusters are three times as many and reach fewer
    labels. A sample counts (beams that hold the leaf) ** -popularity: a leaf that every beam holds
    covers every label and tells none apart. Equal gains go to the leaf with the higher scores. A
    label that no beam meets stays at home.

    With a capacity, a leaf takes at most ceil((1 + capacity) * max_clusters * labels / leaves)
    labels, with own_room in each turn only its part of them. In a turn wishes (label, leaf) are
    granted by falling gain; a label whose first turn finds all its leaves full keeps its old one or
    gets the nearest with room.

    With a budget, leaves are filled twice: without it, to see what every sixteen labels of a leaf
    are worth, then with room for those alone that `affordable_tiles` finds worth their cost. It is
    a share of all that a beam looks at from the root down: where the way to the leaves is long,
    larger leaves make an answer little dearer.

    Parameters
    ----------
    tree : LabelTree
        A partition, or the result of an earlier round.
    Y : (n_samples, n_labels)
    beams : (n_samples, n_leaves), scores between 0 and 1
        Whatever is stored counts as reached. They should come from a matcher that has not seen the
        sample: one that has finds nearly everything at home.

    Returns
    -------
    LabelTree
        With the upper levels of `tree`, labels ascending within each leaf. Every label keeps at
        least one leaf. A leaf that no label wants is left empty.

    Raises
    ------
    ShapeError
        If Y or beams do not fit the tree or each other, or a label has no leaf to start from.

    References
    ----------
    Liu, Chang, Yu, Hsieh and Dhillon, "Label Disentanglement in Partition-based Extreme Multilabel
    Classification", NeurIPS 2021, section 3.
    """
    check_beams(tree, Y, beams)
    if len(homeless := tree.labels_without_leaf()):
        raise ShapeError(
            f"{len(homeless):,} of {tree.n_labels:,} labels are in no leaf of the tree, such as "
            f"label {homeless[0]}; each needs one to start from."
        )
    choice = _Choice(tree, Y, beams, config.popularity, n_threads)
    min_gain = max(config.min_gain, int(MIN_SHARE * beams.nnz / tree.n_leaves))
    share = tree.n_labels / tree.n_leaves
    bound = (1 + config.capacity) * share if config.capacity > 0 else float(tree.n_labels)
    most = np.full(tree.n_leaves, min(int(np.ceil(config.max_clusters * bound)), tree.n_labels))
    granted = choice.fill(most, bound, min_gain, config)
    if config.budget > 0:
        looks = config.budget * looks_with_equal_leaves(tree, beams)
        tiles = affordable_tiles(granted, choice.held, share, looks)
        granted = choice.fill(np.minimum(most, LANES * tiles), bound, min_gain, config)

    order = np.lexsort((granted.labels, granted.leaves))
    pointer = np.zeros(tree.n_leaves + 1, np.int64)
    np.cumsum(np.bincount(granted.leaves, minlength=tree.n_leaves), out=pointer[1:])
    return LabelTree((*tree.pointers[:-1], pointer), granted.labels[order], tree.n_labels)


@dataclass(frozen=True, slots=True, eq=False)
class _Granted:
    """Places of labels in leaves."""

    labels: Indices
    leaves: Indices
    gains: Floats
    """Worth of the samples that each place covers and no earlier one of the label; 0 for a label
    that was put where there was room."""

    @classmethod
    def joined(cls, parts: list["_Granted"]) -> "_Granted":
        return cls(
            np.concatenate([part.labels for part in parts]),
            np.concatenate([part.leaves for part in parts]),
            np.concatenate([part.gains for part in parts]),
        )


def tiles_of(share: float) -> int:
    """Tiles of sixteen labels of a leaf that has its equal share."""
    return int(np.ceil(share / LANES))


def looks_with_equal_leaves(tree: LabelTree, beams: SparseRows) -> float:
    """Tiles of sixteen children that all beams look at on their way from the root to the labels, if
    every leaf had as many labels."""
    found = np.diff(beams.indptr)
    n_beams = max(int(np.count_nonzero(found)), 1)
    width = float(found.sum()) / n_beams
    above = sum(
        min(width, len(pointer) - 1) * float(np.ceil(np.diff(pointer) / LANES).mean())
        for pointer in tree.pointers[:-1]
    )
    return n_beams * (above + width * tiles_of(tree.n_labels / tree.n_leaves))


def affordable_tiles(granted: _Granted, held: Doubles, share: float, looks: float) -> Pointers:
    """(n_leaves,) tiles of sixteen labels that each leaf may have.

    Every leaf has those of an average one. A further tile costs a look for each beam that holds the
    leaf, and gives what its labels gain, the best of the leaf being in the first tiles. Those that
    give most for their cost are opened, as long as there are looks to spend.

    Parameters
    ----------
    granted : what leaves would hold without a budget
    held : (n_leaves,) beams that hold each
    share : labels of an average leaf
    looks : what may be spent
    """
    base = tiles_of(share)
    order = np.lexsort((-granted.gains, granted.leaves))
    leaves, gains = granted.leaves[order], granted.gains[order]
    counts = np.bincount(leaves, minlength=len(held))
    rank = np.arange(len(leaves)) - np.repeat(np.cumsum(counts) - counts, counts)
    further = rank >= base * LANES
    tile = leaves[further] * np.int64(len(order)) + rank[further] // LANES
    tiles, of_tile = np.unique(tile, return_inverse=True)
    of_leaf = tiles // len(order)
    gain = np.bincount(of_tile, weights=gains[further])
    cost = held[of_leaf]
    # A leaf's later tiles hold labels of less gain for the same cost: they never come first.
    best = np.argsort(-gain / np.maximum(cost, 1.0), kind="stable")
    paid = np.cumsum(cost[best]) <= looks
    return base + np.bincount(of_leaf[best[paid]], minlength=len(held))


@dataclass(slots=True, eq=False)
class _Choice:
    """Who wants which leaf, given what has been granted so far."""

    label_pointer: Pointers
    samples: Indices
    covered: Flags
    beam_pointer: Pointers
    beam_leaves: Indices
    beam_scores: Floats
    home_pointer: Pointers
    home_leaves: Indices
    worth: Floats
    held: Doubles
    """(n_leaves,) beams that hold each leaf."""

    n_threads: int

    def __init__(
        self,
        tree: LabelTree,
        Y: SparseRows,
        beams: SparseRows,
        popularity: float,
        n_threads: int,
    ) -> None:
        by_label = Y.tocsc()
        self.label_pointer = read_only(by_label.indptr, np.int64)
        self.samples = read_only(by_label.indices, np.int32)
        self.covered = np.zeros(len(self.samples), np.bool_)
        self.beam_pointer = read_only(beams.indptr, np.int64)
        self.beam_leaves = read_only(beams.indices, np.int32)
        self.beam_scores = read_only(beams.data, np.float32)
        home = tree.label_leaves()
        self.home_pointer = read_only(home.indptr, np.int64)
        self.home_leaves = read_only(home.indices, np.int32)
        self.held = np.bincount(self.beam_leaves, minlength=tree.n_leaves).astype(np.float64)
        share = self.held / max(self.held.mean(), 1e-9)
        self.worth = ((share + UNPOPULAR) ** -popularity).astype(np.float32)
        self.n_threads = n_threads

    def homes(self, labels: Indices) -> Indices:
        """The first leaf of each label."""
        first: Indices = self.home_leaves[self.home_pointer[labels]]
        return first

    def fill(
        self, most: Pointers, bound: float, min_gain: int, config: DisentangleConfig
    ) -> _Granted:
        """Give every label its leaves; a leaf takes up to `most`, in turn t up to t * `bound` with
        own_room."""
        self.covered[:] = False
        n_labels, n_leaves = len(self.label_pointer) - 1, len(most)
        bounded = config.capacity > 0 or config.budget > 0
        n_wishes = min(WISHES if bounded else 1, n_leaves)
        taken = np.zeros(n_leaves, np.int64)
        parts: list[_Granted] = []
        for turn in range(1, config.max_clusters + 1):
            own = min(int(np.ceil(turn * bound)), n_labels)
            now = np.minimum(most, own) if config.own_room else most
            room = now - taken
            parts.append(self.grant(n_wishes, 1 if turn == 1 else min_gain, room))
            if turn == 1:
                lost = np.setdiff1d(np.arange(n_labels, dtype=np.int32), parts[0].labels)
                placed = np.empty(len(lost), np.int32)
                place_nearby_into(self.homes(lost), room, placed)
                self.cover(lost, placed)
                parts.append(_Granted(lost, placed, np.zeros(len(lost), np.float32)))
            taken = now - room
        return _Granted.joined(parts)

    def grant(self, n_wishes: int, min_gain: int, room: Pointers) -> _Granted:
        """One more leaf for each label that has something to gain."""
        n_labels = len(self.label_pointer) - 1
        leaves = np.empty((n_labels, n_wishes), np.int32)
        gains = np.empty((n_labels, n_wishes), np.float32)
        counts = np.empty((n_labels, n_wishes), np.int32)

        def wish(block: tuple[int, int]) -> None:
            wishes_into(
                self.label_pointer, self.samples, self.covered, self.beam_pointer,
                self.beam_leaves, self.beam_scores, self.home_pointer, self.home_leaves,
                self.worth, *block, leaves, gains, counts,
            )  # fmt: skip

        map_threads(wish, row_blocks(n_labels, BLOCK_LABELS), self.n_threads)
        wishes = np.nonzero(counts >= min_gain)
        # A stable sort keeps equal gains in the order of the labels, and a label's own preferences.
        order = np.argsort(-gains[wishes], kind="stable")
        labels, wished = wishes[0][order].astype(np.int32), leaves[wishes][order]
        granted = np.empty(len(labels), np.bool_)
        grant_into(labels, wished, room, np.zeros(n_labels, np.bool_), granted)
        labels, wished = labels[granted], wished[granted]
        self.cover(labels, wished)
        return _Granted(labels, wished, gains[wishes][order][granted])

    def cover(self, labels: Indices, leaves: Indices) -> None:
        cover_into(
            labels, leaves, self.label_pointer, self.samples, self.beam_pointer,
            self.beam_leaves, self.covered,
        )  # fmt: skip


def check_beams(tree: LabelTree, Y: SparseRows, beams: SparseRows) -> None:
    """Raises ShapeError if Y or beams do not fit the tree or each other."""
    if Y.shape[1] != tree.n_labels:
        raise ShapeError(f"Y has {Y.shape[1]:,} labels but the tree has {tree.n_labels:,}.")
    if beams.shape[1] != tree.n_leaves:
        raise ShapeError(f"beams has {beams.shape[1]:,} leaves but the tree has {tree.n_leaves:,}.")
    if Y.shape[0] != beams.shape[0]:
        raise ShapeError(
            f"Y has {Y.shape[0]:,} samples but beams has {beams.shape[0]:,}; both must hold the "
            "same samples in the same order."
        )
