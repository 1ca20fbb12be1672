"""Sixteen sibling labels, worked on together: a tile.

The weights of a tile are a (features, 16) float32 array: one 64-byte cache line holds what
sixteen siblings think of one feature, and a row of X costs one line per non-zero for all of them.
"""

import numpy as np
from numpy.typing import NDArray

LANES = 16

# Rows of the small (6, 16) array in which a solver keeps what it knows about each lane.
MARGIN, DELTA, GRADIENT_MAX, GRADIENT_MIN, LIVE, BIAS = range(6)
N_STATE = 6

Masks = NDArray[np.uint16]
"""Bit l of an entry stands for lane l."""
