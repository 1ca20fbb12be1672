"""Beam search over all levels: score the children of each row's nodes, keep the best.

One row is searched level by level through the nodes in order of their score. Many rows are
searched together, sorted by node, so that a chunk is read while it is in the nearest cache. Both
run the same code on the same numbers in the same order, hence the same bits.
"""

import math

import numpy as np

from xmc_core.kernels._compile import held_kernel, kernel
from xmc_core.kernels.bits import U64, lowest_bit
from xmc_core.kernels.chunks import (
    ALLOWED,
    I64,
    PARENTS,
    POINTER,
    POST_PROCESSOR,
    WIDEST,
    WIDTH,
    Row,
    Scratch,
    chunk_margins,
    hash_features,
    scratch_bytes,
    scratch_in,
    split_rows,
)
from xmc_core.kernels.lanes import LANES
from xmc_core.kernels.search_simd import at_least
from xmc_core.kernels.views import float32_at, int32_at, int64_at, uint8_at
from xmc_core.types import Floats, Indices, Pointers, SignedShorts

NONE, HINGE_1, HINGE_2, HINGE_3, HINGE_4, SIGMOID = range(6)
PRODUCTS, LOGARITHMS, LOGARITHMS_OUT = range(3)
"""How a path's score is kept: as a product of factors, as a sum of their logarithms, or as such a
sum that is also what the caller wants."""


@kernel
def search_rows(
    indptr: Pointers,  # X
    indices: Indices,
    values: Floats,
    first_row: int,
    last_row: int,
    block: int,  # rows searched together
    table: Pointers,  # (levels, fields)
    n_features: int,
    multiplier: int,
    bits: int,  # of a hashed feature
    slot_labels: Indices,  # (children of the last level,) or (0,): their own numbers
    beam_size: int,
    kept_as: int,
    path_weight: np.float32,
    vector: bool,
    labels: Indices,  # (last_row - first_row, k) out, -1 pads
    scores: Floats,  # the same shape, out, -inf pads
) -> bool:
    # Returns whether columns exist and ascend in every row, none twice, and values are finite;
    # where not, the rest is not searched.
    longest = 0
    for r in range(first_row, last_row):
        longest = max(longest, indptr[r + 1] - indptr[r])
        if indptr[r + 1] > indptr[r] and (
            indices[indptr[r]] < 0 or indices[indptr[r + 1] - 1] >= n_features
        ):
            return False
        for j in range(indptr[r] + 1, indptr[r + 1]):
            if indices[j] <= indices[j - 1]:
                return False
        for j in range(indptr[r], indptr[r + 1]):
            if values[j] - values[j] != 0.0:
                return False
    widest = 0
    for t in range(len(table)):
        widest = max(widest, table[t, WIDEST])
    memory = np.empty(scratch_bytes(longest, widest), np.uint8)
    scratch = scratch_in(memory, longest, widest)

    ends = np.empty(min(block, last_row - first_row), np.int64)
    dense = np.empty((len(ends), table[0, WIDTH]), np.float32)
    shorts = np.empty(dense.shape, np.int16)
    scales = np.empty(len(ends), np.float32)
    for begin in range(first_row, last_row, block):
        end = min(begin + block, last_row)
        split_rows(
            table[0].ctypes.data, indptr, indices, values, begin, end, ends, dense, shorts, scales
        )
        hashed = hash_features(indptr, indices, begin, ends[: end - begin], multiplier, bits)
        beam = np.zeros((end - begin, 1), np.int32)
        beam_scores = np.full((end - begin, 1), 1.0 if kept_as == PRODUCTS else 0.0, np.float32)
        for t in range(len(table) - 1):
            pointer = int64_at(table[t, POINTER])
            width = min(beam_size, pointer[table[t, PARENTS]])
            best = np.empty((end - begin, width), np.int32)
            best_scores = np.empty((end - begin, width), np.float32)
            search_level(
                indptr, ends, values, dense, shorts, scales, hashed, begin, table[t], beam,
                beam_scores, slot_labels[:0], kept_as, path_weight, vector, scratch, best,
                best_scores,
            )  # fmt: skip
            beam, beam_scores = best, best_scores
        out = slice(begin - first_row, end - first_row)
        search_level(
            indptr, ends, values, dense, shorts, scales, hashed, begin, table[len(table) - 1], beam,
            beam_scores, slot_labels, kept_as, path_weight, vector, scratch, labels[out],
            scores[out],
        )  # fmt: skip
        if kept_as == LOGARITHMS and table[len(table) - 1, POST_PROCESSOR] != NONE:
            for r in range(begin - first_row, end - first_row):
                for i in range(labels.shape[1]):
                    if labels[r, i] >= 0:
                        scores[r, i] = math.exp(scores[r, i])
    return len(memory) > 0  # named once more: `memory` lives till here, and so does `scratch`


