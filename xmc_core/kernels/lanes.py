"""Sixteen sibling labels, worked on together: a tile.

The weights of a tile are a (features, 16) float32 array: one 64-byte cache line holds what
sixteen siblings think of one feature, and a row of X costs one line per non-zero for all of them.
"""

import numpy as np
from numpy.typing import NDArray

from xmc_core.kernels._compile import kernel
from xmc_core.types import Floats

LANES = 16

# Rows of the small (7, 16) array in which a solver keeps what it knows about each lane.
MARGIN, DELTA, GRADIENT_MAX, GRADIENT_MIN, LIVE, BIAS, DENSE = range(7)
N_STATE = 7

HALF_A_BFLOAT = 0x8000
"""Half a unit in the last place of a bfloat16, in the bits of a float32. Weights of dense columns
are kept as bits plus this, in two halves: the upper one is then the nearest bfloat16."""

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
