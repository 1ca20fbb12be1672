"""The LLVM IR behind simd.py: operations on one `<16 x float>` per line of weights.

LLVM does not find these vectors by itself (sixteen unrolled scalars stay sixteen scalar
instructions, 8 times slower), so they are written down. Every target splits a vector of sixteen
into the registers that it has.

The pieces take arrays, never addresses: a bare address does not keep its array alive.
"""

from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic
from numba.np import arrayobj

from xmc_core.kernels._compile import target_features
from xmc_core.kernels.lanes import (
    BIAS,
    DELTA,
    DENSE,
    GRADIENT_MAX,
    GRADIENT_MIN,
    LANES,
    LIVE,
    MARGIN,
)

_UNROLL = 4
_FLOAT = ir.FloatType()
_INT32 = ir.IntType(32)
_INT64 = ir.IntType(64)
_VECTOR = ir.VectorType(_FLOAT, LANES)
_HALVES = ir.VectorType(ir.HalfType(), LANES)
_FLAGS = ir.VectorType(ir.IntType(1), LANES)
_INT16 = ir.IntType(16)

ADDS_PRODUCTS = "avx512vnni" in target_features()
"""Whether four products of bytes, or two of 16-bit numbers, and their sum are one instruction
(AVX-512 VNNI: Intel since Ice Lake, AMD since Zen 4)."""

# numba gives its code generators no types.
_alloca: Any = cgutils.alloca_once_value
_make_array: Any = arrayobj.make_array


def _constant(value: float) -> ir.Constant:
    return ir.Constant(_VECTOR, [value] * LANES)


def _splat(builder: Any, scalar: Any) -> Any:
    undefined = ir.Constant(ir.VectorType(scalar.type, LANES), ir.Undefined)
    first = builder.insert_element(undefined, scalar, _INT32(0))
    zeros = ir.Constant(ir.VectorType(_INT32, LANES), [0] * LANES)
    return builder.shuffle_vector(first, undefined, zeros)


def _intrinsic(builder: Any, name: str, result: Any, arguments: list[Any]) -> Any:
    """A call of one of LLVM's own functions, which is declared where the module lacks it."""
    function = builder.module.globals.get(name)
    if function is None:
        form = ir.FunctionType(result, [argument.type for argument in arguments])
        function = ir.Function(builder.module, form, name)
    return builder.call(function, arguments)


def _multiply_add(builder: Any, a: Any, b: Any, c: Any) -> Any:
    """a * b + c: one instruction where the processor has it, two elsewhere."""
    return _intrinsic(builder, f"llvm.fmuladd.v{LANES}f32", _VECTOR, [a, b, c])


class _Array:
    """Element and row access to a contiguous array argument inside generated code."""

    def __init__(self, context: Any, builder: Any, type_: Any, value: Any) -> None:
        self.builder = builder
        self.data = _make_array(type_)(context, builder, value).data
        self.element = _INT32 if type_.dtype == types.int32 else _FLOAT

    def get(self, index: Any) -> Any:
        place = self.builder.gep(self.data, [index], source_etype=self.element)
        return self.builder.load(place, typ=self.element)

    def _place(self, row: Any) -> Any:
        offset = self.builder.mul(row, _INT64(LANES))
        place = self.builder.gep(self.data, [offset], source_etype=self.element)
        return self.builder.bitcast(place, _VECTOR.as_pointer())

    def row(self, row: Any) -> Any:
        return self.builder.load(self._place(row), typ=_VECTOR, align=4)

    def set_row(self, row: Any, vector: Any) -> None:
        self.builder.store(vector, self._place(row), align=4)


def _unpack(context: Any, builder: Any, signature: Any, args: Any) -> list[Any]:
    """Arrays become `_Array`, numbers stay as they are."""
    return [
        _Array(context, builder, t, a) if isinstance(t, types.Array) else a
        for t, a in zip(signature.args, args, strict=True)
    ]


