"""Threads over kernels that release the GIL.

numba's own `prange` is not used anywhere: its default `workqueue` layer aborts the whole process
when two threads enter parallel kernels at once, as a web server's do, and each parallel kernel
takes seconds longer to compile. A plain thread pool over `nogil` kernels has neither fault. A job
writes only to memory that it owns, so the result does not depend on the number of threads.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, islice
from threading import Condition, Lock, Thread
from typing import TypeVar

from xmc_core.errors import ConfigError

RESULTS_PER_THREAD = 4
"""So many may wait to be taken before no further job is begun."""

JOBS_PER_THREAD = 8
"""So many of an iterator's are drawn ahead: others go on while the thread that draws is at work."""

Job = TypeVar("Job")
Result = TypeVar("Result")


def resolve_threads(n_threads: int) -> int:
    """Turn the `n_threads` of the config into a count: -1 means every core this process may use."""
    if n_threads == -1:
        return (
            len(os.sched_getaffinity(0))
            if hasattr(os, "sched_getaffinity")
            else os.cpu_count() or 1
        )
    if n_threads < 1:
        raise ConfigError(f"n_threads must be -1 (all cores) or at least 1, got {n_threads}.")
    return n_threads


class Turns:
    """Lets as many threads in at once as there are cores, the others in the order they came.

    For calls of 0.1 to 10 ms. Left to the scheduler, four callers on a core run for some
    milliseconds each and then wait for the other three: one call in twenty takes 15 ms instead of
    0.2. Here each waits for its turn, asleep.
    """

    def __init__(self) -> None:
        self._free = resolve_threads(-1)
        self._waiting: deque[Lock] = deque()
        self._lock = Lock()

    def __enter__(self) -> None:
        with self._lock:
            if self._free > 0:
                self._free -= 1
                return
            turn = Lock()
            turn.acquire()
            self._waiting.append(turn)
        try:
            turn.acquire()
        except BaseException:  # Ctrl-C while waiting: whoever comes next must not wait for us
            self._give_up(turn)
            raise

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._pass_on()

    def _pass_on(self) -> None:
        if self._waiting:
            self._waiting.popleft().release()
        else:
            self._free += 1

    def _give_up(self, turn: Lock) -> None:
        with self._lock:
            if turn in self._waiting:
                self._waiting.remove(turn)
            else:  # it was our turn already
                self._pass_on()


def map_threads(
    function: Callable[[Job], Result],
    jobs: Iterable[Job],
    n_threads: int,
    *,
    cost: Callable[[Job], float] | None = None,
) -> list[Result]:
    """Call `function` on every job and return the results in the order of `jobs`.

    With `cost`, expensive jobs start first, so that no long one is left to run alone at the end.
    The first exception is raised after the running jobs have ended; waiting ones are dropped.
    """
    work: Sequence[Job] = list(jobs)
    n_threads = min(resolve_threads(n_threads), len(work))
    if n_threads <= 1:
        return [function(job) for job in work]

    order = range(len(work))
    schedule = sorted(order, key=lambda i: -cost(work[i])) if cost is not None else order
    pool = ThreadPoolExecutor(n_threads, thread_name_prefix="xmc")
    try:
        futures = {i: pool.submit(function, work[i]) for i in schedule}
        return [futures[i].result() for i in order]
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def feed_threads(
    function: Callable[[Job], Result],
    jobs: Iterable[Job],
    n_threads: int,
    take: Callable[[Result], None],
) -> None:
    """Call `function` on every job, and `take` on every result: one at a time, in order of `jobs`.

    Jobs may come from an iterator that need not hold them all: a few are drawn ahead, and by the
    calling thread alone, as a cursor of a database wants it. Whichever thread brings the result
    that is due takes it, and those behind it that wait, while the others go on with jobs: no thread
    is idle as long as there is work. After an exception no job is begun; it is raised once the
    running ones have ended.
    """
    iterator = iter(jobs)
    first = list(islice(iterator, resolve_threads(n_threads)))
    n_threads = len(first)  # none that finds no job
    numbered = enumerate(chain(first, iterator))
    if n_threads <= 1:
        for _, job in numbered:
            take(function(job))
        return

    ahead = len(jobs) if isinstance(jobs, Sequence) else JOBS_PER_THREAD * n_threads
    drawn: deque[tuple[int, Job]] = deque()
    all_drawn = False
    waiting: dict[int, Result] = {}
    due = 0
    taking = False
    errors: list[BaseException] = []
    changed = Condition()

    def draw() -> None:
        nonlocal all_drawn
        while not all_drawn and len(drawn) < ahead:
            job = next(numbered, None)
            with changed:
                if job is None:
                    all_drawn = True
                else:
                    drawn.append(job)
                changed.notify_all()

    def next_job(draws: bool) -> tuple[int, Job] | None:
        while True:
            if draws:
                draw()
            with changed:
                changed.wait_for(
                    lambda: (
                        errors
                        or (
                            (len(waiting) < RESULTS_PER_THREAD * n_threads)
                            and (draws or drawn or all_drawn)
                        )
                    )
                )
                if errors or (all_drawn and not drawn):
                    return None
                if drawn:  # else the others were faster, and whoever draws does so again
                    return drawn.popleft()

    def bring(number: int, result: Result, draws: bool) -> None:
        nonlocal due, taking
        with changed:
            waiting[number] = result
            if taking:
                return
            taking = True
        while True:
            with changed:
                if due not in waiting:
                    taking = False
                    return
                result = waiting.pop(due)
                due += 1
                changed.notify_all()
            take(result)
            if draws:
                draw()

    def work(draws: bool = False) -> None:
        try:
            while (job := next_job(draws)) is not None:
                bring(job[0], function(job[1]), draws)
        except BaseException as error:
            with changed:
                errors.append(error)
                changed.notify_all()

    helpers = [Thread(target=work, name=f"xmc_{n}") for n in range(1, n_threads)]
    for helper in helpers:
        helper.start()
    work(draws=True)
    for helper in helpers:
        helper.join()
    if errors:
        raise errors[0]


def row_blocks(n_rows: int, block: int) -> list[tuple[int, int]]:
    """Cut `n_rows` into half-open ranges of at most `block` rows."""
    return [(start, min(start + block, n_rows)) for start in range(0, n_rows, block)]
