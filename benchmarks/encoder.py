"""XR-Transformer: beside libpecos, step by step, beside X-Transformer, and on a GPU.

python benchmarks/encoder.py --peers PYTHON [--tasks pair ladder leaf ablation gpu] [--sets ...]
                             [--pairs 1] [--seeds 3] [--resume | --again | --small]

pair    libpecos and ours in turn on eurlex-titles: same encoder, levels, steps, batches, lengths
ladder  tf-idf alone, with the frozen encoder, with the fine-tuned one; several seeds a set
leaf    level by level against the leaf clusters alone, as many steps: encoder seconds to the same
        validation P@1
ablation  the fine-tuned rung with one part left out or done otherwise; several seeds
gpu     tokens a second and their share of the device's peak; left out where there is no GPU

Each table is a file benchmarks/results/encoder-*.json, written after every task: a run that was
stopped goes on with --resume. docs/benchmarks.md is made from all of them (report.py). --small runs
everything once on a few rows, for a GPU on the processor, too, prints it and writes nothing.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import report
import sets
import torch
from journal import Journal, Task, accuracy, add_arguments, in_fresh_process, run_all
from worker_ours_encoder import FINALS

from xmc_core.encoder.weights import resolve_encoder

ENCODER = "all-MiniLM-L6-v2"
PRESET = "linear"
"""Rankers, tree and search of all rungs; what an encoder changes in them stands in a schedule."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """How an encoder is fine-tuned on a set, and how its embeddings enter the rankers."""

    steps: tuple[int, ...]
    """Of every level, coarse to fine; as many levels are fine-tuned."""

    learning_rate: float
    max_length: int = 64
    batch_size: int = 32
    weight: float
    """Length of the embedding beside the tf-idf row of length 1."""

    threshold: float
    """Of the rankers: a dimension of the embedding weighs less than a word."""

    rows_per_node: int = 32
    frozen_layers: int = 0
    contrastive: float = 0.0


# Chosen on training rows held out (docs/log.md), no test row seen.
SCHEDULES = {
    "eurlex-titles": Schedule(
        steps=(65, 85, 130), learning_rate=1e-4, weight=0.5, threshold=0.01
    ),
    "gutenberg-lcsh": Schedule(
        steps=(38, 62, 125), batch_size=128, learning_rate=1e-4, contrastive=0.3, weight=1.0,
        threshold=0.01,
    ),
    "python-api": Schedule(
        steps=(15, 25, 40), batch_size=128, max_length=128, learning_rate=3e-4, contrastive=0.3,
        weight=0.5, threshold=0.01, rows_per_node=0,
    ),
}  # fmt: skip
PAIR = replace(SCHEDULES["eurlex-titles"], rows_per_node=0, frozen_layers=1)
"""The steps that libpecos was measured with elsewhere; 16, 256 and all labels. As little beside
the steps as will do: a level is prepared on their documents alone, the lowest layer stays."""

TUNED: dict[str, dict[str, Any]] = {
    "eurlex-titles": {
        "rankers.cost": 3.0,
        "rankers.cost_negative": 4.0,
        "rankers.tail": 0.1,
        "inference.beam_size": 100,
        "inference.path_weight": 0.02,
    },
    "python-api": {"inference.beam_size": 10},
}
"""What `xmc tune` chose on the training rows, on tf-idf alone; the same for every rung and pair."""

PAIR_LEAF_SIZE = 17
WARMUP = 0.1

LEAF = Schedule(steps=(100, 180), learning_rate=1e-4, weight=1.0, threshold=0.01)
"""Down to the leaf clusters, 16 and 256, as the other side's single task goes no further."""

LEAVES_ALONE = {
    "encoder.leaf_only": True,
    "encoder.head_init": "none",
    "encoder.steps": (900,),
    "encoder.validate_every": 30,
}
"""X-Transformer: a head of random weights over all clusters. Three times the other's steps."""

LEAF_LOOKS = {"encoder.validation_rows": 1000, "encoder.validate_every": 10}
HELD_OUT = 0.1
"""Share of the training rows that neither side's encoder sees, for the final rankers."""

ABLATIONS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "two levels, as many steps": {"encoder.levels": 2, "encoder.steps": (110, 170)},
    "leaf clusters alone, as many steps": {"encoder.leaf_only": True, "encoder.steps": (280,)},
    "negatives: teacher forcing alone": {"encoder.negatives": ("teacher_forcing",)},
    "negatives chosen by the embedding alone": {"encoder.joint_ranker": False},
    "heads at random": {"encoder.head_init": "none"},
    "levels prepared on the documents of their steps": {"encoder.rows_per_node": 0},
    "the lowest layer as pretrained": {"encoder.frozen_layers": 1},
    "along the disentangled tree": {},
}
"""Of the fine-tuned rung on eurlex-titles. The last one's tree comes from elsewhere."""

RUNGS = ("tf-idf", "frozen", "fine-tuned")