@intrinsic
def dot(typing_context, W, indices, values, start, end, out, row):  # type: ignore[no-untyped-def]
    signature = types.void(W, indices, values, types.int64, types.int64, out, types.int64)

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        W, indices, values, start, end, out, row = _unpack(context, builder, signature, args)
        # Four independent sums: with one, each multiply-add waits for the one before it.
        sums = [_alloca(builder, _constant(0.0)) for _ in range(_UNROLL)]

        def add(j: Any, total: Any) -> None:
            weights = W.row(builder.sext(indices.get(j), _INT64))
            old = builder.load(total, typ=_VECTOR)
            new = _multiply_add(builder, _splat(builder, values.get(j)), weights, old)
            builder.store(new, total)

        step = _INT64(_UNROLL)
        rest = builder.srem(builder.sub(end, start), step)
        middle = builder.sub(end, rest)
        with cgutils.for_range_slice(builder, start, middle, step, _INT64) as (j, _):
            for u in range(_UNROLL):
                add(builder.add(j, _INT64(u)), sums[u])
        with cgutils.for_range_slice(builder, middle, end, _INT64(1), _INT64) as (j, _):
            add(j, sums[0])
        a, b, c, d = (builder.load(total, typ=_VECTOR) for total in sums)
        out.set_row(row, builder.fadd(builder.fadd(a, b), builder.fadd(c, d)))
        return context.get_dummy_value()

    return signature, codegen


@intrinsic
def axpy(typing_context, W, indices, values, start, end, delta, row):  # type: ignore[no-untyped-def]
    signature = types.void(W, indices, values, types.int64, types.int64, delta, types.int64)

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        W, indices, values, start, end, delta, row = _unpack(context, builder, signature, args)
        change = delta.row(row)
        with cgutils.for_range_slice(builder, start, end, _INT64(1), _INT64) as (j, _):
            target = builder.sext(indices.get(j), _INT64)
            x = _splat(builder, values.get(j))
            W.set_row(target, _multiply_add(builder, x, change, W.row(target)))
        return context.get_dummy_value()

    return signature, codegen


@intrinsic
def rank_update(typing_context, F, gram, rows, delta, n):  # type: ignore[no-untyped-def]
    signature = types.void(F, gram, rows, delta, types.int64)

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        F, _, rows, delta, n = _unpack(context, builder, signature, args)
        # Rows of `gram` are as long as its second dimension says, not LANES.
        gram = _make_array(signature.args[1])(context, builder, args[1])
        data, width = gram.data, builder.extract_value(gram.shape, 1)
        starts = [
            builder.mul(builder.sext(rows.get(_INT64(u)), _INT64), width) for u in range(_UNROLL)
        ]
        changes = [delta.row(_INT64(u)) for u in range(_UNROLL)]
        with cgutils.for_range_slice(builder, _INT64(0), n, _INT64(1), _INT64) as (j, _):
            total = F.row(j)
            for begin, change in zip(starts, changes, strict=True):
                place = builder.gep(data, [builder.add(begin, j)], source_etype=_FLOAT)
                g = _splat(builder, builder.load(place, typ=_FLOAT))
                total = _multiply_add(builder, g, change, total)
            F.set_row(j, total)
        return context.get_dummy_value()

    return signature, codegen


@intrinsic
def pending_row(typing_context, F, gram, rows, delta, n, j, out, row):  # type: ignore[no-untyped-def]
    i64 = types.int64
    signature = types.void(F, gram, rows, delta, i64, i64, out, i64)

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        F, _, rows, delta, n, j, out, row = _unpack(context, builder, signature, args)
        (gram,) = _matrices(context, builder, signature, args, 1)
        total = _alloca(builder, F.row(j))
        with cgutils.for_range_slice(builder, _INT64(0), n, _INT64(1), _INT64) as (u, _):
            begin = gram.begin(builder.sext(rows.get(u), _INT64))
            place = builder.gep(begin, [j], source_etype=_FLOAT)
            g = _splat(builder, builder.load(place, typ=_FLOAT))
            old = builder.load(total, typ=_VECTOR)
            builder.store(_multiply_add(builder, g, delta.row(u), old), total)
        out.set_row(row, builder.load(total, typ=_VECTOR))
        return context.get_dummy_value()

    return signature, codegen


