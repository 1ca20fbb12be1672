"""Sizes that most libraries do not reach: `make bench-large`.

python benchmarks/large.py [--sets yso-finna-en three-million] [--threads 2] [--resume | --again]

yso-finna-en   647 thousand documents, 28 thousand labels: the pipeline's stages with the preset
               `linear`, from the raw files to the report; under 6 GiB
three-million  a synthetic set of three million labels: tree, training, saving, loading, answering,
               with default settings; under 20 GiB

Each step runs in a process of its own and goes into results/large.json at once.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import report
import sets
from journal import Journal, Task, add_arguments
from measure import latencies, measured, size_mb

from xmc_core import evaluate, load_model
from xmc_core.config import load_config
from xmc_core.features.label_features import label_centroids
from xmc_core.models import train_xr_linear
from xmc_core.stages.paths import STAGES, ProjectPaths
from xmc_core.stages.runner import run_stage
from xmc_core.tree import LabelTree, build_label_tree

GIB = 1024
LIMITS_MB = {"yso-finna-en": 6 * GIB, "three-million": 20 * GIB}
Facts = dict[str, float]


def stage(name: str, step: str, threads: int) -> tuple[dict[str, Any], Facts]:
    """One stage of the pipeline."""
    paths = ProjectPaths(sets.CACHE / "large", name)
    paths.raw.mkdir(parents=True, exist_ok=True)
    for file in (sets.shared_data() / name).iterdir():
        link = paths.raw / file.name
        if not link.is_symlink():
            link.symlink_to(file)
    result: dict[str, Any] = {}
    with measured(result):
        facts = run_stage(
            step, paths, load_config(preset="linear", overrides={"n_threads": threads})
        )
    if step == "evaluation":
        metrics = json.loads((paths.reports / "metrics.json").read_text())
        facts = precision(metrics["xr_transformer"])
    return result, facts


def make(name: str, threads: int) -> tuple[dict[str, Any], Facts]:
    """The set itself."""
    result: dict[str, Any] = {}
    with measured(result):
        folder = sets.prepare(name)
    X, Y = sets.load(folder, "X_train"), sets.load(folder, "Y_train")
    return result, {
        "documents": X.shape[0],
        "features": X.shape[1],
        "labels": Y.shape[1],
        "positives": Y.nnz,
    }


def tree(name: str, threads: int) -> tuple[dict[str, Any], Facts]:
    folder, config = sets.prepare(name), load_config()
    X, Y = sets.load(folder, "X_train"), sets.load(folder, "Y_train")
    result: dict[str, Any] = {}
    with measured(result):
        Z = label_centroids(Y, X, max_features=config.tree.max_features, n_threads=threads)
        grown = build_label_tree(Z, config.tree, threads)
    grown.save(folder / "xmc-tree")
    return result, {"leaves": grown.n_leaves, "levels": grown.depth}


def train(name: str, threads: int) -> tuple[dict[str, Any], Facts]:
    """Training and saving."""
    folder, config = sets.prepare(name), load_config(overrides={"n_threads": threads})
    X, Y = sets.load(folder, "X_train"), sets.load(folder, "Y_train")
    result: dict[str, Any] = {}
    saving: dict[str, Any] = {}
    with measured(result):
        model = train_xr_linear(X, Y, config, tree=LabelTree.load(folder / "xmc-tree"))
        with measured(saving):
            model.save(folder / "xmc-model")
    facts = {"weights": model.nnz, "saving_s": saving["wall"]}
    result["peak_mb"] = max(result["peak_mb"], saving["peak_mb"])
    return result, {**facts, "model_mb": size_mb(folder / "xmc-model")}


def answer(name: str, threads: int) -> tuple[dict[str, Any], Facts]:
    """Loading in a new process, all test rows, and single rows."""
    folder = sets.prepare(name)
    X = sets.load(folder, "X_test")
    result: dict[str, Any] = {}
    loading: dict[str, Any] = {}
    with measured(loading):
        model = load_model(folder / "xmc-model")
    with measured(result):
        predictions = model.predict(X, n_threads=threads)
    Y_train, Y_test = sets.load(folder, "Y_train"), sets.load(folder, "Y_test")
    counts = np.bincount(Y_train.indices, minlength=Y_train.shape[1])
    scores = evaluate(predictions, Y_test, label_counts=counts, n_train=Y_train.shape[0])
    rows = [X[i : i + 1] for i in range(500)]
    single = latencies(lambda i: model.predict(rows[i], n_threads=1), len(rows), 1000)
    return result, {"rows": X.shape[0], "loading_s": loading["wall"], **single, **precision(scores)}


def precision(scores: Facts) -> Facts:
    return {name: scores[name] for name in ("P@1", "P@3", "P@5")}


STEPS = {"yso-finna-en": STAGES, "three-million": ("make", "tree", "train", "answer")}


def run_step(task: Task) -> dict[str, Any]:
    """In a process of its own; what it tells about its progress is shown."""
    command = [sys.executable, __file__, "--threads", str(task.threads)]
    done = subprocess.run(
        [*command, "--step", task.set, task.task], stdout=subprocess.PIPE, text=True, check=False
    )
    if done.returncode != 0:
        raise SystemExit(f"{task.set}, {task.task} failed ({done.returncode}).")
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sets", nargs="+", default=list(STEPS), choices=STEPS)
    parser.add_argument("--threads", type=int, default=2)
    add_arguments(parser)
    parser.add_argument("--step", nargs=2, help=argparse.SUPPRESS)  # a worker's own call
    arguments = parser.parse_args()
    if arguments.step is not None:
        name, step = arguments.step
        function = globals().get(step) if name in sets.LARGE else None
        result, facts = (
            function(name, arguments.threads) if function else stage(name, step, arguments.threads)
        )
        print(json.dumps({**result, "facts": facts}))
        return

    journal = Journal("large", arguments)
    for name in arguments.sets:
        if name not in sets.LARGE and not Path(sets.shared_data() / name).is_dir():
            print(f"{name} is left out: {sets.shared_data() / name} is not there")
            continue
        for step in STEPS[name]:
            settings = "default" if name in sets.LARGE else "linear"
            task = Task(name, arguments.threads, step, 0, "xmc", settings)
            if not journal.has(task):
                print(f"{name}: {step}", flush=True)
                journal.add(task, {**run_step(task), "limit_mb": LIMITS_MB[name]})
    report.write()


if __name__ == "__main__":
    main()