MINILM_GPU = Schedule(
    steps=(100, 100, 100), learning_rate=1e-4, batch_size=256, weight=1.0, threshold=0.01
)
AMAZON_SCHEDULE = Schedule(
    steps=(40, 40, 40), learning_rate=1e-4, max_length=128, batch_size=256, weight=1.0,
    threshold=0.01,
)  # fmt: skip
"""Amazon-3M as released: 8 GPUs took 32 documents each. 40 steps are enough to time one."""

AMAZON_STEPS = 10_000
"""Of each of the three levels, as released."""

AMAZON: dict[str, Any] = {
    "levels": [128, 2048, 32768],
    "documents": 10_240,
    "labels_per_document": 36,
    "bert": {},  # BERT-base
}
AMAZON_SMALL = {
    "levels": [4, 8, 16],
    "documents": 256,
    "labels_per_document": 6,
    "bert": {
        "vocab_size": 100,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
    },
}
SMALL_ROWS = (600, 100)


def pair_tasks(n_pairs: int) -> list[Task]:
    sides = (("libpecos", ""), ("xmc", ", fp32"), ("xmc", ", auto"))
    return [
        Task("eurlex-titles", 1, "pair", pair, side, f"{how}{precision}")
        for pair in range(n_pairs)
        for how in ("fine-tuned", "frozen")
        for side, precision in sides
    ]


def ladder_tasks(names: Iterable[str], n_seeds: int) -> list[Task]:
    return [
        Task(name, 1, "ladder", seed, "xmc", rung)
        for seed in range(n_seeds)
        for name in names
        for rung in RUNGS
    ]


def leaf_tasks() -> list[Task]:
    return [
        Task("eurlex-titles", 1, "leaf", 0, "xmc", how)
        for how in ("level by level", "leaves alone")
    ]


def ablation_tasks(n_seeds: int) -> list[Task]:
    return [
        Task("eurlex-titles", 1, "ablation", seed, "xmc", how)
        for seed in range(n_seeds)
        for how in ABLATIONS
    ]


def gpu_tasks() -> list[Task]:
    return [
        Task("eurlex-titles", -1, "gpu", 0, "xmc", "MiniLM"),
        Task("amazon-3m-like", -1, "gpu", 0, "xmc", "BERT-base, random weights"),
    ]


def overrides(
    schedule: Schedule, rung: str, seed: int, n_threads: int, name: str = ""
) -> dict[str, Any]:
    """Of the preset, for ours, on the set `name`. The seeds move the tree, the order of the batches
    and the head."""
    values: dict[str, Any] = {"n_threads": n_threads, "seed": seed, "tree.seed": seed}
    values |= TUNED.get(name, {})
    if rung == "tf-idf":
        return values
    steps = schedule.steps if rung == "fine-tuned" else ()
    return {
        **values,
        "rankers.threshold": schedule.threshold,
        "encoder.name": ENCODER,
        "encoder.levels": len(steps),
        "encoder.steps": steps or (1,),
        "encoder.learning_rate": schedule.learning_rate,
        "encoder.batch_size": schedule.batch_size,
        "encoder.max_length": schedule.max_length,
        "encoder.warmup": WARMUP,
        "encoder.weight": schedule.weight,
        "encoder.rows_per_node": schedule.rows_per_node,
        "encoder.frozen_layers": schedule.frozen_layers if steps else 0,
        "encoder.contrastive": schedule.contrastive,
        "encoder.seed": seed,
    }


def run(task: Task, peers: str, small: bool = False) -> dict[str, Any]:
    """One task in a fresh process. `small`: on a few rows, with a few steps; only to see it run."""
    if task.task == "gpu":
        return run_gpu(task, small)
    with TemporaryDirectory() as aside:
        return run_on_texts(task, peers, small, Path(aside) / "predictions")


def run_on_texts(task: Task, peers: str, small: bool, predictions: Path) -> dict[str, Any]:
    folder = sets.prepare_texts(task.set)
    rows, test_rows = SMALL_ROWS if small else (0, 0)
    work: dict[str, Any] = {
        "folder": str(folder),
        "rows": rows,
        "test_rows": test_rows,
        "predictions": str(predictions),
    }
    if task.side == "libpecos":
        work["predictions"] += ".npz"
        command = [peers, "worker_libpecos_encoder.py"]
        work |= theirs(task, small)
    else:
        doing = {"leaf": "curve", "ablation": "ablation"}.get(task.task, "pipeline")
        command = [sys.executable, "worker_ours_encoder.py", doing]
        work |= {"preset": PRESET, "overrides": ours(task, small), "held_out": HELD_OUT}
        work["disentangled"] = task.settings == "along the disentangled tree"
        work["finals"] = list(FINALS)[: None if task.settings == "as it is" else 1]
    result = in_fresh_process(task, command, timeout=4 * 3600, given=json.dumps(work))
    if task.task in ("pair", "ladder"):
        result |= accuracy(folder, predictions, test_rows or None)
    return result


