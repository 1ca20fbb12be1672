"""One task of omikuji in a process of its own. worker_omikuji.py TASK FOLDER THREADS SETTINGS

It trains from a text file only, whose reading is part of its time, and answers row by row.
"""

import shutil
import sys
from itertools import pairwise
from pathlib import Path

import omikuji
from measure import finish, latencies_together, measured, size_mb
from scipy.sparse import csr_matrix, load_npz, save_npz

SETTINGS = {
    "parabel": {"n_trees": 1},
    "bonsai": {"n_trees": 1, "cluster_balanced": False, "cluster_k": 100, "max_depth": 3},
}
Row = list[tuple[int, float]]


def rows_of(X: csr_matrix) -> list[Row]:
    edges, columns, values = X.indptr.tolist(), X.indices.tolist(), X.data.tolist()
    return [list(zip(columns[a:b], values[a:b], strict=True)) for a, b in pairwise(edges)]


def write_text(folder: Path, file: Path) -> None:
    X, Y = load_npz(folder / "X_train.npz"), load_npz(folder / "Y_train.npz")
    with file.open("w") as out:
        print(X.shape[0], X.shape[1], Y.shape[1], file=out)
        for i, row in enumerate(rows_of(X)):
            labels = ",".join(map(str, Y.indices[Y.indptr[i] : Y.indptr[i + 1]].tolist()))
            print(labels, *(f"{column}:{value:.7g}" for column, value in row), file=out)


def whole(folder: Path, threads: int, name: str) -> dict:
    file = folder / "omikuji.txt"
    if not file.exists():
        write_text(folder, file)
    parameters = omikuji.Model.default_hyper_param()
    for parameter, value in SETTINGS[name].items():
        setattr(parameters, parameter, value)
    result: dict = {}
    with measured(result):
        model = omikuji.Model.train_on_data(str(file), parameters, threads)
    target = folder / f"omikuji-{name}-model"
    shutil.rmtree(target, ignore_errors=True)
    model.save(str(target))
    return {**result, "model_mb": size_mb(target)}


def load(folder: Path, threads: int, name: str) -> tuple[omikuji.Model, list[Row]]:
    model = omikuji.Model.load(str(folder / f"omikuji-{name}-model"))
    model.init_prediction_thread_pool(threads)
    return model, rows_of(load_npz(folder / "X_test.npz"))


def predict(folder: Path, threads: int, name: str) -> dict:
    model, rows = load(folder, threads, name)
    result: dict = {}
    with measured(result):
        answers = [model.predict(row, beam_size=10, top_k=10) for row in rows]
    flat = [(i, *answer) for i, best in enumerate(answers) for answer in best]
    row, labels, scores = zip(*flat, strict=True)
    n_labels = load_npz(folder / "Y_train.npz").shape[1]
    save_npz(
        folder / f"omikuji-{name}-predictions.npz",
        csr_matrix((scores, (row, labels)), (len(rows), n_labels)),
    )
    return {**result, "us_per_row": result["cpu"] / len(rows) * 1e6}


def row(folder: Path, threads: int, name: str) -> dict:
    model, rows = load(folder, threads, name)
    return latencies_together(lambda i: model.predict(rows[i], beam_size=10, top_k=10), 500)


if __name__ == "__main__":
    task, folder, threads, settings = sys.argv[1:5]
    finish(globals()[task](Path(folder), int(threads), settings))
