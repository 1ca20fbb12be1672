"""What a worker measures: CPU and wall seconds of a block, memory of the process, latencies.

Imported by the workers of all environments, so it needs numpy alone.
"""

import contextlib
import functools
import inspect
import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np


def memory_mb(field: str) -> float:
    """VmRSS (resident now) or VmHWM (its peak) of this process.

    Not ru_maxrss: that one survives exec, so a worker would inherit the peak of whoever started it.
    """
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) / 1024
    raise OSError(f"/proc/self/status has no {field}")


@contextmanager
def measured(into: dict[str, Any]) -> Iterator[None]:
    """Add what the block takes.

    cpu, wall: seconds; cpu of all threads of the process, user and system.
    held_mb: resident before it, that is the interpreter, the libraries and the block's input.
    peak_mb: the most that was resident during it, all that included.
    grown_mb: what the block itself added.
    """
    into["held_mb"] = memory_mb("VmRSS")
    # Forgets the peak of loading the input; where it may not be written the peak covers loading.
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    cpu, wall = time.process_time(), time.perf_counter()
    yield
    into["cpu"] = time.process_time() - cpu
    into["wall"] = time.perf_counter() - wall
    into["peak_mb"] = memory_mb("VmHWM")
    into["grown_mb"] = into["peak_mb"] - into["held_mb"]


class Parts:
    """CPU seconds of the parts of a block, by name.

    A part inside a part counts for the outer one, so parts never add up to more than the whole.
    """

    def __init__(self) -> None:
        self.cpu: dict[str, float] = {}
        self._inside = False

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        if self._inside:
            yield
            return
        self._inside, began = True, time.process_time()
        try:
            yield
        finally:
            self._inside = False
            self.cpu[name] = self.cpu.get(name, 0.0) + time.process_time() - began

    def watch(self, owner: Any, function: str, name: str) -> None:
        """Count every call of `owner.function`, a module's or a class's, as the part `name`."""
        found = inspect.getattr_static(owner, function)
        method = isinstance(found, classmethod | staticmethod)
        inner = found.__func__ if method else found

        @functools.wraps(inner)
        def timed(*args: Any, **kwargs: Any) -> Any:
            with self.part(name):
                return inner(*args, **kwargs)

        setattr(owner, function, type(found)(timed) if method else timed)

    def take(self, whole: float) -> dict[str, float]:
        """The parts so far, what is left of `whole` CPU seconds as `other`; starts anew."""
        taken, self.cpu = self.cpu, {}
        return {**taken, "other": whole - sum(taken.values())}


def latencies(call: Callable[[int], Any], n_rows: int, calls: int = 2000) -> dict[str, float]:
    """Median and 99th percentile of one call, in microseconds, after a tenth as many to warm up."""
    for i in range(calls // 10):
        call(i % n_rows)
    taken = np.empty(calls)
    for i in range(calls):
        begin = time.perf_counter()
        call(i % n_rows)
        taken[i] = time.perf_counter() - begin
    return {
        "p50_us": float(np.median(taken) * 1e6),
        "p99_us": float(np.percentile(taken, 99) * 1e6),
    }


def latencies_together(call: Callable[[int], Any], n_rows: int, callers: int = 4) -> dict[str, Any]:
    """Latencies of one caller alone, then of several at once: the median caller's."""
    result: dict[str, Any] = latencies(call, n_rows)
    with ThreadPoolExecutor(callers) as pool:
        each = list(pool.map(lambda _: latencies(call, n_rows, 1000), range(callers)))
    for name in ("p50_us", "p99_us"):
        result[f"{name}_{callers}_callers"] = float(np.median([one[name] for one in each]))
    return result


def size_mb(folder: Path) -> float:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 2**20


def finish(result: dict[str, Any]) -> None:
    """Print the result as the last line."""
    print(json.dumps(result), flush=True)