def ours(task: Task, small: bool = False) -> dict[str, Any]:
    """What is changed in the preset for a task."""
    schedule = {"pair": PAIR, "leaf": LEAF}.get(task.task) or SCHEDULES[task.set]
    schedule = shortened(schedule) if small else schedule
    if task.task == "ladder":
        return overrides(schedule, task.settings, task.pair, task.threads, task.set)
    if task.task == "ablation":
        values = overrides(schedule, "fine-tuned", task.pair, task.threads, task.set)
        return values | ABLATIONS[task.settings] | ({"encoder.steps": (2,)} if small else {})
    if task.task == "leaf":
        values = overrides(schedule, "fine-tuned", task.pair, task.threads, task.set) | LEAF_LOOKS
        values |= LEAVES_ALONE if task.settings == "leaves alone" else {}
        if small:
            values |= {"encoder.validation_rows": 50, "encoder.validate_every": 1}
            values |= {"encoder.steps": (4,)} if task.settings == "leaves alone" else {}
        return values
    rung, precision = task.settings.split(", ")
    values = overrides(schedule, rung, task.pair, task.threads, task.set)
    return values | {"encoder.precision": precision, "tree.max_leaf_size": PAIR_LEAF_SIZE}


def theirs(task: Task, small: bool = False) -> dict[str, Any]:
    """The same schedule for the worker of libpecos."""
    schedule = shortened(PAIR) if small else PAIR
    return {
        "encoder": str(resolve_encoder(ENCODER)),
        "steps": schedule.steps if task.settings == "fine-tuned" else (),
        "batch_size": schedule.batch_size,
        "max_length": schedule.max_length,
        "learning_rate": schedule.learning_rate,
        "warmup": WARMUP,
        "seed": task.pair,
    }


def shortened(schedule: Schedule) -> Schedule:
    return replace(schedule, steps=(2,) * len(schedule.steps))


def run_gpu(task: Task, small: bool) -> dict[str, Any]:
    work: dict[str, Any] = {"preset": PRESET, "peak_size": 256 if small else 8192}
    if task.settings == "MiniLM":
        schedule = shortened(MINILM_GPU) if small else MINILM_GPU
        work |= {"folder": str(sets.prepare_texts(task.set)), "rows": 600 if small else 0}
        work["overrides"] = overrides(schedule, "fine-tuned", 0, task.threads)
    else:
        folder = str(sets.CACHE / "random-bert")
        schedule = shortened(AMAZON_SCHEDULE) if small else AMAZON_SCHEDULE
        work |= {"folder": folder, **(AMAZON_SMALL if small else AMAZON)}
        work["overrides"] = {
            **overrides(schedule, "fine-tuned", 0, task.threads),
            "encoder.name": folder,
        }
    doing = "pretrained" if task.settings == "MiniLM" else "random"
    command = [sys.executable, "worker_gpu_encoder.py", doing]
    result = in_fresh_process(task, command, timeout=3600, given=json.dumps(work))
    if doing == "random":
        result["amazon_hours"] = AMAZON_STEPS * sum(result["step_s"].values()) / 3600
    return result


def guess(task: Task) -> float:
    """Seconds of a task that never ran."""
    if task.side == "libpecos":
        return 2400.0 if task.settings == "fine-tuned" else 900.0
    return {"tf-idf": 20.0, "frozen": 200.0}.get(task.settings.split(",")[0], 700.0)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peers", help="python of the peer's environment; pair needs it")
    parser.add_argument("--tasks", nargs="+", default=["pair", "ladder", "leaf", "ablation", "gpu"])
    parser.add_argument("--sets", nargs="+", help="of the ladder")
    parser.add_argument("--pairs", type=int, default=1)
    parser.add_argument("--seeds", type=int, default=3)
    add_arguments(parser)
    parser.add_argument("--small", action="store_true", help="see whether all of it runs")
    arguments = parser.parse_args()
    if "pair" in arguments.tasks and arguments.peers is None:
        parser.error("pair needs --peers: the python of .xmc/peers-encoder")

    # No worker may find a kernel that is still to be compiled.
    subprocess.run(
        [sys.executable, "-c", "from xmc_core.cli import main; main(['warmup'])"], check=True
    )
    plans = {
        "pair": pair_tasks(arguments.pairs),
        "ladder": ladder_tasks(arguments.sets or SCHEDULES, arguments.seeds),
        "leaf": leaf_tasks(),
        "ablation": ablation_tasks(arguments.seeds),
        "gpu": gpu_tasks(),
    }
    there = sets.with_texts()
    if arguments.small:
        for task in [task for table in arguments.tasks for task in plans[table]]:
            if task.set in [*there, "amazon-3m-like"] and task.pair == 0:
                print(task, json.dumps(run(task, arguments.peers, small=True)), flush=True)
        return
    for table in arguments.tasks:
        if table == "gpu" and not torch.cuda.is_available():
            print("gpu is left out: torch finds no CUDA device here")
            continue
        run_all(
            [task for task in plans[table] if task.set in there or table == "gpu"],
            Journal(f"encoder-{table}", arguments),
            lambda task: run(task, arguments.peers),
            guess,
        )
    report.write()


if __name__ == "__main__":
    main()
