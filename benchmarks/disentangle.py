"""Labels in several clusters: what they give, what they cost, and whether they part meanings.

python benchmarks/disentangle.py [--tasks study merged] [--sets ...] [--seeds 3]
                                 [--resume | --again | --small]

study    on one tree a set and seed: as it was grown, and its labels in at most 1, 2, 3, 4, 6
         clusters; at the best number also several rounds, and leaves without a budget or a bound
merged   random pairs of labels with different places made one: do the clusters of such a label
         keep the two meanings apart?

A fresh process a set and seed, which trains all variants in turn on the same beams of rows held
out. Written after every task to benchmarks/results/disentangle.json: a run that was stopped goes on
with --resume. docs/benchmarks.md and its pictures are made from that (report.py). --small runs
everything once on a few rows, prints it and writes nothing.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Iterable
from typing import Any

import report
import sets
from journal import Journal, Task, add_arguments, in_fresh_process, run_all
from report_disentangle import BEST, CHOSEN, GROWN, MOVED, OWN_ROOM, clusters_title

PRESET = "linear"
CAPACITY, BUDGET = 0.2, 0.286
OVERRIDES: dict[str, Any] = {
    "n_threads": 1,
    "inference.beam_size": 10,
    "disentangle.rounds": 1,
    "disentangle.capacity": CAPACITY,
    "disentangle.budget": BUDGET,
    "rankers.negatives": [["teacher_forcing"], ["teacher_forcing", "matcher_aware", "held_out"]],
}
"""Of every variant, the grown tree included. A beam of 10, as in the paper: with that of the preset
(50) there is little left to miss."""

ROOM = {"max_clusters": 1, "capacity": round((1 + CAPACITY) * BEST - 1, 6)}
"""A bound grows with the clusters a label may have, used or not: as much room without them."""

STUDY: dict[str, dict[str, Any] | None] = {
    GROWN: None,
    **{clusters_title(number): {"max_clusters": number} for number in (1, 2, 3, 4, 6)},
    f"{CHOSEN}, 2 rounds": {"max_clusters": BEST, "rounds": 2},
    f"{CHOSEN}, 3 rounds": {"max_clusters": BEST, "rounds": 3},
    f"{CHOSEN}, 3 rounds, no budget": {"max_clusters": BEST, "rounds": 3, "budget": 0.0},
    f"{CHOSEN}, no bound": {"max_clusters": BEST, "capacity": 0.0, "budget": 0.0},
    f"{CHOSEN}, popularity 0": {"max_clusters": BEST, "popularity": 0.0},
    OWN_ROOM: {"max_clusters": BEST, "own_room": True},
    f"{OWN_ROOM}, 3 rounds": {"max_clusters": BEST, "own_room": True, "rounds": 3},
    f"{MOVED}, room of {CHOSEN}": ROOM,
    f"{MOVED}, room of {CHOSEN}, 3 rounds": {**ROOM, "rounds": 3},
    f"{MOVED}, no bound": {"max_clusters": 1, "capacity": 0.0, "budget": 0.0},
}
"""What each variant changes in `disentangle`."""

MERGED: dict[str, dict[str, Any] | None] = {
    GROWN: None,
    MOVED: STUDY[MOVED],
    CHOSEN: STUDY[CHOSEN],
    OWN_ROOM: STUDY[OWN_ROOM],
    f"{OWN_ROOM}, no budget": {**STUDY[OWN_ROOM], "budget": 0.0},
    f"{OWN_ROOM}, no budget, 3 rounds": {**STUDY[OWN_ROOM], "budget": 0.0, "rounds": 3},
}
MERGED_OVERRIDES: dict[str, Any] = {"tree.branching": 8, "disentangle.beam_size": 1}
"""A row counts for the cluster where it looks first: a wider beam reaches both meanings from
either's clusters."""

CLUSTERS = 32
"""In clusters of sixteen labels the rows of one meaning are scattered already."""

PAIRS = {"pairs": 60, "train_count": 20, "test_count": 5}
"""Rows that each label of a pair has at least, without the other one."""

SMALL = {"rows": 600, "test_rows": 200, "pairs": 3, "train_count": 2, "test_count": 1}


def tasks(names: Iterable[str], kinds: Iterable[str], n_seeds: int) -> list[Task]:
    return [
        Task(name, 1, kind, seed, "xmc", "all variants")
        for seed in range(n_seeds)
        for name in names
        for kind in kinds
    ]


def work(task: Task, folder: str, small: bool = False) -> dict[str, Any]:
    """What a worker is told; `small`: only to see it run."""
    return {
        "folder": folder,
        "preset": PRESET,
        "overrides": {
            **OVERRIDES,
            **(MERGED_OVERRIDES if task.task == "merged" else {}),
            "tree.seed": task.pair,
        },
        "variants": STUDY if task.task == "study" else MERGED,
        "before": STUDY[MOVED],
        "clusters": CLUSTERS,
        **{"rows": 0, "test_rows": 0, **PAIRS, **(SMALL if small else {})},
    }


def run(task: Task, small: bool = False) -> dict[str, Any]:
    given = json.dumps(work(task, str(sets.prepare(task.set)), small))
    command = [sys.executable, "worker_disentangle.py", task.task]
    return in_fresh_process(task, command, timeout=3600, given=given)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tasks", nargs="+", default=["study", "merged"])
    parser.add_argument("--sets", nargs="+")
    parser.add_argument("--seeds", type=int, default=3)
    add_arguments(parser)
    parser.add_argument("--small", action="store_true", help="see whether all of it runs")
    arguments = parser.parse_args()

    # No worker may find a kernel that is still to be compiled.
    subprocess.run(
        [sys.executable, "-c", "from xmc_core.cli import main; main(['warmup'])"], check=True
    )
    plan = tasks(arguments.sets or sets.with_texts(), arguments.tasks, arguments.seeds)
    if arguments.small:
        for task in plan:
            if task.pair == 0:
                print(task, json.dumps(run(task, small=True)), flush=True)
        return
    run_all(plan, Journal("disentangle", arguments), run, lambda task: 60.0)
    report.write()


if __name__ == "__main__":
    main()
