"""Runs of tasks, each in a fresh pinned process, kept in a JSON file that is written after each."""

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import sets
from scipy.sparse import csr_array, load_npz

from xmc_core import evaluate
from xmc_core.data import Predictions

HERE = Path(__file__).parent
RESULTS = HERE / "results"
METRICS = ("P@1", "P@3", "P@5", "PSP@1", "PSP@3", "PSP@5")
SLOW = {"wiki10-like": 200.0, "amazon-tenth-like": 220.0}
"""Seconds that a training of libpecos takes; everything else was not known to take a minute."""


@dataclass(frozen=True, slots=True)
class Task:
    """One run of one side."""

    set: str
    threads: int
    task: str
    pair: int
    side: str
    settings: str


class Journal:
    """The results so far of one table."""

    def __init__(self, name: str, *, resume: bool) -> None:
        self.file = RESULTS / f"{name}.json"
        self.rows: list[dict[str, Any]] = []
        if resume and self.file.exists():
            self.rows = json.loads(self.file.read_text())["results"]

    def has(self, task: Task) -> bool:
        return any(asdict(task).items() <= row.items() for row in self.rows)

    def add(self, task: Task, result: dict[str, Any]) -> None:
        self.rows.append({**asdict(task), **result, "commit": commit()})
        self.file.parent.mkdir(exist_ok=True)
        text = json.dumps({"machine": machine(), "results": self.rows}, indent=1)
        aside = self.file.with_suffix(".part")
        aside.write_text(text + "\n")
        aside.replace(self.file)

    def seconds(self, task: Task) -> float:
        """What a task will take: as before, or a guess."""
        known = [
            row["process_s"]
            for row in self.rows
            if (row["set"], row["task"], row["side"], row["settings"], row["threads"])
            == (task.set, task.task, task.side, task.settings, task.threads)
        ]
        slow = task.side == "libpecos" and task.task in ("train", "whole")
        guess = SLOW.get(task.set, 20.0) / task.threads if slow else 10.0
        return median(known) if known else guess


def run_all(tasks: Sequence[Task], journal: Journal, peers: str) -> None:
    """Run what the journal does not have yet."""
    waiting = [task for task in tasks if not journal.has(task)]
    for number, task in enumerate(waiting):
        left = sum(journal.seconds(t) for t in waiting[number:]) / 60
        print(f"[{number + 1}/{len(waiting)}, about {left:.0f} min left] {task}", flush=True)
        result = run(task, peers)
        journal.add(task, result)
        shown = {k: round(v, 3) if isinstance(v, float) else v for k, v in result.items()}
        print("   ", json.dumps(shown), flush=True)


def run(task: Task, peers: str) -> dict[str, Any]:
    """One task in a fresh process pinned to its number of cores."""
    folder = sets.prepare(task.set)
    worker = "worker_ours.py" if task.side == "xmc" else f"worker_{task.side}.py"
    python = sys.executable if task.side == "xmc" else peers
    cores = ",".join(str(core) for core in sorted(os.sched_getaffinity(0))[: task.threads])
    limits = {
        f"{name}_NUM_THREADS": str(task.threads) for name in ("OMP", "OPENBLAS", "MKL", "RAYON")
    }
    began = time.perf_counter()
    done = subprocess.run(
        ["taskset", "-c", cores, python, str(HERE / worker),
         task.task, folder, str(task.threads), task.settings],
        capture_output=True, text=True, env={**os.environ, **limits}, timeout=3600, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise SystemExit(f"{task} failed ({done.returncode}):\n{done.stderr[-2000:]}")
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    result["process_s"] = time.perf_counter() - began
    if task.task == "predict":
        result |= accuracy(folder, task.side, task.settings)
    return result


def accuracy(folder: Path, side: str, settings: str) -> dict[str, float]:
    """P@k and PSP@k of the predictions that a worker left, by the same code for every side."""
    Y_train, Y_test = sets.load(folder, "Y_train"), sets.load(folder, "Y_test")
    counts = np.bincount(Y_train.indices, minlength=Y_test.shape[1])
    left = folder / f"{side}-{settings}-predictions"
    predictions = (
        Predictions.load(left)
        if side == "xmc"
        else best_first(csr_array(load_npz(left.with_suffix(".npz"))), 10)
    )
    scores = evaluate(predictions, Y_test, label_counts=counts, n_train=Y_train.shape[0])
    return {name: scores[name] for name in METRICS}


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


def commit() -> str:
    """Of the code that runs; + where the library has changes that are not committed."""

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(HERE), *arguments], capture_output=True, text=True, check=True
        ).stdout.strip()

    return git("rev-parse", "--short", "HEAD") + (
        "+" if git("status", "--porcelain", str(sets.ROOT / "xmc_core")) else ""
    )


def machine() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    cpu = next((x.split(":")[1].strip() for x in lines if x.startswith("model name")), "")
    return f"{cpu}, {platform.machine()}, {os.cpu_count()} cores"
