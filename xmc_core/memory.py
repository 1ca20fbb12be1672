"""Gives freed memory back to the system."""

import ctypes
from collections.abc import Callable
from functools import cache


def return_freed_memory() -> None:
    """Hand pages that hold nothing any more back to the system, where the C library can.

    glibc keeps blocks of up to 32 MB for the next `malloc` when they are freed anywhere but at the
    end of the heap. What one step of training frees then counts beside what the next one takes.
    """
    if (trim := _malloc_trim()) is not None:
        trim(0)


@cache
def _malloc_trim() -> Callable[[int], int] | None:
    try:
        return ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):  # not glibc
        return None
