"""The best labels of each sample, best first."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.sparse import csr_array

from xmc_core.errors import ShapeError
from xmc_core.persistence import fresh_store, read_store, write_store
from xmc_core.types import Floats, Indices, SparseRows

KIND = "predictions"


@dataclass(frozen=True, slots=True, eq=False)
class Predictions:
    """Labels and scores of n samples; rows with fewer than top_k labels end in -1 and -inf."""

    labels: Indices
    """(n_samples, top_k)."""

    scores: Floats
    """(n_samples, top_k), descending along each row."""

    def __post_init__(self) -> None:
        if self.labels.shape != self.scores.shape or self.labels.ndim != 2:
            raise ShapeError(f"labels are {self.labels.shape} but scores are {self.scores.shape}.")

    def to_csr(self, n_labels: int) -> SparseRows:
        """(n_samples, n_labels) matrix of the scores, padding left out."""
        kept = self.labels >= 0
        indptr = np.concatenate([[0], np.cumsum(kept.sum(axis=1))])
        matrix = csr_array(
            (self.scores[kept], self.labels[kept], indptr), shape=(len(self.labels), n_labels)
        )
        matrix.sort_indices()
        return matrix

    def at_least(self, threshold: float) -> "Predictions":
        """Only labels that score `threshold` or more; a row without any comes back empty."""
        kept = self.scores >= np.float32(threshold)
        return Predictions(
            np.where(kept, self.labels, -1).astype(np.int32),
            np.where(kept, self.scores, -np.inf).astype(np.float32),
        )

    def save(self, folder: Path) -> None:
        with fresh_store(folder) as fresh:
            write_store(fresh, KIND, arrays={"labels": self.labels, "scores": self.scores})

    @classmethod
    def load(cls, folder: Path) -> "Predictions":
        arrays = read_store(folder, KIND).arrays
        return cls(arrays["labels"], arrays["scores"])
