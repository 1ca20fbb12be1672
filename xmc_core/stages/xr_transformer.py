"""An encoder fine-tuned along the tree, and what it makes of every document."""

import csv
from dataclasses import asdict
from pathlib import Path

import numpy as np

from xmc_core.config import Config
from xmc_core.persistence import write_store
from xmc_core.reporting import Reporter
from xmc_core.stages.inputs import Inputs

NO_ENCODER = "none"


def run(inputs: Inputs, config: Config, out: Path, report: Reporter) -> None:
    """Fine-tune, save the encoder, embed train and test; without an encoder, zero columns."""
    dataset = inputs.dataset
    if config.encoder.name == NO_ENCODER:
        train = np.empty((len(dataset.train_texts), 0), np.float32)
        test = np.empty((len(dataset.test_texts), 0), np.float32)
        report.message("encoder.name is none: the rankers see tf-idf alone")
    else:
        from xmc_core.models.xr_transformer import fine_tune  # torch takes seconds to import

        tuned = fine_tune(
            dataset.train_texts,
            inputs.X_train,
            dataset.Y_train,
            inputs.disentangled_tree,
            config,
            report=report,
        )
        train = tuned.embeddings
        test = tuned.encoder.embed(
            dataset.test_texts, config.encoder, n_threads=config.n_threads, report=report
        )
        tuned.encoder.save(out / "encoder")
        points = [asdict(point) for point in tuned.curve]
        if points:
            with (out / "curves.csv").open("w", encoding="utf-8", newline="") as file:
                writer = csv.DictWriter(file, list(points[0]), lineterminator="\n")
                writer.writeheader()
                writer.writerows(points)
            report.metrics(steps=len(points), final_loss=round(points[-1]["loss"], 6))

    write_store(out, "embeddings", arrays={"train": train, "test": test})
    report.metrics(dimensions=train.shape[1], fine_tuned_levels=config.encoder.levels)
