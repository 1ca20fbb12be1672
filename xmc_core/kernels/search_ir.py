"""The LLVM IR behind search_simd.py; see vector_ir.py for why it is written down."""

from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic
from numba.np import arrayobj

from xmc_core.kernels.lanes import LANES
from xmc_core.kernels.vector_ir import (
    ADDS_PRODUCTS,
    _Array,
    _constant,
    _intrinsic,
    _multiply_add,
    _splat,
    _sums,
)

_BIT = ir.IntType(1)
_INT8 = ir.IntType(8)
_INT16 = ir.IntType(16)
_INT32 = ir.IntType(32)
_INT64 = ir.IntType(64)
_FLOATS = ir.VectorType(ir.FloatType(), LANES)
_HALVES = ir.VectorType(ir.HalfType(), LANES)
_INTS = ir.VectorType(_INT32, LANES)
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

    def line(self, index: Any, vector: Any) -> Any:
        """The elements from `index` on, as a vector."""
        place = self.builder.bitcast(self.place(index), vector.as_pointer())
        return self.builder.load(place, typ=vector, align=2)


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
    """out[row] += weights[row] . x for row < n_rows; rows of `width`, a multiple of 64."""
    signature = types.void(weights, types.int64, types.int64, x, out)

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        b = builder
        weights, x, out = (_Plain(context, b, signature.args[i], args[i]) for i in (0, 3, 4))

        def add(row: Any, total: Any) -> None:
            b.store(b.fadd(out.get(row), total), out.place(row))

        zero = _constant(0.0)
        _by_fours(b, weights, x, args[1], args[2], zero, _product, b.fadd, add)
        return context.get_dummy_value()

    return signature, codegen


def make_add_products(in_pairs: bool = ADDS_PRODUCTS) -> Any:
    """Products of whole numbers; see `plain_add_products` in search_simd.py."""
    add_products_of = _two_products if in_pairs else _two_products_apart

    @intrinsic
    def add_products(  # type: ignore[no-untyped-def]
        typing_context, weights, units, n_rows, width, x, scale, out
    ):
        signature = types.void(weights, units, types.int64, types.int64, x, types.float32, out)

        def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
            b = builder
            weights, units, x, out = (
                _Plain(context, b, signature.args[i], args[i]) for i in (0, 1, 4, 6)
            )

            n_rows, width, scale = args[2], args[3], args[5]
            zero = ir.Constant(_INTS, [0] * LANES)

            def add(row: Any, total: Any) -> None:
                factor = b.fmul(units.get(row), scale)
                product = b.fmul(factor, b.sitofp(total, ir.FloatType()))
                b.store(b.fadd(out.get(row), product), out.place(row))

            _by_fours(b, weights, x, n_rows, width, zero, add_products_of, b.add, add)
            return context.get_dummy_value()

        return signature, codegen

    return add_products


def _by_fours(
    builder: Any,
    weights: _Plain,  # rows of `width`
    x: _Plain,
    n_rows: Any,
    width: Any,
    zero: ir.Constant,  # of a sum
    multiply: Any,  # the sum of a line of weights times a line of x and an older sum
    add: Any,
    put: Any,  # what becomes of a row's sum
) -> None:
    """The products of x with each row, four at a time, each in two sums."""
    b = builder
    line = ir.VectorType(weights.element, LANES if zero.type == _FLOATS else 2 * LANES)
    step = _INT64(line.count)

    sums = [_alloca(b, zero) for _ in range(8)]
    last = b.sub(n_rows, _INT64(1))
    with cgutils.for_range_slice(b, _INT64(0), n_rows, _INT64(4), _INT64) as (first, _):
        # The last four go over the end together: what is read again there is not written.
        rows = [b.add(first, _INT64(u)) for u in range(4)]
        begins = [b.mul(b.select(b.icmp_signed("<", r, n_rows), r, last), width) for r in rows]
        for total in sums:
            b.store(zero, total)
        with cgutils.for_range_slice(b, _INT64(0), width, b.add(step, step), _INT64) as (j, _):
            for part, at in enumerate((j, b.add(j, step))):
                values = x.line(at, line)
                for u in range(4):
                    total = sums[4 * part + u]
                    old = b.load(total, typ=zero.type)
                    new = multiply(b, weights.line(b.add(begins[u], at), line), values, old)
                    b.store(new, total)
        ends = [b.load(total, typ=zero.type) for total in sums]
        four = [add(ends[u], ends[4 + u]) for u in range(4)]
        for row, total in zip(rows, _sums(b, four, add), strict=True):
            with b.if_then(b.icmp_signed("<", row, n_rows)):
                put(row, total)


def _product(builder: Any, weights: Any, values: Any, total: Any) -> Any:
    return _multiply_add(builder, values, weights, total)


def _two_products(builder: Any, weights: Any, values: Any, total: Any) -> Any:
    """total[i] + weights[2 i] * values[2 i] + weights[2 i + 1] * values[2 i + 1]"""
    pairs = [builder.bitcast(line, _INTS) for line in (weights, values)]
    return _intrinsic(builder, "llvm.x86.avx512.vpdpwssd.512", _INTS, [total, *pairs])


def _two_products_apart(builder: Any, weights: Any, values: Any, total: Any) -> Any:
    """The same where the processor has no such instruction."""
    b = builder
    sixteen = ir.Constant(_INTS, [16] * LANES)
    left, right = (b.bitcast(line, _INTS) for line in (weights, values))
    for even in (True, False):
        w, x = ((b.shl(pair, sixteen) if even else pair) for pair in (left, right))
        total = b.add(total, b.mul(b.ashr(w, sixteen), b.ashr(x, sixteen)))
    return total
