"""The data that benchmarks run on, turned into matrices once and kept under .xmc/bench/.

Real sets are read from the folder named by XMC_SHARED_DATA (default ../shared/data); one that is
not there is left out, with a word. The built-in set is that of `make demo`, so it differs from one
environment to another; its texts are read once and kept. Synthetic sets are seeded, and shaped like
public ones: documents, labels, words a document and labels a document agree; the words do not mean
anything.
"""

import json
import lzma
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.sparse import csr_array, load_npz, save_npz

ROOT = Path(__file__).parents[1]
CACHE = ROOT / ".xmc" / "bench"
REAL = ("eurlex-titles", "gutenberg-lcsh")
BUILT_IN = ("python-api",)


@dataclass(frozen=True)
class Shape:
    """What a synthetic set looks like."""

    train: int
    test: int
    features: int
    labels: int
    words: int
    labels_per_row: float
    topics: int


SYNTHETIC = {
    "wiki10-like": Shape(14_000, 3_000, 100_000, 31_000, 700, 18.6, 600),
    "amazon-tenth-like": Shape(49_000, 10_000, 136_000, 67_000, 76, 5.4, 1_500),
}
LARGE = {"three-million": Shape(100_000, 10_000, 337_000, 3_000_000, 49, 36.0, 20_000)}
"""As Amazon-3M, with a seventeenth of its documents; for large.py alone."""


def available() -> list[str]:
    """Sets for the linear models that can be had on this machine, the real ones first."""
    return [*real_ones(), *SYNTHETIC]


def with_texts() -> list[str]:
    """Sets for encoders that can be had on this machine."""
    return [*real_ones(), *BUILT_IN]


def real_ones() -> list[str]:
    real = [name for name in REAL if (shared_data() / name / "train.jsonl.xz").exists()]
    for name in REAL:
        if name not in real:
            print(f"{name} is left out: {shared_data() / name} is not there")
    return real


def shared_data() -> Path:
    return Path(os.environ.get("XMC_SHARED_DATA", ROOT.parent / "shared" / "data"))


def texts(name: str, split: str) -> list[str]:
    """The texts of a real set, or of the built-in one."""
    return [row["text"] for row in _rows(name, split)]


def prepare(name: str) -> Path:
    """Folder with X_train, Y_train, X_test, Y_test as npz (CSR, float32); made when missing.

    Of a real set also texts.json: the training texts, lower-cased and split at every character that
    belongs to no word, so that tokenisers of different rules find the same words in them.
    """
    folder = CACHE / name
    if not (folder / "done").exists():
        folder.mkdir(parents=True, exist_ok=True)
        shape = {**SYNTHETIC, **LARGE}.get(name)
        matrices = _synthetic(shape) if shape else _real(name)
        for matrix_name, matrix in matrices.items():
            save_npz(folder / f"{matrix_name}.npz", _narrow(matrix), compressed=False)
        if name in REAL:
            words = [" ".join(re.findall(r"\w+", text.lower())) for text in texts(name, "train")]
            (folder / "texts.json").write_text(json.dumps(words))
        (folder / "done").touch()
    return folder


def prepare_texts(name: str) -> Path:
    """The folder of `prepare` with train_texts.json and test_texts.json, as an encoder reads them.

    Real and built-in sets only.
    """
    folder = prepare(name)
    for split in ("train", "test"):
        file = folder / f"{split}_texts.json"
        if not file.exists():
            file.write_text(json.dumps(texts(name, split)))
    return folder


def load(folder: Path, name: str) -> csr_array:
    matrix = csr_array(load_npz(folder / f"{name}.npz"))
    matrix.sort_indices()
    return matrix


def _narrow(matrix: csr_array) -> csr_array:
    """With 32-bit indices, as every peer wants them."""
    indices, pointer = matrix.indices.astype(np.int32), matrix.indptr.astype(np.int32)
    return csr_array((matrix.data, indices, pointer), shape=matrix.shape)


def _rows(name: str, split: str) -> Iterator[dict]:
    if name in BUILT_IN:
        yield from _built_in_rows(name, split)
        return
    with lzma.open(shared_data() / name / f"{split}.jsonl.xz", "rt", encoding="utf-8") as file:
        yield from map(json.loads, file)


def _built_in_rows(name: str, split: str) -> Iterator[dict]:
    """Of the dataset stage, as `make demo` runs it."""
    from xmc_core.config import load_config
    from xmc_core.data import Dataset
    from xmc_core.stages.paths import ProjectPaths
    from xmc_core.stages.runner import run_stage

    paths = ProjectPaths(CACHE / "built-in", name)
    if not paths.out("dataset").exists():
        run_stage("dataset", paths, load_config(ROOT / "params.yaml", dataset=name))
    dataset = Dataset.load(paths.out("dataset"))
    train = split == "train"
    Y = dataset.Y_train if train else dataset.Y_test
    for i, text in enumerate(dataset.train_texts if train else dataset.test_texts):
        columns = Y.indices[Y.indptr[i] : Y.indptr[i + 1]]
        yield {"text": text, "labels": [dataset.label_names[column] for column in columns]}


