"""Arrays from addresses: how a kernel reads a whole model through one argument.

Unboxing an array costs a call 0.1 to 0.2 µs, and a level has a dozen of them: passed one by one
they would cost a single row more than its search. A kernel gets one table of addresses instead.
Whoever calls it holds the arrays, which are therefore alive until it returns.
"""

from typing import Any

import numpy as np
from numba import carray  # type: ignore[attr-defined]
from numba.core import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from xmc_core.kernels._compile import inline_kernel

UNKNOWN = 2**40  # kernels never ask how long a view is


@intrinsic
def _pointer(typing_context, address):  # type: ignore[no-untyped-def]
    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        return builder.inttoptr(args[0], context.get_value_type(types.voidptr))

    return types.voidptr(types.int64), codegen


pointer: Any = _pointer


@inline_kernel
def uint8_at(address: int) -> NDArray[np.uint8]:
    view: NDArray[np.uint8] = carray(pointer(address), UNKNOWN, np.uint8)
    return view


@inline_kernel
def uint16_at(address: int) -> NDArray[np.uint16]:
    view: NDArray[np.uint16] = carray(pointer(address), UNKNOWN, np.uint16)
    return view


@inline_kernel
def int16_at(address: int) -> NDArray[np.int16]:
    view: NDArray[np.int16] = carray(pointer(address), UNKNOWN, np.int16)
    return view


@inline_kernel
def uint32_at(address: int) -> NDArray[np.uint32]:
    view: NDArray[np.uint32] = carray(pointer(address), UNKNOWN, np.uint32)
    return view


@inline_kernel
def int32_at(address: int) -> NDArray[np.int32]:
    view: NDArray[np.int32] = carray(pointer(address), UNKNOWN, np.int32)
    return view


@inline_kernel
def int64_at(address: int) -> NDArray[np.int64]:
    view: NDArray[np.int64] = carray(pointer(address), UNKNOWN, np.int64)
    return view


@inline_kernel
def float32_at(address: int) -> NDArray[np.float32]:
    view: NDArray[np.float32] = carray(pointer(address), UNKNOWN, np.float32)
    return view


def address_of(array: NDArray[Any]) -> int:
    """Where an array's first entry lies. The caller keeps the array."""
    address: int = array.__array_interface__["data"][0]
    return address
