"""From the tiles that training leaves to the layout that inference reads, with nothing between.

The weights of a parent's children (a chunk) are stored by feature: the features that any child
uses, ascending, and for each either

- a line of 16 weights, one a child, where chunks are full and small, or
- entries (child offset, weight).
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from xmc_core.kernels._compile import kernel
from xmc_core.kernels.bits import Words, lowest_bit, popcount
from xmc_core.kernels.lanes import LANES, Masks
from xmc_core.types import Floats, Indices, Pointers

ONE = np.uint64(1)
LOW_SIX = np.uint64(63)


@kernel
def count_rows(
    first_parent: int,
    last_parent: int,
    parent_tiles: Pointers,  # (parents + 1,) tiles of each parent
    tile_pointer: Pointers,  # (tiles + 1,) into `features`
    features: Indices,
    seen: Words,  # zeros, and zeros again on return
    n_rows: Pointers,  # (parents,) out: distinct features of each chunk
) -> None:
    for parent in range(first_parent, last_parent):
        a, b = parent_tiles[parent], parent_tiles[parent + 1]
        begin, end = tile_pointer[a], tile_pointer[b]
        n_rows[parent] = end - begin
        if b - a > 1:
            total = 0
            for k in range(begin, end):
                word, bit = features[k] >> 6, ONE << (np.uint64(features[k]) & LOW_SIX)
                total += (seen[word] & bit) == 0
                seen[word] |= bit
            for k in range(begin, end):
                seen[features[k] >> 6] = 0
            n_rows[parent] = total


@kernel
def fill_block(
    first_parent: int,
    last_parent: int,
    parent_tiles: Pointers,
    tile_pointer: Pointers,
    weight_pointer: Pointers,  # (tiles + 1,) into `weights`
    masks: Masks,
    weights: Floats,
    block: Floats,  # (rows, 16) out; every parent has one tile, so tile rows are chunk rows
) -> None:
    for tile in range(parent_tiles[first_parent], parent_tiles[last_parent]):
        w = weight_pointer[tile]
        for row in range(tile_pointer[tile], tile_pointer[tile + 1]):
            for lane in range(LANES):
                block[row, lane] = 0.0
                if masks[row] >> lane & 1:
                    block[row, lane] = weights[w]
                    w += 1


@kernel
def fill_entries(
    first_parent: int,
    last_parent: int,
    parent_tiles: Pointers,
    tile_pointer: Pointers,
    weight_pointer: Pointers,
    features: Indices,
    masks: Masks,
    weights: Floats,
    feature_map: Indices,  # (n_features,) zeros, and zeros again on return
    seen: Words,
    chunk_pointer: Pointers,  # (parents + 1,) rows of each chunk
    chunk_features: Indices,  # (rows,) out
    row_pointer: Indices,  # (rows + parents,) out: each chunk's own rows + 1 pointers, from 0
    offsets: NDArray[Any],  # (entries,) out; uint8, uint16 or int32
    values: Floats,  # (entries,) out
) -> None:
    for parent in range(first_parent, last_parent):
        a, b = parent_tiles[parent], parent_tiles[parent + 1]
        for k in range(tile_pointer[a], tile_pointer[b]):
            seen[features[k] >> 6] |= ONE << (np.uint64(features[k]) & LOW_SIX)
            feature_map[features[k]] += popcount(np.uint64(masks[k]))

        row = chunk_pointer[parent]
        end = 0
        row_pointer[row + parent] = 0
        for w in range(len(seen)):
            word = seen[w]
            while word != 0:
                feature = (w << 6) + lowest_bit(word)
                size = feature_map[feature]
                feature_map[feature] = end
                end += size
                chunk_features[row] = feature
                row += 1
                row_pointer[row + parent] = end
                word = word & (word - ONE)
            seen[w] = 0

        base = weight_pointer[a]
        w_in = base
        for tile in range(a, b):
            for k in range(tile_pointer[tile], tile_pointer[tile + 1]):
                place = feature_map[features[k]]
                for lane in range(LANES):
                    if masks[k] >> lane & 1:
                        offsets[base + place] = (tile - a) * LANES + lane
                        values[base + place] = weights[w_in]
                        place += 1
                        w_in += 1
                feature_map[features[k]] = place
        for k in range(tile_pointer[a], tile_pointer[b]):
            feature_map[features[k]] = 0


@kernel
def fill_index(
    n_parents: int,
    chunk_pointer: Pointers,
    features: Indices,
    words: Words,  # (parents, n_features / 64, rounded up) zeros; out: features of each chunk
    ranks: Indices,  # the same shape, out: rows of the chunk before each word's
) -> None:
    for parent in range(n_parents):
        for t in range(chunk_pointer[parent], chunk_pointer[parent + 1]):
            words[parent, features[t] >> 6] |= ONE << (np.uint64(features[t]) & LOW_SIX)
        rank = 0
        for w in range(words.shape[1]):
            ranks[parent, w] = rank
            rank += popcount(words[parent, w])
