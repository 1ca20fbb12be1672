"""Labels to a tree of clusters."""

from pathlib import Path

import numpy as np

from xmc_core.config import Config
from xmc_core.features.label_features import label_features
from xmc_core.persistence import write_store
from xmc_core.reporting import Reporter
from xmc_core.stages.inputs import Inputs
from xmc_core.tree import build_label_tree


def run(inputs: Inputs, config: Config, out: Path, report: Reporter) -> None:
    """Group the labels by balanced k-means, coarse to fine."""
    Z = label_features(
        inputs.Y_train,
        inputs.X_train,
        config.tree,
        label_names=inputs.dataset.label_names,
        vectorizer=inputs.vectorizer,
        n_threads=config.n_threads,
    )
    report.message(f"{Z.nnz:,} features of {Z.shape[0]:,} labels")
    tree = build_label_tree(Z, config.tree, config.n_threads)
    tree.save(out / "tree")
    write_store(out, "initial-tree", matrices={"label_features": Z})
    leaf_sizes = np.diff(tree.pointers[-1])
    report.metrics(
        labels=tree.n_labels,
        leaves=tree.n_leaves,
        depth=tree.depth,
        largest_leaf=int(leaf_sizes.max()),
        smallest_leaf=int(leaf_sizes.min()),
    )