def _real(name: str) -> dict[str, csr_array]:
    from xmc_core.config import TfidfConfig
    from xmc_core.features.tfidf import fit_tfidf

    vectorizer, X_train = fit_tfidf(texts(name, "train"), TfidfConfig())
    train, test = ([row["labels"] for row in _rows(name, split)] for split in ("train", "test"))
    known_labels = sorted({x for row in train for x in row})
    # Labels that train never shows come last; they count as missed in PSP.
    new_labels = sorted({x for row in test for x in row} - set(known_labels))
    numbers = {label: i for i, label in enumerate([*known_labels, *new_labels])}

    def matrix(rows: list[list[str]], n_labels: int) -> csr_array:
        columns = [sorted({numbers[x] for x in row}) for row in rows]
        indptr = np.concatenate([[0], np.cumsum([len(c) for c in columns])])
        indices = np.array([x for c in columns for x in c], np.int32)
        return csr_array(
            (np.ones(len(indices), np.float32), indices, indptr), shape=(len(rows), n_labels)
        )

    return {
        "X_train": X_train,
        "X_test": vectorizer.transform(texts(name, "test")),
        "Y_train": matrix(train, len(known_labels)),
        "Y_test": matrix(test, len(numbers)),
    }


def _synthetic(shape: Shape, seed: int = 7) -> dict[str, csr_array]:
    """Labels belong to topics and have power-law popularity; words come from a document's labels,
    from their topic, or from a Zipf background that all share."""
    rng = np.random.default_rng(seed)
    popularity = (np.arange(shape.labels) + 8.0) ** -0.75
    rng.shuffle(popularity)
    topic = rng.integers(0, shape.topics, shape.labels)
    by_topic = np.argsort(topic, kind="stable")
    starts = np.searchsorted(topic[by_topic], np.arange(shape.topics + 1))
    cumulated = np.concatenate([[0.0], np.cumsum(popularity[by_topic])])

    def ranks(low: float, high: float, size: tuple[int, int]) -> np.ndarray:
        """Ranks of words, each factor equally likely; in place, as 3 million labels have many."""
        drawn = rng.random(size, dtype=np.float32)
        drawn *= np.log(high / low)
        np.exp(drawn, out=drawn)
        drawn *= low
        return drawn

    # Each label owns 25 words and each topic 150, the rarer the higher the word's rank.
    label_words = ranks(200, shape.features - 1, (shape.labels, 25))
    topic_words = ranks(50, 0.7 * shape.features, (shape.topics, 150))
    background = np.cumsum((np.arange(shape.features) + 3.0) ** -1.0)
    word_of_rank = rng.permutation(shape.features)

    def draw(low: np.ndarray, high: np.ndarray) -> np.ndarray:
        """One label per entry, by popularity, from positions low .. high of the topic order."""
        target = cumulated[low] + rng.random(len(low)) * (cumulated[high] - cumulated[low])
        position = np.searchsorted(cumulated, target, side="right") - 1
        return by_topic[np.clip(position, low, np.maximum(high - 1, low))]

    def split(n_rows: int) -> tuple[csr_array, csr_array]:
        counts = 1 + rng.poisson(shape.labels_per_row * 1.12 - 1, n_rows)
        row = np.repeat(np.arange(n_rows), counts)
        everything = np.zeros(n_rows, np.int64), np.full(n_rows, shape.labels)
        first = draw(*everything)
        own = topic[first][row]
        near = np.where(
            rng.random(len(row)) < 0.5, own, (own + rng.integers(1, 4, len(row))) % shape.topics
        )
        anywhere = (rng.random(len(row)) > 0.7) | (starts[near] == starts[near + 1])
        low = np.where(anywhere, 0, starts[near])
        high = np.where(anywhere, shape.labels, starts[near + 1])
        labels = draw(low, high)
        begins = np.concatenate([[0], np.cumsum(counts)])
        labels[begins[:-1]] = first
        Y = csr_array((np.ones(len(row), np.float32), (row, labels)), shape=(n_rows, shape.labels))
        Y.data[:] = 1.0

        lengths = np.maximum(8, shape.words * 1.55 * np.exp(rng.normal(-0.1, 0.45, n_rows))).astype(
            int
        )
        row = np.repeat(np.arange(n_rows), lengths)
        label = labels[begins[row] + (rng.random(len(row)) * counts[row]).astype(int)]
        kind, pick = rng.random(len(row)), rng.random(len(row)) ** 2
        rank = np.searchsorted(background, rng.random(len(row)) * background[-1])
        from_label, from_topic = kind < 0.28, (kind >= 0.28) & (kind < 0.45)
        rank[from_label] = label_words[label[from_label], (pick[from_label] * 25).astype(int)]
        rank[from_topic] = topic_words[
            topic[label[from_topic]], (pick[from_topic] * 150).astype(int)
        ]
        words = word_of_rank[np.minimum(rank, shape.features - 1)]
        X = csr_array((np.ones(len(row), np.float32), (row, words)), shape=(n_rows, shape.features))
        return X, Y

    X_train, Y_train = split(shape.train)
    X_test, Y_test = split(shape.test)
    frequency = np.bincount(X_train.indices, minlength=shape.features)
    idf = (np.log((1 + shape.train) / (1 + frequency)) + 1).astype(np.float32)
    for X in (X_train, X_test):
        X.sum_duplicates()
        X.data = X.data * idf[X.indices]
        norms = np.sqrt(np.asarray((X * X).sum(axis=1)).ravel())
        X.data /= np.repeat(norms, np.diff(X.indptr)).astype(np.float32)
        X.sort_indices()
    for Y in (Y_train, Y_test):
        Y.sort_indices()
    return {"X_train": X_train, "Y_train": Y_train, "X_test": X_test, "Y_test": Y_test}
