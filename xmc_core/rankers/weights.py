"""The weights of one level of the tree, in the layout that search reads."""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xmc_core.errors import ShapeError
from xmc_core.kernels import chunks
from xmc_core.kernels.arguments import read_only
from xmc_core.kernels.dense_rows import padded
from xmc_core.kernels.halves import largest_size, narrow
from xmc_core.kernels.lanes import LANES
from xmc_core.kernels.simd import HAVE_VECTOR_CODE
from xmc_core.kernels.views import address_of
from xmc_core.kernels.weights import count_rows, fill_entries, fill_rows, point_rows
from xmc_core.memory import return_freed_memory
from xmc_core.parallel import map_threads
from xmc_core.solvers.scratch import ScratchPool
from xmc_core.solvers.siblings import DenseWeights, Tiles, parent_runs
from xmc_core.types import Bytes, Floats, Indices, Pointers

HALF, SINGLE = "half", "single"

MOST_CHUNKS = 2.5

MOST_IN_BUCKETS = 2**16 - 1
"""Rows of a chunk that are still counted in 16 bits."""

_ARRAYS: dict[str, tuple[Any, ...]] = {
    "pointer": (np.int64,),
    "biases": (np.float32,),
    "chunk_pointer": (np.int64,),
    "bucket_pointer": (np.int64,),
    "remainder_pointer": (np.int64,),
    "shifts": (np.uint8,),
    "index": (np.uint32,),
    "remainders": (np.uint8, np.uint16),
    "row_base": (np.int64,),
    "row_pointer": (np.uint16, np.uint32),
    "places": (np.uint8, np.uint16, np.int32),
    "values": (np.uint16, np.float32),
    "exponent": (np.int32,),
    "dense": (np.int16, np.float32),
    "dense_units": (np.float32,),
    "dense_columns": (np.int64,),
}
"""The types that search reads each array as."""


