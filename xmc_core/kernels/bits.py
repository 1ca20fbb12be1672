"""Bits: of sets, in words of 64, and of numbers."""

from typing import Any

import numpy as np
from numba.core import types
from numba.extending import intrinsic
from numpy.typing import NDArray

U64: Any = np.uint64
"""As an index, or what a loop counts in: numba does not check it for counting from the end, which
takes five instructions each time. A sum with a signed number would be a float."""

Words = NDArray[np.uint64]
Shorts = NDArray[np.uint16]
"""Sixteen bits each, of IEEE halves."""


@intrinsic
def _popcount(typing_context, word):  # type: ignore[no-untyped-def]
    """Number of bits that are set in a uint64."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        return builder.ctpop(args[0])

    return types.int64(types.uint64), codegen


popcount: Any = _popcount


@intrinsic
def _lowest_bit(typing_context, word):  # type: ignore[no-untyped-def]
    """Position of the lowest bit that is set in a uint64, which must not be 0."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        return builder.cttz(args[0], context.get_constant(types.boolean, True))

    return types.int64(types.uint64), codegen


lowest_bit: Any = _lowest_bit


@intrinsic
def _float_of_bits(typing_context, bits):  # type: ignore[no-untyped-def]
    """The float32 that a uint32 is the bits of."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        return builder.bitcast(args[0], context.get_value_type(types.float32))

    return types.float32(types.uint32), codegen


float_of_bits: Any = _float_of_bits
