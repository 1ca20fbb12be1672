"""Labels to a tree of clusters."""

from pathlib import Path

import numpy as np

from xmc_core.config import Config
from xmc_core.features.label_features import label_centroids
from xmc_core.persistence import write_store
from xmc_core.reporting import Reporter
from xmc_core.stages.inputs import Inputs
from xmc_core.tree import build_label_tree


def run(inputs: Inputs, config: Config, out: Path, report: Reporter) -> None:
    """Group the labels by balanced k-means, coarse to fine."""
    label_features = label_centroids(
        inputs.Y_train,
        inputs.X_train,
        max_features=config.tree.max_features,
        n_threads=config.n_threads,
    )
    report.message(f"{label_features.nnz:,} features of {label_features.shape[0]:,} labels")
    tree = build_label_tree(label_features, config.tree, config.n_threads)
    tree.save(out / "tree")
    write_store(out, "initial-tree", matrices={"label_features": label_features})
    leaf_sizes = np.diff(tree.pointers[-1])
    report.metrics(
        labels=tree.n_labels,
        leaves=tree.n_leaves,
        depth=tree.depth,
        largest_leaf=int(leaf_sizes.max()),
        smallest_leaf=int(leaf_sizes.min()),
    )
