"""Runs of one data set take turns.

DVC does not wait where another command is at the same files, it fails. A run that the schedule
started beside one from `make demo` would die of that, and a change that it came for would never be
trained.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from xmc_core.persistence.locks import locked


def turn(root: Path, dataset: str, say: Callable[[str], None]) -> AbstractContextManager[None]:
    """Keep other steps on this data set out, in whatever process or container they run.

    `root` is the project's folder; `say` is told if there is somebody to wait for.
    """
    return locked(
        root / ".xmc" / "locks" / f"{dataset}.lock",
        lambda: say(f"another run is at work on {dataset}; this one waits for its turn"),
    )
