"""XR-Linear beside its peers: same matrices, in turn, a process for each task.

python benchmarks/linear.py --peers PYTHON [--tables pairs presets others] [--sets ...]
                            [--sides ...] [--threads 1 2] [--pairs 3] [--tasks ...]
                            [--resume | --again]

pairs    libpecos and ours on the same tree and settings, several alternated pairs
presets  our preset `linear`, as it is and tuned, and the best settings of libpecos, own trees
others   omikuji and napkinXC, each with its own tree

Each table is a file in benchmarks/results/, written after every task: a run that was stopped goes
on with --resume. docs/benchmarks.md is made from all of them (report.py).
"""

import argparse
import subprocess
import sys

import report
import sets
from journal import Journal, Task, add_arguments, linear_guess, run_all, run_linear

TASKS = ("tree", "train", "predict", "row", "tfidf")


def pairs(names: list[str], threads: list[int], n_pairs: int) -> list[Task]:
    """Pair by pair theirs, then ours; every set with one thread before any with two."""
    tasks = []
    for n_threads in threads:
        for name in names:
            for task in TASKS:
                sides = ["libpecos", "xmc"]
                if task == "tfidf":
                    sides = [*sides, "sklearn"] if name in sets.REAL else []
                tasks += [
                    Task(name, n_threads, task, pair, side, "default")
                    for pair in range(n_pairs)
                    for side in sides
                ]
    return tasks


def presets(names: list[str], n_pairs: int) -> list[Task]:
    sides = (("libpecos", "released"), ("libpecos", "cost4"), ("xmc", "linear"), ("xmc", "tuned"))
    return one_thread(names, sides, ("whole", "predict", "row"), n_pairs)


def others(names: list[str], n_pairs: int) -> list[Task]:
    sides = (
        ("omikuji", "parabel"),
        ("omikuji", "bonsai"),
        ("napkinxc", "plt"),
        ("libpecos", "alone"),
        ("xmc", "alone"),
    )
    return one_thread(names, sides, ("whole", "predict", "row"), n_pairs)


def one_thread(
    names: list[str], sides: tuple[tuple[str, str], ...], tasks: tuple[str, ...], n_pairs: int
) -> list[Task]:
    return [
        Task(name, 1, task, pair, side, settings)
        for name in names
        if name in sets.REAL
        for pair in range(n_pairs)
        for task in tasks
        for side, settings in sides
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--peers", help="python of the peers' environment; all sides but xmc need it"
    )
    parser.add_argument("--tables", nargs="+", default=["pairs", "presets", "others"])
    parser.add_argument("--sets", nargs="+")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--tasks", nargs="+", help="only these: tree, train, whole, predict, ...")
    parser.add_argument("--sides", nargs="+", help="only these: xmc, libpecos, ...")
    add_arguments(parser)
    arguments = parser.parse_args()
    if arguments.peers is None and arguments.sides != ["xmc"]:
        parser.error("--peers is missing; `make bench-linear` builds their environment")

    # No worker may find a kernel that is still to be compiled.
    subprocess.run(
        [sys.executable, "-c", "from xmc_core.cli import main; main(['warmup'])"], check=True
    )
    names = arguments.sets or sets.available()
    plans = {
        "pairs": pairs(names, arguments.threads, arguments.pairs),
        "presets": presets(names, 1),
        "others": others(names, 1),
    }
    for table in arguments.tables:
        wanted = arguments.tasks or {task.task for task in plans[table]}
        sides = arguments.sides or {task.side for task in plans[table]}
        journal = Journal(table, arguments)
        run_all(
            [task for task in plans[table] if task.task in wanted and task.side in sides],
            journal,
            lambda task: run_linear(task, arguments.peers),
            linear_guess,
        )
    report.write()


if __name__ == "__main__":
    main()
