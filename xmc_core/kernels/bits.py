"""Bit sets of feature ids, in words of 64."""

from typing import Any

import numpy as np
from numba.core import types
from numba.extending import intrinsic
from numpy.typing import NDArray

Words = NDArray[np.uint64]


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
