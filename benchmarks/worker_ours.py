"""One task of ours in a process of its own. worker_ours.py TASK FOLDER THREADS SETTINGS

Kernels come from the cache on disk, as in any process after the first; a small call of each task
loads them before the clock starts, as the peers' machine code is loaded by their import.
"""

import json
import sys
from pathlib import Path

from measure import finish, latencies_together, measured, size_mb
from scipy.sparse import load_npz
from sets import load

from xmc_core.config import Config, TfidfConfig, load_config
from xmc_core.data import Predictions
from xmc_core.features.label_features import label_centroids
from xmc_core.features.tfidf import fit_tfidf
from xmc_core.models import XRLinear, train_xr_linear
from xmc_core.models.tuning import tune
from xmc_core.tree import LabelTree, build_label_tree


def pecos_tree(folder: Path) -> LabelTree:
    """The tree that libpecos grew, so that both train on the same one."""
    chain = folder / "libpecos-default-tree"
    depth = json.loads((chain / "config.json").read_text())["len"]
    leaves = load_npz(chain / f"C{depth - 1}.npz").tocsc()
    members = [
        leaves.indices[a:b].tolist()
        for a, b in zip(leaves.indptr[:-1], leaves.indptr[1:], strict=True)
    ]
    return LabelTree.from_leaves(members, branching=16, n_labels=leaves.shape[0])


def tree(folder: Path, config: Config, name: str) -> dict:
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


def train(folder: Path, config: Config, name: str) -> dict:
    X, Y = load(folder, "X_train"), load(folder, "Y_train")
    tree = pecos_tree(folder)
    train_xr_linear(X[:300], Y[:300], config, tree=tree)
    result: dict = {}
    with measured(result):
        model = train_xr_linear(X, Y, config, tree=tree)
    return {**result, "model_mb": save(model, folder, name)}


def whole(folder: Path, config: Config, name: str) -> dict:
    """Tree and training together, as a preset is timed; `tuned` chooses its settings first."""
    X, Y = load(folder, "X_train"), load(folder, "Y_train")
    train_xr_linear(X[:300], Y[:300], config)
    chosen: dict = {}
    if name == "tuned":
        tuning: dict = {}
        with measured(tuning):
            tuned = tune(X, Y, config)
        config = tuned.config
        chosen = {"tuning_cpu": tuning["cpu"], "changes": tuned.changes}
    result: dict = {}
    with measured(result):
        model = train_xr_linear(X, Y, config)
    return {**result, **chosen, "model_mb": save(model, folder, name)}


def save(model: XRLinear, folder: Path, name: str) -> float:
    target = folder / f"xmc-{name}-model"
    model.save(target)
    return size_mb(target)


def predict(folder: Path, config: Config, name: str) -> dict:
    X = load(folder, "X_test")
    model = XRLinear.load(folder / f"xmc-{name}-model")
    model.predict(X[:200], n_threads=config.n_threads)
    result: dict = {}
    repeats = max(1, 8000 // X.shape[0])
    with measured(result):
        for _ in range(repeats):
            predictions = model.predict(X, n_threads=config.n_threads)
    predictions.save(folder / f"xmc-{name}-predictions")
    return {**result, "us_per_row": result["cpu"] / (X.shape[0] * repeats) * 1e6}


def row(folder: Path, config: Config, name: str) -> dict:
    X = load(folder, "X_test")
    model = XRLinear.load(folder / f"xmc-{name}-model")
    rows = [X[i : i + 1] for i in range(500)]

    def call(i: int) -> Predictions:
        return model.predict(rows[i], n_threads=1)

    return latencies_together(call, len(rows))


def tfidf(folder: Path, config: Config, name: str) -> dict:
    """The vectoriser and the training rows, by one pass."""
    lines = json.loads((folder / "texts.json").read_text())
    fit_tfidf(lines[:50], TfidfConfig(min_df=1))
    result: dict = {}
    with measured(result):
        _, X = fit_tfidf(lines, TfidfConfig(), n_threads=config.n_threads)
    return {**result, "features": X.shape[1]}


if __name__ == "__main__":
    task, folder, threads, settings = sys.argv[1:5]
    # "default": as libpecos, on its tree; "alone": the same on our own tree; "tuned": the preset
    # `linear` where tuning starts.
    presets = {"default": None, "alone": None, "tuned": "linear"}
    config = load_config(
        preset=presets.get(settings, settings), overrides={"n_threads": int(threads)}
    )
    finish(globals()[task](Path(folder), config, settings))
