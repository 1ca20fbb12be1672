"""Stage: XR-Linear over the initial tree, and the clusters that its beam reaches."""

from pathlib import Path

from xmc_core.config import Config
from xmc_core.inference.reach import recall_of_beam
from xmc_core.models.xr_linear import train_xr_linear
from xmc_core.persistence import write_store
from xmc_core.reporting import Reporter
from xmc_core.stages.inputs import Inputs


def run(inputs: Inputs, config: Config, out: Path, report: Reporter) -> None:
    """Train the matcher, which is also the baseline, and keep the beams of the training rows."""
    tree = inputs.initial_tree
    model = train_xr_linear(inputs.X_train, inputs.Y_train, config, tree=tree, report=report)
    model.save(out / "model")
    model.predict(inputs.X_test).save(out / "predictions")
    beams = model.predict_leaves(inputs.X_train, config.disentangle.beam_size)
    write_store(out, "matcher", matrices={"beams": beams})
    report.metrics(
        depth=tree.depth,
        leaves=tree.n_leaves,
        nnz=model.nnz,
        recall_of_beam=recall_of_beam(tree, inputs.Y_train, beams),
    )