@held_kernel
def search_few(
    indptr: Pointers,
    indices: Indices,
    values: Floats,
    table: Pointers,
    n_features: int,
    multiplier: int,
    bits: int,
    slot_labels: Indices,
    beam_size: int,
    kept_as: int,
    path_weight: np.float32,
    vector: bool,
    labels: Indices,
    scores: Floats,
) -> bool:
    n_rows = len(indptr) - 1
    return search_rows(
        indptr, indices, values, 0, n_rows, 1, table, n_features, multiplier, bits, slot_labels,
        beam_size, kept_as, path_weight, vector, labels, scores,
    )  # fmt: skip


@kernel
def search_level(
    indptr: Pointers,
    ends: Pointers,  # where the sparse parts of rows first_row, ... end
    values: Floats,
    dense: Floats,  # (rows, width) their dense parts
    shorts: SignedShorts,  # (rows, width) the same in whole numbers
    scales: Floats,  # (rows,) of these
    hashed: Indices,  # of the non-zeros from indptr[first_row] on
    first_row: int,
    level: Pointers,
    beam: Indices,  # (rows, width) nodes of the level above for rows first_row, ...; -1 pads
    beam_scores: Floats,
    slot_labels: Indices,
    kept_as: int,
    path_weight: np.float32,
    vector: bool,
    scratch: Scratch,
    best: Indices,  # (rows, k) out, -1 pads
    best_scores: Floats,  # (rows, k) out, -inf pads
) -> None:
    n_rows, width = beam.shape
    best[:] = -1
    best_scores[:] = -np.inf
    post_processor = level[POST_PROCESSOR]
    pointer = int64_at(level[POINTER])
    bounded = kept_as != PRODUCTS and post_processor != NONE  # no child beats its parent
    pairs = sorted_pairs(beam, level[PARENTS]) if n_rows > 1 else row_pairs(beam)
    k = best.shape[1]
    level_address = level.ctypes.data
    hashed_address = hashed.ctypes.data - 4 * indptr[first_row]
    values_address = values.ctypes.data
    dense_address, shorts_address = dense.ctypes.data, shorts.ctypes.data
    best_address, scores_address = best.ctypes.data, best_scores.ctypes.data
    labels_address = slot_labels.ctypes.data if len(slot_labels) > 0 else 0
    for p in range(len(pairs)):
        r = pairs[p] // width
        place = pairs[p] - r * width
        above = beam_scores[r, place]
        worst = best_scores[r, k - 1]
        if bounded and above < worst:
            continue
        parent = I64(beam[r, place])
        begin = indptr[first_row + r]
        x = Row(
            ends[r] - begin, hashed_address + 4 * begin, values_address + 4 * begin,
            dense_address + 4 * dense.shape[1] * r, shorts_address + 2 * dense.shape[1] * r,
            scales[r],
        )  # fmt: skip
        n_children = chunk_margins(vector, level_address, parent, x, scratch)
        if n_children:
            to_scores(
                scratch.margins, n_children, post_processor, kept_as, path_weight, above, worst
            )
            keep_best(
                vector, scratch.margins, n_children, pointer[parent], level[ALLOWED],
                labels_address, k, best_address + 4 * k * r, scores_address + 4 * k * r,
            )  # fmt: skip


@kernel
def row_pairs(beam: Indices) -> Pointers:
    # Places of the nodes of a single row.
    pairs = np.empty(beam.shape[1], np.int64)
    n = 0
    for b in range(beam.shape[1]):
        pairs[n] = b
        n += beam[0, b] >= 0
    return pairs[:n]


