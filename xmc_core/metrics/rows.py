"""Row scores on disk: what the champion's gate compares later, without the models."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from xmc_core.metrics.ranking import RowScores
from xmc_core.persistence import read_store, write_store
from xmc_core.types import SparseRows

KIND = "evaluation"


def save_rows(
    folder: Path, rows: Mapping[str, Mapping[str, RowScores]], Y_test: SparseRows
) -> None:
    """Write the row scores of several models; all must have the same metrics."""
    names = list(next(iter(rows.values())))
    write_store(
        folder,
        KIND,
        arrays={
            f"{model}.{part}": np.stack([getattr(own[name], part) for name in names])
            for model, own in rows.items()
            for part in ("gain", "weight")
        },
        facts={"models": list(rows), "metrics": names, "test_split": split_digest(Y_test)},
    )


def load_rows(folder: Path) -> dict[str, dict[str, RowScores]]:
    """Row scores by model and metric.

    Two folders may be compared row by row only if their manifests agree in `test_split`.
    """
    store = read_store(folder, KIND)
    return {
        model: {
            name: RowScores(
                store.arrays[f"{model}.gain"][place], store.arrays[f"{model}.weight"][place]
            )
            for place, name in enumerate(store.facts["metrics"])
        }
        for model in store.facts["models"]
    }


def split_digest(Y_test: SparseRows) -> str:
    """Names a test split by its labels, row by row."""
    digest = hashlib.sha256(repr(tuple(map(int, Y_test.shape))).encode())
    digest.update(Y_test.indptr.astype("<i8").tobytes())
    digest.update(Y_test.indices.astype("<i4").tobytes())
    return digest.hexdigest()[:16]
