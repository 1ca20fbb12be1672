"""Stage: labels in the clusters where the matcher looks for them, and XR-Linear over that tree."""

from pathlib import Path

import numpy as np

from xmc_core.config import Config
from xmc_core.inference.reach import recall_of_beam
from xmc_core.models.xr_linear import XRLinear, disentangled
from xmc_core.persistence import write_store
from xmc_core.reporting import Reporter
from xmc_core.stages.inputs import Inputs


def run(inputs: Inputs, config: Config, out: Path, report: Reporter) -> None:
    """Reassign the labels and train again, `disentangle.rounds` times."""
    X, Y = inputs.X_train, inputs.Y_train
    matcher = inputs.matcher
    model = XRLinear(matcher.tree, matcher.levels, config, matcher.n_features)
    beams = inputs.beams
    for _ in range(config.disentangle.rounds):
        model = disentangled(model, X, Y, beams=beams, report=report)
        beams = model.predict_leaves(X, config.disentangle.beam_size)

    tree = model.tree
    tree.save(out / "tree")
    model.save(out / "model")
    model.predict(inputs.X_test).save(out / "predictions")
    clusters = np.bincount(tree.slot_labels, minlength=tree.n_labels)
    facts = {
        "slots": tree.n_slots,
        "labels_in_several_clusters": int((clusters > 1).sum()),
        "largest_leaf": int(np.diff(tree.pointers[-1]).max(initial=0)),
        "nnz": model.nnz,
        "recall_of_beam": recall_of_beam(tree, Y, beams),
    }
    write_store(out, "disentangled-tree", facts=facts)
    report.metrics(**facts)
