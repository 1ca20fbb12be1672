"""Runs that Dagster takes for going on although the process that ran them is gone.

    python -m orchestration.leftovers

A killed or rebooted machine leaves them in the run queue's way for ever: nothing can tell whether
they live. So they are ended where none can be alive: before the container in which all runs are
starts to take any (deploy/docker/Dockerfile), and before `make ui` while no `make demo` and no
other `make ui` is at work.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from fcntl import LOCK_EX, LOCK_NB, LOCK_SH, flock
from pathlib import Path

import dagster as dg

GOING_ON = [
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


def end_left_over_runs(instance: dg.DagsterInstance) -> list[str]:
    """Mark every run that is said to be going on as failed; their numbers."""
    runs = instance.get_runs(filters=dg.RunsFilter(statuses=GOING_ON))
    for run in runs:
        instance.report_run_failed(
            run, "its process ended without a word (killed, or the machine was started anew)"
        )
    return [run.run_id for run in runs]


@contextmanager
def at_work(root: Path) -> Iterator[None]:
    """While runs go on in this process, or in those that it has started."""
    with _file(root).open("w") as held:
        flock(held, LOCK_SH)
        yield


def end_if_nobody_is_at_work(root: Path) -> list[str]:
    """The same as `end_left_over_runs` on this machine's own instance, unless such a run goes on;
    none may be started from the UI by then."""
    with _file(root).open("w") as held:
        try:
            flock(held, LOCK_EX | LOCK_NB)
        except BlockingIOError:
            return []
        with dg.DagsterInstance.get() as instance:
            return end_left_over_runs(instance)


def _file(root: Path) -> Path:
    file = root / ".xmc" / "locks" / "at-work"
    file.parent.mkdir(parents=True, exist_ok=True)
    return file


if __name__ == "__main__":
    with dg.DagsterInstance.get() as here:
        for number in end_left_over_runs(here):
            print(f"run {number} was left over and is marked as failed", file=sys.stderr)
