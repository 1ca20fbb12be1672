"""Small stages' folders, as the real stages write them."""

from pathlib import Path

import numpy as np
from scipy.sparse import csr_array

from xmc_core.data import Dataset, Predictions
from xmc_core.persistence import write_store
from xmc_core.tree import LabelTree
from xmc_core.types import SparseRows

N_TRAIN, N_TEST, N_LABELS = 60, 40, 12


def labels_of(n_rows: int, n_labels: int = N_LABELS) -> SparseRows:
    """Two labels a row, every label used."""
    dense = np.zeros((n_rows, n_labels), np.float32)
    rows = np.arange(n_rows)
    dense[rows, rows % n_labels] = 1
    dense[rows, (rows + 5) % n_labels] = 1
    return csr_array(dense)


def small_dataset(test_texts: list[str] | None = None) -> Dataset:
    return Dataset(
        [f"train text {i}" for i in range(N_TRAIN)],
        test_texts or [f"test text {i}" for i in range(N_TEST)],
        [f"label.{i}" for i in range(N_LABELS)],
        labels_of(N_TRAIN),
        labels_of(N_TEST),
    )


def small_tree(*, lose: int | None = None) -> LabelTree:
    """Three leaves; without the label `lose`."""
    leaves = [[label for label in range(i, i + 4) if label != lose] for i in (0, 4, 8)]
    return LabelTree.from_leaves(leaves, branching=4, n_labels=N_LABELS)


def predictions(*, right: float, seed: int = 0, top_k: int = 5) -> Predictions:
    """Predictions of which about a share of `right` rows have their true labels in front."""
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(N_TEST):
        true = [i % N_LABELS, (i + 5) % N_LABELS]
        others = rng.permutation([label for label in range(N_LABELS) if label not in true]).tolist()
        rows.append((true + others if rng.random() < right else others)[:top_k])
    scores = np.tile(np.linspace(1.0, 0.1, top_k, dtype=np.float32), (N_TEST, 1))
    return Predictions(np.array(rows, np.int32), scores)


def unit_rows(n_rows: int, n_terms: int = 20) -> SparseRows:
    rng = np.random.default_rng(n_rows)
    dense = rng.random((n_rows, n_terms)) * (rng.random((n_rows, n_terms)) < 0.3)
    dense[:, 0] = 1.0
    return csr_array((dense / np.linalg.norm(dense, axis=1, keepdims=True)).astype(np.float32))


def write_features(folder: Path, X_train: SparseRows, X_test: SparseRows) -> None:
    write_store(folder, "tfidf-features", matrices={"X_train": X_train, "X_test": X_test})
