"""Memory of one entry per feature, lent to one thread at a time."""

from collections.abc import Iterator
from contextlib import contextmanager
from queue import Empty, SimpleQueue

import numpy as np
from numpy.typing import NDArray

from xmc_core.types import Indices


class ScratchPool:
    """Lends (n_features,) int32 and (n_features / 64,) uint64 zeros; kernels leave them zeros.

    As many pairs exist as threads have ever borrowed at once: clearing a million features for each
    of ten thousand clusters would cost more than training them.
    """

    def __init__(self, n_features: int) -> None:
        self.n_features = n_features
        self._free: SimpleQueue[tuple[Indices, NDArray[np.uint64]]] = SimpleQueue()

    @contextmanager
    def borrow(self) -> Iterator[tuple[Indices, NDArray[np.uint64]]]:
        """A pair for the time of the block; not lent again if the block fails."""
        try:
            pair = self._free.get_nowait()
        except Empty:
            pair = (
                np.zeros(self.n_features, np.int32),
                np.zeros((self.n_features + 63) // 64, np.uint64),
            )
        yield pair
        self._free.put(pair)
