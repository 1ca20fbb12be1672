"""One set and seed of the study of labels in several clusters. worker_disentangle.py TASK

Reads one JSON object from its standard input:

    folder      X_train, Y_train, X_test, Y_test as npz
    preset, overrides
    variants    by name, what is changed in `disentangle`; null: the tree as it was grown
    rows        0: all training rows
    test_rows   0: all rows of test
    clusters    of `merged`: leaves of the tree, whatever the number of labels
    pairs, train_count, test_count   of `merged`: so many pairs of labels with so many rows each

`study` trains a model a variant, all on one tree and on the beams of rows held out for it, and
measures each. `merged` does so after pairs of labels with different places were made one, and
tells how well the clusters of such a label keep its two meanings apart.
"""

import json
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from journal import METRICS
from measure import finish, measured
from scipy.sparse import csr_array
from sets import load

from xmc_core import evaluate
from xmc_core.config import Config, load_config
from xmc_core.features.label_features import label_centroids
from xmc_core.inference.reach import recall_of_beam
from xmc_core.metrics import variation_of_information
from xmc_core.models.clusters import find_clusters
from xmc_core.models.levels import held_out_beams
from xmc_core.models.xr_linear import XRLinear, train_xr_linear
from xmc_core.tree import LabelTree
from xmc_core.tree.build import build_label_tree

WARMUP_ROWS = 400
PREDICTIONS, FEW_ROWS, PREDICTIONS_OF_FEW = 3, 3000, 15
"""The quickest of so many counts; of a few rows, which take 50 ms, the quickest of more."""

Work = dict[str, Any]
Variants = dict[str, dict[str, Any] | None]


@dataclass(frozen=True)
class Data:
    """Rows to train on and rows to ask about; Y_test may have labels that Y does not have."""

    X: csr_array
    Y: csr_array
    X_test: csr_array
    Y_test: csr_array

    @property
    def Y_known(self) -> csr_array:
        """Of the test rows, the labels that training knows."""
        return csr_array(self.Y_test[:, : self.Y.shape[1]])

    def head(self, rows: int, test_rows: int) -> "Data":
        """The first rows; 0: all."""
        rows, test_rows = rows or self.X.shape[0], test_rows or self.X_test.shape[0]
        return Data(self.X[:rows], self.Y[:rows], self.X_test[:test_rows], self.Y_test[:test_rows])


@contextmanager
def cpu_of(into: dict[str, Any], name: str) -> Iterator[None]:
    """Keep the CPU seconds of the block as `name`."""
    figures: dict[str, Any] = {}
    with measured(figures):
        yield
    into[name] = figures["cpu"]


def grown(data: Data, config: Config) -> LabelTree:
    features = label_centroids(
        data.Y, data.X, max_features=config.tree.max_features, n_threads=config.n_threads
    )
    return build_label_tree(features, config.tree, config.n_threads)


def study(data: Data, config: Config, work: Work) -> dict[str, Any]:
    result: dict[str, Any] = {}
    with cpu_of(result, "tree_cpu"):
        tree = grown(data, config)
    result |= {"labels": tree.n_labels, "leaves": tree.n_leaves}
    with cpu_of(result, "beams_cpu"):
        beams = held_out_beams(data.X, data.Y, tree, config)
    result["variants"] = {
        name: measure(*train(data, tree, beams, config, changes), data)
        for name, changes in work["variants"].items()
    }
    return result


def train(
    data: Data,
    tree: LabelTree,
    beams: csr_array,
    config: Config,
    changes: dict[str, Any] | None,
) -> tuple[XRLinear, dict[str, Any]]:
    """The model of one variant, and what it took."""
    row: dict[str, Any] = {"clusters_cpu": 0.0, "recalls": [recall_of_beam(tree, data.Y, beams)]}
    if changes is not None:
        config = config.replace(**{f"disentangle.{name}": to for name, to in changes.items()})
        with cpu_of(row, "clusters_cpu"):
            found = find_clusters(data.X, data.Y, tree, config, beams=beams)
        tree, beams, row["recalls"] = found.tree, found.beams, list(found.recalls)
    with cpu_of(row, "train_cpu"):
        model = train_xr_linear(data.X, data.Y, config, tree=tree, beams=beams)
    return model, row


