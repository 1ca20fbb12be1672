"""xmc warmup: compile every kernel once, so that nobody waits for it later."""

import tempfile
from pathlib import Path

import typer

TOPICS = 12
LABELS_PER_TOPIC = 8
ROWS = 400


def warmup() -> None:
    """Compile all kernels into the cache, by training and predicting on a tiny made-up data set.

    It takes about a minute on a fresh machine and a few seconds later on. Installing does it; run
    it again after an upgrade of numba, or as the user under whom the pipeline will run.
    """
    import time

    from xmc_core.cli.progress import CommandReporter
    from xmc_core.config import LOSSES, Config
    from xmc_core.models import PipelineModel, train_xr_linear
    from xmc_core.reporting import PROGRESS_SECONDS, duration
    from xmc_core.stages.inputs import Inputs
    from xmc_core.stages.paths import STAGES, ProjectPaths
    from xmc_core.stages.runner import run_stage

    config = Config().replace(
        **{
            "tree.branching": 3,
            "tree.max_leaf_size": 8,
            "tfidf.min_df": 1,
            "rankers.negatives": [["teacher_forcing"], ["teacher_forcing", "matcher_aware"]],
        }
    )
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="xmc-") as folder, CommandReporter() as report:
        paths = ProjectPaths(Path(folder), "warmup")
        write_made_up_data(paths.raw)
        for done, stage in enumerate(STAGES):
            seconds = time.monotonic() - began
            if seconds > PROGRESS_SECONDS:
                report.progress(done, len(STAGES), "stages", seconds)
            run_stage(stage, paths, config, quiet=True)
        pipeline = PipelineModel.load(paths.out("rankers") / "bundle")
        pipeline.predict(["topic0 topic1"])
        inputs = Inputs(paths)
        for loss in LOSSES:
            # Without a threshold weights are dense, which has a layout of its own.
            other = config.replace(**{"rankers.loss": loss, "rankers.threshold": 0})
            model = train_xr_linear(inputs.X_train, inputs.Y_train, other, tree=inputs.initial_tree)
            model.predict(inputs.X_test)
    typer.echo(f"kernels are ready ({duration(time.monotonic() - began)})")


def write_made_up_data(folder: Path) -> None:
    """Documents whose words tell their labels, some of them rare, some documents empty."""
    import json

    folder.mkdir(parents=True)
    with (folder / "train.jsonl").open("w", encoding="utf-8") as file:
        for row in range(ROWS):
            topic = row % TOPICS
            labels = [
                f"label {topic}.{(row // TOPICS + i * i) % LABELS_PER_TOPIC}" for i in range(3)
            ]
            words = [
                f"topic{topic}",
                *(label.replace(" ", "").replace(".", "x") for label in labels),
            ]
            text = "" if row == 7 else " ".join([*words, f"word{row % 37}", f"word{row % 53}"])
            file.write(json.dumps({"text": text, "labels": [] if row == 8 else labels}) + "\n")
