"""From the tiles that training leaves to the chunks that inference reads; see chunks.py for both
forms and for the buckets."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from xmc_core.kernels._compile import kernel
from xmc_core.kernels.bits import Words, lowest_bit, popcount
from xmc_core.kernels.chunks import BITMAP
from xmc_core.kernels.lanes import LANES, Masks
from xmc_core.types import Bytes, Indices, Pointers

ONE = np.uint64(1)
LOW_SIX = np.uint64(63)


@kernel
def count_rows(
    first_chunk: int,
    last_chunk: int,
    chunk_tiles: Pointers,  # (chunks + 1,) tiles of each chunk
    tile_pointer: Pointers,  # (tiles + 1,) into `features`
    features: Indices,
    seen: Words,  # zeros, and zeros again on return
    n_rows: Pointers,  # (chunks,) out: distinct features of each
) -> None:
    for chunk in range(first_chunk, last_chunk):
        a, b = chunk_tiles[chunk], chunk_tiles[chunk + 1]
        begin, end = tile_pointer[a], tile_pointer[b]
        n_rows[chunk] = end - begin
        if b - a > 1:
            total = 0
            for k in range(begin, end):
                word, bit = features[k] >> 6, ONE << (np.uint64(features[k]) & LOW_SIX)
                total += (seen[word] & bit) == 0
                seen[word] |= bit
            for k in range(begin, end):
                seen[features[k] >> 6] = 0
            n_rows[chunk] = total


@kernel
def fill_rows(
    first_chunk: int,
    last_chunk: int,
    chunk_tiles: Pointers,
    tile_pointer: Pointers,
    features: Indices,
    masks: Masks,
    feature_map: Indices,  # (n_features,) zeros, and zeros again on return
    multiplier: int,
    bits: int,
    chunk_pointer: Pointers,  # (chunks + 1,) rows of each chunk
    bucket_pointer: Pointers,
    remainder_pointer: Pointers,
    shifts: Bytes,
    index: NDArray[np.uint32],  # zeros; out
    remainders: NDArray[Any],  # (rows in buckets + 16,) out; uint8 or uint16
    tile_rows: Indices,  # (entries of `features`,) out: which row of the chunk each became
    sizes: Indices,  # (rows,) zeros; out: weights of each row
) -> None:
    modulo = (1 << bits) - 1
    for chunk in range(first_chunk, last_chunk):
        begin, end = tile_pointer[chunk_tiles[chunk]], tile_pointer[chunk_tiles[chunk + 1]]
        first = chunk_pointer[chunk]
        buckets, last = bucket_pointer[chunk], bucket_pointer[chunk + 1]
        shift = np.int64(shifts[chunk])
        if shift == BITMAP:
            fill_bitmap(
                features[begin:end], masks[begin:end], multiplier, modulo,
                index[buckets:last], tile_rows[begin:end], sizes[first:],
            )  # fmt: skip
            continue
        starts = index[buckets:last].view(np.uint16)
        n_buckets = 1 << (bits - shift)
        place = remainder_pointer[chunk]
        for k in range(begin, end):
            if feature_map[features[k]] == 0:
                feature_map[features[k]] = 1
                bucket = ((features[k] * multiplier) & modulo) >> shift
                starts[bucket + 1] += np.uint16(1)
        for bucket in range(n_buckets):
            starts[bucket + 1] += starts[bucket]
        for k in range(begin, end):
            feature_map[features[k]] = 0

        # Rows of a bucket in order of appearance, which is that of the tiles.
        following = starts[:n_buckets].copy()
        for k in range(begin, end):
            if feature_map[features[k]] == 0:
                hashed = (features[k] * multiplier) & modulo
                row = np.int64(following[hashed >> shift])
                following[hashed >> shift] += np.uint16(1)
                remainders[place + row] = hashed & ((1 << shift) - 1)
                feature_map[features[k]] = row + 1
            row = feature_map[features[k]] - 1
            tile_rows[k] = row
            sizes[first + row] += popcount(np.uint64(masks[k]))
        for k in range(begin, end):
            feature_map[features[k]] = 0


@kernel
def fill_bitmap(
    features: Indices,  # of the chunk's tiles
    masks: Masks,
    multiplier: int,
    modulo: int,  # to be kept of a product
    bitmap: NDArray[np.uint32],  # zeros; out
    tile_rows: Indices,  # out
    sizes: Indices,  # zeros; out
) -> None:
    for k in range(len(features)):
        hashed = (features[k] * multiplier) & modulo
        bitmap[2 * (hashed >> 5) + 1] |= np.uint32(1 << (hashed & 31))
    row = 0
    for word in range(0, len(bitmap), 2):
        bitmap[word] = row
        row += popcount(np.uint64(bitmap[word + 1]))
    for k in range(len(features)):
        hashed = (features[k] * multiplier) & modulo
        word = 2 * (hashed >> 5)
        below = np.uint64(bitmap[word + 1]) & np.uint64((1 << (hashed & 31)) - 1)
        row = np.int64(bitmap[word]) + popcount(below)
        tile_rows[k] = row
        sizes[row] += popcount(np.uint64(masks[k]))


@kernel
def point_rows(
    sizes: Indices,
    base_bits: int,
    row_base: Pointers,  # (rows / 2^base_bits + 1,) out
    row_pointer: NDArray[np.uint16],  # (rows + 1,) out: begin of each row, counted from its base
) -> None:
    place = 0
    for row in range(len(sizes) + 1):
        if row & ((1 << base_bits) - 1) == 0:
            row_base[row >> base_bits] = place
        row_pointer[row] = place - row_base[row >> base_bits]
        if row < len(sizes):
            place += sizes[row]


@kernel
def fill_entries(
    first_chunk: int,
    last_chunk: int,
    chunk_tiles: Pointers,
    tile_pointer: Pointers,
    weight_pointer: Pointers,  # (tiles + 1,) into `weights`
    masks: Masks,
    weights: NDArray[Any],  # float32, or halves as uint16
    chunk_pointer: Pointers,
    tile_rows: Indices,
    sizes: Indices,
    as_masks: bool,  # every chunk has one tile
    places: NDArray[Any],  # (rows,) or (weights,) out: masks, or numbers of children
    values: NDArray[Any],  # (weights,) out
) -> None:
    for chunk in range(first_chunk, last_chunk):
        a, b = chunk_tiles[chunk], chunk_tiles[chunk + 1]
        first, last = chunk_pointer[chunk], chunk_pointer[chunk + 1]
        following = np.empty(last - first, np.int64)
        place = weight_pointer[a]
        for row in range(last - first):
            following[row] = place
            place += sizes[first + row]
        w = weight_pointer[a]
        for tile in range(a, b):
            for k in range(tile_pointer[tile], tile_pointer[tile + 1]):
                row = tile_rows[k]
                place = following[row]
                if as_masks:
                    places[first + row] = masks[k]
                children = np.uint64(masks[k])
                while children != 0:
                    if not as_masks:
                        places[place] = (tile - a) * LANES + lowest_bit(children)
                    values[place] = weights[w]
                    children &= children - ONE
                    place += 1
                    w += 1
                following[row] = place
