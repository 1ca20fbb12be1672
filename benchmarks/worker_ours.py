"""One task of ours in a process of its own. worker_ours.py TASK FOLDER THREADS SETTINGS

Kernels come from the cache on disk, as in any process after the first; a small call of each task
loads them before the clock starts, as the peers' machine code is loaded by their import.
"""

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from measure import finish, latencies, measured
from scipy.sparse import load_npz
from sets import load

from xmc_core.config import Config, TfidfConfig, load_config
from xmc_core.data import Predictions
from xmc_core.features.label_features import label_centroids
from xmc_core.features.tfidf import fit_tfidf
from xmc_core.models import XRLinear, train_xr_linear
from xmc_core.tree import LabelTree, build_label_tree

SETTINGS = {"default": {}}


def pecos_tree(folder: Path) -> LabelTree:
    """The tree that libpecos grew, so that both train on the same one."""
    chain = folder / "libpecos-tree"
    depth = json.loads((chain / "config.json").read_text())["len"]
    leaves = load_npz(chain / f"C{depth - 1}.npz").tocsc()
    members = [
        leaves.indices[a:b].tolist()
        for a, b in zip(leaves.indptr[:-1], leaves.indptr[1:], strict=True)
    ]
    return LabelTree.from_leaves(members, branching=16, n_labels=leaves.shape[0])


def tree(folder: Path, config: Config) -> dict:
    X, Y = load(folder, "X_train"), load(folder, "Y_train")
    small = label_centroids(Y[:500], X[:500], max_features=config.tree.max_features)
    build_label_tree(small, config.tree)
    result: dict = {}
    with measured(result):
        features = label_centroids(
            Y, X, max_features=config.tree.max_features, n_threads=config.n_threads
        )
        build_label_tree(features, config.tree, n_threads=config.n_threads)
    return result


def train(folder: Path, config: Config) -> dict:
    X, Y = load(folder, "X_train"), load(folder, "Y_train")
    tree = pecos_tree(folder)
    train_xr_linear(X[:300], Y[:300], config, tree=tree)
    result: dict = {}
    with measured(result):
        model = train_xr_linear(X, Y, config, tree=tree)
    target = folder / "xmc-model"
    model.save(target)
    result["model_mb"] = sum(f.stat().st_size for f in target.rglob("*") if f.is_file()) / 2**20
    return result


def predict(folder: Path, config: Config) -> dict:
    X = load(folder, "X_test")
    model = XRLinear.load(folder / "xmc-model")
    model.predict(X[:200], n_threads=config.n_threads)
    result: dict = {}
    repeats = max(1, 8000 // X.shape[0])
    with measured(result):
        for _ in range(repeats):
            predictions = model.predict(X, n_threads=config.n_threads)
    result["us_per_row"] = result["cpu"] / (X.shape[0] * repeats) * 1e6
    predictions.save(folder / "xmc-predictions")
    return result


def row(folder: Path, config: Config) -> dict:
    X = load(folder, "X_test")
    model = XRLinear.load(folder / "xmc-model")
    rows = [X[i : i + 1] for i in range(500)]

    def call(i: int) -> Predictions:
        return model.predict(rows[i], n_threads=1)

    result = latencies(call, len(rows))
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda _: latencies(call, len(rows), 1000), range(4)))
    result["p99_us_4_callers"] = float(np.median([t["p99_us"] for t in together]))
    return result


def tfidf(folder: Path, config: Config) -> dict:
    lines = json.loads((folder / "texts.json").read_text())
    fit_tfidf(lines[:50], TfidfConfig(min_df=1))[0].transform(lines[:50])
    result: dict = {}
    with measured(result):
        vectorizer, _ = fit_tfidf(lines, TfidfConfig(), n_threads=config.n_threads)
        X = vectorizer.transform(lines)
    return {**result, "features": X.shape[1], "mb": sum(map(len, lines)) / 1e6}


if __name__ == "__main__":
    task, folder, threads, settings = sys.argv[1:5]
    config = load_config(overrides={**SETTINGS[settings], "n_threads": int(threads)})
    finish(globals()[task](Path(folder), config))
