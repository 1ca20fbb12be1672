"""The only place where numba compiles: one decorator, one set of options for every kernel.

`nogil` lets `xmc_core.parallel` run kernels side by side; `cache` keeps machine code on disk, so
that only the first process on a machine pays for compiling; `boundscheck` is off because wrappers
check what kernels trust; `error_model="numpy"` turns division by zero into inf, not an exception.
`fastmath` is given per kernel: it may reorder sums (which is what makes them vector code), and the
order is then fixed at compile time, so equal input still gives equal bits.
"""

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

from numba import njit
from numba.core import codegen, config

SOURCES = Path(__file__).parent


def drop_stale_cache(sources: Path = SOURCES) -> int:
    """Delete cached machine code that is older than the newest kernel source; returns how much.

    numba compares a cached kernel with its own file only, so an edit of a helper in another file
    would leave its callers running the old code. Where the folder is read-only nothing is done:
    sources do not change there either.
    """
    newest = max(file.stat().st_mtime for file in sources.glob("*.py"))
    dropped = 0
    for cached in (*sources.glob("__pycache__/*.nbi"), *sources.glob("__pycache__/*.nbc")):
        with contextlib.suppress(OSError):
            if cached.stat().st_mtime < newest:
                cached.unlink()
                dropped += 1
    return dropped


drop_stale_cache()

Function = TypeVar("Function", bound=Callable[..., Any])


def kernel(function: Function) -> Function:
    """Compile a loop over arrays with exact IEEE semantics."""
    return _compiled(function)


def fast_kernel(function: Function) -> Function:
    """Compile a loop over arrays whose sums may be reordered into vector instructions."""
    return _compiled(function, fastmath=True)


def inline_kernel(function: Function) -> Function:
    """Compile a helper that is small enough to be copied into each caller by LLVM."""
    return _compiled(function, fastmath=True, forceinline=True)


def held_kernel(function: Function) -> Function:
    """Compile the entry to a kernel of a few microseconds, which keeps the interpreter's lock.

    numba releases the lock at the outermost call alone. Whoever releases it for 20 µs waits for
    the interpreter's switch interval (5 ms) to get it back while other threads want it.
    """
    return _compiled(function, nogil=False)


def _compiled(function: Function, **options: Any) -> Function:
    always = {"nogil": True, "cache": True, "boundscheck": False, "error_model": "numpy"}
    compile_it = njit(**{**always, **options})
    return cast(Function, compile_it(function))


def target_features() -> set[str]:
    """What numba compiles for: `f16c`, `avx512vbmi2`, ..."""
    features = config.CPU_FEATURES  # type: ignore[attr-defined]
    if features is None:
        features = codegen.get_host_cpu_features()  # type: ignore[no-untyped-call]
    return {f.removeprefix("+") for f in str(features).split(",") if f.startswith("+")}