def measure(model: XRLinear, row: dict[str, Any], data: Data) -> dict[str, Any]:
    """Add what the model is worth and what it costs."""
    taken: dict[str, Any] = {}
    few = data.X_test.shape[0] < FEW_ROWS
    for number in range(PREDICTIONS_OF_FEW if few else PREDICTIONS):
        with cpu_of(taken, str(number)):
            predictions = model.predict(data.X_test)
    counts = np.bincount(data.Y.indices, minlength=data.Y_test.shape[1])
    scores = evaluate(predictions, data.Y_test, label_counts=counts, n_train=data.Y.shape[0])
    reached = recall_of_beam(model.tree, data.Y_known, model.predict_leaves(data.X_test))
    slots = np.bincount(model.tree.slot_labels, minlength=model.tree.n_labels)
    with tempfile.TemporaryDirectory() as folder:
        model.save(Path(folder) / "model")
        size = sum(f.stat().st_size for f in Path(folder).rglob("*") if f.is_file())
    return {
        **{name: scores[name] for name in METRICS},
        "missed": 100.0 * (1.0 - reached),
        "slots_per_label": float(slots.mean()),
        "several": 100.0 * float((slots > 1).mean()),
        "largest_leaf": int(np.diff(model.tree.pointers[-1]).max()),
        **row,
        "predict_cpu": min(taken.values()),
        "model_bytes": size,
    }


