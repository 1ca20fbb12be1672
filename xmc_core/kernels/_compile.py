"""The only place where numba compiles: one decorator, one set of options for every kernel.

`nogil` lets `xmc_core.parallel` run kernels side by side; machine code is kept on disk, so that
only the first process on a machine pays for compiling; `boundscheck` is off because wrappers
check what kernels trust; `error_model="numpy"` turns division by zero into inf, not an exception.
`fastmath` is given per kernel: it may reorder sums (which is what makes them vector code), and the
order is then fixed at compile time, so equal input still gives equal bits.
"""

from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar, cast

from numba import njit
from numba.core import caching, codegen, config

SOURCES = Path(__file__).parent


def digest_of(sources: Path) -> bytes:
    """Of the text of all kernels."""
    digest = sha256()
    for file in sorted(sources.glob("*.py")):
        digest.update(file.name.encode())
        digest.update(file.read_bytes())
    return digest.digest()


STAMP = digest_of(SOURCES)


class KernelCache(caching.FunctionCache):
    """Machine code on disk that counts as fresh while no kernel's source has changed.

    numba compares a cached kernel with its own file only, so an edit of a helper in another file
    would leave its callers running the old code, wherever the cache is kept.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)  # type: ignore[no-untyped-call]
        self._cache_file = caching.IndexDataCacheFile(  # type: ignore[no-untyped-call]
            cache_path=self.cache_path, filename_base=self._impl.filename_base, source_stamp=STAMP
        )


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
    always = {"nogil": True, "boundscheck": False, "error_model": "numpy"}
    compiled = njit(**{**always, **options})(function)
    compiled._cache = KernelCache(function)  # as `cache=True` does, with a cache of our own
    return cast(Function, compiled)


def target_features() -> set[str]:
    """What numba compiles for: `f16c`, `avx512vbmi2`, ..."""
    features = config.CPU_FEATURES  # type: ignore[attr-defined]
    if features is None:
        features = codegen.get_host_cpu_features()  # type: ignore[no-untyped-call]
    return {f.removeprefix("+") for f in str(features).split(",") if f.startswith("+")}