@intrinsic
def copy_row(typing_context, source, from_row, target, to_row):  # type: ignore[no-untyped-def]
    signature = types.void(source, types.int64, target, types.int64)

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        source, from_row, target, to_row = _unpack(context, builder, signature, args)
        target.set_row(to_row, source.row(from_row))
        return context.get_dummy_value()

    return signature, codegen


@intrinsic
def above(typing_context, W, row, threshold):  # type: ignore[no-untyped-def]
    signature = types.int32(W, types.int64, types.float32)

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        W, row, threshold = _unpack(context, builder, signature, args)
        w = W.row(row)
        size = builder.select(builder.fcmp_ordered("<", w, _constant(0.0)), builder.fneg(w), w)
        flags = builder.fcmp_ordered(">=", size, _splat(builder, threshold))
        mask = builder.zext(builder.bitcast(flags, ir.IntType(LANES)), _INT32)
        return mask

    return signature, codegen


def make_step(hinge: bool) -> Any:
    """One dual coordinate step; see `plain_step` in simd.py, which has the formulas."""

    @intrinsic
    def step(typing_context, state, coefficient, beta, row, square, own, bias, lanes, still):  # type: ignore[no-untyped-def]
        f32 = types.float32
        i64 = types.int64
        signature = i64(state, coefficient, beta, i64, f32, f32, f32, i64, f32)

        def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
            b = builder
            state, coefficient, beta, row, square, own, bias, lanes, still = _unpack(
                context, builder, signature, args
            )

            def at(index: int) -> Any:
                return state.row(_INT64(index))

            def put(index: int, vector: Any) -> None:
                state.set_row(_INT64(index), vector)

            zero, one = _constant(0.0), _constant(1.0)
            bias = _splat(b, bias)
            c, old = coefficient.row(row), beta.row(row)
            y = b.select(b.fcmp_ordered("<", c, zero), _constant(-1.0), one)
            size = b.fmul(c, y)
            alpha = b.fmul(old, y)
            margin = b.fadd(at(MARGIN), at(DENSE))
            margin = _multiply_add(b, bias, at(BIAS), margin)
            margin = _multiply_add(b, _splat(b, own), old, margin)
            gradient = b.fsub(b.fmul(y, margin), one)
            curvature = _splat(b, square)
            if not hinge:
                gradient = _multiply_add(b, alpha, size, gradient)
                curvature = b.fadd(curvature, size)
            negative = b.select(b.fcmp_ordered("<", gradient, zero), gradient, zero)
            projected = b.select(b.fcmp_ordered("<=", alpha, zero), negative, gradient)
            if hinge:
                positive = b.select(b.fcmp_ordered(">", gradient, zero), gradient, zero)
                projected = b.select(b.fcmp_ordered(">=", alpha, size), positive, projected)

            on = b.and_(b.fcmp_ordered(">", at(LIVE), zero), b.fcmp_ordered("!=", c, zero))
            on = b.and_(on, b.bitcast(b.trunc(lanes, _INT16), _FLAGS))
            highest, lowest = at(GRADIENT_MAX), at(GRADIENT_MIN)
            higher = b.and_(on, b.fcmp_ordered(">", projected, highest))
            lower = b.and_(on, b.fcmp_ordered("<", projected, lowest))
            put(GRADIENT_MAX, b.select(higher, projected, highest))
            put(GRADIENT_MIN, b.select(lower, projected, lowest))

            new = b.fsub(alpha, b.fdiv(gradient, curvature))
            new = b.select(b.fcmp_ordered(">", new, zero), new, zero)
            if hinge:
                new = b.select(b.fcmp_ordered("<", new, size), new, size)
            size = b.select(b.fcmp_ordered("<", projected, zero), b.fneg(projected), projected)
            moves = b.and_(on, b.fcmp_ordered(">", size, _splat(b, still)))
            delta = b.select(moves, b.fmul(b.fsub(new, alpha), y), zero)
            changed = b.fadd(old, delta)
            beta.set_row(row, changed)
            put(DELTA, delta)
            put(BIAS, _multiply_add(b, bias, delta, at(BIAS)))
            moved = b.zext(b.bitcast(b.fcmp_unordered("!=", delta, zero), _INT16), _INT64)
            held = b.and_(on, b.fcmp_unordered("!=", changed, zero))
            held = b.zext(b.bitcast(held, _INT16), _INT64)
            return b.or_(moved, b.shl(held, _INT64(LANES)))

        return signature, codegen

    return step


