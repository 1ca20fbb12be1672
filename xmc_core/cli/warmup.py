"""xmc warmup: compile every kernel once, so that nobody waits for it later."""

import json
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from xmc_core.config import Config

TOPICS = 12
LABELS_PER_TOPIC = 8
ROWS = 400
LEAVES = ((16, 40), (300, 2**13))
"""Labels of a leaf, and features. Places of weights are a mask or 16 bits (these two leaf sizes),
or a byte (which the pipeline's run has seen); what tells apart few features takes a byte, where
there are many of which each leaf uses few it takes two."""


def warmup() -> None:
    """Compile all kernels into the cache, by training and predicting on a tiny made-up data set.

    It takes a minute on a fresh machine and a few seconds later on. Installing does it; run
    it again after an upgrade of numba, or as the user under whom the pipeline will run.
    """
    from xmc_core.cli.progress import CommandReporter
    from xmc_core.config import Config
    from xmc_core.inference.ensemble import average_predictions
    from xmc_core.models import PipelineModel
    from xmc_core.reporting import PROGRESS_SECONDS, duration
    from xmc_core.stages.paths import STAGES, ProjectPaths
    from xmc_core.stages.runner import run_stage

    config = Config().replace(
        **{
            "tree.branching": 3,
            "tree.max_leaf_size": 8,
            "tfidf.min_df": 1,
            "tfidf.blocks": [{"analyzer": "char"}, {"analyzer": "char_wb", "weight": 0.5}],
            "rankers.negatives": [["teacher_forcing"], ["teacher_forcing", "matcher_aware"]],
        }
    )
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="xmc-") as folder, CommandReporter() as report:
        paths = ProjectPaths(Path(folder), "warmup")
        write_made_up_data(paths.raw)
        for done, stage in enumerate(STAGES):
            if (seconds := time.monotonic() - began) > PROGRESS_SECONDS:
                report.progress(done, len(STAGES) + 1, "steps", seconds)
            run_stage(stage, paths, config, quiet=True)
        predictions = PipelineModel.load(paths.out("rankers") / "bundle").predict(["topic0 topic1"])
        average_predictions([predictions, predictions], "rank")
        train_other_layouts(config)
    typer.echo(f"kernels are ready ({duration(time.monotonic() - began)})")


def write_made_up_data(folder: Path) -> None:
    """Documents whose words tell their labels, some of them rare, some documents empty."""
    folder.mkdir(parents=True)
    with (folder / "train.jsonl").open("w", encoding="utf-8") as file:
        for row in range(ROWS):
            topic, n = row % TOPICS, row // TOPICS
            labels = [f"label{topic}x{(n + i * i) % LABELS_PER_TOPIC}" for i in range(3)]
            words = [f"topic{topic}", *labels, f"word{row % 37}", f"wörd{row % 53}"]
            text = "" if row == 7 else " ".join(words)
            file.write(json.dumps({"text": text, "labels": [] if row == 8 else labels}) + "\n")


def train_other_layouts(config: "Config") -> None:
    """Rankers of every loss, in narrow and in wide leaves."""
    import numpy as np
    from scipy.sparse import csr_array, random_array

    from xmc_core.config import LOSSES
    from xmc_core.models import train_xr_linear
    from xmc_core.tree import LabelTree

    chance = np.random.default_rng(0)
    filled = csr_array(random_array((ROWS, 40), density=0.3, dtype=np.float32, rng=chance))
    filled.sort_indices()
    for leaf_size, n_features in LEAVES:
        X = csr_array((filled.data, filled.indices, filled.indptr), (ROWS, n_features))
        columns = np.arange(ROWS * 4) % (2 * leaf_size)
        ones = np.ones(len(columns), np.float32)
        Y = csr_array((ones, (np.repeat(np.arange(ROWS), 4), columns)), (ROWS, 2 * leaf_size))
        leaves = np.arange(2 * leaf_size).reshape(2, leaf_size).tolist()
        tree = LabelTree.from_leaves(leaves, branching=2)
        for loss in LOSSES:
            changes = {"rankers.loss": loss, "rankers.threshold": 0, "rankers.max_iter": 3}
            model = train_xr_linear(X, Y, config.replace(**changes), tree=tree)
            model.predict(X)
            model.score(X, Y)
