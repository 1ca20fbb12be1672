"""Grow the label tree."""

import numpy as np

from xmc_core.config import TreeConfig
from xmc_core.data.rows import Rows, as_rows
from xmc_core.errors import DataError
from xmc_core.tree.kmeans import cluster_rows, prune_rows
from xmc_core.tree.label_tree import LabelTree, group_neighbours
from xmc_core.types import SparseRows


def build_label_tree(
    label_features: SparseRows | Rows, config: TreeConfig, n_threads: int = -1
) -> LabelTree:
    """Group labels of like features into leaves, and neighbouring leaves into upper nodes.

    The labels are split in two halves by balanced spherical 2-means, the halves again, until no
    part has more than max_leaf_size labels: 2^ceil(log2(labels / max_leaf_size)) leaves, all of
    the same size give or take one. `branching` neighbouring leaves share a parent, and so on up. Up
    to max_leaf_size labels there is a single level: the root is the only leaf.

    Parameters
    ----------
    label_features : (n_labels, n_features)
        Rows of unit length, as from label_centroids or centroid_rows; a label with an empty row is
        placed, too.
    n_threads : count, or -1 for every core
        The tree does not depend on it.

    Raises
    ------
    DataError
        If there is no label.

    References
    ----------
    Yu, Zhong, Zhang, Chang and Dhillon, "PECOS", JMLR 2022, section 3.
    """
    if isinstance(label_features, Rows):
        rows, Z = label_features, label_features.left
    else:
        Z = as_rows(label_features)
        rows = Rows.of(Z)
        Z = rows.left if rows.dense.n_dims > 0 else Z
    n_labels = rows.shape[0]
    if n_labels == 0:
        raise DataError("a label tree needs at least one label, got none.")
    levels = max(0, (-(-n_labels // config.max_leaf_size) - 1).bit_length())
    # Dense columns are cheap to carry along whole, and the words beside them are few already.
    if rows.dense.n_dims == 0:
        Z = prune_rows(Z, config.max_features, n_threads)
    order, bounds = cluster_rows(
        Z, levels, dense=rows.dense, max_iter=config.max_iter, seed=config.seed,
        n_threads=n_threads,
    )  # fmt: skip
    # With leaves of a single label, 2^levels may exceed the number of labels.
    bounds = np.unique(bounds)
    if len(bounds) == 2:
        return LabelTree((bounds,), order, n_labels)
    upper = group_neighbours(len(bounds) - 1, config.branching)
    return LabelTree((*upper, bounds), order, n_labels)
