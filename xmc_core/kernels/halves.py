"""Rounding: a model's weights to the 16-bit floats (IEEE halves) that search reads."""

from typing import Any

import numpy as np

from xmc_core.kernels._compile import fast_kernel, kernel
from xmc_core.kernels.bits import Shorts
from xmc_core.kernels.search_simd import CONVERTS_HALVES
from xmc_core.kernels.simd import HAVE_VECTOR_CODE
from xmc_core.types import Floats


@fast_kernel
def largest_size(values: Floats) -> np.float32:
    largest = np.float32(0.0)
    for j in range(len(values)):
        largest = max(largest, abs(values[j]))
    return largest


@fast_kernel
def plain_narrow(values: Floats, scale: np.float32, halves: Shorts) -> None:
    # The reverse of `plain_half`, rounded to the nearest, among equals to the even one.
    moved = np.empty(1, np.float32)
    patterns = moved.view(np.uint32)
    for j in range(len(halves)):
        moved[0] = values[j] * scale * np.float32(2.0**-112)
        size = patterns[0] & np.uint32(0x7FFFFFFF)
        is_odd = (size >> np.uint32(13)) & np.uint32(1)
        rounded = (size + np.uint32(0xFFF) + is_odd) >> np.uint32(13)
        halves[j] = rounded | ((patterns[0] >> np.uint32(16)) & np.uint32(0x8000))


vector_narrow: Any = plain_narrow
if HAVE_VECTOR_CODE and CONVERTS_HALVES:
    from xmc_core.kernels import vector_ir

    vector_narrow = vector_ir.narrow


@kernel
def narrow(
    vector: bool,
    values: Floats,
    scale: np.float32,
    halves: Shorts,  # (len(values),) out: the nearest to values * scale
) -> None:
    if vector:
        vector_narrow(values, scale, halves)
    else:
        plain_narrow(values, scale, halves)
