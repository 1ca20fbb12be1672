"""The LLVM IR behind search_simd.py; see vector_ir.py for why it is written down."""

from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic
from numba.np import arrayobj

from xmc_core.kernels.lanes import LANES
from xmc_core.kernels.vector_ir import _Array, _constant, _intrinsic, _multiply_add, _splat, _sums

_BIT = ir.IntType(1)
_INT8 = ir.IntType(8)
_INT16 = ir.IntType(16)
_INT32 = ir.IntType(32)
_INT64 = ir.IntType(64)
_FLOATS = ir.VectorType(ir.FloatType(), LANES)
_HALVES = ir.VectorType(ir.HalfType(), LANES)
_UNROLL = 2

_alloca: Any = cgutils.alloca_once_value
_make_array: Any = arrayobj.make_array


class _Plain:
    """Elements of an array of any type."""

    def __init__(self, context: Any, builder: Any, type_: Any, value: Any) -> None:
        self.builder = builder
        self.data = _make_array(type_)(context, builder, value).data
        self.element = context.get_data_type(type_.dtype)

    def place(self, index: Any) -> Any:
        return self.builder.gep(self.data, [index], source_etype=self.element)

    def get(self, index: Any) -> Any:
        return self.builder.load(self.place(index), typ=self.element)


@intrinsic
def half(typing_context, bits):  # type: ignore[no-untyped-def]
    """float32 of the 16 bits of a half."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        return builder.fpext(builder.bitcast(args[0], ir.HalfType()), ir.FloatType())

    return types.float32(types.uint16), codegen


@intrinsic
def find(typing_context, array, start, value):  # type: ignore[no-untyped-def]
    """Bit mask of the entries among array[start : start + 16] that equal `value`."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        array = _Plain(context, builder, signature.args[0], args[0])
        vector = ir.VectorType(array.element, LANES)
        place = builder.bitcast(array.place(args[1]), vector.as_pointer())
        entries = builder.load(place, typ=vector, align=1)
        wanted = builder.trunc(args[2], array.element)
        undefined = ir.Constant(vector, ir.Undefined)
        first = builder.insert_element(undefined, wanted, _INT32(0))
        zeros = ir.Constant(ir.VectorType(_INT32, LANES), [0] * LANES)
        equal = builder.icmp_unsigned("==", entries, builder.shuffle_vector(first, first, zeros))
        return builder.zext(builder.bitcast(equal, _INT16), _INT64)

    return types.int64(array, types.int64, types.int64), codegen


@intrinsic
def at_least(typing_context, W, row, threshold):  # type: ignore[no-untyped-def]
    """Bit mask of the lanes of line `row` that reach the threshold."""
    signature = types.int64(W, types.int64, types.float32)

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        W = _Array(context, builder, signature.args[0], args[0])
        flags = builder.fcmp_ordered(">=", W.row(args[1]), _splat(builder, args[2]))
        return builder.zext(builder.bitcast(flags, ir.IntType(LANES)), _INT64)

    return signature, codegen


def _expand(builder: Any, place: Any, mask: Any, is_half: bool) -> Any:
    """The next values at `place`, one for each bit of `mask`, in its lane; zeros elsewhere."""
    element = _INT16 if is_half else ir.FloatType()
    vector = ir.VectorType(element, LANES)
    name = f"llvm.masked.expandload.v{LANES}{'i16' if is_half else 'f32'}"
    lanes = builder.bitcast(mask, ir.VectorType(_BIT, LANES))
    zeros = ir.Constant(vector, [0 if is_half else 0.0] * LANES)
    loaded = _intrinsic(builder, name, vector, [place, lanes, zeros])
    if is_half:
        return builder.fpext(builder.bitcast(loaded, _HALVES), _FLOATS)
    return loaded


@intrinsic
def expand_dot(typing_context, weights, starts, masks, values, n, out):  # type: ignore[no-untyped-def]
    """out[0:16] = sum over h < n of values[h] * (weights from starts[h] on, spread by masks[h])."""
    signature = types.void(weights, starts, masks, values, types.int64, out)

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        b = builder
        weights, starts, masks, values = (
            _Plain(context, b, t, a) for t, a in zip(signature.args[:4], args[:4], strict=True)
        )
        out = _Array(context, b, signature.args[5], args[5])
        is_half = signature.args[0].dtype == types.uint16
        sums = [_alloca(b, _constant(0.0)) for _ in range(_UNROLL)]

        def add(h: Any, total: Any) -> None:
            line = _expand(b, weights.place(starts.get(h)), masks.get(h), is_half)
            old = b.load(total, typ=_FLOATS)
            b.store(_multiply_add(b, _splat(b, values.get(h)), line, old), total)

        step = _INT64(_UNROLL)
        middle = b.sub(args[4], b.srem(args[4], step))
        with cgutils.for_range_slice(b, _INT64(0), middle, step, _INT64) as (h, _):
            for u in range(_UNROLL):
                add(b.add(h, _INT64(u)), sums[u])
        with cgutils.for_range_slice(b, middle, args[4], _INT64(1), _INT64) as (h, _):
            add(h, sums[0])
        first, second = (b.load(total, typ=_FLOATS) for total in sums)
        out.set_row(_INT64(0), b.fadd(first, second))
        return context.get_dummy_value()

    return signature, codegen


@intrinsic
def add_dots(typing_context, weights, n_rows, width, x, out):  # type: ignore[no-untyped-def]
    """out[row] += weights[row] . x for row < n_rows; rows of `width`, a multiple of 32."""
    signature = types.void(weights, types.int64, types.int64, x, out)

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        b = builder
        weights, x, out = (_Plain(context, b, signature.args[i], args[i]) for i in (0, 3, 4))
        n_rows, width = args[1:3]
        is_half = signature.args[0].dtype == types.uint16
        stored = _HALVES if is_half else _FLOATS

        def sixteen(array: Any, index: Any, vector: Any) -> Any:
            place = b.bitcast(array.place(index), vector.as_pointer())
            return b.load(place, typ=vector, align=2)

        zero, line = _INT64(0), _INT64(LANES)
        sums = [_alloca(b, _constant(0.0)) for _ in range(8)]
        last = b.sub(n_rows, _INT64(1))
        with cgutils.for_range_slice(b, zero, n_rows, _INT64(4), _INT64) as (first, _):
            # The last four go over the end together: what is read again there is not written.
            rows = [b.add(first, _INT64(u)) for u in range(4)]
            begins = [
                b.mul(b.select(b.icmp_signed("<", row, n_rows), row, last), width) for row in rows
            ]
            for total in sums:
                b.store(_constant(0.0), total)
            with cgutils.for_range_slice(b, zero, width, _INT64(2 * LANES), _INT64) as (j, _):
                for part, at in enumerate((j, b.add(j, line))):
                    values = sixteen(x, at, _FLOATS)
                    for u in range(4):
                        w = sixteen(weights, b.add(begins[u], at), stored)
                        if is_half:
                            w = b.fpext(w, _FLOATS)
                        total = sums[4 * part + u]
                        b.store(_multiply_add(b, values, w, b.load(total, typ=_FLOATS)), total)
            four = [
                b.fadd(b.load(sums[u], typ=_FLOATS), b.load(sums[4 + u], typ=_FLOATS))
                for u in range(4)
            ]
            for row, total in zip(rows, _sums(b, four), strict=True):
                with b.if_then(b.icmp_signed("<", row, n_rows)):
                    b.store(b.fadd(out.get(row), total), out.place(row))
        return context.get_dummy_value()

    return signature, codegen
