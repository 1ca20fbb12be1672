"""Vector code of beam search, each piece in two forms that agree; see simd.py.

Weights are halves (16 bits) by default. Where the processor converts them (F16C, any 64-bit ARM)
that is one instruction for sixteen; elsewhere their bits are moved by integer code.
"""

import platform
from typing import Any

import numpy as np
from numba.core import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from xmc_core.kernels._compile import fast_kernel, inline_kernel, kernel, target_features
from xmc_core.kernels.bits import float_of_bits, lowest_bit
from xmc_core.kernels.lanes import LANES, Masks
from xmc_core.kernels.simd import HAVE_VECTOR_CODE
from xmc_core.types import Floats, Pointers, SignedShorts

_FEATURES = target_features()
CONVERTS_HALVES = "f16c" in _FEATURES or platform.machine() in ("aarch64", "arm64")
EXPANDS = HAVE_VECTOR_CODE and {"avx512vbmi2", "avx512vl", "f16c"} <= _FEATURES
"""Whether packed weights are spread over their lanes by one instruction (AVX-512 VBMI2: Intel
since Ice Lake, AMD since Zen 4); elsewhere they are added one by one."""


@inline_kernel
def plain_half(bits: np.uint16) -> np.float32:
    # Exponent and fraction moved to their places in a float32, whose exponent counts from
    # 2^-127 where a half's counts from 2^-15: subnormal halves come out right too.
    wide = np.uint32(bits)
    moved = ((wide & np.uint32(0x8000)) << np.uint32(16)) | (
        (wide & np.uint32(0x7FFF)) << np.uint32(13)
    )
    value: np.float32 = float_of_bits(np.uint32(moved)) * np.float32(2.0**112)
    return value


@kernel
def plain_find(array: NDArray[Any], start: int, value: int) -> int:
    # Bit mask of the entries among array[start : start + 16] that equal `value`.
    mask = 0
    for i in range(LANES):
        if array[start + i] == value:
            mask |= 1 << i
    return mask


@kernel
def plain_at_least(W: Floats, row: int, threshold: np.float32) -> int:
    # Bit mask of the lanes of line `row` that reach the threshold.
    mask = 0
    for lane in range(LANES):
        if W[row * LANES + lane] >= threshold:
            mask |= 1 << lane
    return mask


@fast_kernel
def plain_expand_dot(
    weights: NDArray[Any],  # packed, halves (uint16) or float32
    starts: Pointers,  # where those of each hit begin
    masks: Masks,  # their lanes
    values: Floats,
    n: int,
    out: Floats,  # (16,)
) -> None:
    for lane in range(LANES):
        out[lane] = 0.0
    for h in range(n):
        place = starts[h]
        mask = np.uint64(masks[h])
        while mask != 0:
            out[lowest_bit(mask)] += values[h] * weight(weights, place)
            place += 1
            mask &= mask - np.uint64(1)


@fast_kernel
def plain_add_dots(
    weights: Floats,  # rows of `width`
    n_rows: int,
    width: int,  # a multiple of 64
    x: Floats,  # (width,)
    out: Floats,  # (n_rows,) out[row] += weights[row] . x
) -> None:
    for row in range(n_rows):
        total = np.float32(0.0)
        for j in range(width):
            total += weights[row * width + j] * x[j]
        out[row] += total


@kernel
def plain_add_products(
    weights: SignedShorts,  # rows of `width`, see whole_numbers.py
    units: Floats,  # (n_rows,)
    n_rows: int,
    width: int,  # a multiple of 64
    x: SignedShorts,  # (width,)
    scale: np.float32,
    out: Floats,  # (n_rows,) out[row] += units[row] * scale * (weights[row] . x)
) -> None:
    for row in range(n_rows):
        total = 0
        for j in range(width):
            total += int(weights[row * width + j]) * int(x[j])
        out[row] += units[row] * scale * np.float32(total)


half: Any = plain_half
vector_find: Any = plain_find
vector_at_least: Any = plain_at_least
vector_expand_dot: Any = plain_expand_dot
vector_add_dots: Any = plain_add_dots
vector_add_products: Any = plain_add_products
if HAVE_VECTOR_CODE:
    from xmc_core.kernels import search_ir

    vector_find = search_ir.find
    vector_at_least = search_ir.at_least
    vector_add_dots = search_ir.add_dots
    vector_add_products = search_ir.make_add_products()
    if CONVERTS_HALVES:
        half = search_ir.half
    if EXPANDS:
        vector_expand_dot = search_ir.expand_dot


@intrinsic
def _is_half(typing_context, array):  # type: ignore[no-untyped-def]
    """Known when compiling, so that the other branch goes away."""
    flag = array.dtype == types.uint16

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        return context.get_constant(types.boolean, flag)

    return types.boolean(array), codegen


is_half: Any = _is_half


@inline_kernel
def weight(weights: NDArray[Any], place: int) -> np.float32:
    """weights[place] as float32."""
    if is_half(weights):
        value: np.float32 = half(np.uint16(weights[place]))
        return value
    return np.float32(weights[place])


@inline_kernel
def find(vector: bool, array: NDArray[Any], start: int, value: int) -> int:
    if vector:
        mask: int = vector_find(array, start, value)
        return mask
    return plain_find(array, start, value)


@inline_kernel
def at_least(vector: bool, W: Floats, row: int, threshold: np.float32) -> int:
    if vector:
        mask: int = vector_at_least(W, row, threshold)
        return mask
    return plain_at_least(W, row, threshold)


@inline_kernel
def expand_dot(
    vector: bool,
    weights: NDArray[Any],
    starts: Pointers,
    masks: Masks,
    values: Floats,
    n: int,
    out: Floats,
) -> None:
    if vector:
        vector_expand_dot(weights, starts, masks, values, n, out)
    else:
        plain_expand_dot(weights, starts, masks, values, n, out)


@inline_kernel
def add_dots(
    vector: bool, weights: Floats, n_rows: int, width: int, x: Floats, out: Floats
) -> None:
    if vector:
        vector_add_dots(weights, n_rows, width, x, out)
    else:
        plain_add_dots(weights, n_rows, width, x, out)


@inline_kernel
def add_products(
    vector: bool,
    weights: SignedShorts,
    units: Floats,
    n_rows: int,
    width: int,
    x: SignedShorts,
    scale: np.float32,
    out: Floats,
) -> None:
    if vector:
        vector_add_products(weights, units, n_rows, width, x, scale, out)
    else:
        plain_add_products(weights, units, n_rows, width, x, scale, out)
