"""Threads whose number changes nothing."""

import threading
import time
from collections.abc import Iterator

import pytest

from xmc_core.errors import ConfigError
from xmc_core.parallel import (
    JOBS_PER_THREAD,
    RESULTS_PER_THREAD,
    Turns,
    feed_threads,
    map_threads,
    resolve_threads,
    row_blocks,
)


@pytest.mark.parametrize("n_threads", [1, 2, 7, -1])
def test_results_come_in_the_order_of_the_jobs(n_threads: int):
    assert map_threads(lambda n: n * n, range(50), n_threads) == [n * n for n in range(50)]


def test_results_stay_in_order_when_expensive_jobs_start_first():
    assert map_threads(lambda n: -n, range(20), 3, cost=float) == [-n for n in range(20)]


def test_expensive_jobs_start_first():
    started: list[int] = []
    lock = threading.Lock()

    def job(n: int) -> None:
        with lock:
            started.append(n)
        time.sleep(0.01)

    map_threads(job, range(8), 2, cost=float)
    assert set(started[:2]) == {7, 6}


def test_jobs_run_at_the_same_time():
    both = threading.Barrier(2, timeout=30)
    map_threads(lambda _: both.wait(), range(2), 2)


def test_one_thread_and_one_job_run_where_the_caller_is():
    here = threading.get_ident()
    assert map_threads(lambda _: threading.get_ident(), range(3), 1) == [here] * 3
    assert map_threads(lambda _: threading.get_ident(), [0], 8) == [here]


def test_no_jobs_give_no_results():
    assert map_threads(str, [], 4) == []


def test_an_error_is_raised_and_waiting_jobs_are_dropped():
    done: list[int] = []

    def job(n: int) -> None:
        if n == 0:
            raise ValueError("job 0")
        time.sleep(0.02)
        done.append(n)

    with pytest.raises(ValueError, match="job 0"):
        map_threads(job, range(100), 2)
    assert len(done) < 99


def test_minus_one_means_every_core():
    assert resolve_threads(-1) >= 1
    assert resolve_threads(3) == 3


@pytest.mark.parametrize("n_threads", [0, -2])
def test_other_counts_are_refused(n_threads: int):
    with pytest.raises(ConfigError, match=rf"-1 \(all cores\) or at least 1, got {n_threads}"):
        resolve_threads(n_threads)


def test_blocks_cover_all_rows_once():
    assert row_blocks(10, 4) == [(0, 4), (4, 8), (8, 10)]
    assert row_blocks(8, 4) == [(0, 4), (4, 8)]
    assert row_blocks(0, 4) == []


def test_turns_let_in_as_many_as_there_are_cores_in_the_order_they_came(monkeypatch):
    monkeypatch.setattr("xmc_core.parallel.resolve_threads", lambda n: 1)
    turns, came, inside = Turns(), [], []
    others = []
    with turns:
        for number in range(3):

            def take(number=number):
                came.append(number)
                with turns:
                    inside.append(number)

            others.append(threading.Thread(target=take))
            others[-1].start()
            while len(turns._waiting) <= number:
                time.sleep(0.001)
        assert inside == []
    for other in others:
        other.join()
    assert inside == came == [0, 1, 2]
    with turns:
        inside.append("free again")
    assert inside[-1] == "free again"


def test_a_turn_ends_with_an_error_too(monkeypatch):
    monkeypatch.setattr("xmc_core.parallel.resolve_threads", lambda n: 1)
    turns = Turns()
    for _ in range(2):
        with pytest.raises(ZeroDivisionError), turns:
            _ = 1 / 0


@pytest.mark.parametrize("is_our_turn", [False, True])
def test_who_is_interrupted_while_waiting_holds_nobody_up(monkeypatch, is_our_turn):
    monkeypatch.setattr("xmc_core.parallel.resolve_threads", lambda n: 1)
    turns = Turns()

    class Interrupted:
        """A lock that Ctrl-C meets while it is waited for, the turn given or not."""

        def __init__(self) -> None:
            self.asked = 0

        def acquire(self) -> None:
            self.asked += 1
            if self.asked == 2:
                if is_our_turn:
                    turns.__exit__()
                raise KeyboardInterrupt

        def release(self) -> None:
            pass

    with turns:
        lock = turns._lock
        monkeypatch.setattr("xmc_core.parallel.Lock", Interrupted)
        with pytest.raises(KeyboardInterrupt), turns:
            pass
        assert turns._lock is lock
        if is_our_turn:  # it was given away above, and would be once more at the end of this block
            turns._free -= 1
    assert (turns._free, len(turns._waiting)) == (1, 0)


@pytest.mark.parametrize("n_threads", [1, 2, 7, -1])
def test_results_are_taken_one_at_a_time_in_the_order_of_the_jobs(n_threads: int):
    taken: list[int] = []
    inside = threading.Lock()

    def take(result: int) -> None:
        assert inside.acquire(blocking=False)
        taken.append(result)
        inside.release()

    def job(n: int) -> int:
        time.sleep(0.001 * (n % 3))
        return n * n

    feed_threads(job, iter(range(100)), n_threads, take)
    assert taken == [n * n for n in range(100)]


def test_jobs_are_asked_for_when_a_thread_is_free():
    asked = 0
    taken: list[int] = []

    def jobs() -> Iterator[int]:
        nonlocal asked
        for n in range(200):
            asked = n
            yield n

    def take(n: int) -> None:
        time.sleep(0.001)
        assert asked <= n + (JOBS_PER_THREAD + RESULTS_PER_THREAD + 2) * 2
        taken.append(n)

    feed_threads(lambda n: n, jobs(), 2, take)
    assert len(taken) == 200


def test_an_iterator_is_asked_by_the_calling_thread_alone():
    asking: set[int] = set()
    working: set[int] = set()

    def jobs() -> Iterator[int]:
        for n in range(100):
            asking.add(threading.get_ident())
            yield n

    def work(n: int) -> int:
        working.add(threading.get_ident())
        time.sleep(0.001)
        return n

    feed_threads(work, jobs(), 3, lambda n: None)
    assert asking == {threading.get_ident()}
    assert len(working) == 3


@pytest.mark.parametrize("n_threads", [1, 3])
@pytest.mark.parametrize("where", ["jobs", "function", "take"])
def test_an_error_anywhere_ends_all_threads(where: str, n_threads: int):
    before = threading.active_count()

    def fail_at_40(place: str, n: int) -> int:
        if place == where and n == 40:
            raise ValueError(f"{place} 40")
        return n

    jobs = (fail_at_40("jobs", n) for n in range(100))
    with pytest.raises(ValueError, match=f"{where} 40"):
        feed_threads(
            lambda n: fail_at_40("function", n), jobs, n_threads, lambda n: fail_at_40("take", n)
        )
    assert threading.active_count() == before


def test_one_job_is_done_and_taken_where_the_caller_is():
    places: list[int] = []
    feed_threads(lambda _: threading.get_ident(), [0], 8, places.append)
    assert places == [threading.get_ident()]
