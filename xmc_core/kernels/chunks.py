"""Margins of a node's children for one row: what every kind of search spends its time on.

The weights of a node's children lie by feature, in two forms. In chunks of up to 16 children, one
or a few a node: a mask says which of them have a weight, and the weights follow one another
(`MASKS`). In one chunk a node, whatever its size: each weight has the child's number beside it
(`BYTES`, `SHORTS`, `INTS`, after that number's width).

A chunk's features are found by quotienting (Cleary, "Compact Hash Tables Using Bidirectional
Linear Probing", IEEE Trans. Computers 1984): a feature is multiplied modulo a power of two; the
upper bits of the result name one of the chunk's buckets, the lower bits are what is stored, in one
byte mostly. A bucket holds 4 to 8 features and is compared in one instruction. That takes a third
of a list of features and a tenth of a bitmap where chunks are sparse, and needs nothing to be built
at loading. Where a chunk has one hashed feature in five or more, as on the upper levels, a bitmap
is smaller, and read once: for each 32 hashed features how many rows come before theirs, and which
of the 32 there are (`BITMAP`).

What a large model costs is misses of the caches, a line of a chunk for nearly every feature of the
row. So each step (bucket, remainders, pointer to the weights, weights) goes over all features of
the row before the next one does, and asks for the lines that the next one reads.

Weights of dense columns lie child by child, and so do the row's values.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from xmc_core.kernels._compile import kernel
from xmc_core.kernels.bits import U64, lowest_bit, popcount
from xmc_core.kernels.lanes import LANES
from xmc_core.kernels.prefetch import prefetch
from xmc_core.kernels.search_simd import add_dots, add_products, expand_dot, find, weight
from xmc_core.kernels.views import (
    float32_at,
    int16_at,
    int32_at,
    int64_at,
    uint8_at,
    uint16_at,
    uint32_at,
)
from xmc_core.kernels.whole_numbers import LARGEST_VALUE, round_row
from xmc_core.types import Bytes, Floats, Indices, Pointers, SignedShorts

FIELDS = (
    "parents", "widest", "form", "single", "wide_remainders", "base_bits", "exponent",
    "post_processor", "pointer", "biases", "parent_chunks", "chunk_pointer", "bucket_pointer",
    "remainder_pointer", "shifts", "index", "remainders", "row_base", "row_pointer", "places",
    "values", "allowed", "first_dense", "n_dims", "width", "dense", "dense_units",
)  # fmt: skip
"""Columns of the table of levels: numbers, then the addresses of arrays (ChunkedWeights says what
they hold; `allowed` is 0 where every node is)."""
(
    PARENTS, WIDEST, FORM, SINGLE, WIDE_REMAINDERS, BASE_BITS, EXPONENT, POST_PROCESSOR, POINTER,
    BIASES, PARENT_CHUNKS, CHUNK_POINTER, BUCKET_POINTER, REMAINDER_POINTER, SHIFTS, INDEX,
    REMAINDERS, ROW_BASE, ROW_POINTER, PLACES, VALUES, ALLOWED, FIRST_DENSE, N_DIMS, WIDTH, DENSE,
    DENSE_UNITS,
) = range(len(FIELDS))  # fmt: skip

MASKS, BYTES, SHORTS, INTS = range(4)

BITMAP = 255
"""The shift of a chunk that has a bitmap instead of buckets."""

I64: Any = np.int64


class Scratch(NamedTuple):
    """Addresses of memory for the hits of one row in one chunk, and for the margins.

    Not the arrays themselves: counting who holds them, eight times a chunk, took longer than
    looking up the features of a title.
    """

    rows: int
    values: int
    starts: int
    ends: int
    masks: int
    margins: int


class Row(NamedTuple):
    """Addresses of what is searched for: one row of X."""

    n_features: int
    """Of its sparse part."""

    hashed: int
    values: int
    dense: int
    shorts: int
    """Its dense part in whole numbers of `scale`."""

    scale: np.float32


@kernel
def scratch_bytes(longest: int, widest: int) -> int:
    # `longest`: non-zeros of the longest row. One more: a miss is written too, and not counted.
    return (longest + 1) * (4 + 4 + 8 + 8 + 2) + (widest + 2 * LANES) * 4 + 64


@kernel
def scratch_in(memory: Bytes, longest: int, widest: int) -> Scratch:
    n = longest + 1
    margins = (memory.ctypes.data + 63) // 64 * 64
    starts = margins + (widest + LANES) // LANES * LANES * 4
    ends = starts + 8 * n
    rows = ends + 8 * n
    values = rows + 4 * n
    return Scratch(rows, values, starts, ends, values + 4 * n, margins)


@kernel
def split_rows(
    level_address: int,  # row of the table
    indptr: Pointers,
    indices: Indices,
    values: Floats,
    begin: int,  # rows begin : end
    end: int,
    ends: Pointers,  # (end - begin,) out: where the sparse part of each row ends
    dense: Floats,  # (end - begin, width) out: the rest
    shorts: SignedShorts,  # (end - begin, width) out: the same in whole numbers, if needed
    scales: Floats,  # (end - begin,) out: of these
) -> None:
    level = int64_at(level_address)
    first, n_dims = level[FIRST_DENSE], level[N_DIMS]
    for r in range(end - begin):
        stop = indptr[begin + r + 1]
        if n_dims == 0:
            ends[r] = stop
            continue
        split = stop - n_dims
        if split >= indptr[begin + r] and indices[split] == first:  # all of them, in order
            for d in range(n_dims):
                dense[r, d] = values[split + d]
            dense[r, n_dims:] = 0.0
        else:
            dense[r] = 0.0
            split = stop
            while split > indptr[begin + r] and indices[split - 1] >= first:
                split -= 1
                dense[r, indices[split] - first] = values[split]
        ends[r] = split
        if not level[SINGLE]:
            scales[r] = round_row(dense, r, LARGEST_VALUE, shorts, r)


@kernel
def hash_features(
    indptr: Pointers,
    indices: Indices,
    begin: int,  # rows begin : end
    ends: Pointers,
    multiplier: int,
    bits: int,
) -> Indices:
    # Of the sparse parts of rows, each as far from the first as it lies in `indices`.
    first = indptr[begin]
    hashed = np.empty(indptr[begin + len(ends)] - first, np.int32)
    keep = (1 << bits) - 1
    for r in range(len(ends)):
        for j in range(indptr[begin + r], ends[r]):
            hashed[j - first] = (indices[j] * multiplier) & keep
    return hashed


@kernel
def chunk_margins(
    vector: bool,
    level_address: int,  # row of the table
    parent: int,
    x: Row,
    scratch: Scratch,
) -> int:
    # Fills margins[0 : children], -inf in the rest of the last tile; returns the children.
    level = int64_at(level_address)
    place: Any = U64(parent)
    pointer = int64_at(level[POINTER])
    n_children: int = pointer[place + U64(1)] - pointer[place]
    parent_chunks = int64_at(level[PARENT_CHUNKS])
    first_chunk = parent_chunks[place]
    for chunk in range(first_chunk, parent_chunks[place + U64(1)]):
        at = scratch.margins + 4 * LANES * (chunk - first_chunk)
        add_chunk(vector, level_address, chunk, x, at, scratch)

    biases = float32_at(level[BIASES] + 4 * pointer[place])
    power = np.float32(2.0 ** level[EXPONENT])
    margins = float32_at(scratch.margins)
    for i in range(U64(n_children)):
        margins[i] = margins[i] * power + biases[i]
    width = level[WIDTH]
    if width > 0:
        begin = pointer[place] * width
        if level[SINGLE]:
            weights = float32_at(level[DENSE] + 4 * begin)
            add_dots(vector, weights, n_children, width, float32_at(x.dense), margins)
        else:
            numbers = int16_at(level[DENSE] + 2 * begin)
            units = float32_at(level[DENSE_UNITS] + 4 * pointer[place])
            add_products(
                vector, numbers, units, n_children, width, int16_at(x.shorts), x.scale, margins
            )
    for i in range(U64(n_children), U64((n_children + LANES - 1) // LANES * LANES)):
        margins[i] = -np.inf
    return n_children


@kernel
def add_chunk(
    vector: bool,
    level_address: int,
    number: int,
    x: Row,
    margins: int,  # address of the sums of this chunk's children
    scratch: Scratch,
) -> None:
    level = int64_at(level_address)
    chunk: Any = U64(number)
    chunk_pointer = int64_at(level[CHUNK_POINTER])
    first = chunk_pointer[chunk]
    n_hits = 0
    if chunk_pointer[chunk + U64(1)] > first:
        index = level[INDEX] + 4 * int64_at(level[BUCKET_POINTER])[chunk]
        starts = uint16_at(index)
        shift = I64(uint8_at(level[SHIFTS])[chunk])
        place = int64_at(level[REMAINDER_POINTER])[chunk]
        pointer_shift = 2 if level[FORM] == MASKS else 1
        pointers = uint8_at(level[ROW_POINTER] + (first << pointer_shift))
        if shift == BITMAP:
            n_hits = find_bits(x, uint32_at(index), pointers, pointer_shift, scratch)
        elif level[WIDE_REMAINDERS]:
            remainders = uint16_at(level[REMAINDERS] + 2 * place)
            n_hits = find_rows(
                vector, x, starts, shift, remainders, pointers, pointer_shift, scratch
            )
        else:
            bytes_ = uint8_at(level[REMAINDERS] + place)
            n_hits = find_rows(vector, x, starts, shift, bytes_, pointers, pointer_shift, scratch)

    if level[SINGLE]:
        weights = float32_at(level[VALUES])
        add_hits(vector, level_address, first, n_hits, weights, margins, scratch)
    else:
        halves = uint16_at(level[VALUES])
        add_hits(vector, level_address, first, n_hits, halves, margins, scratch)


@kernel
def find_rows(
    vector: bool,
    x: Row,
    starts: NDArray[np.uint16],  # of the chunk
    shift: int,
    remainders: NDArray[Any],  # of the chunk
    pointers: Bytes,  # of the chunk's rows to their weights
    pointer_shift: int,  # each of 2^pointer_shift bytes
    scratch: Scratch,
) -> int:
    # Chunk rows that the row's features hit: first where their buckets are, then what is in them.
    hashed, values = int32_at(x.hashed), float32_at(x.values)
    rows, row_values = int32_at(scratch.rows), float32_at(scratch.values)
    begins, ends = int64_at(scratch.starts), int64_at(scratch.ends)
    for j in range(U64(x.n_features)):
        bucket = U64(I64(hashed[j]) >> shift)
        begins[j] = I64(starts[bucket])
        ends[j] = I64(starts[bucket + U64(1)])
        prefetch(remainders, begins[j])

    n = U64(0)
    keep = (1 << shift) - 1
    for j in range(U64(x.n_features)):
        h = I64(hashed[j]) & keep
        row = begins[j]
        size = ends[j] - row
        found = find(vector, remainders, row, h) & ((1 << min(size, I64(LANES))) - 1)
        if size > LANES and found == 0:  # one bucket in some hundred
            last = row + size
            while found == 0 and row + LANES < last:
                row += LANES
                found = find(vector, remainders, row, h)
                found &= (1 << min(last - row, I64(LANES))) - 1
        # Written first, counted after: no branch to guess.
        row += lowest_bit(U64(found | 1 << LANES))
        prefetch(pointers, (row << pointer_shift) * I64(found != 0))  # no line for a miss
        rows[n] = row
        row_values[n] = values[j]
        n += U64(found != 0)
    n_hits: int = I64(n)
    return n_hits


@kernel
def find_bits(
    x: Row,
    bitmap: NDArray[np.uint32],  # of the chunk: rows before 32 hashed features; which there are
    pointers: Bytes,
    pointer_shift: int,
    scratch: Scratch,
) -> int:
    # As find_rows, in a chunk with a bitmap.
    hashed, values = int32_at(x.hashed), float32_at(x.values)
    rows, row_values = int32_at(scratch.rows), float32_at(scratch.values)
    n = U64(0)
    for j in range(U64(x.n_features)):
        h = I64(hashed[j])
        word = U64(h >> 5 << 1)
        bits, bit = I64(bitmap[word + U64(1)]), h & 31
        there = (bits >> bit) & 1
        row = I64(bitmap[word]) + popcount(U64(bits & ((1 << bit) - 1)))
        prefetch(pointers, (row << pointer_shift) * there)
        rows[n] = row
        row_values[n] = values[j]
        n += U64(there)
    n_hits: int = I64(n)
    return n_hits


@kernel
def add_hits(
    vector: bool,
    level_address: int,
    first: int,
    n_hits: int,
    weights: NDArray[Any],
    margins_address: int,
    scratch: Scratch,
) -> None:
    level = int64_at(level_address)
    base_bits = level[BASE_BITS]
    row_base, rows = int64_at(level[ROW_BASE]), int32_at(scratch.rows)
    starts, values = int64_at(scratch.starts), float32_at(scratch.values)
    n = U64(n_hits)
    if level[FORM] == MASKS:
        masks, packed = uint16_at(scratch.masks), uint32_at(level[ROW_POINTER])
        for h in range(n):
            row = first + rows[h]
            pointer_and_mask = I64(packed[U64(row)])
            starts[h] = row_base[U64(row >> base_bits)] + (pointer_and_mask & 0xFFFF)
            masks[h] = pointer_and_mask >> 16
            prefetch(weights, starts[h])
        margins = float32_at(margins_address)
        expand_dot(vector, weights, starts, masks, values, n_hits, margins)
        return
    ends, row_pointer = int64_at(scratch.ends), uint16_at(level[ROW_POINTER])
    places = uint8_at(level[PLACES])
    place_shift = level[FORM] - BYTES  # each of 2^place_shift bytes
    for h in range(n):
        row = first + rows[h]
        starts[h] = row_base[U64(row >> base_bits)] + I64(row_pointer[U64(row)])
        prefetch(weights, starts[h])
        prefetch(places, starts[h] << place_shift)
        row += 1
        ends[h] = row_base[U64(row >> base_bits)] + I64(row_pointer[U64(row)])
    if level[FORM] == BYTES:
        add_entries(uint8_at(level[PLACES]), weights, n_hits, level[WIDEST], scratch)
    elif level[FORM] == SHORTS:
        add_entries(uint16_at(level[PLACES]), weights, n_hits, level[WIDEST], scratch)
    else:
        add_entries(int32_at(level[PLACES]), weights, n_hits, level[WIDEST], scratch)


@kernel
def add_entries(
    places: NDArray[Any], weights: NDArray[Any], n_hits: int, widest: int, scratch: Scratch
) -> None:
    margins, values = float32_at(scratch.margins), float32_at(scratch.values)
    starts, ends = int64_at(scratch.starts), int64_at(scratch.ends)
    for i in range(U64(widest)):
        margins[i] = 0.0
    for h in range(U64(n_hits)):
        x = values[h]
        for e in range(U64(starts[h]), U64(ends[h])):
            margins[U64(places[e])] += x * weight(weights, e)
