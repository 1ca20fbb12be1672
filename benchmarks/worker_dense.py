"""The rankers on [tf-idf, embedding], trained and asked in a process of its own.

worker_dense.py, with a JSON object on standard input:

folder       X_train.npz, Y_train.npz, X_test.npz, Y_test.npz; minilm-train.npy, minilm-test.npy
weight       length of the embedding beside words of length 1; 0: words alone
components   so many principal components of it; 0: all dimensions
overrides    of the preset `linear`
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from journal import METRICS
from measure import finish, latencies, measured, size_mb
from sets import load

from xmc_core import evaluate, load_config, train_xr_linear
from xmc_core.encoder.components import principal_components
from xmc_core.features.joined import join_features


def work(task: dict[str, Any]) -> dict[str, Any]:
    folder = Path(task["folder"])
    X, Y, X_test, Y_test = (
        load(folder, part) for part in ("X_train", "Y_train", "X_test", "Y_test")
    )
    result: dict[str, Any] = {}
    weight = task["weight"]
    if weight > 0:
        E, E_test = (np.load(folder / f"minilm-{split}.npy") for split in ("train", "test"))
        with measured(result.setdefault("components", {})):
            if task["components"] > 0:
                C = principal_components(E, np.arange(len(E)), task["components"], 1)[0].numpy()
                E, E_test = E @ C, E_test @ C
        X, X_test = (
            join_features(X, E, task["weight"]),
            join_features(X_test, E_test, task["weight"]),
        )
    config = load_config(
        preset="linear",
        overrides={**task["overrides"], "disentangle.max_clusters": 1, "n_threads": 1},
    )
    train_xr_linear(X[:300], Y[:300], config).predict(X_test[:100])  # loads the kernels

    with measured(result.setdefault("train", {})):  # label features and tree as well
        model = train_xr_linear(X, Y, config)
    with measured(result.setdefault("predict", {})):
        predictions = model.predict(X_test)
    rows = [X_test[i : i + 1] for i in range(500)]
    result["row"] = latencies(lambda i: model.predict(rows[i]), len(rows))
    result["us_per_row"] = result["predict"]["cpu"] / X_test.shape[0] * 1e6
    target = folder / "dense-model"
    model.save(target)
    result["model_mb"] = size_mb(target)
    counts = np.bincount(Y.indices, minlength=Y_test.shape[1])
    scores = evaluate(predictions, Y_test, label_counts=counts, n_train=Y.shape[0])
    return result | {metric: scores[metric] for metric in METRICS}


if __name__ == "__main__":
    finish(work(json.load(sys.stdin)))
