"""Calibration of a model on training rows that models like it have not seen.

The rows are cut at random; `calibration.folds` parts are held out in turn, and a model is trained
on the others by the same procedure: tree, clusters, rankers. The final model is trained on all rows
and takes over the curves: no row is given up for good. How well they hold for it is measured on the
test split (docs/log.md, the report's calibration error).

An encoder is not fine-tuned anew for that: it has seen the held-out rows.
"""

from collections.abc import Callable

import numpy as np

from xmc_core.config import Config
from xmc_core.data import Predictions
from xmc_core.data.rows import as_rows
from xmc_core.errors import DataError
from xmc_core.inference.calibration import Calibration, fit_calibration, shuffled_runs
from xmc_core.metrics.matching import find_hits
from xmc_core.reporting import SILENT, Reporter
from xmc_core.types import Indices, SparseRows

MOST_ROWS = 50_000
"""Held out at most, in each fold: a million pairs, a thousand in each bin of the curve. The fewer
rows are missing, the more the models resemble the final one."""

DEPTH = 20
"""Labels to predict for a held-out row, at least, so that the curve knows low scores."""

Answer = Callable[[Indices, Indices], Predictions]
"""Numbers of the rows to train on and of those to predict, to predictions for the latter."""


def calibrate(
    Y: SparseRows, config: Config, answer: Answer, *, report: Reporter = SILENT
) -> Calibration:
    """Train on a part of the rows, predict the others, and fit the curves that `config` asks for.

    `Y` (n_samples, n_labels) are the labels of all training rows; `answer` trains a model like the
    one to be calibrated.

    Raises DataError if there are too few rows to hold any out, or none of them has a label.
    """
    predictions, truth = held_out(Y, config, answer, report=report)
    hits = find_hits(predictions.labels, truth)
    positives = np.bincount(truth.indices, minlength=truth.shape[1])
    return fit_calibration(
        predictions,
        hits,
        positives,
        config.calibration,
        top_k=config.inference.top_k,
        seed=config.seed,
    )


def held_out(
    Y: SparseRows, config: Config, answer: Answer, *, report: Reporter = SILENT
) -> tuple[Predictions, SparseRows]:
    """Predictions of the held-out rows by models that have not seen them, and their labels."""
    Y = as_rows(Y)
    if not np.all(Y.data):
        Y = Y.copy()
        Y.eliminate_zeros()
    settings = config.calibration
    n_rows = Y.shape[0]
    size = min(int(n_rows * settings.share), MOST_ROWS)
    if size < 1:
        raise DataError(
            f"{n_rows:,} training rows are too few to hold out {settings.share:.0%} of them; "
            "raise calibration.share, or set calibration.method to none."
        )
    order = shuffled_runs(n_rows, settings.run, config.seed)
    found, rows = [], []
    for fold in range(settings.folds):
        out = np.sort(order[fold * size : (fold + 1) * size])
        kept = np.setdiff1d(order, out)
        report.message(f"calibration: training on {len(kept):,} rows, {len(out):,} are held out")
        found.append(answer(kept.astype(np.int32), out.astype(np.int32)))
        rows.append(out)
    return (
        Predictions(
            np.concatenate([part.labels for part in found]),
            np.concatenate([part.scores for part in found]),
        ),
        as_rows(Y[np.concatenate(rows)]),
    )
