"""One level of beam search: score the children of each row's nodes, keep the best.

There is one scoring routine whatever the number of rows; only how a row's features are found among
a chunk's differs (a scattered map for many rows, a bitmap or a binary search for few). All three
give the same hits in the same order, hence the same bits.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xmc_core.kernels._compile import kernel
from xmc_core.kernels.bits import Words, popcount
from xmc_core.kernels.lanes import LANES
from xmc_core.kernels.prefetch import prefetch
from xmc_core.kernels.simd import dot
from xmc_core.types import Floats, Indices, Pointers

NONE, HINGE_1, HINGE_2, HINGE_3, HINGE_4, SIGMOID = range(6)

ONE = np.uint64(1)
LOW_SIX = np.uint64(63)
AHEAD, FAR_AHEAD = 6, 16


@kernel
def search_level(
    indptr: Pointers,  # X
    indices: Indices,
    values: Floats,
    first_row: int,
    beam: Indices,  # (rows, width) nodes of the level above for rows first_row, ...; -1 pads
    beam_scores: Floats,
    pointer: Pointers,  # (parents + 1,) children of each node
    chunk_pointer: Pointers,  # (parents + 1,) rows of each chunk, see ChunkedWeights
    features: Indices,
    block: Floats,  # (rows, 16), or (0, 16) where weights lie as entries
    entry_start: Pointers,  # (parents + 1,)
    row_pointer: Indices,  # (rows + parents,)
    offsets: NDArray[Any],
    weights: Floats,
    biases: Floats,  # (children,)
    words: Words,  # (parents, n_words) bitmap of each chunk's features, or (0, 0)
    ranks: Indices,
    feature_map: Indices,  # (n_features,) -1s, and again on return; or (0,): do not group rows
    post_processor: int,
    linear: bool,  # path scores are products; else sums of logarithms
    slot_labels: Indices,  # (children,) what to call each child, or (0,) for its own number
    vector: bool,
    best: Indices,  # (rows, k) out, -1 pads
    best_scores: Floats,  # (rows, k) out, -inf pads
) -> None:
    n_rows, width = beam.shape
    best[:] = -1
    best_scores[:] = -np.inf

    n_pairs = 0
    longest = 0
    for r in range(n_rows):
        longest = max(longest, indptr[first_row + r + 1] - indptr[first_row + r])
        for b in range(width):
            n_pairs += beam[r, b] >= 0
    widest = 0
    for parent in range(len(pointer) - 1):
        widest = max(widest, pointer[parent + 1] - pointer[parent])
    hits = np.empty(longest + 1, np.int32)
    hit_values = np.empty(longest + 1, np.float32)
    margins = np.empty(((widest + LANES - 1) // LANES, LANES), np.float32)

    grouped = len(feature_map) > 0
    pairs = sorted_pairs(beam, len(pointer) - 1, n_pairs) if grouped else beam_pairs(beam, n_pairs)
    group_start = 0
    while group_start < n_pairs:
        parent = beam[pairs[group_start] // width, pairs[group_start] % width]
        group_end = group_start + 1
        if grouped:
            while group_end < n_pairs:
                following = pairs[group_end]
                if beam[following // width, following % width] != parent:
                    break
                group_end += 1
        begin, end = chunk_pointer[parent], chunk_pointer[parent + 1]
        # Scattering a chunk costs two passes over its features, looking up one a row's non-zeros.
        scatter = grouped and (group_end - group_start) * 32 > (end - begin)
        if scatter:
            for t in range(begin, end):
                feature_map[features[t]] = t

        for p in range(group_start, group_end):
            r = pairs[p] // width
            above = beam_scores[r, pairs[p] % width]
            full = best[r, best.shape[1] - 1] >= 0
            if full and not linear and post_processor != NONE and above < best_scores[r, -1]:
                continue  # a factor is at most 1: no child can get in
            x_begin, x_end = indptr[first_row + r], indptr[first_row + r + 1]
            if scatter:
                n_hits = map_hits(indices, values, x_begin, x_end, feature_map, hits, hit_values)
            elif len(words) > 0:
                n_hits = bitmap_hits(
                    indices, values, x_begin, x_end, words, ranks, parent, begin, hits, hit_values
                )
            else:
                n_hits = search_hits(
                    indices, values, x_begin, x_end, features, begin, end, hits, hit_values
                )
            if len(block) > 0:
                dot(vector, block, hits, hit_values, 0, n_hits, margins, 0)
            else:
                add_entries(
                    row_pointer,
                    parent,
                    entry_start[parent],
                    offsets,
                    weights,
                    hits,
                    hit_values,
                    n_hits,
                    margins,
                )
            keep_best(
                margins,
                pointer[parent],
                pointer[parent + 1],
                biases,
                post_processor,
                linear,
                above,
                slot_labels,
                best[r],
                best_scores[r],
            )

        if scatter:
            for t in range(begin, end):
                feature_map[features[t]] = -1
        group_start = group_end


@kernel
def beam_pairs(beam: Indices, n_pairs: int) -> Pointers:
    # Places r * width + b of all beam entries, row after row.
    n_rows, width = beam.shape
    pairs = np.empty(n_pairs, np.int64)
    k = 0
    for r in range(n_rows):
        for b in range(width):
            if beam[r, b] >= 0:
                pairs[k] = r * width + b
                k += 1
    return pairs


@kernel
def sorted_pairs(beam: Indices, n_parents: int, n_pairs: int) -> Pointers:
    # The same, sorted by node (counting sort), rows ascending.
    n_rows, width = beam.shape
    starts = np.zeros(n_parents + 1, np.int64)
    for r in range(n_rows):
        for b in range(width):
            if beam[r, b] >= 0:
                starts[beam[r, b] + 1] += 1
    for parent in range(n_parents):
        starts[parent + 1] += starts[parent]
    pairs = np.empty(n_pairs, np.int64)
    for r in range(n_rows):
        for b in range(width):
            parent = beam[r, b]
            if parent >= 0:
                pairs[starts[parent]] = r * width + b
                starts[parent] += 1
    return pairs


@kernel
def map_hits(
    indices: Indices,
    values: Floats,
    begin: int,
    end: int,
    feature_map: Indices,
    hits: Indices,
    hit_values: Floats,
) -> int:
    # Chunk rows that the row's features hit. Written first, counted after: no branch to guess.
    n = 0
    for j in range(begin, end):
        place = feature_map[indices[j]]
        hits[n] = place
        hit_values[n] = values[j]
        n += place >= 0
    return n


@kernel
def bitmap_hits(
    indices: Indices,
    values: Floats,
    begin: int,
    end: int,
    words: Words,
    ranks: Indices,
    parent: int,
    first: int,
    hits: Indices,
    hit_values: Floats,
) -> int:
    # 2 to 4 times faster than the binary search, for 12 bytes per chunk and 64 features.
    n = 0
    for j in range(begin, end):
        w = indices[j] >> 6
        bit = ONE << (np.uint64(indices[j]) & LOW_SIX)
        word = words[parent, w]
        hits[n] = first + ranks[parent, w] + popcount(word & (bit - ONE))
        hit_values[n] = values[j]
        n += (word & bit) != 0
    return n


@kernel
def search_hits(
    indices: Indices,
    values: Floats,
    begin: int,
    end: int,
    features: Indices,
    first: int,
    last: int,
    hits: Indices,
    hit_values: Floats,
) -> int:
    n = 0
    low = first
    for j in range(begin, end):
        high = last
        while low < high:
            middle = (low + high) >> 1
            if features[middle] < indices[j]:
                low = middle + 1
            else:
                high = middle
        if low == last:
            break
        if features[low] == indices[j]:
            hits[n] = low
            hit_values[n] = values[j]
            n += 1
    return n


@kernel
def add_entries(
    row_pointer: Indices,
    parent: int,
    base: int,
    offsets: NDArray[Any],
    weights: Floats,
    hits: Indices,
    hit_values: Floats,
    n_hits: int,
    margins: Floats,
) -> None:
    flat = margins.reshape(-1)
    flat[:] = 0.0
    for h in range(n_hits):
        # The hits are far apart in memory, but known: fetching ahead halves a single row's time.
        if h + FAR_AHEAD < n_hits:
            prefetch(row_pointer, hits[h + FAR_AHEAD] + parent)
        if h + AHEAD < n_hits:
            e = base + row_pointer[hits[h + AHEAD] + parent]
            prefetch(offsets, e)
            prefetch(weights, e)
        row = hits[h] + parent
        x = hit_values[h]
        for e in range(base + row_pointer[row], base + row_pointer[row + 1]):
            flat[offsets[e]] += x * weights[e]


@kernel
def keep_best(
    margins: Floats,
    first: int,
    last: int,
    biases: Floats,
    post_processor: int,
    linear: bool,
    above: np.float32,
    slot_labels: Indices,
    best: Indices,  # (k,) so far, in order
    best_scores: Floats,
) -> None:
    flat = margins.reshape(-1)
    k = len(best)
    named = len(slot_labels) > 0
    for child in range(first, last):
        score = flat[child - first] + biases[child]
        if post_processor != NONE:
            factor = log_factor(score, post_processor)
            score = above * np.float32(math.exp(factor)) if linear else above + factor
        if score < best_scores[k - 1]:
            continue
        node = slot_labels[child] if named else np.int32(child)
        if score == best_scores[k - 1] and 0 <= best[k - 1] <= node:
            continue
        place = k - 1
        if named:
            for i in range(k):  # a label that is already there keeps its best score
                if best[i] == node:
                    place = i
                    break
            if best[place] == node and score <= best_scores[place]:
                continue
        while place > 0 and (
            best_scores[place - 1] < score
            or (best_scores[place - 1] == score and (best[place - 1] > node or best[place - 1] < 0))
        ):
            best[place] = best[place - 1]
            best_scores[place] = best_scores[place - 1]
            place -= 1
        best[place] = node
        best_scores[place] = score


@kernel
def log_factor(margin: np.float32, post_processor: int) -> np.float32:
    # Logarithm of what a margin multiplies a path's score with.
    if post_processor == SIGMOID:
        if margin > 0.0:
            return np.float32(-math.log1p(math.exp(-margin)))
        return np.float32(margin - math.log1p(math.exp(margin)))
    z = max(np.float32(1.0) - margin, np.float32(0.0))
    power = z
    for _ in range(1, post_processor):
        power *= z
    return -power
