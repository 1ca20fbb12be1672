"""Stage: XR-Linear over the initial tree, and the clusters that beams of rows held out reach."""

from pathlib import Path

from xmc_core.config import Config
from xmc_core.inference.reach import recall_of_beam
from xmc_core.models.levels import held_out_beams
from xmc_core.models.xr_linear import train_xr_linear
from xmc_core.persistence import write_store
from xmc_core.reporting import Reporter
from xmc_core.stages.inputs import Inputs


def run(inputs: Inputs, config: Config, out: Path, report: Reporter) -> None:
    """Train the matcher, which is also the baseline, and find out where rankers like it look for
    the labels of training rows that they have not seen."""
    tree = inputs.initial_tree
    beams = held_out_beams(inputs.X_train, inputs.Y_train, tree, config, report=report)
    model = train_xr_linear(
        inputs.X_train, inputs.Y_train, config, tree=tree, beams=beams, report=report
    )
    model.save(out / "model")
    model.predict(inputs.X_test).save(out / "predictions")
    write_store(out, "matcher", matrices={"beams": beams})
    report.metrics(
        depth=tree.depth,
        leaves=tree.n_leaves,
        nnz=model.nnz,
        recall_of_held_out_beam=recall_of_beam(tree, inputs.Y_train, beams),
    )
