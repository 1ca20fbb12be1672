"""The LLVM IR behind dense_lanes.py; see vector_ir.py for why it is written down."""

from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from xmc_core.kernels._compile import target_features
from xmc_core.kernels.lanes import (
    DENSE,
    FINE_ROUNDING,
    LANES,
    LARGEST_BYTE,
    MIDDLE,
    ROUNDING,
    UNIT,
)
from xmc_core.kernels.vector_ir import (
    _Array,
    _constant,
    _folded,
    _intrinsic,
    _matrices,
    _multiply_add,
    _shuffle,
    _splat,
)

_BYTE = ir.IntType(8)
_INT16 = ir.IntType(16)
_INT32 = ir.IntType(32)
_INT64 = ir.IntType(64)
_FLOAT = ir.FloatType()
_FLOATS = ir.VectorType(_FLOAT, LANES)
_INTS = ir.VectorType(_INT32, LANES)
_SHORTS = ir.VectorType(_INT16, 2 * LANES)
_LINE_SIZE = 4 * LANES
_LINE = ir.VectorType(_BYTE, _LINE_SIZE)
_FLAGS = ir.VectorType(ir.IntType(1), LANES)

MULTIPLIES_BYTES = "avx512vnni" in target_features()
"""Whether four products of bytes are one instruction (AVX-512 VNNI: Intel since Ice Lake, AMD since
Zen 4)."""

SPREADS_LANES = "avx512f" in target_features()
"""Whether a vector's first elements are put into given lanes by one instruction (AVX-512)."""

_alloca: Any = cgutils.alloca_once_value


def _four_products(builder: Any, weights: Any, values: Any, total: Any) -> Any:
    """total[i] + the sum of weights[4 i + u] * values[4 i + u], u = 0 .. 3; weights unsigned."""
    name = "llvm.x86.avx512.vpdpbusd.512"
    return _intrinsic(builder, name, _INTS, [total, weights, values])


def _four_products_in_shorts(builder: Any, weights: Any, values: Any, total: Any) -> Any:
    """The same where the processor has no such instruction: 255 * 127 still fits sixteen bits."""
    b = builder
    eight = ir.Constant(_SHORTS, [8] * (2 * LANES))
    sixteen = ir.Constant(_INTS, [16] * LANES)
    left, right = (b.bitcast(line, _SHORTS) for line in (weights, values))
    for even in (True, False):
        w = b.lshr(b.shl(left, eight) if even else left, eight)
        x = b.ashr(b.shl(right, eight) if even else right, eight)
        products = b.bitcast(b.mul(w, x), _INTS)
        total = b.add(total, b.ashr(b.shl(products, sixteen), sixteen))
        total = b.add(total, b.ashr(products, sixteen))
    return total


def make_lane_dots(
    n_lanes: int, fine: bool, in_fours: bool = MULTIPLIES_BYTES, spreads: bool = SPREADS_LANES
) -> Any:
    """Products of a row with so many lanes' weights; see `plain_lane_dots` in dense_lanes.py."""
    add_products = _four_products if in_fours else _four_products_in_shorts
    # Eight sums at a time: more would not stay in registers everywhere.
    groups = {1: [1], 4: [4], 8: [8], 12: [8, 4], 16: [8, 8]}[n_lanes]

    @intrinsic
    def lane_dots(  # type: ignore[no-untyped-def]
        typing_context, is_fine, B, C, lanes, count, mask, values, place, total, scale, width, state
    ):
        i64 = types.int64
        signature = types.void(
            types.boolean, B, C, lanes, i64, i64, values, i64, i64, types.float32, i64, state
        )

        def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
            b = builder
            B, C, values = _matrices(context, b, signature, args, 1, 2, 6)
            lanes = _Array(context, b, signature.args[3], args[3])
            state = _Array(context, b, signature.args[11], args[11])
            mask, (place, offset, scale, width) = args[5], args[7:11]
            x = values.begin(place)
            planes = (B, C) if fine else (B,)
            folded = []
            done = 0
            for size in groups:
                numbers = [b.sext(lanes.get(_INT64(done + u)), _INT64) for u in range(size)]
                begins = [plane.begin(number) for number in numbers for plane in planes]
                readers = [plane for _ in numbers for plane in planes]
                sums = [_alloca(b, _integers(0)) for _ in begins]
                for place_of_sum in sums:
                    b.store(_integers(0), place_of_sum)
                step = _INT64(_LINE_SIZE)
                with cgutils.for_range_slice(b, _INT64(0), width, step, _INT64) as (j, _):
                    line = values.load(x, j, _LINE)
                    for plane, begin, place_of_sum in zip(readers, begins, sums, strict=True):
                        old = b.load(place_of_sum, typ=_INTS)
                        new = add_products(b, plane.load(begin, j, _LINE), line, old)
                        b.store(new, place_of_sum)
                totals = [b.load(place_of_sum, typ=_INTS) for place_of_sum in sums]
                if fine:
                    wide = [b.sitofp(total, _FLOATS) for total in totals]
                    pairs = zip(wide[::2], wide[1::2], strict=True)
                    part = _constant(1 / 256)
                    totals = [_multiply_add(b, low, part, high) for high, low in pairs]
                folded.append(_folded(b, totals, b.fadd if fine else b.add))
                done += size
            order = [
                LANES * g + LANES // size * u for g, size in enumerate(groups) for u in range(size)
            ]
            order += [0] * (LANES - len(order))  # a single one is in every lane
            totals = _shuffle(b, folded[0], folded[-1], order)
            # Bytes are around 128: what that adds, the row's sum says.
            if fine:
                middle = b.fmul(_splat(b, b.sitofp(offset, _FLOAT)), _constant(MIDDLE + 0.5))
                products = b.fsub(totals, middle)
            else:
                middle = b.mul(b.trunc(offset, _INT32), _INT32(MIDDLE))
                products = b.sitofp(b.sub(totals, _splat(b, middle)), _FLOATS)
            products = b.fmul(products, _splat(b, scale))
            if n_lanes > 1:
                spread = _expanded if spreads else _put_one_by_one
                products = spread(b, products, mask, lanes, n_lanes)
            products = b.fmul(products, state.row(_INT64(UNIT)))
            state.set_row(_INT64(DENSE), products)
            return context.get_dummy_value()

        return signature, codegen

    return lane_dots


