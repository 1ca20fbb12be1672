"""Predictions: numbers that could not be right whatever the model."""

import dagster as dg
import numpy as np

from orchestration.checks.stage_check import stage_check
from orchestration.dvc_project import DvcProject
from xmc_core.data import Dataset, Predictions


def predictions_check(stage: str) -> dg.AssetChecksDefinition:
    """The check on the test predictions of one model."""

    @stage_check(stage, blocking=True)
    def predictions_are_sound(project: DvcProject, dataset: str) -> dg.AssetCheckResult:
        """A row per test document; labels exist, none comes twice; scores descend."""
        data = Dataset.load(project.out("dataset", dataset))
        found = Predictions.load(project.out(stage, dataset) / "predictions")
        faults = count_faults(found, data.n_labels)
        faults["rows_missing"] = abs(len(data.test_texts) - len(found.labels))
        unanswered = int(np.count_nonzero((found.labels < 0).all(axis=1)))
        return dg.AssetCheckResult(
            passed=not any(faults.values()) and unanswered < max(1, len(found.labels)),
            metadata={**faults, "rows_without_answer": unanswered, "top_k": found.labels.shape[1]},
        )

    return predictions_are_sound


def count_faults(predictions: Predictions, n_labels: int) -> dict[str, int]:
    """How many rows break which rule."""
    labels, scores = predictions.labels, predictions.scores
    given = labels >= 0
    ordered = np.sort(labels, axis=1)
    twice = (ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)
    # Padding scores -inf, so a row that rises anywhere has its labels in the wrong order.
    rising = scores[:, 1:] > scores[:, :-1]
    broken = {
        "rows_with_unknown_labels": (labels >= n_labels) | (labels < -1),
        "rows_with_a_label_twice": twice,
        "rows_not_descending": rising,
        "rows_with_scores_not_finite": given & ~np.isfinite(scores),
        "rows_with_gaps": given[:, 1:] & ~given[:, :-1],
    }
    return {name: int(np.count_nonzero(rows.any(axis=1))) for name, rows in broken.items()}


predictions_are_sound = [predictions_check(s) for s in ("matcher", "disentangled_tree", "rankers")]
