"""Scores of given labels: their paths from the root, whatever a beam would keep."""

import math

import numpy as np

from xmc_core.kernels._compile import kernel
from xmc_core.kernels.beam import LOGARITHMS, NONE, PRODUCTS, to_scores
from xmc_core.kernels.bits import U64
from xmc_core.kernels.chunks import (
    PARENTS,
    POINTER,
    POST_PROCESSOR,
    WIDEST,
    WIDTH,
    Row,
    chunk_margins,
    hash_features,
    scratch_bytes,
    scratch_in,
    split_rows,
)
from xmc_core.kernels.views import float32_at, int64_at
from xmc_core.types import Floats, Indices, Pointers


@kernel
def score_slots(
    indptr: Pointers,  # X
    indices: Indices,
    values: Floats,
    first_row: int,
    last_row: int,
    table: Pointers,  # (levels, fields)
    multiplier: int,
    bits: int,
    slot_pointer: Pointers,  # (rows + 1,) entries of each row
    slots: Indices,  # (entries,) children of the last level, ascending in each row
    pair_of: Pointers,  # (entries,) the pair that each belongs to
    kept_as: int,
    path_weight: np.float32,
    vector: bool,
    scores: Floats,  # (pairs,) -inf; out: the best of each pair's entries
) -> bool:
    longest = 0
    most = 0
    for r in range(first_row, last_row):
        longest = max(longest, indptr[r + 1] - indptr[r])
        most = max(most, slot_pointer[r + 1] - slot_pointer[r])
    widest = 0
    for t in range(len(table)):
        widest = max(widest, table[t, WIDEST])
    memory = np.empty(scratch_bytes(longest, widest), np.uint8)
    scratch = scratch_in(memory, longest, widest)
    margins = float32_at(scratch.margins)
    nodes = np.empty((len(table) + 1, most), np.int64)
    path = np.empty(most, np.float32)
    ends = np.empty(1, np.int64)
    dense = np.empty((1, table[0, WIDTH]), np.float32)
    shorts = np.empty(dense.shape, np.int16)
    scales = np.empty(1, np.float32)

    for r in range(first_row, last_row):
        begin, n = slot_pointer[r], slot_pointer[r + 1] - slot_pointer[r]
        if n == 0:
            continue
        split_rows(
            table[0].ctypes.data, indptr, indices, values, r, r + 1, ends, dense, shorts, scales
        )
        hashed = hash_features(indptr, indices, r, ends, multiplier, bits)
        for i in range(n):
            nodes[len(table), i] = slots[begin + i]
            path[i] = 1.0 if kept_as == PRODUCTS else 0.0
        for t in range(len(table) - 1, -1, -1):
            for i in range(n):
                nodes[t, i] = parent_of(nodes[t + 1, i], table[t, POINTER], table[t, PARENTS])
        # Slots ascend, so at every level entries that share a parent are neighbours.
        for t in range(len(table)):
            pointer = int64_at(table[t, POINTER])
            i = 0
            while i < n:
                parent = nodes[t, i]
                x = Row(
                    ends[0] - indptr[r], hashed.ctypes.data, values.ctypes.data + 4 * indptr[r],
                    dense.ctypes.data, shorts.ctypes.data, scales[0],
                )  # fmt: skip  # here, as `hashed` is freed where it is named no more
                n_children = chunk_margins(vector, table[t].ctypes.data, parent, x, scratch)
                to_scores(
                    scratch.margins, n_children, table[t, POST_PROCESSOR], kept_as, path_weight,
                    path[i], np.float32(-np.inf),
                )  # fmt: skip
                while i < n and nodes[t, i] == parent:
                    path[i] = margins[U64(nodes[t + 1, i] - pointer[U64(parent)])]
                    i += 1
        for i in range(n):
            score = path[i]
            if kept_as == LOGARITHMS and table[len(table) - 1, POST_PROCESSOR] != NONE:
                score = np.float32(math.exp(score))
            scores[pair_of[begin + i]] = max(scores[pair_of[begin + i]], score)
    return len(memory) > 0  # named once more: `memory` lives till here, and so does `scratch`


@kernel
def parent_of(child: int, pointer_address: int, n_parents: int) -> int:
    # The last parent whose children begin at or before `child`: parents without any come first.
    pointer = int64_at(pointer_address)
    low, high = 0, n_parents
    while high - low > 1:
        middle = (low + high) >> 1
        if pointer[U64(middle)] <= child:
            low = middle
        else:
            high = middle
    return low
