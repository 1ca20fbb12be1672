"""Tells the processor which memory will be needed soon."""

from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic
from numba.np import arrayobj

from xmc_core.kernels._compile import inline_kernel
from xmc_core.kernels.simd import HAVE_VECTOR_CODE

_INT32 = ir.IntType(32)
_POINTER = ir.PointerType()
_make_array: Any = arrayobj.make_array


@intrinsic
def _prefetch(typing_context, array, index):  # type: ignore[no-untyped-def]
    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        data = _make_array(signature.args[0])(context, builder, args[0]).data
        element = context.get_data_type(signature.args[0].dtype)
        place = builder.gep(data, [args[1]], source_etype=element)
        name = "llvm.prefetch.p0"
        function = builder.module.globals.get(name)
        if function is None:
            form = ir.FunctionType(ir.VoidType(), [_POINTER, _INT32, _INT32, _INT32])
            function = ir.Function(builder.module, form, name)
        # To read; to keep in every cache; data.
        builder.call(function, [place, _INT32(0), _INT32(3), _INT32(1)])
        return context.get_dummy_value()

    return types.void(array, types.int64), codegen


@inline_kernel
def _nothing(array, index):  # type: ignore[no-untyped-def]
    pass


prefetch: Any = _prefetch if HAVE_VECTOR_CODE else _nothing
"""prefetch(array, index): start to load that entry; nothing happens if it is not there."""
