"""One task of napkinXC in a process of its own. worker_napkinxc.py TASK FOLDER THREADS SETTINGS

Its beam search ignores top_k, and it crashes on a row that lacks the last feature: each row gets
one with the value 1e-9.
"""

import shutil
import sys
from pathlib import Path

import numpy as np
from measure import finish, latencies_together, measured, size_mb
from napkinxc.models import PLT
from scipy.sparse import csr_matrix, hstack, load_npz, save_npz

SETTINGS = {
    "plt": {"tree_type": "hierarchicalKmeans", "arity": 2, "max_leaves": 100, "liblinear_c": 1.0},
}


def matrix(folder: Path, name: str) -> csr_matrix:
    X = csr_matrix(load_npz(folder / f"{name}.npz"), dtype=np.float32)
    pinned = csr_matrix(np.full((X.shape[0], 1), 1e-9, np.float32))
    return hstack([X, pinned], format="csr")


def model(folder: Path, threads: int, name: str) -> PLT:
    return PLT(
        str(folder / f"napkinxc-{name}-model"),
        loss="squaredHinge",
        tree_search_type="beam",
        beam_search_width=10,
        threads=threads,
        seed=0,
        verbose=0,
        **SETTINGS[name],
    )


def whole(folder: Path, threads: int, name: str) -> dict:
    X = matrix(folder, "X_train")
    Y = csr_matrix(load_npz(folder / "Y_train.npz"))
    target = folder / f"napkinxc-{name}-model"
    shutil.rmtree(target, ignore_errors=True)
    result: dict = {}
    with measured(result):
        model(folder, threads, name).fit(X, Y)
    return {**result, "model_mb": size_mb(target)}


def predict(folder: Path, threads: int, name: str) -> dict:
    X = matrix(folder, "X_test")
    plt = model(folder, threads, name)
    plt.load()
    result: dict = {}
    with measured(result):
        answers = plt.predict_proba(X, top_k=10)
    flat = [(i, *answer) for i, best in enumerate(answers) for answer in best]
    row, labels, scores = zip(*flat, strict=True)
    n_labels = load_npz(folder / "Y_train.npz").shape[1]
    save_npz(
        folder / f"napkinxc-{name}-predictions.npz",
        csr_matrix((scores, (row, labels)), (X.shape[0], n_labels)),
    )
    return {**result, "us_per_row": result["cpu"] / X.shape[0] * 1e6}


def row(folder: Path, threads: int, name: str) -> dict:
    X = matrix(folder, "X_test")
    plt = model(folder, threads, name)
    plt.load()
    rows = [X[i] for i in range(500)]
    return latencies_together(lambda i: plt.predict_proba(rows[i], top_k=10), len(rows), callers=1)


if __name__ == "__main__":
    task, folder, threads, settings = sys.argv[1:5]
    finish(globals()[task](Path(folder), int(threads), settings))