@intrinsic
def squares(typing_context, W, start, end, out, row):  # type: ignore[no-untyped-def]
    signature = types.void(W, types.int64, types.int64, out, types.int64)

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        W, start, end, out, row = _unpack(context, builder, signature, args)
        total = _alloca(builder, _constant(0.0))
        with cgutils.for_range_slice(builder, start, end, _INT64(1), _INT64) as (j, _):
            w = W.row(j)
            builder.store(_multiply_add(builder, w, w, builder.load(total, typ=_VECTOR)), total)
        out.set_row(row, builder.load(total, typ=_VECTOR))
        return context.get_dummy_value()

    return signature, codegen


@intrinsic
def weighted_squares(typing_context, W, weights, start, end, out, row):  # type: ignore[no-untyped-def]
    signature = types.void(W, weights, types.int64, types.int64, out, types.int64)

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        W, weights, start, end, out, row = _unpack(context, builder, signature, args)
        total = _alloca(builder, _constant(0.0))
        with cgutils.for_range_slice(builder, start, end, _INT64(1), _INT64) as (j, _):
            w = W.row(j)
            weighted = builder.fmul(_splat(builder, weights.get(j)), w)
            old = builder.load(total, typ=_VECTOR)
            builder.store(_multiply_add(builder, weighted, w, old), total)
        out.set_row(row, builder.load(total, typ=_VECTOR))
        return context.get_dummy_value()

    return signature, codegen


def _shuffle(builder: Any, a: Any, b: Any, order: list[int]) -> Any:
    mask = ir.Constant(ir.VectorType(_INT32, LANES), order)
    return builder.shuffle_vector(a, b, mask)


