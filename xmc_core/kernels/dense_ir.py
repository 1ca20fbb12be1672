"""The LLVM IR behind dense_lanes.py; see vector_ir.py for why it is written down."""

from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from xmc_core.kernels._compile import target_features
from xmc_core.kernels.lanes import (
    DENSE,
    LANES,
    LARGEST_BYTE,
    MIDDLE,
    UNIT,
)
from xmc_core.kernels.vector_ir import (
    ADDS_PRODUCTS,
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

SPREADS_LANES = "avx512f" in target_features()
"""Whether a vector's first elements are put into given lanes by one instruction (AVX-512)."""

FORMS = (1, 4, 8, LANES)
"""For so many lanes there are products; more than 8 are as dear as all."""

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


def make_lane_dots(in_fours: bool = ADDS_PRODUCTS, spreads: bool = SPREADS_LANES) -> Any:
    """Products of a row with some lanes' weights; see `plain_lane_dots` in dense_lanes.py."""
    add_products = _four_products if in_fours else _four_products_in_shorts
    spread = _expanded if spreads else _put_one_by_one

    @intrinsic
    def lane_dots(  # type: ignore[no-untyped-def]
        typing_context, fine, B, C, lanes, count, mask, values, place, total, scale, width, state
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
            fine, count, mask = args[0], args[4], args[5]
            place, offset, scale, width = args[7:11]
            x = values.begin(place)

            def sums(numbers: list[Any], planes: tuple[Any, ...]) -> list[Any]:
                begins = [plane.begin(number) for number in numbers for plane in planes]
                readers = [plane for _ in numbers for plane in planes]
                places = [_alloca(b, _integers(0)) for _ in begins]
                step = _INT64(_LINE_SIZE)
                with cgutils.for_range_slice(b, _INT64(0), width, step, _INT64) as (j, _):
                    line = values.load(x, j, _LINE)
                    block = b.mul(j, _INT64(LANES))
                    for plane, begin, place_of_sum in zip(readers, begins, places, strict=True):
                        old = b.load(place_of_sum, typ=_INTS)
                        new = add_products(b, plane.load(begin, block, _LINE), line, old)
                        b.store(new, place_of_sum)
                return [b.load(place_of_sum, typ=_INTS) for place_of_sum in places]

            # Bytes are around 128: what that adds to a product, the row's sum says.

            def coarse_products(numbers: list[Any]) -> Any:
                folded = _folded(b, sums(numbers, (B,)), b.add)
                middle = _splat(b, b.mul(b.trunc(offset, _INT32), _INT32(MIDDLE)))
                return b.sitofp(b.sub(folded, middle), _FLOATS)

            def fine_products(numbers: list[Any]) -> Any:
                totals = []
                for first in range(0, len(numbers), 8):  # 16 sums stay in AVX-512's registers
                    found = sums(numbers[first : first + 8], (B, C))
                    wide = [b.sitofp(total, _FLOATS) for total in found]
                    part = _constant(1 / 256)
                    pairs = zip(wide[::2], wide[1::2], strict=True)
                    totals += [_multiply_add(b, low, part, high) for high, low in pairs]
                middle = b.fmul(_splat(b, b.sitofp(offset, _FLOAT)), _constant(MIDDLE + 0.5))
                return b.fsub(_folded(b, totals, b.fadd), middle)

            def one_form(products_of: Any, n_lanes: int) -> None:
                if n_lanes < LANES:
                    numbers = [b.sext(lanes.get(_INT64(u)), _INT64) for u in range(n_lanes)]
                else:
                    numbers = [_INT64(u) for u in range(LANES)]
                products = b.fmul(products_of(numbers), _splat(b, scale))
                if 1 < n_lanes < LANES:  # a single one is in every lane
                    order = [LANES // n_lanes * u for u in range(n_lanes)]
                    products = _shuffle(b, products, products, order + [0] * (LANES - n_lanes))
                    products = spread(b, products, mask, lanes, n_lanes)
                state.set_row(_INT64(DENSE), b.fmul(products, state.row(_INT64(UNIT))))

            def by_number(products_of: Any, n_lanes: int, *larger: int) -> None:
                if not larger:
                    one_form(products_of, n_lanes)
                    return
                with b.if_else(b.icmp_signed("==", count, _INT64(n_lanes))) as (these, more):
                    with these:
                        one_form(products_of, n_lanes)
                    with more:
                        by_number(products_of, *larger)

            with b.if_else(fine) as (two_bytes, one_byte):
                with two_bytes:
                    by_number(fine_products, *FORMS)
                with one_byte:
                    by_number(coarse_products, *FORMS)
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


def make_lane_add(in_pairs: bool = ADDS_PRODUCTS) -> Any:
    """A change of one lane's weights; see `plain_lane_add` in dense_lanes.py."""
    add_products = _products_in_pairs if in_pairs else _products

    @intrinsic
    def lane_add(typing_context, fine, V, B, C, lane, values, place, step, width):  # type: ignore[no-untyped-def]
        i64 = types.int64
        signature = types.boolean(types.boolean, V, B, C, i64, values, i64, i64, i64)

        def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
            b = builder
            V, B, C, values = _matrices(context, b, signature, args, 1, 2, 3, 5)
            fine, lane, place, step, width = args[0], args[4], args[6], args[7], args[8]
            weights, x = V.begin(lane), values.begin(place)
            lowest = ir.Constant(_LINE, [MIDDLE - LARGEST_BYTE] * _LINE_SIZE)
            farthest = _alloca(b, ir.Constant(_LINE, [0] * _LINE_SIZE))

            def add_to(*planes: tuple[Any, int]) -> None:
                # Each plane of bytes, and the bit where it begins in a weight.
                line_size = _INT64(_LINE_SIZE)
                begins = [plane.begin(lane) for plane, _ in planes]
                with cgutils.for_range_slice(b, _INT64(0), width, line_size, _INT64) as (j, _):
                    places = [b.add(j, _INT64(k * LANES)) for k in range(4)]
                    old = [V.load(weights, at, _INTS) for at in places]
                    new = add_products(b, values.load(x, j, _LINE), step, old)
                    for at, weight in zip(places, new, strict=True):
                        V.store(weights, at, weight)
                    lines = [_bytes_at(b, new, bit) for _, bit in planes]
                    for (plane, _), begin, line in zip(planes, begins, lines, strict=True):
                        plane.store(begin, b.mul(j, _INT64(LANES)), line)
                    far = b.sub(lines[0], lowest)
                    most = b.load(farthest, typ=_LINE)
                    b.store(b.select(b.icmp_unsigned(">", far, most), far, most), farthest)

            with b.if_else(fine) as (two_bytes, one_byte):
                with two_bytes:
                    add_to((B, 16), (C, 8))
                with one_byte:
                    add_to((B, 16))
            spread = ir.Constant(_LINE, [2 * LARGEST_BYTE] * _LINE_SIZE)
            beyond = b.icmp_unsigned(">", b.load(farthest, typ=_LINE), spread)
            return b.icmp_unsigned("!=", b.bitcast(beyond, _INT64), _INT64(0))

        return signature, codegen

    return lane_add


def _products_in_pairs(builder: Any, line: Any, step: Any, totals: list[Any]) -> list[Any]:
    """totals[k][i] + step * line[4 i + k]; the step fits in 16 bits."""
    b = builder
    shorts = b.bitcast(line, _SHORTS)
    eight = ir.Constant(_SHORTS, [8] * (2 * LANES))
    # As 16-bit numbers: bytes 4 i and 4 i + 2, and 4 i + 1 and 4 i + 3. An instruction multiplies
    # two of them and adds: one is multiplied by 0.
    even, odd = b.ashr(b.shl(shorts, eight), eight), b.ashr(shorts, eight)
    step = b.trunc(step, _INT32)
    first = _splat(b, b.and_(step, _INT32(0xFFFF)))
    second = _splat(b, b.shl(step, _INT32(16)))
    name = "llvm.x86.avx512.vpdpwssd.512"
    factors = [(even, first), (odd, first), (even, second), (odd, second)]
    return [
        _intrinsic(b, name, _INTS, [total, b.bitcast(numbers, _INTS), factor])
        for total, (numbers, factor) in zip(totals, factors, strict=True)
    ]


def _products(builder: Any, line: Any, step: Any, totals: list[Any]) -> list[Any]:
    """The same where the processor has no such instruction."""
    b = builder
    fours = b.bitcast(line, _INTS)
    factor = _splat(b, b.trunc(step, _INT32))
    numbers = [b.ashr(b.shl(fours, _integers(24 - 8 * k)), _integers(24)) for k in range(4)]
    return [b.add(total, b.mul(x, factor)) for total, x in zip(totals, numbers, strict=True)]


def _bytes_at(builder: Any, numbers: list[Any], bit: int) -> Any:
    """A line whose bytes 4 i + k are those at `bit` of numbers[k][i]."""
    b = builder
    line = None
    for k, number in enumerate(numbers):
        shift = bit - 8 * k
        moved = number
        if shift > 0:
            moved = b.lshr(number, _integers(shift))
        elif shift < 0:
            moved = b.shl(number, _integers(-shift))
        byte = b.and_(moved, _integers(0xFF << 8 * k))
        line = byte if line is None else b.or_(line, byte)
    return b.bitcast(line, _LINE)


def _integers(value: int) -> ir.Constant:
    return ir.Constant(_INTS, [value] * LANES)