def _expanded(builder: Any, vector: Any, mask: Any, lanes: Any, n_lanes: int) -> Any:
    """Elements 0, 1, ... in the lanes that `mask` names."""
    flags = builder.bitcast(builder.trunc(mask, _INT16), _FLAGS)
    name = f"llvm.x86.avx512.mask.expand.v{LANES}f32"
    return _intrinsic(builder, name, _FLOATS, [vector, _constant(0.0), flags])


def _put_one_by_one(builder: Any, vector: Any, mask: Any, lanes: Any, n_lanes: int) -> Any:
    """The same where the processor has no such instruction."""
    spread = _constant(0.0)
    for k in reversed(range(n_lanes)):  # what stands again at the end of the list is overwritten
        value = builder.extract_element(vector, _INT32(k))
        spread = builder.insert_element(spread, value, lanes.get(_INT64(k)))
    return spread


def make_lane_add(fine: bool) -> Any:
    """A change of one lane's weights; see `plain_lane_add` in dense_lanes.py."""

    @intrinsic
    def lane_add(typing_context, is_fine, V, B, C, lane, values, place, change, inverse, width):  # type: ignore[no-untyped-def]
        i64, f32 = types.int64, types.float32
        signature = types.boolean(types.boolean, V, B, C, i64, values, i64, f32, f32, i64)

        def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
            b = builder
            V, B, C, values = _matrices(context, b, signature, args, 1, 2, 3, 5)
            weights, x = V.begin(args[4]), values.begin(args[6])
            # Each plane of bytes, and the bit where it begins in a rounded number.
            planes = [(B, B.begin(args[4]), 8 if fine else 0)]
            if fine:
                planes.append((C, C.begin(args[4]), 0))
            change = _splat(b, args[7])
            inverse = _splat(b, b.fmul(args[8], _FLOAT(256.0 if fine else 1.0)))
            rounding = _constant(FINE_ROUNDING if fine else ROUNDING)
            lowest = ir.Constant(_LINE, [MIDDLE - LARGEST_BYTE] * _LINE_SIZE)
            spread = ir.Constant(_LINE, [2 * LARGEST_BYTE] * _LINE_SIZE)
            too_far = _alloca(b, _INT64(0))
            step = _INT64(_LINE_SIZE)
            with cgutils.for_range_slice(b, _INT64(0), args[9], step, _INT64) as (j, _):
                fours = b.bitcast(values.load(x, j, _LINE), _INTS)
                rounded = []
                for k in range(4):
                    at = b.add(j, _INT64(k * LANES))
                    value = b.ashr(b.shl(fours, _integers(24 - 8 * k)), _integers(24))
                    value = b.sitofp(value, _FLOATS)
                    weight = _multiply_add(b, change, value, V.load(weights, at))
                    V.store(weights, at, weight)
                    rounded.append(b.bitcast(_multiply_add(b, weight, inverse, rounding), _INTS))
                for plane, begin, bit in planes:
                    line = _bytes_at(b, rounded, bit)
                    plane.store(begin, j, line)
                    if plane is B:
                        beyond = b.icmp_unsigned(">", b.sub(line, lowest), spread)
                        beyond = b.or_(b.load(too_far, typ=_INT64), b.bitcast(beyond, _INT64))
                        b.store(beyond, too_far)
            return b.icmp_unsigned("!=", b.load(too_far, typ=_INT64), _INT64(0))

        return signature, codegen

    return lane_add


def _bytes_at(builder: Any, numbers: list[Any], bit: int) -> Any:
    """A line whose bytes 4 i + k are those at `bit` of numbers[k][i]."""
    b = builder
    line = None
    for k, number in enumerate(numbers):
        byte = b.and_(b.lshr(number, _integers(bit)), _integers(0xFF))
        byte = b.shl(byte, _integers(8 * k))
        line = byte if line is None else b.or_(line, byte)
    return b.bitcast(line, _LINE)


def _integers(value: int) -> ir.Constant:
    return ir.Constant(_INTS, [value] * LANES)
