"""One task of libpecos in a process of its own; runs in the peers' environment.

worker_libpecos.py TASK FOLDER THREADS SETTINGS
"""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
from measure import finish, latencies_together, measured, size_mb
from pecos.utils.cluster_util import ClusterChain
from pecos.utils.featurization.text.vectorizers import Vectorizer
from pecos.xmc import Indexer, LabelEmbeddingFactory
from pecos.xmc.base import HierarchicalMLModel, MLModel
from pecos.xmc.xlinear.model import XLinearModel

Settings = dict[str, Any]

# Per-level lists count from the last level, as in xmc_core.config: [1, 2] is 2 at the labels and 1
# above. `beams` are those of the levels above the labels.
SETTINGS: dict[str, Settings] = {
    # What the library does when told nothing.
    "default": {
        "tree": {"nr_splits": 16, "max_leaf_size": 100},
        "levels": {},
        "beams": [10],
        "post_processors": ["l3-hinge"],
    },
    # The ranker settings that it ships for EUR-Lex-4K, with 16 splits (8 where labels are few).
    "released": {
        "tree": {"nr_splits": 16, "max_leaf_size": 16},
        "levels": {"Cp": [1.0, 2.0], "Cn": [2.0, 4.0], "threshold": [0.001]},
        "negatives": ["tfn", "tfn+man"],
        "relevance": "l1",
        "beams": [75, 75, 100],
        "post_processors": ["l3-hinge", "noop"],
    },
    # Positives count four times: the best of its settings on gutenberg-lcsh.
    "cost4": {
        "tree": {"nr_splits": 16, "max_leaf_size": 16},
        "levels": {"Cp": [4.0], "Cn": [1.0], "threshold": [0.001]},
        "negatives": ["tfn", "tfn+man"],
        "relevance": "l1",
        "beams": [100],
        "post_processors": ["l3-hinge"],
    },
}
SETTINGS["alone"] = SETTINGS["default"]  # beside omikuji and napkinXC: files of its own
FEW_LABELS = 10_000


def matrix(folder: Path, name: str) -> sp.csr_matrix:
    loaded = sp.load_npz(folder / f"{name}.npz").tocsr().astype(np.float32)
    return sp.csr_matrix(
        (loaded.data, loaded.indices.astype(np.int32), loaded.indptr.astype(np.int32)), loaded.shape
    )


def at(values: list, level: int, depth: int) -> Any:
    return values[max(0, len(values) - (depth - level))]


def splits(settings: Settings, n_labels: int) -> int:
    few = settings is SETTINGS["released"] and n_labels < FEW_LABELS
    return 8 if few else settings["tree"]["nr_splits"]


def grow(X: sp.csr_matrix, Y: sp.csr_matrix, threads: int, settings: Settings) -> ClusterChain:
    features = LabelEmbeddingFactory.create(Y, X, method="pifa", threads=threads)
    tree = {**settings["tree"], "nr_splits": splits(settings, Y.shape[1])}
    return Indexer.gen(features, indexer_type="hierarchicalkmeans", threads=threads, **tree)


def fit(
    X: sp.csr_matrix, Y: sp.csr_matrix, chain: ClusterChain, threads: int, settings: Settings
) -> XLinearModel:
    train_params, pred_params = ranker_params(len(chain), Y.shape[1], threads, settings)
    return XLinearModel.train(
        X, Y, C=chain, train_params=train_params, pred_params=pred_params, threads=threads
    )


