"""Stage: the encoder, fine-tuned along the tree, and the embeddings of all texts."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from xmc_core.config import Config
from xmc_core.persistence import write_store
from xmc_core.reporting import Reporter
from xmc_core.stages.inputs import Inputs

if TYPE_CHECKING:
    from xmc_core.encoder.finetune import CurvePoint


def run(inputs: Inputs, config: Config, out: Path, report: Reporter) -> None:
    """Fine-tune level by level and encode train and test; `encoder: none` gives zero columns."""
    dataset = inputs.dataset
    if config.encoder.name == "none":
        train, test = (
            np.empty((len(texts), 0), np.float32)
            for texts in (dataset.train_texts, dataset.test_texts)
        )
        curve: Sequence[CurvePoint] = ()
    else:
        from xmc_core.models.xr_transformer import fine_tune  # loads torch

        tuned = fine_tune(
            dataset.train_texts,
            inputs.X_train,
            inputs.Y_train,
            inputs.disentangled_tree,
            config,
            report=report,
        )
        train, curve = tuned.embeddings, tuned.curve
        test = tuned.encoder.embed(
            dataset.test_texts, config.encoder, n_threads=config.n_threads, report=report
        )
        tuned.encoder.save(out / "encoder")
    write_store(out, "embeddings", arrays={"train": train, "test": test})
    write_curve(out / "curves.csv", curve)
    report.metrics(
        dimensions=train.shape[1],
        levels=len({point.level for point in curve}),
        steps=max((point.step for point in curve), default=0),
    )


def write_curve(file: Path, curve: Sequence["CurvePoint"]) -> None:
    """One row a point; only the header for a frozen encoder or none."""
    with file.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["step", "level", "loss", "learning_rate"])
        for point in curve:
            writer.writerow(
                [point.step, point.level, f"{point.loss:.6g}", f"{point.learning_rate:.6g}"]
            )
