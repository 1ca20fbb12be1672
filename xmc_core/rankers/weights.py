"""The weights of one level of the tree, in the layout that beam search reads."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xmc_core.errors import ShapeError
from xmc_core.kernels.arguments import read_only
from xmc_core.kernels.lanes import LANES
from xmc_core.kernels.weights import count_rows, fill_block, fill_entries, fill_index
from xmc_core.parallel import map_threads
from xmc_core.solvers.scratch import ScratchPool
from xmc_core.solvers.siblings import Tiles, parent_runs
from xmc_core.types import Floats, Indices, Pointers

BLOCK_FROM = 8.0
"""Chunks of up to 16 children are stored as lines of 16 weights if at least so many of them are
not zero on average: a line of 64 bytes is added in one step, 8 entries of 5 bytes in eight."""

INDEX_BYTES = 256 * 2**20
"""Levels whose bitmap would be larger are searched by binary search instead."""

_ARRAYS = (
    "pointer",
    "biases",
    "chunk_pointer",
    "features",
    "block",
    "entry_start",
    "row_pointer",
    "offsets",
    "values",
)


@dataclass(frozen=True, eq=False)
class ChunkedWeights:
    """One linear classifier per node of a level, grouped by parent (a chunk).

    A node's margin for a row x is w·x + bias. For each chunk the features that any of its
    children uses are listed, ascending, each with either a line of 16 weights or entries
    (child offset, weight).
    """

    n_features: int
    pointer: Pointers
    """(parents + 1,) children of parent c are pointer[c] : pointer[c + 1]."""

    biases: Floats
    """(n_children,), the constant feature's value already multiplied in."""

    chunk_pointer: Pointers
    """(parents + 1,) rows of chunk c, one per feature."""

    features: Indices
    """(rows,)"""

    block: Floats
    """(rows, 16) weights; (0, 16) where they lie as entries."""

    entry_start: Pointers
    """(parents + 1,) entries of each chunk; all zero where `block` is used."""

    row_pointer: Indices
    """(rows + parents,) each chunk's own pointers, from 0: the entries of chunk c's t-th feature go
    from entry_start[c] + row_pointer[chunk_pointer[c] + c + t] to the same with t + 1."""

    offsets: NDArray[Any]
    """(entries,) which child of the parent; see `offset_type`."""

    values: Floats
    """(entries,)"""

    def __post_init__(self) -> None:
        for name in _ARRAYS:
            object.__setattr__(self, name, read_only(getattr(self, name)))

    @property
    def n_children(self) -> int:
        return int(self.pointer[-1])

    @property
    def n_parents(self) -> int:
        return len(self.pointer) - 1

    @property
    def nnz(self) -> int:
        """Weights that are not zero, biases left out."""
        return int(np.count_nonzero(self.block)) + len(self.values)

    @property
    def nbytes(self) -> int:
        """Memory of the weights, without the bitmap that single rows are answered with."""
        return int(sum(array.nbytes for array in self.arrays().values()))

    @cached_property
    def index(self) -> tuple[NDArray[np.uint64], Indices]:
        """Bitmap of each chunk's features and the rows before each word; empty if it would pass
        INDEX_BYTES. Made when the first small batch comes, as it serves only those."""
        n_words = (self.n_features + 63) // 64
        shape = (
            (self.n_parents, n_words) if 12 * self.n_parents * n_words <= INDEX_BYTES else (0, 0)
        )
        words, ranks = np.zeros(shape, np.uint64), np.zeros(shape, np.int32)
        fill_index(shape[0], self.chunk_pointer, self.features, words, ranks)
        return read_only(words), read_only(ranks)

    def to_dense(self) -> tuple[Floats, Floats]:
        """(n_children, n_features) weights and (n_children,) biases; for small levels only."""
        dense = np.zeros((self.n_children, self.n_features), np.float32)
        for c in range(self.n_parents):
            first, last = self.pointer[c], self.pointer[c + 1]
            rows = slice(self.chunk_pointer[c], self.chunk_pointer[c + 1])
            features = self.features[rows]
            if len(self.block):
                dense[first:last, features] = self.block[rows, : last - first].T
            else:
                ends = self.row_pointer[rows.start + c : rows.stop + c + 1]
                entries = slice(self.entry_start[c], self.entry_start[c + 1])
                at = np.repeat(features, np.diff(ends))
                dense[first + self.offsets[entries].astype(np.int64), at] = self.values[entries]
        return dense, np.array(self.biases)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """What `from_arrays` needs to build the same object."""
        return {name: getattr(self, name) for name in _ARRAYS}

    @classmethod
    def from_arrays(cls, arrays: dict[str, NDArray[Any]], n_features: int) -> "ChunkedWeights":
        """Build from the arrays of `arrays()`, memory maps included; raises ShapeError if they do
        not fit together."""
        weights = cls(n_features=n_features, **{name: arrays[name] for name in _ARRAYS})
        rows, parents = len(weights.features), weights.n_parents
        fits = (
            len(weights.biases) == weights.n_children
            and len(weights.chunk_pointer) == len(weights.entry_start) == parents + 1
            and int(weights.chunk_pointer[-1]) == rows
            and (len(weights.block) == rows or len(weights.row_pointer) == rows + parents)
            and int(weights.entry_start[-1]) == len(weights.values) == len(weights.offsets)
            and (rows == 0 or int(weights.features.max()) < n_features)
        )
        if not fits:
            raise ShapeError(
                f"the arrays of a level with {parents:,} parents, {rows:,} chunk rows and "
                f"{n_features:,} features do not fit together."
            )
        return weights

    @classmethod
    def from_tiles(
        cls,
        tiles: Tiles,
        pointer: Pointers,
        n_features: int,
        *,
        n_threads: int,
        scratch: ScratchPool,
    ) -> "ChunkedWeights":
        """Bring the tiles of a level, in order, into their chunks."""
        n_parents, n_children = len(pointer) - 1, int(pointer[-1])
        sizes = np.diff(pointer)
        widest = int(sizes.max(initial=0))
        parent_tiles = _ends((sizes + LANES - 1) // LANES)
        tile_pointer, weight_pointer = _ends(tiles.n_features), _ends(tiles.n_weights)
        runs = parent_runs(np.diff(tile_pointer[parent_tiles]), 4 * n_threads)

        n_rows = np.zeros(n_parents, np.int64)

        def count(run: tuple[int, int]) -> None:
            with scratch.borrow() as (_, seen):
                count_rows(*run, parent_tiles, tile_pointer, tiles.features, seen, n_rows)

        map_threads(count, runs, n_threads)
        chunk_pointer = _ends(n_rows)
        rows = int(chunk_pointer[-1])
        in_tile = np.arange(n_children) - np.repeat(pointer[:-1], sizes)
        tile_of = np.repeat(parent_tiles[:-1], sizes) + in_tile // LANES
        biases = tiles.biases[tile_of, in_tile % LANES]

        as_block = widest <= LANES and len(tiles.weights) >= BLOCK_FROM * rows
        block = np.empty((rows if as_block else 0, LANES), np.float32)
        features = tiles.features if as_block else np.empty(rows, np.int32)
        row_pointer = np.empty(0 if as_block else rows + n_parents, np.int32)
        n_entries = 0 if as_block else len(tiles.weights)
        offsets = np.empty(n_entries, offset_type(widest))
        values = np.empty(n_entries, np.float32)

        def fill(run: tuple[int, int]) -> None:
            if as_block:
                fill_block(
                    *run,
                    parent_tiles,
                    tile_pointer,
                    weight_pointer,
                    tiles.masks,
                    tiles.weights,
                    block,
                )
                return
            with scratch.borrow() as (feature_map, seen):
                fill_entries(
                    *run, parent_tiles, tile_pointer, weight_pointer, tiles.features, tiles.masks,
                    tiles.weights, feature_map, seen, chunk_pointer, features, row_pointer,
                    offsets, values,
                )  # fmt: skip

        map_threads(fill, runs, n_threads)
        entry_start = (
            np.zeros(n_parents + 1, np.int64) if as_block else weight_pointer[parent_tiles]
        )
        return cls(
            n_features, pointer, biases, chunk_pointer, features, block, entry_start, row_pointer,
            offsets, values,
        )  # fmt: skip


def offset_type(widest: int) -> type[np.integer[Any]]:
    """Smallest integer that tells apart the children of the widest parent. Leaves of up to 256
    labels need a byte: 5 bytes a weight."""
    if widest <= 2**8:
        return np.uint8
    return np.uint16 if widest <= 2**16 else np.int32


def _ends(sizes: NDArray[Any]) -> Pointers:
    return np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