def ranker_params(
    depth: int, n_labels: int, threads: int, settings: Settings
) -> tuple[XLinearModel.TrainParams, XLinearModel.PredParams]:
    negatives = settings.get("negatives", ["tfn"])
    train_params = XLinearModel.TrainParams(
        nr_splits=splits(settings, n_labels),
        rel_mode="induce" if "relevance" in settings else "disable",
        rel_norm=settings.get("relevance", "no-norm"),
        hlm_args=HierarchicalMLModel.TrainParams(
            neg_mining_chain=[at(negatives, level, depth) for level in range(depth)],
            model_chain=[
                MLModel.TrainParams(
                    threads=threads,
                    **{k: at(v, level, depth) for k, v in settings["levels"].items()},
                )
                for level in range(depth)
            ],
        ),
    )
    tops = [at(settings["beams"], level, depth - 1) for level in range(depth - 1)] + [10]
    pred_params = XLinearModel.PredParams(
        hlm_args=HierarchicalMLModel.PredParams(
            model_chain=[
                MLModel.PredParams(
                    only_topk=tops[level],
                    post_processor=at(settings["post_processors"], level, depth),
                )
                for level in range(depth)
            ]
        )
    )
    return train_params, pred_params


def tree(folder: Path, threads: int, name: str) -> dict:
    X, Y = matrix(folder, "X_train"), matrix(folder, "Y_train")
    result: dict = {}
    with measured(result):
        chain = grow(X, Y, threads, SETTINGS[name])
    chain.save(str(folder / f"libpecos-{name}-tree"))
    return result


def train(folder: Path, threads: int, name: str) -> dict:
    X, Y = matrix(folder, "X_train"), matrix(folder, "Y_train")
    chain = ClusterChain.load(str(folder / f"libpecos-{name}-tree"))
    result: dict = {}
    with measured(result):
        model = fit(X, Y, chain, threads, SETTINGS[name])
    return {**result, "model_mb": save(model, folder, name)}


def whole(folder: Path, threads: int, name: str) -> dict:
    """Tree and training together, as a preset is timed."""
    X, Y = matrix(folder, "X_train"), matrix(folder, "Y_train")
    result: dict = {}
    with measured(result):
        model = fit(X, Y, grow(X, Y, threads, SETTINGS[name]), threads, SETTINGS[name])
    return {**result, "model_mb": save(model, folder, name)}


def save(model: XLinearModel, folder: Path, name: str) -> float:
    target = folder / f"libpecos-{name}-model"
    shutil.rmtree(target, ignore_errors=True)
    model.save(str(target))
    return size_mb(target)


def load(folder: Path, name: str) -> XLinearModel:
    # Only the predict-only form uses the chunked layout.
    return XLinearModel.load(str(folder / f"libpecos-{name}-model"), is_predict_only=True)


def predict(folder: Path, threads: int, name: str) -> dict:
    X = matrix(folder, "X_test")
    model = load(folder, name)
    model.predict(X[:64], threads=threads)
    result: dict = {}
    repeats = max(1, 8000 // X.shape[0])
    with measured(result):
        for _ in range(repeats):
            predictions = model.predict(X, threads=threads)
    sp.save_npz(folder / f"libpecos-{name}-predictions.npz", predictions)
    return {**result, "us_per_row": result["cpu"] / (X.shape[0] * repeats) * 1e6}


def row(folder: Path, threads: int, name: str) -> dict:
    X = matrix(folder, "X_test")
    model = load(folder, name)
    rows = [X[i] for i in range(500)]
    return latencies_together(lambda i: model.predict(rows[i], threads=1), len(rows))


def tfidf(folder: Path, threads: int, name: str) -> dict:
    """The vectoriser and the training rows; it has no call for both."""
    lines = json.loads((folder / "texts.json").read_text())
    kwargs = {"ngram_range": (1, 2), "min_df_cnt": 2, "sublinear_tf": True, "threads": threads}
    result: dict = {}
    with measured(result):
        vectorizer = Vectorizer.train(lines, {"type": "tfidf", "kwargs": kwargs})
        X = vectorizer.predict(lines, threads=threads)
    return {**result, "features": X.shape[1]}


if __name__ == "__main__":
    task, folder, threads, settings = sys.argv[1:5]
    finish(globals()[task](Path(folder), int(threads), settings))
