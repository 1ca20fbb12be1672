"""A label in several clusters is trained in one of them; search finds it in all.

Its weights are copied into the chunk of every cluster that names it. Kept apart, once, they would
cost more: a reference into another chunk is wider than the two bytes of a weight, and a row would
have to look up its features in some 18 chunks more (EUR-Lex titles, 1.2 clusters a label, beam 10:
21 chunks otherwise).
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from xmc_core.kernels._compile import kernel
from xmc_core.kernels.bits import Words, lowest_bit, popcount
from xmc_core.kernels.lanes import LANES, Masks
from xmc_core.types import Indices, Pointers

ONE = np.uint64(1)
LOW_SIX = np.uint64(63)


@kernel
def child_by_child(
    n_features: Pointers,  # (tiles,) entries of `features` of each tile
    features: Indices,
    masks: Masks,
    weights: NDArray[Any],  # float32, or halves as uint16
    lane_child: Indices,  # (tiles * 16,) child of each lane; -1: none
    pointer: Pointers,  # (children + 1,) out
    child_features: Indices,  # (weights,) out
    child_weights: NDArray[Any],  # (weights,) out
) -> None:
    pointer[:] = 0
    k = 0
    for tile in range(len(n_features)):
        for _ in range(n_features[tile]):
            rest = np.uint64(masks[k])
            while rest != 0:
                pointer[lane_child[tile * LANES + lowest_bit(rest)] + 1] += 1
                rest &= rest - ONE
            k += 1
    for child in range(len(pointer) - 1):
        pointer[child + 1] += pointer[child]
    following = pointer[:-1].copy()
    k = 0
    w = 0
    for tile in range(len(n_features)):
        for _ in range(n_features[tile]):
            rest = np.uint64(masks[k])
            while rest != 0:
                child = lane_child[tile * LANES + lowest_bit(rest)]
                child_features[following[child]] = features[k]
                child_weights[following[child]] = weights[w]
                following[child] += 1
                w += 1
                rest &= rest - ONE
            k += 1


@kernel
def count_tiles(
    sources: Indices,  # (tiles * 16,) child that each lane is to have; -1: none
    pointer: Pointers,  # (children + 1,)
    child_features: Indices,
    seen: Words,  # zeros, and zeros again on return
    n_features: Pointers,  # (tiles,) out: different features of each tile
    n_weights: Pointers,  # (tiles,) out
) -> None:
    for tile in range(len(n_features)):
        found = 0
        total = 0
        for lane in range(tile * LANES, (tile + 1) * LANES):
            child = sources[lane]
            if child < 0:
                continue
            total += pointer[child + 1] - pointer[child]
            for j in range(pointer[child], pointer[child + 1]):
                word = child_features[j] >> 6
                bit = ONE << (np.uint64(child_features[j]) & LOW_SIX)
                found += (seen[word] & bit) == 0
                seen[word] |= bit
        for lane in range(tile * LANES, (tile + 1) * LANES):
            child = sources[lane]
            if child >= 0:
                for j in range(pointer[child], pointer[child + 1]):
                    seen[child_features[j] >> 6] = 0
        n_features[tile] = found
        n_weights[tile] = total


@kernel
def fill_tiles(
    sources: Indices,
    pointer: Pointers,
    child_features: Indices,
    child_weights: NDArray[Any],
    n_features: Pointers,  # (tiles,) as counted
    feature_map: Indices,  # (n_features,) zeros, and zeros again on return
    seen: Words,  # zeros, and zeros again on return
    features: Indices,  # out: tile after tile, ascending within one
    masks: Masks,  # the same length, zeros; out
    weights: NDArray[Any],  # out
) -> None:
    first = 0
    w = 0
    for tile in range(len(n_features)):
        last = first + n_features[tile]
        lanes = range(tile * LANES, (tile + 1) * LANES)
        for lane in lanes:
            child = sources[lane]
            if child >= 0:
                for j in range(pointer[child], pointer[child + 1]):
                    feature = child_features[j]
                    seen[feature >> 6] |= ONE << (np.uint64(feature) & LOW_SIX)
        k = first
        for number in range(len(seen)):
            word = seen[number]
            while word != 0:
                feature = (number << 6) + lowest_bit(word)
                features[k] = feature
                feature_map[feature] = k - first
                k += 1
                word &= word - ONE
            seen[number] = 0
        for lane in lanes:
            child = sources[lane]
            if child >= 0:
                for j in range(pointer[child], pointer[child + 1]):
                    masks[first + feature_map[child_features[j]]] |= np.uint16(
                        1 << (lane - tile * LANES)
                    )
        following = np.empty(last - first, np.int64)
        for k in range(first, last):
            following[k - first] = w
            w += popcount(np.uint64(masks[k]))
        for lane in lanes:  # ascending, as a feature's weights lie
            child = sources[lane]
            if child >= 0:
                for j in range(pointer[child], pointer[child + 1]):
                    local = feature_map[child_features[j]]
                    weights[following[local]] = child_weights[j]
                    following[local] += 1
        for k in range(first, last):
            feature_map[features[k]] = 0
        first = last