def _folded(builder: Any, vectors: list[Any], add: Any) -> Any:
    """Of 1 to 16 vectors, a power of two, one vector: element u * 16 / n is the sum over the
    elements of vectors[u]. They are folded onto each other, two at a time."""

    def fold(left: Any, right: Any, width: int) -> Any:
        # Parts of 2 * width elements become parts of width; all of left's come first.
        low = [i for i in range(2 * LANES) if i // width % 2 == 0]
        return add(
            _shuffle(builder, left, right, low),
            _shuffle(builder, left, right, [i + width for i in low]),
        )

    width = LANES // 2
    while len(vectors) > 1:
        pairs = zip(vectors[::2], vectors[1::2], strict=True)
        vectors = [fold(left, right, width) for left, right in pairs]
        width //= 2
    (total,) = vectors
    while width > 0:
        turned = _shuffle(builder, total, total, [i ^ width for i in range(LANES)])
        total = add(total, turned)
        width //= 2
    return total


def _sums(builder: Any, vectors: list[Any], add: Any = None) -> list[Any]:
    """The sums over the elements of each of 4 vectors, of floats where `add` is not given."""
    total, stride = _folded(builder, vectors, add or builder.fadd), LANES // len(vectors)
    return [builder.extract_element(total, _INT32(stride * u)) for u in range(len(vectors))]


class _Matrix:
    """A contiguous matrix whose rows are as long as its second dimension says."""

    def __init__(self, context: Any, builder: Any, type_: Any, value: Any) -> None:
        self.builder = builder
        array = _make_array(type_)(context, builder, value)
        self.data = array.data
        self.element = context.get_data_type(type_.dtype)
        self.width = builder.extract_value(array.shape, type_.ndim - 1)

    def begin(self, row: Any) -> Any:
        """Address of a row's first element."""
        offset = self.builder.mul(row, self.width)
        return self.builder.gep(self.data, [offset], source_etype=self.element)

    def _place(self, begin: Any, offset: Any, vector: Any) -> Any:
        place = self.builder.gep(begin, [offset], source_etype=self.element)
        return self.builder.bitcast(place, vector.as_pointer())

    def load(self, begin: Any, offset: Any, vector: Any = _VECTOR) -> Any:
        return self.builder.load(self._place(begin, offset, vector), typ=vector, align=1)

    def store(self, begin: Any, offset: Any, vector: Any) -> None:
        self.builder.store(vector, self._place(begin, offset, vector.type), align=1)


def _matrices(context: Any, builder: Any, signature: Any, args: Any, *which: int) -> list[Any]:
    return [_Matrix(context, builder, signature.args[i], args[i]) for i in which]


@intrinsic
def four_by_four(typing_context, A, first, B, second, n_dims, out):  # type: ignore[no-untyped-def]
    signature = types.void(A, types.int64, B, types.int64, types.int64, out)

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        b = builder
        A, B, out = _matrices(context, b, signature, args, 0, 2, 5)
        zero, line = _INT64(0), _INT64(LANES)
        rows = [A.begin(b.add(args[1], _INT64(u))) for u in range(4)]
        columns = [B.begin(b.add(args[3], _INT64(u))) for u in range(4)]
        sums = [_alloca(b, _constant(0.0)) for _ in range(16)]
        for total in sums:
            b.store(_constant(0.0), total)
        with cgutils.for_range_slice(b, zero, args[4], line, _INT64) as (j, _):
            values = [B.load(columns[u], j) for u in range(4)]
            for u in range(4):
                left = A.load(rows[u], j)
                for v in range(4):
                    total = sums[4 * u + v]
                    old = b.load(total, typ=_VECTOR)
                    b.store(_multiply_add(b, left, values[v], old), total)
        for u in range(4):
            four = [b.load(total, typ=_VECTOR) for total in sums[4 * u : 4 * u + 4]]
            for v, total in enumerate(_sums(b, four)):
                place = b.gep(out.data, [_INT64(4 * u + v)], source_etype=_FLOAT)
                b.store(total, place)
        return context.get_dummy_value()

    return signature, codegen


@intrinsic
def narrow(typing_context, values, scale, halves):  # type: ignore[no-untyped-def]
    signature = types.void(values, types.float32, halves)

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        b = builder
        values = _Array(context, b, signature.args[0], args[0])
        halves = _make_array(signature.args[2])(context, b, args[2])
        scale = _splat(b, args[1])
        n = b.extract_value(halves.shape, 0)
        zero, line = _INT64(0), _INT64(LANES)
        middle = b.sub(n, b.srem(n, line))
        with cgutils.for_range_slice(b, zero, middle, line, _INT64) as (j, _):
            place = b.gep(values.data, [j], source_etype=_FLOAT)
            wide = b.load(b.bitcast(place, _VECTOR.as_pointer()), typ=_VECTOR, align=4)
            wide = b.fmul(wide, scale)
            place = b.gep(halves.data, [j], source_etype=_INT16)
            b.store(b.fptrunc(wide, _HALVES), b.bitcast(place, _HALVES.as_pointer()), align=2)
        with cgutils.for_range_slice(b, middle, n, _INT64(1), _INT64) as (j, _):
            wide = b.fmul(_splat(b, values.get(j)), scale)
            first = b.extract_element(b.fptrunc(wide, _HALVES), _INT32(0))
            b.store(b.bitcast(first, _INT16), b.gep(halves.data, [j], source_etype=_INT16))
        return context.get_dummy_value()

    return signature, codegen
