"""Hashed n-grams to feature numbers, counts to weights.

The table is open addressing over 16-byte slots (hash, number), so that a look-up in a table larger
than the cache costs one miss. Hash 0 marks a free slot.
"""

import numpy as np

from xmc_core.kernels._compile import inline_kernel, kernel
from xmc_core.kernels.text import Hashes
from xmc_core.types import Floats, Indices, Pointers

ONE = np.uint64(1)
FREE = np.uint64(0)
NUMBER_BITS = np.uint64(32)
LOW_BITS = np.uint64(0xFFFFFFFF)

MOST_RANKED = 128
"""A row this short is sorted by counting how many keys are smaller: that is vector code without a
branch, 15 to 20 ns per entry on titles against 35 of a quicksort (EPYC)."""


@inline_kernel
def _slot(table: Hashes, key: np.uint64) -> np.uint64:
    """The slot that holds `key`, or the free one where it belongs."""
    mask = np.uint64(table.shape[0] - 1)
    p = key & mask
    while table[p, 0] != key and table[p, 0] != FREE:
        p = (p + ONE) & mask
    return p


@kernel
def fill_table(
    keys: Hashes,  # (n_terms,) distinct, none 0
    table: Hashes,  # (size, 2) zeros; size is a power of two above n_terms
) -> None:
    """Number the keys by their position."""
    for number in range(keys.shape[0]):
        p = _slot(table, keys[number])
        table[p, 0] = keys[number]
        table[p, 1] = np.uint64(number)


@kernel
def learn_grams_into(
    grams: Hashes,  # (n,) those of one document after the other, each document's distinct
    table: Hashes,  # (size, 2) size is at least twice n_terms + n
    keys: Hashes,  # in and out: hash of each term so far; room for n more
    document_counts: Pointers,  # in and out: documents that have it, likewise
    n_terms: int,
    min_count: int,
    numbers: Indices,  # (n,) out: number of each n-gram, in order of first appearance
    ripe: Pointers,  # (n,) out: positions where a term is met in its min_count-th document
) -> tuple[int, int]:
    """Take a block of documents into the vocabulary; returns its terms and ripe terms."""
    n_ripe = 0
    for i in range(grams.shape[0]):
        p = _slot(table, grams[i])
        if table[p, 0] == FREE:
            table[p, 0] = grams[i]
            table[p, 1] = np.uint64(n_terms)
            keys[n_terms] = grams[i]
            document_counts[n_terms] = 0
            n_terms += 1
        number = np.int64(table[p, 1])
        numbers[i] = number
        document_counts[number] += 1
        if document_counts[number] == min_count:
            ripe[n_ripe] = i
            n_ripe += 1
    return n_terms, n_ripe


@kernel
def look_up_into(
    grams: Hashes,  # (n,)
    table: Hashes,  # (size, 2)
    numbers: Indices,  # (n,) out: -1 for an unknown n-gram
) -> None:
    """Find the numbers of hashed n-grams."""
    for i in range(grams.shape[0]):
        p = _slot(table, grams[i])
        numbers[i] = -1 if table[p, 0] == FREE else np.int64(table[p, 1])


@kernel
def count_known_into(
    pointer: Pointers,  # (n_rows + 1,)
    numbers: Indices,  # (nnz,) -1 for what is left out
    out: Pointers,  # (n_rows,) out: entries that stay
) -> None:
    """Count what stays of each row."""
    for row in range(pointer.shape[0] - 1):
        known = 0
        for i in range(pointer[row], pointer[row + 1]):
            known += numbers[i] >= 0
        out[row] = known


@inline_kernel
def _sorted(keys: Hashes) -> Hashes:
    """Sort distinct keys."""
    if keys.shape[0] > MOST_RANKED:
        keys.sort()
        return keys
    out = np.empty_like(keys)
    for i in range(keys.shape[0]):
        rank = 0
        for j in range(keys.shape[0]):
            rank += keys[j] < keys[i]
        out[rank] = keys[i]
    return out


@kernel
def weigh_rows_into(
    pointer: Pointers,  # (n_rows + 1,) rows of `numbers` and `counts`
    numbers: Indices,  # (nnz,) feature, or -1 for what is left out
    counts: Indices,  # (nnz,)
    idf: Floats,  # (n_features,)
    sublinear: bool,
    out_pointer: Pointers,  # (n_rows + 1,) rows of the result, as counted by count_known_into
    out_indices: Indices,  # out: ascending within a row
    out_values: Floats,  # out: unit length
) -> None:
    """tf-idf of a block of rows."""
    for row in range(pointer.shape[0] - 1):
        start = out_pointer[row]
        size = out_pointer[row + 1] - start
        # Feature and count in one number: sorting it sorts both.
        packed = np.empty(size, np.uint64)
        n = 0
        for i in range(pointer[row], pointer[row + 1]):
            if numbers[i] >= 0:
                packed[n] = np.uint64(numbers[i]) << NUMBER_BITS | np.uint64(counts[i])
                n += 1
        packed = _sorted(packed)

        squares = 0.0
        for i in range(size):
            feature = np.int64(packed[i] >> NUMBER_BITS)
            count = np.float64(packed[i] & LOW_BITS)
            if sublinear and count > 1.0:
                count = 1.0 + np.log(count)
            value = count * idf[feature]
            squares += value * value
            out_indices[start + i] = feature
            out_values[start + i] = value
        if squares > 0.0:
            scale = 1.0 / np.sqrt(squares)
            for i in range(start, start + size):
                out_values[i] *= scale
