"""Writes that are either complete or absent, whoever else writes the same."""

import errno
import fcntl
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path

LOCK = "lock"
"""A file that whoever writes a folder holds locked beside it: one that nobody locks is left over
from a process that was killed. Unlike the number of a process, that holds across containers."""


@contextmanager
def fresh_folder(folder: Path) -> Iterator[Path]:
    """Give a new empty folder beside `folder`, and put it in its place when the block succeeds.

    If the block fails, `folder` is as it was and nothing is left over. Of several writers at a time
    the last one wins. What a killed process left behind is removed by the next one, or put back if
    it was killed between the two renames.
    """
    with _workshop(folder) as own:
        fresh = own / "new"
        fresh.mkdir()
        yield fresh
        _put_in_place(fresh, folder, own / "old")


@contextmanager
def fresh_file(path: Path) -> Iterator[Path]:
    """The same for a file: the block writes the one that it is given."""
    with _workshop(path) as own:
        yield own / "new"
        (own / "new").replace(path)


def write_text(path: Path, text: str) -> None:
    """Replace a text file in one step."""
    with fresh_file(path) as fresh:
        fresh.write_text(text, encoding="utf-8")


def put_back(path: Path) -> None:
    """Put back what killed writers of `path` had put aside, and remove what else they left."""
    for own in sorted(path.parent.glob(f".{escape(path.name)}.*.partial")):
        try:
            lock = (own / LOCK).open()
        except OSError:  # another writer has just begun, or just ended
            continue
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                continue  # its writer is at work
            if (own / "old").is_dir() and not path.exists():
                (own / "old").rename(path)
            shutil.rmtree(own, ignore_errors=True)


@contextmanager
def _workshop(path: Path) -> Iterator[Path]:
    """A folder beside `path` that no other writer uses, gone when the block ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    put_back(path)
    own = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent))
    try:
        with (own / "begun").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            (own / "begun").rename(own / LOCK)  # locked before anybody looks for it
            yield own
    finally:
        if (own / "old").is_dir() and not path.exists():  # broken off between the two renames
            with suppress(OSError):  # another writer was faster
                (own / "old").rename(path)
        shutil.rmtree(own, ignore_errors=True)


def _put_in_place(fresh: Path, folder: Path, old: Path) -> None:
    while True:
        shutil.rmtree(old, ignore_errors=True)
        with suppress(FileNotFoundError):
            folder.rename(old)
        try:
            fresh.rename(folder)
            shutil.rmtree(old, ignore_errors=True)
            return
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            # Another writer came between the two: take the place of what it wrote.
