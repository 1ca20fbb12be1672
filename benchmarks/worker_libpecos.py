"""One task of libpecos in a process of its own; runs in the peers' environment.

worker_libpecos.py TASK FOLDER THREADS SETTINGS
"""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import scipy.sparse as sp
from measure import finish, latencies, measured
from pecos.utils.cluster_util import ClusterChain
from pecos.utils.featurization.text.vectorizers import Vectorizer
from pecos.xmc import Indexer, LabelEmbeddingFactory
from pecos.xmc.xlinear.model import XLinearModel

SETTINGS = {
    # What the library does when told nothing.
    "default": {
        "tree": {"nr_splits": 16, "max_leaf_size": 100},
        "train": {},
        "predict": {"beam_size": 10},
    },
}


def matrix(folder: Path, name: str) -> sp.csr_matrix:
    loaded = sp.load_npz(folder / f"{name}.npz").tocsr().astype(np.float32)
    return sp.csr_matrix(
        (loaded.data, loaded.indices.astype(np.int32), loaded.indptr.astype(np.int32)), loaded.shape
    )


def tree(folder: Path, threads: int, settings: dict) -> dict:
    X, Y = matrix(folder, "X_train"), matrix(folder, "Y_train")
    result: dict = {}
    with measured(result):
        features = LabelEmbeddingFactory.create(Y, X, method="pifa", threads=threads)
        chain = Indexer.gen(
            features, indexer_type="hierarchicalkmeans", threads=threads, **settings["tree"]
        )
    chain.save(str(folder / "libpecos-tree"))
    return result


def train(folder: Path, threads: int, settings: dict) -> dict:
    X, Y = matrix(folder, "X_train"), matrix(folder, "Y_train")
    chain = ClusterChain.load(str(folder / "libpecos-tree"))
    result: dict = {}
    with measured(result):
        model = XLinearModel.train(X, Y, C=chain, threads=threads, **settings["train"])
    target = folder / "libpecos-model"
    shutil.rmtree(target, ignore_errors=True)
    model.save(str(target))
    result["model_mb"] = sum(f.stat().st_size for f in target.rglob("*") if f.is_file()) / 2**20
    return result


def predict(folder: Path, threads: int, settings: dict) -> dict:
    X = matrix(folder, "X_test")
    # Only the predict-only form uses the chunked layout.
    model = XLinearModel.load(str(folder / "libpecos-model"), is_predict_only=True)
    model.predict(X[:64], only_topk=10, threads=threads, **settings["predict"])
    result: dict = {}
    repeats = max(1, 8000 // X.shape[0])
    with measured(result):
        for _ in range(repeats):
            predictions = model.predict(X, only_topk=10, threads=threads, **settings["predict"])
    rows = X.shape[0] * repeats
    result["us_per_row"] = result["cpu"] / rows * 1e6
    sp.save_npz(folder / "libpecos-predictions.npz", predictions)
    return result


def row(folder: Path, threads: int, settings: dict) -> dict:
    X = matrix(folder, "X_test")
    model = XLinearModel.load(str(folder / "libpecos-model"), is_predict_only=True)
    rows = [X[i] for i in range(500)]
    return latencies(
        lambda i: model.predict(rows[i], only_topk=10, threads=1, **settings["predict"]), len(rows)
    )


def tfidf(folder: Path, threads: int, settings: dict) -> dict:
    lines = json.loads((folder / "texts.json").read_text())
    result: dict = {}
    with measured(result):
        vectorizer = Vectorizer.train(
            lines,
            {
                "type": "tfidf",
                "kwargs": {
                    "ngram_range": (1, 2),
                    "min_df_cnt": 2,
                    "sublinear_tf": True,
                    "threads": threads,
                },
            },
        )
        X = vectorizer.predict(lines, threads=threads)
    return {**result, "features": X.shape[1], "mb": sum(map(len, lines)) / 1e6}


if __name__ == "__main__":
    task, folder, threads, settings = sys.argv[1:5]
    finish(globals()[task](Path(folder), int(threads), SETTINGS[settings]))
