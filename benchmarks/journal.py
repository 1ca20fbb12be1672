"""Runs of tasks, each in a fresh pinned process, kept in a JSON file that is written after each."""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
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
"""Seconds that a training of libpecos takes; nothing else of linear.py takes a minute."""


@dataclass(frozen=True, slots=True)
class Task:
    """One run of one side."""

    set: str
    threads: int
    task: str
    pair: int
    side: str
    settings: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What a run does with the results that are there; without either it begins anew."""
    there = parser.add_mutually_exclusive_group()
    there.add_argument("--resume", action="store_true", help="run only what results/ has not")
    there.add_argument("--again", action="store_true", help="run what is asked, keep the rest")


class Journal:
    """The results so far of one table."""

    def __init__(self, name: str, arguments: argparse.Namespace) -> None:
        self.file = RESULTS / f"{name}.json"
        self.again: bool = arguments.again
        self.rows: list[dict[str, Any]] = []
        if (arguments.resume or self.again) and self.file.exists():
            self.rows = json.loads(self.file.read_text())

    def has(self, task: Task) -> bool:
        """Whether there is a result that is to be kept."""
        return not self.again and self._place(task) is not None

    def add(self, task: Task, result: dict[str, Any]) -> None:
        row = {**asdict(task), **result, **circumstances()}
        place = self._place(task)
        if place is None:
            self.rows.append(row)
        else:
            self.rows[place] = row
        self.file.parent.mkdir(exist_ok=True)
        aside = self.file.with_suffix(".part")
        aside.write_text(json.dumps(self.rows, indent=1) + "\n")
        aside.replace(self.file)

    def _place(self, task: Task) -> int | None:
        """Where the result of a task stands; None: there is none."""
        wanted = asdict(task).items()
        return next((n for n, row in enumerate(self.rows) if wanted <= row.items()), None)

    def seconds(self, task: Task) -> float | None:
        """What a task took before; None: it never ran."""
        known = [
            row["process_s"]
            for row in self.rows
            if (row["set"], row["task"], row["side"], row["settings"], row["threads"])
            == (task.set, task.task, task.side, task.settings, task.threads)
        ]
        return median(known) if known else None


def run_all(
    tasks: Sequence[Task],
    journal: Journal,
    run: Callable[[Task], dict[str, Any]],
    guess: Callable[[Task], float],
) -> None:
    """Run what the journal does not have yet; `guess` says how many seconds a new task takes."""
    waiting = [task for task in tasks if not journal.has(task)]
    for number, task in enumerate(waiting):
        left = sum(journal.seconds(t) or guess(t) for t in waiting[number:]) / 60
        print(f"[{number + 1}/{len(waiting)}, about {left:.0f} min left] {task}", flush=True)
        began = time.perf_counter()
        result = run(task)
        result["process_s"] = time.perf_counter() - began
        journal.add(task, result)
        shown = {k: round(v, 3) if isinstance(v, float) else v for k, v in result.items()}
        print("   ", json.dumps(shown), flush=True)


def linear_guess(task: Task) -> float:
    slow = task.side == "libpecos" and task.task in ("train", "whole")
    return SLOW.get(task.set, 20.0) / task.threads if slow else 10.0


def run_linear(task: Task, peers: str) -> dict[str, Any]:
    folder = sets.prepare(task.set)
    ours = task.side == "xmc"
    result = in_fresh_process(
        task,
        [sys.executable if ours else peers, "worker_ours.py" if ours else f"worker_{task.side}.py",
         task.task, str(folder), str(task.threads), task.settings],
        timeout=3600,
    )  # fmt: skip
    if task.task == "predict":
        result |= accuracy(folder, folder / f"{task.side}-{task.settings}-predictions")
    return result


def in_fresh_process(
    task: Task, command: Sequence[str], *, timeout: float, given: str = ""
) -> dict[str, Any]:
    """The JSON that a worker prints last; it is pinned to the task's number of cores, -1 for all.

    `command` is an interpreter, the name of a file beside this one, and the worker's arguments;
    `given` is what the worker finds on its standard input.
    """
    python, worker, *arguments = command
    cores = sorted(os.sched_getaffinity(0))
    cores = cores[: task.threads] if task.threads > 0 else cores
    limits = {
        f"{name}_NUM_THREADS": str(len(cores)) for name in ("OMP", "OPENBLAS", "MKL", "RAYON")
    }
    done = subprocess.run(
        ["taskset", "-c", ",".join(map(str, cores)), python, str(HERE / worker), *arguments],
        input=given, capture_output=True, text=True, env={**os.environ, **limits},
        timeout=timeout, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise SystemExit(f"{task} failed ({done.returncode}):\n{done.stderr[-2000:]}")
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def accuracy(folder: Path, left: Path, test_rows: int | None = None) -> dict[str, float]:
    """P@k and PSP@k of the predictions that a worker left, by the same code for every side.

    `left` is a folder of ours, or, with .npz behind it, a sparse matrix of scores.
    """
    Y_train, Y_test = sets.load(folder, "Y_train"), sets.load(folder, "Y_test")[:test_rows]
    counts = np.bincount(Y_train.indices, minlength=Y_test.shape[1])
    predictions = (
        Predictions.load(left)
        if left.is_dir()
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


def circumstances() -> dict[str, str]:
    """Commit of the code that runs, + where the library has changes that are not committed; and
    the machine."""

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(HERE), *arguments], capture_output=True, text=True, check=True
        ).stdout.strip()

    changed = "+" if git("status", "--porcelain", str(sets.ROOT / "xmc_core")) else ""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    cpu = next((x.split(":")[1].strip() for x in lines if x.startswith("model name")), "")
    return {
        "commit": git("rev-parse", "--short", "HEAD") + changed,
        "machine": f"{cpu}, {platform.machine()}, {os.cpu_count()} cores",
    }
