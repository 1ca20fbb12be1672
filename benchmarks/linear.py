"""XR-Linear beside libpecos: same matrices, tree and settings, in turn, a process for each task.

python benchmarks/linear.py --peers ENVIRONMENT [--pairs 3] [--threads 1 2] [--sets ...]

Writes benchmarks/results/linear.json and the table in docs/benchmarks.md.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import sets
from scipy.sparse import csr_array, load_npz

from xmc_core import evaluate
from xmc_core.data import Predictions

HERE = Path(__file__).parent
TASKS = ("tree", "train", "predict", "row", "tfidf")


def run(python: str, worker: str, task: str, folder: Path, threads: int) -> dict[str, Any]:
    """One task in a fresh process pinned to `threads` cores; its result, or what it died of."""
    cores = ",".join(str(c) for c in sorted(os.sched_getaffinity(0))[:threads])
    limits = {
        name: str(threads)
        for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    }
    done = subprocess.run(
        ["taskset", "-c", cores, python, str(HERE / worker), task, folder, str(threads), "default"],
        capture_output=True, text=True, env={**os.environ, **limits}, timeout=3600, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise RuntimeError(f"{worker} {task} failed:\n{done.stderr[-2000:]}")
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def accuracy(folder: Path) -> dict[str, dict[str, float]]:
    """P@k and PSP@k of both sides' predictions, by the same code."""
    Y_train, Y_test = sets.load(folder, "Y_train"), sets.load(folder, "Y_test")
    counts = np.bincount(Y_train.indices, minlength=Y_train.shape[1])

    def score(predictions: Predictions) -> dict[str, float]:
        scores = evaluate(predictions, Y_test, label_counts=counts, n_train=Y_train.shape[0])
        return {name: scores[name] for name in ("P@1", "P@3", "P@5", "PSP@1", "PSP@3", "PSP@5")}

    theirs = best_first(csr_array(load_npz(folder / "libpecos-predictions.npz")), 10)
    return {"libpecos": score(theirs), "xmc": score(Predictions.load(folder / "xmc-predictions"))}


def best_first(scores: csr_array, top_k: int) -> Predictions:
    """The rows of a sparse score matrix as ranked labels."""
    n_rows = scores.shape[0]
    row = np.repeat(np.arange(n_rows), np.diff(scores.indptr))
    order = np.lexsort((scores.indices, -scores.data, row))
    rank = np.arange(len(order)) - np.repeat(scores.indptr[:-1], np.diff(scores.indptr))
    kept = rank < top_k
    labels = np.full((n_rows, top_k), -1, np.int32)
    values = np.full((n_rows, top_k), -np.inf, np.float32)
    labels[row[kept], rank[kept]] = scores.indices[order][kept]
    values[row[kept], rank[kept]] = scores.data[order][kept]
    return Predictions(labels, values)


def measure_set(name: str, peers: str, pairs: int, threads: int) -> list[dict[str, Any]]:
    """All tasks on one set: per pair theirs, then ours."""
    folder = sets.prepare(name)
    real = name in sets.REAL
    if real:
        (folder / "texts.json").write_text(json.dumps(sets.texts(name, "train")))
    rows = []
    for task in TASKS:
        if task == "tfidf" and not real:
            continue
        for pair in range(pairs):
            for side, python, worker in (
                ("libpecos", peers, "worker_libpecos.py"),
                ("xmc", sys.executable, "worker_ours.py"),
            ):
                result = run(python, worker, task, folder, threads)
                rows.append(
                    {
                        "set": name,
                        "task": task,
                        "threads": threads,
                        "pair": pair,
                        "side": side,
                        **result,
                    }
                )
                print(f"{name} {task} {threads} thread(s) {side}: {result}", flush=True)
    scores = accuracy(folder)
    return [*rows, {"set": name, "task": "accuracy", "threads": threads, **scores}]


