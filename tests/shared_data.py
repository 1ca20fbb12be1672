"""Real data beside the checkout, for tests that can do without."""

import json
import lzma
from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import csr_array

from xmc_core.types import SparseRows

FOLDER = Path(__file__).parents[2] / "shared" / "data"


def shared_texts(name: str) -> list[str]:
    """Training texts; skips the test where the data set is not there."""
    return [row["text"] for row in _rows(name)]


def shared_labels(name: str) -> SparseRows:
    """(documents, labels) ones; labels by first appearance."""
    numbers: dict[str, int] = {}
    indices: list[int] = []
    pointer = [0]
    for row in _rows(name):
        indices += sorted({numbers.setdefault(label, len(numbers)) for label in row["labels"]})
        pointer.append(len(indices))
    ones = np.ones(len(indices), np.float32)
    return csr_array((ones, indices, pointer), shape=(len(pointer) - 1, len(numbers)))


def _rows(name: str) -> list[dict]:
    file = FOLDER / name / "train.jsonl.xz"
    if not file.exists():
        pytest.skip(f"{name} is not in ../shared/data")
    with lzma.open(file, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]
