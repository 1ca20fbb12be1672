"""One at a time, across processes and containers that share a file system."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fcntl import LOCK_EX, LOCK_NB, flock
from pathlib import Path


@contextmanager
def locked(file: Path, waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Keep out whoever locks the same file, which is made and stays empty.

    `waiting` is called if there is somebody to wait for. The kernel unlocks for a process that
    dies. What is locked must not be replaced: who waits for such a file waits for the old one.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w") as held:
        try:
            flock(held, LOCK_EX | LOCK_NB)
        except BlockingIOError:
            waiting()
            flock(held, LOCK_EX)
        yield
