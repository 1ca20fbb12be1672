"""What an embedding beside the words costs the linear rankers.

python benchmarks/dense.py [--sets eurlex-titles gutenberg-lcsh] [--pairs 5] [--resume | --again]

Tf-idf alone and [tf-idf, embedding] at some lengths and numbers of dimensions, in turn, each in a
fresh process pinned to one core. Embeddings are those of all-MiniLM-L6-v2 as it comes, made once
and kept beside the matrices. Written after every task to benchmarks/results/dense.json: a run that
was stopped goes on with --resume. docs/benchmarks.md is made from that (report.py).
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import report
import sets
from journal import Journal, Task, add_arguments, in_fresh_process, run_all
from report_dense import ALONE

from xmc_core.config import EncoderConfig
from xmc_core.encoder.model import TextEncoder

ENCODER = EncoderConfig(name="all-MiniLM-L6-v2", max_length=64, precision="bf16")

SETTINGS: dict[str, dict[str, Any]] = {
    "eurlex-titles": {
        "rankers.cost": 3.0,
        "rankers.cost_negative": 4.0,
        "rankers.tail": 0.1,
        "rankers.threshold": 0.01,
    },
    "gutenberg-lcsh": {},
}
"""Beside the preset `linear`: what `xmc tune` chooses for EUR-Lex, elsewhere nothing."""

VARIANTS: dict[str, tuple[float, int]] = {
    ALONE: (0.0, 0),
    "weight 0.5, all dimensions": (0.5, 0),
    "weight 0.5, 192 components": (0.5, 192),
    "weight 0.5, 128 components": (0.5, 128),
    "weight 1.0, all dimensions": (1.0, 0),
    "weight 1.0, 192 components": (1.0, 192),
    "weight 1.0, 128 components": (1.0, 128),
}
"""Length of the embedding beside words of length 1, and principal components kept (0: all
dimensions as they are)."""


def tasks(names: Iterable[str], n_pairs: int) -> list[Task]:
    return [
        Task(name, 1, "dense", pair, "xmc", variant)
        for name in names
        for pair in range(n_pairs)
        for variant in VARIANTS
    ]


def run(task: Task) -> dict[str, Any]:
    weight, components = VARIANTS[task.settings]
    work = {
        "folder": str(embedded(task.set)),
        "weight": weight,
        "components": components,
        "overrides": SETTINGS[task.set],
    }
    return in_fresh_process(
        task, [sys.executable, "worker_dense.py"], timeout=3600, given=json.dumps(work)
    )


def embedded(name: str) -> Path:
    """The set's folder, with minilm-train.npy and minilm-test.npy, (n_texts, 384) float16."""
    folder = sets.prepare(name)
    for split in ("train", "test"):
        file = folder / f"minilm-{split}.npy"
        if not file.exists():
            encoder = TextEncoder.pretrained(ENCODER)
            np.save(file, encoder.embed(sets.texts(name, split), ENCODER))
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sets", nargs="+", default=list(SETTINGS))
    parser.add_argument("--pairs", type=int, default=5)
    add_arguments(parser)
    arguments = parser.parse_args()
    subprocess.run(
        [sys.executable, "-c", "from xmc_core.cli import main; main(['warmup'])"], check=True
    )
    there = [name for name in sets.real_ones() if name in arguments.sets]
    run_all(tasks(there, arguments.pairs), Journal("dense", arguments), run, lambda task: 20.0)
    report.write()


if __name__ == "__main__":
    main()