@dataclass(frozen=True, eq=False)
class ChunkedWeights:
    """One linear classifier per node of a level, grouped by parent, in chunks.

    A node's margin for a row x is w·x + bias. For each feature that any child in a chunk uses the
    chunk has a row: the weights of those children that use it. 3 to 4 bytes a row say where it
    is (kernels/chunks.py), a weight takes 2 bytes as `half` and 4 as `single`. Where parents have
    few children (`in_tiles`) a chunk has up to 16 of them; else all of a parent's, and a weight
    takes another byte or more for the child's number.
    """

    n_features: int
    pointer: Pointers
    """(parents + 1,) children of parent c are pointer[c] : pointer[c + 1]."""

    biases: Floats
    """(n_children,), the constant feature's value already multiplied in."""

    chunk_pointer: Pointers
    """(chunks + 1,) rows of chunk c, one per feature."""

    bucket_pointer: Pointers
    """(chunks + 1,) into `index`."""

    remainder_pointer: Pointers
    """(chunks + 1,) into `remainders`: as `chunk_pointer`, but chunks with a bitmap have none."""

    shifts: Bytes
    """(chunks,) bits of a hashed feature that are the remainder; those above name the bucket.
    chunks.BITMAP: there are no buckets."""

    index: NDArray[np.uint32]
    """What chunk c has at index[bucket_pointer[c]]: for each bucket where its rows begin, counted
    from the chunk's first, and for one more where the last one ends, two to a word. Of a bitmap:
    for each 32 hashed features how many rows come before theirs, and the bits of those that have
    one."""

    remainders: NDArray[Any]
    """(rows in buckets + 16,) uint8 or uint16; the last 16 are to be read, not to be found."""

    row_base: Pointers
    row_pointer: NDArray[Any]
    """(rows + 1,) weights of row t begin at row_base[t >> base_bits] + row_pointer[t]. uint16; with
    chunks of 16 children uint32, the upper half of which says which children have a weight: read
    together, for one miss of the cache instead of two."""

    places: NDArray[Any]
    """(weights,) number of the child, in the smallest of uint8, uint16 and int32 that does; (0,)
    where `row_pointer` says it."""

    values: NDArray[Any]
    """(weights,) float32, or uint16, the bits of halves, to be multiplied with 2 ** exponent."""

    exponent: Indices
    """(1,)"""

    dense: NDArray[Any]
    """(n_children, n_dims rounded up to a multiple of 64) weights of the dense columns, none left
    out: float32, or as `half` int16, whole numbers of a child's unit (kernels/whole_numbers.py)."""

    dense_units: Floats
    """(n_children,); (0,) as `single`, or without dense columns."""

    dense_columns: Pointers
    """(2,) the first dense column, and how many there are."""

    def __post_init__(self) -> None:
        for name in _ARRAYS:
            object.__setattr__(self, name, read_only(getattr(self, name)))

    @property
    def n_children(self) -> int:
        return int(self.pointer[-1])

    @property
    def n_parents(self) -> int:
        return len(self.pointer) - 1

    @cached_property
    def widest(self) -> int:
        """Children of the parent that has most."""
        return int(np.diff(self.pointer).max(initial=0))

    @cached_property
    def parent_chunks(self) -> Pointers:
        """(parents + 1,) chunks of parent c are parent_chunks[c] : parent_chunks[c + 1]."""
        return read_only(chunks_of(self.pointer))

    @property
    def n_chunks(self) -> int:
        return int(self.parent_chunks[-1])

    @cached_property
    def chunk_width(self) -> int:
        """Children of the chunk that has most."""
        return LANES if in_tiles(self.pointer) else self.widest

    @property
    def nnz(self) -> int:
        """Weights, biases left out."""
        return len(self.values) + self.n_children * int(self.dense_columns[1])

    @property
    def nbytes(self) -> int:
        return int(sum(array.nbytes for array in self.arrays().values()))

    @property
    def precision(self) -> str:
        return HALF if self.values.dtype == np.uint16 else SINGLE

    @cached_property
    def row_of_table(self) -> Pointers:
        """What kernels get (chunks.FIELDS); its addresses are good as long as this object lives."""
        numbers = {
            "parents": self.n_parents,
            "widest": self.widest,
            "form": _form(self.chunk_width),
            "single": self.precision == SINGLE,
            "wide_remainders": self.remainders.dtype == np.uint16,
            "base_bits": base_bits(self.chunk_width),
            "exponent": int(self.exponent[0]),
            "first_dense": int(self.dense_columns[0]),
            "n_dims": int(self.dense_columns[1]),
            "width": self.dense.shape[1],
        }
        row = np.zeros(len(chunks.FIELDS), np.int64)
        for place, name in enumerate(chunks.FIELDS):
            if name in numbers:
                row[place] = numbers[name]
            elif name in (*_ARRAYS, "parent_chunks"):
                row[place] = address_of(getattr(self, name))
        return row

    def __reduce__(self) -> tuple[Any, ...]:
        # Copies are made anew from the arrays: what `row_of_table` remembers are addresses.
        return type(self), (self.n_features, *self.arrays().values())

    def to_dense(self) -> tuple[Floats, Floats]:
        """(n_children, n_features) weights and (n_children,) biases; for small levels only."""
        dense = np.zeros((self.n_children, self.n_features), np.float32)
        values = self._floats(self.values)
        n_rows = int(self.chunk_pointer[-1])
        bits = base_bits(self.chunk_width)
        rows = np.arange(n_rows + 1)
        begins = self.row_base[rows >> bits] + (self.row_pointer & np.uint16(0xFFFF))
        row_of = np.repeat(rows[:-1], np.diff(begins))
        if _form(self.chunk_width) == chunks.MASKS:
            flags = (self.row_pointer[:-1, None] >> np.arange(16, 16 + LANES)) & 1
            child = np.nonzero(flags)[1]
        else:
            child = self.places.astype(np.int64)
        parent = np.repeat(np.arange(self.n_parents), np.diff(self.parent_chunks))
        within = np.arange(self.n_chunks) - self.parent_chunks[parent]
        first_child = self.pointer[parent] + LANES * within
        chunk = np.repeat(np.arange(self.n_chunks), np.diff(self.chunk_pointer))
        dense[first_child[chunk[row_of]] + child, self.features()[row_of]] = values
        first, n_dims = self.dense_columns
        units = self.dense_units[:, None] if len(self.dense_units) else np.float32(1.0)
        dense[:, first : first + n_dims] = units * self.dense[:, :n_dims]
        return dense, np.array(self.biases)

    def _floats(self, values: NDArray[Any]) -> Floats:
        values = np.array(values)
        if self.precision == HALF:
            values = values.view(np.float16).astype(np.float32)
        floats: Floats = np.ldexp(values, self.exponent[0])
        return floats

    def features(self) -> Indices:
        """(rows,) the feature of each row, chunk after chunk."""
        multiplier, bits = hashing(self.n_features)
        back = pow(multiplier, -1, 2**bits)
        features = np.empty(int(self.chunk_pointer[-1]), np.int32)
        for c in range(self.n_chunks):
            first, last = self.chunk_pointer[c : c + 2]
            index, shift = self.index[slice(*self.bucket_pointer[c : c + 2])], int(self.shifts[c])
            if shift == chunks.BITMAP:
                hashed = np.flatnonzero((index[1::2, None] >> np.arange(32)) & 1)
            else:
                starts = index.view(np.uint16)[: (1 << (bits - shift)) + 1]
                bucket = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
                own = slice(*self.remainder_pointer[c : c + 2])
                hashed = (bucket << shift) + self.remainders[own]
            features[first:last] = (hashed * back) & (2**bits - 1)
        return features

    def arrays(self) -> dict[str, NDArray[Any]]:
        """What `from_arrays` needs to build the same object."""
        return {name: getattr(self, name) for name in _ARRAYS}

    @classmethod
    def from_arrays(cls, arrays: dict[str, NDArray[Any]], n_features: int) -> "ChunkedWeights":
        """Build from the arrays of `arrays()`, memory maps included; raises ShapeError if they do
        not fit together. Large arrays are not read."""
        weights = cls(n_features=n_features, **{name: arrays[name] for name in _ARRAYS})
        for name, types in _ARRAYS.items():
            if arrays[name].dtype not in types:
                raise ShapeError(
                    f"the array {name} of a level is of {arrays[name].dtype}, not of "
                    f"{' or '.join(np.dtype(type_).name for type_ in types)}."
                )
        n_chunks, rows = weights.n_chunks, int(weights.chunk_pointer[-1])
        width = weights.chunk_width
        as_masks = _form(width) == chunks.MASKS
        bits = hashing(n_features)[1]
        sizes = np.diff(weights.chunk_pointer)
        in_buckets = weights.shifts != chunks.BITMAP
        in_units = weights.precision == HALF and weights.dense.shape[1] > 0
        fits = (
            len(weights.biases) == weights.n_children
            and len(weights.chunk_pointer) == len(weights.bucket_pointer) == n_chunks + 1
            and len(weights.shifts) == n_chunks
            and bool(np.all(weights.shifts[in_buckets] <= bits))
            and np.array_equal(weights.bucket_pointer, _ends(words_of(weights.shifts, bits)))
            and np.array_equal(weights.remainder_pointer, _ends(sizes * in_buckets))
            and int(weights.bucket_pointer[-1]) == len(weights.index)
            and len(weights.remainders) == int(weights.remainder_pointer[-1]) + LANES
            and len(weights.row_pointer) == rows + 1
            and len(weights.row_base) == (rows >> base_bits(width)) + 1
            and int(weights.row_base[-1]) + int(weights.row_pointer[-1]) == len(weights.values)
            and weights.row_pointer.dtype == (np.uint32 if as_masks else np.uint16)
            and len(weights.places) == (0 if as_masks else len(weights.values))
            and weights.places.dtype == place_type(width)
            and len(weights.exponent) == 1
            and len(weights.dense_columns) == 2
            and (weights.dense.dtype == np.int16) == (weights.precision == HALF)
            and len(weights.dense_units) == (weights.n_children if in_units else 0)
            and len(weights.dense) == weights.n_children
            and weights.dense.shape[1] == padded(int(weights.dense_columns[1]))
            and int(weights.dense_columns.sum()) == n_features
        )
        if not fits:
            raise ShapeError(
                f"the arrays of a level with {weights.n_parents:,} parents, {rows:,} chunk rows "
                f"and {n_features:,} features do not fit together."
            )
        return weights

    @classmethod
    def from_tiles(
        cls,
        pieces: list[Tiles],
        dense: DenseWeights,
        pointer: Pointers,
        n_features: int,
        *,
        n_threads: int,
        scratch: ScratchPool,
        exponent: int | None = None,
    ) -> "ChunkedWeights":
        """Bring the tiles of a level, in order, into their chunks.

        The list is emptied, and what is no longer needed is freed on the way: a level of tail
        labels takes as much for the features of its rows as for its weights.

        `exponent`: that of round_to_halves, where it has rounded the weights of the tiles.
        """
        tiles = Tiles.concatenate(pieces)
        return_freed_memory()
        features, masks, tile_weights = tiles.features, tiles.masks, tiles.weights
        tile_pointer, weight_pointer = _ends(tiles.n_features), _ends(tiles.n_weights)
        tile_biases = tiles.biases
        del tiles
        sizes = np.diff(pointer)
        as_masks = in_tiles(pointer)
        width = LANES if as_masks else int(sizes.max(initial=0))
        parent_tiles = _ends((sizes + LANES - 1) // LANES)
        chunk_tiles = np.arange(parent_tiles[-1] + 1) if as_masks else parent_tiles
        runs = parent_runs(np.diff(tile_pointer[chunk_tiles]), 4 * n_threads)

        rows = _place(
            features, masks, tile_pointer, chunk_tiles, n_features, runs, n_threads, scratch
        )
        del features
        n_rows = len(rows.sizes)
        row_base = np.empty((n_rows >> base_bits(width)) + 1, np.int64)
        row_pointer: NDArray[Any] = np.empty(n_rows + 1, np.uint16)
        point_rows(rows.sizes, base_bits(width), row_base, row_pointer)

        places = np.empty(n_rows if as_masks else len(tile_weights), place_type(width))
        values = np.empty_like(tile_weights)

        def fill(run: tuple[int, int]) -> None:
            fill_entries(
                *run, chunk_tiles, tile_pointer, weight_pointer, masks, tile_weights,
                rows.chunk_pointer, rows.of_tiles, rows.sizes, as_masks, places, values,
            )  # fmt: skip

        map_threads(fill, runs, n_threads)
        if as_masks:
            row_pointer = row_pointer.astype(np.uint32)
            row_pointer[:-1] |= places.astype(np.uint32) << np.uint32(16)
            places = places[:0].copy()

        child_lanes = lanes_of(pointer)
        return cls(
            n_features, pointer, tile_biases.reshape(-1)[child_lanes], rows.chunk_pointer,
            rows.bucket_pointer, rows.remainder_pointer, rows.shifts, rows.index, rows.remainders,
            row_base, row_pointer, places, values, np.array([exponent or 0], np.int32),
            dense.weights, dense.units, np.array([n_features - dense.n_dims, dense.n_dims]),
        )  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class _ChunkRows:
    """The rows of each chunk, in its buckets, before they have weights."""

    chunk_pointer: Pointers
    bucket_pointer: Pointers
    remainder_pointer: Pointers
    shifts: Bytes
    index: NDArray[np.uint32]
    remainders: NDArray[Any]
    of_tiles: Indices
    """Which row of its chunk each feature of a tile became."""

    sizes: Indices
    """Weights of each row."""


def _place(
    features: Indices,
    masks: NDArray[np.uint16],
    tile_pointer: Pointers,
    chunk_tiles: Pointers,
    n_features: int,
    runs: list[tuple[int, int]],
    n_threads: int,
    scratch: ScratchPool,
) -> _ChunkRows:
    """Give the features of the tiles their rows; `runs` are of chunks."""
    n_rows = np.zeros(len(chunk_tiles) - 1, np.int64)

    def count(run: tuple[int, int]) -> None:
        with scratch.borrow() as (_, seen):
            count_rows(*run, chunk_tiles, tile_pointer, features, seen, n_rows)

    map_threads(count, runs, n_threads)
    multiplier, bits = hashing(n_features)
    shifts, remainder_type = plan_buckets(n_rows, bits)
    bucket_pointer = _ends(words_of(shifts, bits))
    remainder_pointer = _ends(n_rows * (shifts != chunks.BITMAP))
    chunk_pointer = _ends(n_rows)
    placed = _ChunkRows(
        chunk_pointer,
        bucket_pointer,
        remainder_pointer,
        shifts,
        index=np.zeros(int(bucket_pointer[-1]), np.uint32),
        remainders=np.zeros(int(remainder_pointer[-1]) + LANES, remainder_type),
        of_tiles=np.empty(len(features), np.int32),
        sizes=np.zeros(int(chunk_pointer[-1]), np.int32),
    )

    def place(run: tuple[int, int]) -> None:
        with scratch.borrow() as (feature_map, _):
            fill_rows(
                *run, chunk_tiles, tile_pointer, features, masks, feature_map, multiplier, bits,
                chunk_pointer, bucket_pointer, remainder_pointer, shifts, placed.index,
                placed.remainders, placed.of_tiles, placed.sizes,
            )  # fmt: skip

    map_threads(place, runs, n_threads)
    return placed


def hashing(n_features: int) -> tuple[int, int]:
    """Multiplier and bits that spread features: near the golden ratio neighbours end far apart."""
    bits = max(1, (n_features - 1).bit_length())
    return int(2**bits * 0.6180339887498949) | 1, bits


def plan_buckets(n_rows: Pointers, bits: int) -> tuple[Bytes, type[np.integer[Any]]]:
    """Bits of the remainder in each chunk, and its type: 4 to 8 rows a bucket, more buckets where
    remainders of one byte need them and that is smaller in all. Or BITMAP, where that is smaller
    still: from one hashed feature in five on, and where rows are too many for buckets."""
    wanted = np.ceil(np.log2(np.maximum(n_rows, 8) / 8)).astype(np.int64)
    in_bitmap = 4 * _bitmap_words(bits)
    best: tuple[int, Bytes, type[np.integer[Any]]] | None = None
    for kind in (np.uint8, np.uint16):
        width = np.dtype(kind).itemsize
        bucket_bits = np.clip(wanted, max(0, bits - 8 * width), bits)
        in_buckets = width * n_rows + 4 * _bucket_words(bucket_bits)
        as_bitmap = (in_bitmap <= in_buckets) | (n_rows > MOST_IN_BUCKETS)
        shifts = np.where(as_bitmap, chunks.BITMAP, bits - bucket_bits)
        size = int(np.where(as_bitmap, in_bitmap, in_buckets).sum())
        if best is None or size < best[0]:
            best = size, shifts.astype(np.uint8), kind
    assert best is not None
    return best[1:]


def words_of(shifts: Bytes, bits: int) -> Pointers:
    """Words of `index` that each chunk takes."""
    in_buckets = _bucket_words(np.maximum(bits - shifts.astype(np.int64), 0))
    return np.where(shifts == chunks.BITMAP, _bitmap_words(bits), in_buckets)


def _bucket_words(bucket_bits: Pointers) -> Pointers:
    return ((1 << bucket_bits) + 2) // 2


def _bitmap_words(bits: int) -> int:
    return 2 * (((1 << bits) + 31) // 32)


def round_to_halves(pieces: list[Tiles]) -> int:
    """Round the weights of a level's tiles to halves, all by one power of two, which is returned.

    Piece by piece and before anything is made of them: held once in single precision, a level takes
    half the memory at its peak of one that is rounded at the end.
    """
    exponent = power_of_halves(*(piece.weights for piece in pieces))
    for number, piece in enumerate(pieces):
        pieces[number] = replace(piece, weights=to_halves(piece.weights, exponent))
    return exponent


def power_of_halves(*arrays: Floats) -> int:
    """The power of two that halves are to be multiplied with, chosen so that the largest uses their
    range to the full: nothing overflows, and what is 2^30 times smaller still counts."""
    largest = max(float(largest_size(array)) for array in arrays)
    return int(np.frexp(largest)[1]) - 15 if largest > 0 else 0


def to_halves(values: Floats, exponent: int) -> NDArray[np.uint16]:
    """The bits of the nearest 16-bit floats to values * 2 ** -exponent."""
    halves = np.empty(len(values), np.uint16)
    scale = np.float32(2.0**-exponent)  # a power of two: exact
    narrow(HAVE_VECTOR_CODE, values, scale, halves)
    return halves


def lanes_of(pointer: Pointers) -> Pointers:
    """Place of each child among the lanes of all tiles; every parent begins a tile."""
    sizes = np.diff(pointer)
    first = _ends(-(-sizes // LANES))[:-1] * LANES
    within = np.arange(int(pointer[-1])) - np.repeat(pointer[:-1], sizes)
    places: Pointers = np.repeat(first, sizes) + within
    return places


def in_tiles(pointer: Pointers) -> bool:
    """Whether a parent's children lie in chunks of 16, or in one whatever their number.

    16 weights are spread by one instruction, in a chunk of any width they are added one by one: the
    row's features may well be looked up twice for that. A child's parent should not have more
    chunks than MOST_CHUNKS, on average.
    """
    tiles = -(-np.diff(pointer) // LANES)
    return int((tiles * tiles).sum()) <= MOST_CHUNKS * int(tiles.sum())


def chunks_of(pointer: Pointers) -> Pointers:
    """(parents + 1,) the first chunk of each parent."""
    if not in_tiles(pointer):
        return np.arange(len(pointer), dtype=np.int64)
    return _ends(-(-np.diff(pointer) // LANES))


def place_type(widest: int) -> type[np.integer[Any]]:
    """What says which children a weight belongs to."""
    form = _form(widest)
    if form == chunks.BYTES:
        return np.uint8
    return np.int32 if form == chunks.INTS else np.uint16


def base_bits(widest: int) -> int:
    """So many rows (a power of two) share a base that their weights can be counted in 16 bits."""
    return max(0, 16 - max(widest - 1, 0).bit_length())


def _form(widest: int) -> int:
    if widest <= LANES:
        return chunks.MASKS
    if widest <= 2**8:
        return chunks.BYTES
    return chunks.SHORTS if widest <= 2**16 else chunks.INTS


def _ends(sizes: NDArray[Any]) -> Pointers:
    return np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
