"""Rounding of dense columns to whole numbers of 16 bits, which search multiplies.

A row of X becomes `scale` times numbers of up to LARGEST_VALUE, a child's weights their `unit`
times numbers of up to `largest_weight`: the sum of their products fits 32 bits whatever they are.
Products and sum are one instruction for 32 dimensions (VNNI), where halves made wide take four; a
sum of whole numbers is the same in any order.
"""

from typing import Any

import numpy as np

from xmc_core.kernels._compile import fast_kernel, inline_kernel
from xmc_core.types import Floats, SignedShorts

LARGEST_VALUE = 1023
"""An entry of a row is off by 1/2046 of the largest one at most, a weight of 384 dimensions by
1/10932: margins by a ten-thousandth of what an embedding adds to them."""

NOTHING = np.float32(1e-30)
"""What is no larger is taken for zeros."""


@inline_kernel
def largest_weight(width: int) -> int:
    # So that `width` products stay below 2^31.
    return min(2**15 - 1, (2**31 - 1) // (LARGEST_VALUE * width))


@fast_kernel
def round_row(
    values: Floats,
    row: int,
    largest: int,
    numbers: SignedShorts,  # rows as long or longer
    to: int,
) -> np.float32:
    # Returns the unit: values[row] is about that times numbers[to].
    most = np.float32(0.0)
    for d in range(values.shape[1]):
        most = max(most, abs(values[row, d]))
    unit = most / np.float32(largest)
    inverse: Any = np.float32(1.0) / unit if most > NOTHING else np.float32(0.0)
    for d in range(values.shape[1]):
        numbers[to, d] = np.int16(np.rint(values[row, d] * inverse))
    return unit
