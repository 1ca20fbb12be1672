"""Runs of one data set take turns.

DVC does not wait where another command is at the same files, it fails. A run that the schedule
started beside one from `make demo` would die of that, and a change that it came for would never be
trained.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fcntl import LOCK_EX, LOCK_NB, flock
from pathlib import Path


@contextmanager
def turn(root: Path, dataset: str, say: Callable[[str], None]) -> Iterator[None]:
    """Keep other steps on this data set out, in whatever process or container they run.

    `root` is the project's folder; `say` is told if there is somebody to wait for. The kernel ends
    the turn of a process that dies.
    """
    folder = root / ".xmc" / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{dataset}.lock").open("w") as file:
        try:
            flock(file, LOCK_EX | LOCK_NB)
        except BlockingIOError:
            say(f"another run is at work on {dataset}; this one waits for its turn")
            flock(file, LOCK_EX)
        yield