def merged(data: Data, config: Config, work: Work) -> dict[str, Any]:
    largest = -(-data.Y.shape[1] // work["clusters"])
    config = config.replace(**{"tree.max_leaf_size": largest})
    tree = grown(data, config)
    beams = held_out_beams(data.X, data.Y, tree, config)
    place = places(data.Y, beams)
    often = often_enough(data, work["train_count"], work["test_count"])
    pairs = unrelated_pairs(
        data, top_nodes(tree)[place], often[place[often] >= 0],
        np.random.default_rng(config.tree.seed), work["pairs"], work["train_count"],
        work["test_count"],
    )  # fmt: skip
    rows, meanings = zip(*(rows_of_meanings(data.Y_test, *pair) for pair in pairs), strict=True)
    before = apart_before(data, tree, beams, config, work["before"], pairs)
    data, labels = with_pairs_merged(data, pairs)
    tree = grown(data, config)
    beams = held_out_beams(data.X, data.Y, tree, config)
    others = label_counts(data.Y) >= 2 * work["train_count"]
    others[labels] = False
    in_one = [variation_of_information(m, np.zeros_like(m)) for m in meanings]
    result: dict[str, Any] = {
        "leaves": tree.n_leaves,
        "pairs": len(pairs),
        "with_place": 100.0 * float((place[often] >= 0).mean()),
        "meaning_rows": int(sum(map(len, rows))),
        "in_one_group": float(np.mean(in_one)),
        "apart_before": 100.0 * before,
        "variants": {},
    }
    for name, changes in work["variants"].items():
        model, _ = train(data, tree, beams, config, changes)
        asked = model.predict_leaves(data.X_test)
        homes = model.tree.label_leaves()
        sent = [
            sent_to(csr_array(asked[of_label]), homes[[label]].indices)
            for label, of_label in zip(labels, rows, strict=True)
        ]
        both = list(zip(meanings, sent, strict=True))
        several = np.diff(homes.indptr) > 1
        apart = [pulled_apart(*pair) for pair in both]
        result["variants"][name] = {
            "variation": float(np.mean([variation_of_information(*pair) for pair in both])),
            "pulled_apart": 100.0 * float(np.mean(apart)),
            "reached": 100.0 * float(np.mean(np.concatenate(sent) >= 0)),
            "merged_in_several": 100.0 * float(several[labels].mean()),
            "others_in_several": 100.0 * float(several[others].mean()) if others.any() else 0.0,
        }
    return result


def apart_before(
    data: Data,
    tree: LabelTree,
    beams: csr_array,
    config: Config,
    changes: dict[str, Any],
    pairs: np.ndarray,
) -> float:
    """Share of the pairs that are `pulled_apart` while they are two labels still: what can be had
    at the most."""
    model, _ = train(data, tree, beams, config, changes)
    asked = model.predict_leaves(data.X_test)
    homes = model.tree.label_leaves()
    found = []
    for pair in pairs:
        rows, meaning = rows_of_meanings(data.Y_test, *pair)
        leaves = np.unique(csr_array(homes[pair]).indices)
        found.append(pulled_apart(meaning, sent_to(csr_array(asked[rows]), leaves)))
    return float(np.mean(found))


def label_counts(Y: csr_array) -> np.ndarray:
    return np.bincount(Y.indices, minlength=Y.shape[1])


def often_enough(data: Data, train_count: int, test_count: int) -> np.ndarray:
    """Labels that so many rows of train and of test have."""
    return np.flatnonzero(
        (label_counts(data.Y) >= train_count) & (label_counts(data.Y_known) >= test_count)
    )


def places(Y: csr_array, beams: csr_array) -> np.ndarray:
    """(n_labels,) the leaf where more than half of a label's rows look first; -1: there is none."""
    first = sent_to(beams, np.arange(beams.shape[1]))
    found = np.flatnonzero(first >= 0)
    looks = csr_array((np.ones(len(found)), (found, first[found])), shape=beams.shape)
    counts = csr_array(Y.T @ looks)
    most = counts.max(axis=1).toarray().ravel()
    leaf = np.asarray(counts.argmax(axis=1)).ravel()
    return np.where(2 * most > label_counts(Y), leaf, -1)


def top_nodes(tree: LabelTree) -> np.ndarray:
    """(n_leaves,) the node of level 1 that each leaf lies below."""
    return np.array([tree.path(leaf)[1] for leaf in range(tree.n_leaves)])


def unrelated_pairs(
    data: Data,
    group: np.ndarray,
    labels: np.ndarray,
    rng: np.random.Generator,
    n_pairs: int,
    train_count: int,
    test_count: int,
) -> np.ndarray:
    """(n_pairs, 2) of the given labels at random, none twice, the two of a pair of different groups
    and each with at least so many rows, of train and of test, that do not have the other. Half as
    many pairs will do.

    group : (n_labels,) ids
    """
    free = rng.permutation(labels).tolist()
    pairs: list[tuple[int, int]] = []
    while free and len(pairs) < n_pairs:
        one = free.pop()
        for place in reversed(range(len(free))):
            pair = one, free[place]
            if group[pair[0]] != group[pair[1]] and all(
                np.bincount(rows_of_meanings(Y, *pair)[1], minlength=2).min() >= least
                for Y, least in ((data.Y, train_count), (data.Y_known, test_count))
            ):
                del free[place]
                pairs.append(pair)
                break
    if 2 * len(pairs) < n_pairs:
        raise SystemExit(f"only {len(pairs)} pairs of unrelated labels are there, not {n_pairs}")
    return np.array(pairs)


def with_pairs_merged(data: Data, pairs: np.ndarray) -> tuple[Data, np.ndarray]:
    """The same rows with one label for each pair, and which labels these are."""

    def merge(Y: csr_array) -> csr_array:
        new = np.arange(Y.shape[1])
        new[pairs[:, 1]] = pairs[:, 0]
        _, new = np.unique(new, return_inverse=True)  # the labels behind close the gaps
        ones = np.ones(len(new), np.float32)
        to_new = csr_array((ones, (np.arange(len(new)), new)), shape=(len(new), new.max() + 1))
        Y = csr_array(Y @ to_new)
        Y.data[:] = 1.0  # a row with both has it once
        Y.sort_indices()
        return Y

    gone = np.sort(pairs[:, 1])
    labels = pairs[:, 0] - np.searchsorted(gone, pairs[:, 0])
    return Data(data.X, merge(data.Y), data.X_test, merge(data.Y_test)), labels


def rows_of_meanings(Y: csr_array, one: int, other: int) -> tuple[np.ndarray, np.ndarray]:
    """The rows with exactly one of two labels, and which: 0 or 1."""
    columns = csr_array(Y[:, [one, other]])
    single = np.flatnonzero(np.diff(columns.indptr) == 1)
    return single, columns.indices[columns.indptr[single]].astype(np.int64)


def sent_to(asked: csr_array, leaves: np.ndarray) -> np.ndarray:
    """(n_rows,) which of a label's leaves has the best score in each row's beam; -1: none of them
    is in it."""
    beams = csr_array(asked[:, leaves])
    best = np.full(beams.shape[0], -1, np.int64)
    for row in range(beams.shape[0]):
        own = slice(*beams.indptr[row : row + 2])
        if own.start < own.stop:
            best[row] = leaves[beams.indices[own][np.argmax(beams.data[own])]]
    return best


def pulled_apart(meaning: np.ndarray, sent: np.ndarray) -> bool:
    """More than half of each meaning's rows are sent to one cluster, the two to different ones."""
    majorities = []
    for which in (0, 1):
        leaves, counts = np.unique(sent[meaning == which], return_counts=True)
        most = int(counts.argmax())
        if leaves[most] < 0 or 2 * counts[most] <= counts.sum():
            return False
        majorities.append(leaves[most])
    return majorities[0] != majorities[1]


def warm_up(data: Data, config: Config) -> None:
    """Load every kernel that a variant runs."""
    some = data.head(WARMUP_ROWS, WARMUP_ROWS)
    tree = grown(some, config)
    beams = held_out_beams(some.X, some.Y, tree, config)
    for changes in (None, {"max_clusters": 2, "min_gain": 1, "rounds": 2}):
        measure(*train(some, tree, beams, config, changes), some)


def main(task: str) -> None:
    work = json.load(sys.stdin)
    folder = Path(work["folder"])
    parts = ("X_train", "Y_train", "X_test", "Y_test")
    data = Data(*(load(folder, part) for part in parts)).head(work["rows"], work["test_rows"])
    config = load_config(preset=work["preset"], overrides=work["overrides"])
    warm_up(data, config)
    finish({"study": study, "merged": merged}[task](data, config, work))


if __name__ == "__main__":
    main(sys.argv[1])
