"""Sixteen sibling labels, worked on together: a tile.

The weights of a tile are a (features, 16) float32 array: one 64-byte cache line holds what
sixteen siblings think of one feature, and a row of X costs one line per non-zero for all of them.
"""

import numpy as np
from numpy.typing import NDArray

from xmc_core.kernels._compile import kernel
from xmc_core.types import Floats

LANES = 16

# Rows of the small (9, 16) array in which a solver keeps what it knows about each lane.
MARGIN, DELTA, GRADIENT_MAX, GRADIENT_MIN, LIVE, BIAS, DENSE, UNIT, PER_UNIT = range(9)
N_STATE = 9

MIDDLE, LARGEST_BYTE = 128, 100
"""Of a dense column's weight in bytes (dense_lanes.py): that of 0, and how far from it others may
be."""

PARTS = np.float32(65536.0)
"""Of a unit: what such a weight is counted in."""

ORIGIN = (MIDDLE << 16) + (MIDDLE << 8) + 128
"""A weight of 0 so counted: two bytes of 128, and half of one more, so that they are the nearest
ones though the lowest byte is left off."""

NO_UNIT = np.float32(1e25)
"""state[PER_UNIT] while a lane's weights are 0: any change of them asks for a unit."""

Masks = NDArray[np.uint16]
"""Bit l of an entry stands for lane l."""


@kernel
def empty_lines(n: int) -> Floats:
    """(n, 16) float32, each row one cache line.

    numba starts arrays at multiples of 32 bytes: every second one would have each row in two lines,
    which takes half as long again (5.1 ns a non-zero instead of 3.3 at the third level of
    wiki10-like).
    """
    memory = np.empty((n + 1) * LANES, np.float32)
    skipped = (-memory.ctypes.data % 64) // 4
    return memory[skipped : skipped + n * LANES].reshape(n, LANES)
