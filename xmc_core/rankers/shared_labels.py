"""The last level of an overlapping tree: each label is trained once, whatever clusters name it."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import csr_array

from xmc_core.kernels.lanes import LANES
from xmc_core.kernels.shared_labels import child_by_child, count_tiles, fill_tiles
from xmc_core.rankers.weights import lanes_of
from xmc_core.solvers.scratch import ScratchPool
from xmc_core.solvers.siblings import Tiles
from xmc_core.tree.label_tree import parents
from xmc_core.types import Indices, Pointers, SparseRows

if TYPE_CHECKING:
    from xmc_core.rankers.train import Level


@dataclass(frozen=True, slots=True, eq=False)
class TrainedOnce:
    """How a level whose slots name some labels several times is trained."""

    level: "Level"
    """The same task with a child per label, in the cluster that most rows see."""

    guests: SparseRows
    """(parents, children): the other clusters of a child's label."""

    sources: Indices
    """(slots,) child whose classifier each slot gets."""

    def copied(self, tiles: Tiles, pointer: Pointers, scratch: ScratchPool) -> Tiles:
        """The trained tiles, arranged for all slots; `pointer` (parents + 1,) names these.

        Of weights of dense columns each slot has those of its source.
        """
        of_child = lanes_of(self.level.pointer)
        of_slot = lanes_of(pointer)
        n_children = len(of_child)
        lane_child = np.full(len(tiles.n_features) * LANES, -1, np.int32)
        lane_child[of_child] = np.arange(n_children)
        child_pointer = np.empty(n_children + 1, np.int64)
        features, weights = np.empty(len(tiles.weights), np.int32), np.empty_like(tiles.weights)
        child_by_child(
            tiles.n_features, tiles.features, tiles.masks, tiles.weights, lane_child,
            child_pointer, features, weights,
        )  # fmt: skip

        n_tiles = int((-(-np.diff(pointer) // LANES)).sum())
        sources = np.full(n_tiles * LANES, -1, np.int32)
        sources[of_slot] = self.sources
        n_features, n_weights = np.empty(n_tiles, np.int64), np.empty(n_tiles, np.int64)
        with scratch.borrow() as (feature_map, seen):
            count_tiles(sources, child_pointer, features, seen, n_features, n_weights)
            tile_features = np.empty(int(n_features.sum()), np.int32)
            masks = np.zeros(len(tile_features), np.uint16)
            tile_weights = np.empty(int(n_weights.sum()), tiles.weights.dtype)
            fill_tiles(
                sources, child_pointer, features, weights, n_features, feature_map, seen,
                tile_features, masks, tile_weights,
            )  # fmt: skip

        from_lane = of_child[self.sources]
        biases = np.zeros(n_tiles * LANES, np.float32)
        biases[of_slot] = tiles.biases.reshape(-1)[from_lane]
        return Tiles(
            features=tile_features,
            masks=masks,
            weights=tile_weights,
            n_features=n_features,
            n_weights=n_weights,
            biases=biases.reshape(n_tiles, LANES),
            statistics=tiles.statistics,
        )


def trained_once(level: "Level") -> TrainedOnce | None:
    """Give every label of an overlapping level a home; None if no label has two slots.

    A label sees the rows of all its clusters. Its siblings at home see only their own, but are
    solved beside it, over the rows of all of them: at home in the cluster with most rows, it
    brings fewest along.
    """
    labels = level.slot_labels
    if labels is None or level.active is None or len(np.unique(labels)) == len(labels):
        return None
    leaf = parents(level.pointer)
    n_rows = np.bincount(level.active.indices, minlength=len(level.pointer) - 1)
    best_first = np.lexsort((leaf, -n_rows[leaf], labels))
    starts = np.flatnonzero(np.diff(labels[best_first], prepend=-1))
    several = np.diff(starts, append=len(labels)) > 1
    # Slots in order of the clusters, the labels of several last: tiles of the others do not see
    # the rows that these bring along.
    homes = best_first[starts]
    homes = homes[np.lexsort((homes, several, leaf[homes]))]
    pointer = np.zeros(len(level.pointer), np.int64)
    np.cumsum(np.bincount(leaf[homes], minlength=len(pointer) - 1), out=pointer[1:])
    child_of_label = np.zeros(int(labels.max()) + 1, np.int32)
    child_of_label[labels[homes]] = np.arange(len(homes))
    sources = child_of_label[labels]

    elsewhere = np.ones(len(labels), bool)
    elsewhere[homes] = False
    ones = np.ones(int(elsewhere.sum()), np.float32)
    guests = csr_array(
        (ones, (leaf[elsewhere], sources[elsewhere])), shape=(len(pointer) - 1, len(homes))
    )
    task = replace(
        level,
        targets=csr_array(csr_array(level.targets)[:, homes]),
        pointer=pointer,
        slot_labels=None,
    )
    return TrainedOnce(task, guests, sources)
