"""Texts, labels and the split: what every other stage builds on."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from xmc_core.errors import ShapeError
from xmc_core.persistence import fresh_store, read_store, write_store
from xmc_core.types import Json, Pointers, SparseRows

KIND = "dataset"


@dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    """Canonical texts and labels of one data set, already checked."""

    train_texts: list[str]
    test_texts: list[str]
    label_names: list[str]
    """Labels that train teaches come first: what a model can predict is label_names[:n_labels]."""

    Y_train: SparseRows
    """(n_train, n_labels) ones."""

    Y_test: SparseRows
    """(n_test, len(label_names)) ones; columns from n_labels on are labels that train does not
    teach. They count as missed in recall, nDCG and PSP."""

    facts: Json = field(default_factory=dict)
    """Counts and versions for the manifest: what was read, kept, dropped."""

    def __post_init__(self) -> None:
        for name, texts, Y in (
            ("train", self.train_texts, self.Y_train),
            ("test", self.test_texts, self.Y_test),
        ):
            if len(texts) != Y.shape[0]:
                raise ShapeError(
                    f"{name} has {len(texts):,} texts but {Y.shape[0]:,} rows of labels."
                )
        if not self.Y_train.shape[1] <= self.Y_test.shape[1] == len(self.label_names):
            raise ShapeError(
                f"{len(self.label_names):,} label names, {self.Y_train.shape[1]:,} train columns "
                f"and {self.Y_test.shape[1]:,} test columns do not fit together."
            )

    @property
    def n_labels(self) -> int:
        """Labels that occur in train."""
        return int(self.Y_train.shape[1])

    @property
    def label_counts(self) -> Pointers:
        """(len(label_names),) occurrences in train."""
        counts = np.bincount(self.Y_train.indices, minlength=len(self.label_names))
        return counts.astype(np.int64)

    def save(self, folder: Path) -> None:
        with fresh_store(folder) as fresh:
            write_store(
                fresh,
                KIND,
                matrices={"Y_train": self.Y_train, "Y_test": self.Y_test},
                strings={
                    "train_texts": self.train_texts,
                    "test_texts": self.test_texts,
                    "label_names": self.label_names,
                },
                facts=self.facts,
            )

    @classmethod
    def load(cls, folder: Path) -> "Dataset":
        store = read_store(folder, KIND)
        return cls(
            store.strings("train_texts"),
            store.strings("test_texts"),
            store.strings("label_names"),
            store.csr("Y_train"),
            store.csr("Y_test"),
            store.facts,
        )
