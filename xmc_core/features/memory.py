"""Arrays that are used again and again.

Memory that is new to a process costs a page fault for every 4 KB of it, some 10 of 62 ms in the
tf-idf of 17,000 titles, and large arrays go back to the system as soon as they are let go.
"""

from collections.abc import Callable
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import DTypeLike, NDArray

Scratch = TypeVar("Scratch")


class Memory:
    """Scratch arrays by name, for one batch after the other.

    >>> memory = Memory()
    >>> memory.array("places", 3, np.int32).shape
    (3,)
    """

    def __init__(self) -> None:
        self._arrays: dict[str, NDArray[Any]] = {}

    def array(self, name: str, size: int, dtype: DTypeLike) -> NDArray[Any]:
        """(size,) of any content; it holds until the same name is asked for again."""
        kept = self._arrays.get(name)
        if kept is None or len(kept) < size:
            # With room to spare, as batches differ; what is never touched costs nothing.
            kept = self._arrays[name] = np.empty(size + size // 4, dtype)
        return kept[:size]


class Spare(Generic[Scratch]):
    """Scratch that no thread uses at present."""

    def __init__(self, make: Callable[[], Scratch]) -> None:
        self._make = make
        self._spare: list[Scratch] = []

    def take(self) -> Scratch:
        """What was given back last, or something new."""
        try:
            return self._spare.pop()  # one step: threads ask at the same time
        except IndexError:
            return self._make()

    def give_back(self, scratch: Scratch) -> None:
        self._spare.append(scratch)
