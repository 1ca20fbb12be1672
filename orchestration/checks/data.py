"""The data set: what no later stage could mend."""

import dagster as dg
import numpy as np

from orchestration.checks.stage_check import stage_check
from orchestration.dvc_project import DvcProject
from xmc_core.data import Dataset

SHOWN = 5
"""Examples in the metadata."""


@stage_check("dataset", blocking=True)
def rows_and_labels_are_sound(project: DvcProject, dataset: str) -> dg.AssetCheckResult:
    """Both splits have rows, train shows every label that a model may predict, names are unique."""
    data = Dataset.load(project.out("dataset", dataset))
    n_train, n_test = len(data.train_texts), len(data.test_texts)
    never_seen = int(np.count_nonzero(data.label_counts[: data.n_labels] == 0))
    same_names = len(data.label_names) - len(set(data.label_names))
    wrong_values = sum(int(np.count_nonzero(Y.data != 1.0)) for Y in (data.Y_train, data.Y_test))
    return dg.AssetCheckResult(
        passed=n_train > 0
        and n_test > 0
        and data.n_labels > 0
        and not (never_seen or same_names or wrong_values),
        metadata={
            "train_rows": n_train,
            "test_rows": n_test,
            "labels": data.n_labels,
            "labels_never_seen_in_train": never_seen,
            "labels_of_the_same_name": same_names,
            "values_other_than_one": wrong_values,
            "train_rows_without_label": int(np.count_nonzero(np.diff(data.Y_train.indptr) == 0)),
            "test_rows_without_label": int(np.count_nonzero(np.diff(data.Y_test.indptr) == 0)),
        },
    )


@stage_check("dataset")
def no_test_text_in_train(project: DvcProject, dataset: str) -> dg.AssetCheckResult:
    """A test text that train holds word for word is remembered, not predicted: figures look better
    than they are. Real collections have some; it is a warning."""
    data = Dataset.load(project.out("dataset", dataset))
    known = set(data.train_texts)
    leaked = [text for text in data.test_texts if text in known]
    share = 100.0 * len(leaked) / max(1, len(data.test_texts))
    return dg.AssetCheckResult(
        passed=not leaked,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={
            "leaked_rows": len(leaked),
            "leaked_percent": round(share, 3),
            "examples": [text[:200] for text in leaked[:SHOWN]],
        },
    )