@kernel
def sorted_pairs(beam: Indices, n_parents: int) -> Pointers:
    # Places r * width + b of all beam entries, sorted by node (counting sort), rows ascending.
    n_rows, width = beam.shape
    starts = np.zeros(n_parents + 2, np.int64)
    for r in range(n_rows):
        for b in range(width):
            starts[beam[r, b] + 2] += beam[r, b] >= 0
    for parent in range(n_parents):
        starts[parent + 2] += starts[parent + 1]
    pairs = np.empty(starts[n_parents + 1], np.int64)
    for r in range(n_rows):
        for b in range(width):
            parent = beam[r, b]
            if parent >= 0:
                pairs[starts[parent + 1]] = r * width + b
                starts[parent + 1] += 1
    return pairs


@kernel
def to_scores(
    margins_address: int,  # in: margins; out: the children's scores
    n_children: int,
    post_processor: int,
    kept_as: int,
    path_weight: np.float32,  # of the path's logarithm, where margins are scores
    above: np.float32,  # the parent's score
    worst: np.float32,  # a score that cannot reach this one need not be right
) -> None:
    margins = float32_at(margins_address)
    if post_processor == NONE:
        if path_weight != 0.0:
            for i in range(U64(n_children)):
                margins[i] += path_weight * above
        return
    if post_processor == SIGMOID:
        for i in range(U64(n_children)):
            # The logarithm of a sigmoid lies below 0 and below the margin.
            factor = min(margins[i], np.float32(0.0))
            if kept_as == PRODUCTS or above + factor >= worst:
                factor = log_sigmoid(margins[i])
            margins[i] = factor
    else:
        for i in range(U64(n_children)):
            z = max(np.float32(1.0) - margins[i], np.float32(0.0))
            power = z
            if post_processor >= HINGE_2:
                power *= z
            if post_processor >= HINGE_3:
                power *= z
            if post_processor >= HINGE_4:
                power *= z
            margins[i] = -power
    if kept_as == PRODUCTS:
        for i in range(U64(n_children)):
            margins[i] = above * np.float32(math.exp(margins[i]))
    else:
        for i in range(U64(n_children)):
            margins[i] += above


@kernel
def log_sigmoid(margin: np.float32) -> np.float32:
    if margin > 0.0:
        return np.float32(-math.log1p(math.exp(-margin)))
    return np.float32(margin - math.log1p(math.exp(margin)))


@kernel
def keep_best(
    vector: bool,
    scores_address: int,  # (tiles * 16,)
    n_children: int,
    first: int,  # number of the first child
    allowed: int,  # address of a flag per child, or 0
    slot_labels: int,  # address of a name per child, or 0
    k: int,
    best_address: int,  # (k,) so far, in order
    best_scores_address: int,
) -> None:
    scores, best_scores = float32_at(scores_address), float32_at(best_scores_address)
    best = int32_at(best_address)
    last = U64(k - 1)
    for tile in range((n_children + LANES - 1) // LANES):
        mask = at_least(vector, scores, tile, best_scores[last])
        while mask != 0:
            i = tile * LANES + lowest_bit(U64(mask))
            mask &= mask - 1
            if i >= n_children:
                break
            child = U64(first + i)
            if allowed and not uint8_at(allowed)[child]:
                continue
            score = scores[U64(i)]
            if score < best_scores[last]:
                continue
            node = int32_at(slot_labels)[child] if slot_labels else np.int32(child)
            if score == best_scores[last] and 0 <= best[last] <= node:
                continue
            place = last
            if slot_labels:
                for other in range(U64(k)):  # a label that is already there keeps its best score
                    if best[other] == node:
                        place = other
                        break
                if best[place] == node and score <= best_scores[place]:
                    continue
            while place > 0:
                before = place - U64(1)
                if best_scores[before] > score or (
                    best_scores[before] == score and 0 <= best[before] < node
                ):
                    break
                best[place] = best[before]
                best_scores[place] = best_scores[before]
                place = before
            best[place] = node
            best_scores[place] = score
