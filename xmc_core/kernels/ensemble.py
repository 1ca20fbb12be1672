"""Averages of several ranked lists, row by row."""

import numpy as np

from xmc_core.kernels._compile import kernel
from xmc_core.types import Doubles, Flags, Floats, Indices

SOFTMAX, SIGMOID, RANK = range(3)

HIGH = np.uint64(32)
LOW_BITS = np.uint64(0xFFFFFFFF)


@kernel
def average_rows_into(
    labels: Indices,  # (n_rows, n_columns) lists of all members side by side; below 0: no entry
    scores: Floats,  # (n_rows, n_columns)
    starts: Indices,  # (n_members + 1,) columns of member i are starts[i]:starts[i + 1]
    how: int,
    best: int,  # RANK: what the first label of a list is worth
    out_labels: Indices,  # (n_rows, top_k) out: best first, -1 pads
    out_scores: Floats,  # (n_rows, top_k) out: means over the members, -inf pads
) -> None:
    """Sum what each label is worth to each member; equal sums in the order of first appearance."""
    n_rows, n_columns = labels.shape
    n_members = len(starts) - 1
    top_k = out_labels.shape[1]
    keys = np.empty(n_columns, np.uint64)
    worth = np.empty(n_columns, np.float64)
    counts = np.empty(n_columns, np.bool_)
    means = np.empty(1, np.float32)
    pattern = means.view(np.uint32)
    member_of = np.empty(n_columns, np.int32)
    for member in range(n_members):
        member_of[starts[member] : starts[member + 1]] = member

    for row in range(n_rows):
        # By label, and of one label by column: sorting brings together what is to be added.
        n = 0
        for column in range(n_columns):
            counts[column] = labels[row, column] >= 0
            if counts[column]:
                keys[n] = np.uint64(labels[row, column]) << HIGH | np.uint64(column)
                n += 1
        keys[:n].sort()
        for i in range(1, n):
            here, before = np.int64(keys[i] & LOW_BITS), np.int64(keys[i - 1] & LOW_BITS)
            if keys[i] >> HIGH == keys[i - 1] >> HIGH and member_of[here] == member_of[before]:
                counts[here] = False  # twice in one list: the better place counts

        for member in range(n_members):
            first, last = starts[member], starts[member + 1]
            _weigh(scores[row], counts, first, last, how, best, worth)

        n_found = 0
        i = 0
        while i < n:
            label, first = keys[i] >> HIGH, keys[i] & LOW_BITS
            total = 0.0
            while i < n and keys[i] >> HIGH == label:
                entry = np.int64(keys[i] & LOW_BITS)
                if counts[entry]:
                    total += worth[entry]
                i += 1
            # Bit patterns of floats that are not negative are in the order of the floats.
            means[0] = total / n_members
            keys[n_found] = (LOW_BITS - np.uint64(pattern[0])) << HIGH | first
            n_found += 1
        keys[:n_found].sort()

        for place in range(top_k):
            if place < n_found:
                pattern[0] = np.uint32(LOW_BITS - (keys[place] >> HIGH))
                out_labels[row, place] = labels[row, np.int64(keys[place] & LOW_BITS)]
                out_scores[row, place] = means[0]
            else:
                out_labels[row, place] = -1
                out_scores[row, place] = -np.inf


@kernel
def _weigh(
    scores: Floats,  # (n_columns,) of one row
    counts: Flags,
    first: int,  # first : last are the columns of one member
    last: int,
    how: int,
    best: int,
    worth: Doubles,  # (n_columns,) out
) -> None:
    """What each entry of one member's list is worth."""
    if how == SIGMOID:
        for column in range(first, last):
            worth[column] = 1.0 / (1.0 + np.exp(-np.float64(scores[column])))
    elif how == RANK:
        place = 0
        for column in range(first, last):
            if counts[column]:
                worth[column] = best - place
                place += 1
    else:
        highest = -np.inf
        for column in range(first, last):
            if counts[column]:
                highest = max(highest, np.float64(scores[column]))
        total = 0.0
        for column in range(first, last):
            # A list of nothing but -inf says nothing of any label.
            known = counts[column] and highest > -np.inf
            worth[column] = np.exp(np.float64(scores[column]) - highest) if known else 0.0
            total += worth[column]
        if total > 0.0:
            for column in range(first, last):
                worth[column] /= total
