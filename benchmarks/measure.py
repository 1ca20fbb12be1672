"""What a worker measures: CPU and wall seconds of a block, peak memory of the process, latencies.

Imported by the workers of all environments, so it needs numpy alone.
"""

import json
import resource
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np


@contextmanager
def measured(into: dict[str, Any]) -> Iterator[None]:
    """Add `cpu` (all threads of the process, user and system) and `wall` seconds of the block."""
    cpu, wall = time.process_time(), time.perf_counter()
    yield
    into["cpu"] = time.process_time() - cpu
    into["wall"] = time.perf_counter() - wall


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


def finish(result: dict[str, Any]) -> None:
    """Print the result as the last line, with the peak memory of the process."""
    result["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps(result), flush=True)