FIGURES = {
    # task: (title, field, unit)
    "tree": [("label features and tree", "cpu", "CPU s")],
    "train": [
        ("train all levels", "cpu", "CPU s"),
        ("train all levels, wall", "wall", "s"),
        ("peak memory of training", "peak_mb", "MB"),
        ("model on disk", "model_mb", "MB"),
    ],
    "predict": [("batch prediction", "us_per_row", "CPU µs a row")],
    "row": [("one row, median", "p50_us", "µs"), ("one row, p99", "p99_us", "µs")],
    "tfidf": [("tf-idf, 1-2-grams, fit + transform", "cpu", "CPU s")],
}


def table(results: list[dict[str, Any]]) -> list[str]:
    """Markdown: median (range) of both sides and the ratio pair by pair."""
    lines = []
    for key in dict.fromkeys((r["set"], r["threads"]) for r in results):
        mine = [r for r in results if (r["set"], r["threads"]) == key]
        lines += [f"\n### {key[0]}, {key[1]} thread{'s' if key[1] > 1 else ''}\n"]
        lines += ["| step | libpecos 1.2.8 | xmc | ratio, median (range) |", "|---|---|---|---|"]
        for task, figures in FIGURES.items():
            theirs = [r for r in mine if r["task"] == task and r["side"] == "libpecos"]
            ours = [r for r in mine if r["task"] == task and r["side"] == "xmc"]
            for title, field, unit in figures if ours else ():
                a, b = [r[field] for r in theirs], [r[field] for r in ours]
                ratios = [x / y for x, y in zip(a, b, strict=True)]
                lines.append(
                    f"| {title} | {span(a)} {unit} | {span(b)} {unit} | "
                    f"**{median(ratios):.1f}** ({min(ratios):.1f} – {max(ratios):.1f}) |"
                )
            if task == "row" and ours:
                p99 = median(r["p99_us_4_callers"] for r in ours)
                lines.append(f"| one row, p99 with 4 callers | | {p99:.0f} µs | |")
        scores = next(r for r in mine if r["task"] == "accuracy")
        for names in (("P@1", "P@3", "P@5"), ("PSP@1", "PSP@3", "PSP@5")):
            values = [
                " / ".join(f"{scores[side][n]:.2f}" for n in names) for side in ("libpecos", "xmc")
            ]
            worst = max(abs(scores["libpecos"][n] - scores["xmc"][n]) for n in names)
            lines.append(
                f"| {' / '.join(names)} | {values[0]} | {values[1]} | {worst:.2f} apart at most |"
            )
    return lines


def span(values: list[float]) -> str:
    digits = 0 if median(values) >= 100 else 2
    return f"{median(values):,.{digits}f} ({min(values):,.{digits}f} – {max(values):,.{digits}f})"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--peers", required=True, help="python of the peers' environment")
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--sets", nargs="+", default=None)
    arguments = parser.parse_args()

    results: list[dict[str, Any]] = []
    for threads in arguments.threads:
        for name in arguments.sets or sets.available():
            results += measure_set(name, arguments.peers, arguments.pairs, threads)

    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True
    )
    cpu = next(
        (
            x.split(":")[1].strip()
            for x in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in x
        ),
        "",
    )
    about = {
        "machine": f"{cpu}, {platform.machine()}, {os.cpu_count()} cores",
        "commit": commit.stdout.strip(),
    }
    target = HERE / "results" / "linear.json"
    target.write_text(json.dumps({**about, "results": results}, indent=1) + "\n")
    page = sets.ROOT / "docs" / "benchmarks.md"
    head = [
        "# Benchmarks",
        "",
        "Made by `make bench-linear`; every single run is in `benchmarks/results/linear.json`.",
        f"Machine: {about['machine']}; commit {about['commit']}. Both sides in turn, each task in",
        "a process of its own, threads pinned; medians, ranges in brackets. Above 1: we win.",
    ]
    page.write_text("\n".join([*head, *table(results)]) + "\n")


if __name__ == "__main__":
    main()
