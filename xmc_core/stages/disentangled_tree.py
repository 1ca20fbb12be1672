"""Stage: labels in the clusters where the matcher looks for them, and XR-Linear over that tree."""

from pathlib import Path

import numpy as np

from xmc_core.config import Config
from xmc_core.models.clusters import find_clusters
from xmc_core.models.xr_linear import train_xr_linear
from xmc_core.persistence import write_store
from xmc_core.reporting import Reporter
from xmc_core.stages.inputs import Inputs


def run(inputs: Inputs, config: Config, out: Path, report: Reporter) -> None:
    """Reassign the labels, in up to `disentangle.rounds` rounds, and train on the new tree."""
    X, Y = inputs.X_train, inputs.Y_train
    found = find_clusters(X, Y, inputs.initial_tree, config, beams=inputs.beams, report=report)
    tree = found.tree
    model = train_xr_linear(X, Y, config, tree=tree, beams=found.beams, report=report)

    tree.save(out / "tree")
    model.save(out / "model")
    model.predict(inputs.X_test).save(out / "predictions")
    clusters = np.bincount(tree.slot_labels, minlength=tree.n_labels)
    facts = {
        "slots": tree.n_slots,
        "labels_in_several_clusters": int((clusters > 1).sum()),
        "largest_leaf": int(np.diff(tree.pointers[-1]).max(initial=0)),
        "nnz": model.nnz,
        "rounds": len(found.recalls) - 1 if config.disentangle.rounds > 1 else 1,
    }
    # After one round the beams are still the matcher's.
    own = {} if found.beams is inputs.beams else {"beams": found.beams}
    write_store(out, "disentangled-tree", matrices=own, facts=facts)
    report.metrics(**facts)
