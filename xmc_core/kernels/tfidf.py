"""Hashed n-grams to numbers, numbers to weighted rows.

The table is open addressing over slots of two words: the hash, 0 where the slot is free; and the
number in the high half of the second, so that a look-up in a table larger than the cache costs one
miss, which is asked for some look-ups ahead.
"""

import numpy as np

from xmc_core.kernels._compile import inline_kernel, kernel
from xmc_core.kernels.bits import Words, lowest_bit
from xmc_core.kernels.prefetch import prefetch
from xmc_core.kernels.text import Hashes
from xmc_core.types import Doubles, Floats, Indices, Pointers

ZERO, ONE = np.uint64(0), np.uint64(1)
HALF = np.uint64(32)
LOW_HALF = np.uint64(0xFFFFFFFF)
HIGH_HALF = np.uint64(0xFFFFFFFF00000000)

AHEAD = 16
"""So many look-ups before it is needed, a slot is asked for."""


@inline_kernel
def _slot(table: Hashes, mask: np.uint64, key: np.uint64) -> np.uint64:
    """Where the slot that holds `key` begins, or the free one where it belongs."""
    p = (key & mask) << ONE
    while table[p] != key and table[p] != ZERO:
        p = (p + ONE + ONE) & (mask << ONE)
    return p


@kernel
def fill_table(
    keys: Hashes,  # (n_terms,) distinct, none 0
    table: Hashes,  # (2 * slots,) zeros; slots is a power of two above n_terms
) -> None:
    """Number the keys by their position."""
    mask = np.uint64(table.shape[0] // 2 - 1)
    n = keys.shape[0]
    for number in range(n):
        prefetch(table, np.int64(keys[min(number + AHEAD, n - 1)] & mask) * 2)
        p = _slot(table, mask, keys[number])
        table[p] = keys[number]
        table[p + ONE] = np.uint64(number) << HALF


@kernel
def learn_grams_into(
    grams: Hashes,  # (n,)
    document_grams: Pointers,  # (n_documents + 1,) n-grams of document d are [d] : [d + 1]
    start: int,  # the n-gram to go on with
    documents: int,  # how many came in earlier blocks
    table: Hashes,  # in and out: the low half of a slot's second word is the term's last document
    keys: Hashes,  # (room,) in and out: hash of each term; the table has at least 2 * room slots
    document_counts: Indices,  # (room,) in and out: documents that have the term
    n_terms: int,
    min_count: int,
    numbers: Indices,  # (n,) out: number of each n-gram, in order of first appearance
    ripe: Pointers,  # (n,) out: positions where a term is met in its min_count-th document
    n_ripe: int,
) -> tuple[int, int, int]:
    """Take n-grams into the vocabulary until all are in or there is no more room.

    Returns how far it came, the number of terms, and that of ripe terms.
    """
    mask = np.uint64(table.shape[0] // 2 - 1)
    n = grams.shape[0]
    for document in range(document_grams.shape[0] - 1):
        if document_grams[document + 1] <= start:
            continue
        stamp = np.uint64(documents + document + 1) & LOW_HALF
        # The table is new if there was no more room, and does not know what the document has had.
        for i in range(document_grams[document], start):
            table[_slot(table, mask, grams[i]) + ONE] |= stamp
        for i in range(max(start, document_grams[document]), document_grams[document + 1]):
            prefetch(table, np.int64(grams[min(i + AHEAD, n - 1)] & mask) * 2)
            p = _slot(table, mask, grams[i])
            if table[p] == ZERO:
                if n_terms == keys.shape[0]:
                    return i, n_terms, n_ripe
                table[p] = grams[i]
                table[p + ONE] = np.uint64(n_terms) << HALF
                keys[n_terms] = grams[i]
                document_counts[n_terms] = 0
                n_terms += 1
            value = table[p + ONE]
            number = np.int64(value >> HALF)
            numbers[i] = number
            # Whether the document has had the term is hard to foresee, so there is no branch.
            is_first = np.int32((value & LOW_HALF) != stamp)
            table[p + ONE] = (value & HIGH_HALF) | stamp
            document_counts[number] += is_first
            if is_first & np.int32(document_counts[number] == min_count):
                ripe[n_ripe] = i
                n_ripe += 1
    return n, n_terms, n_ripe


@kernel
def look_up_into(
    grams: Hashes,  # (n,)
    table: Hashes,  # (2 * slots,)
    numbers: Indices,  # (n,) out: -1 for an unknown n-gram
) -> None:
    """Find the numbers of hashed n-grams."""
    mask = np.uint64(table.shape[0] // 2 - 1)
    n = grams.shape[0]
    for i in range(n):
        prefetch(table, np.int64(grams[min(i + AHEAD, n - 1)] & mask) * 2)
        p = _slot(table, mask, grams[i])
        numbers[i] = -1 if table[p] == ZERO else np.int64(table[p + ONE] >> HALF)


@kernel
def order_by_count_into(
    counts: Indices,  # (n,) 0 or more
    least: int,
    most: int,
    order: Indices,  # out: positions of counts between these, larger counts first; (n,) is enough
) -> int:
    """Sort positions by falling count, equal ones as they stand; returns how many there are."""
    places = np.zeros(max(most - least, 0) + 2, np.int64)
    for i in range(counts.shape[0]):
        if least <= counts[i] <= most:
            places[most - counts[i] + 1] += 1
    for i in range(1, places.shape[0]):
        places[i] += places[i - 1]
    n = int(places[-1])
    for i in range(counts.shape[0]):
        if least <= counts[i] <= most:
            order[places[most - counts[i]]] = i
            places[most - counts[i]] += 1
    return n


@kernel
def replace_numbers(
    numbers: Indices,  # (n,) in: of each n-gram; out: its feature
    features: Indices,  # feature of each number, -1 for one left out
) -> None:
    """Turn numbers into features: in a loop of its own, many cache misses are under way at once."""
    for i in range(numbers.shape[0]):
        numbers[i] = features[numbers[i]]


@kernel
def weigh_rows_into(
    row_grams: Pointers,  # (n_rows + 1,) n-grams of row r are [r] : [r + 1]
    features: Indices,  # (n,) of each n-gram, -1 for one that is none
    idf: Floats,  # (n_features,)
    sublinear: bool,
    logs: Doubles,  # 1 + ln tf of small tf
    tally: Indices,  # (n_features,) scratch: zeros, and zeros again at the end
    seen: Words,  # scratch, likewise: a bit for each feature
    seen_words: Words,  # scratch, likewise: a bit for each word of `seen`
    seen_groups: Words,  # scratch, likewise: a bit for each word of `seen_words`
    pointer: Pointers,  # (n_rows + 1,) out
    indices: Indices,  # out: ascending within a row; (n,) is enough
    values: Floats,  # out: rows of unit length
) -> None:
    """Count the features of each row, and weigh them by tf-idf.

    Rows are sorted by setting a bit for each feature and reading the bits in order.
    """
    n = 0
    pointer[0] = 0
    for row in range(row_grams.shape[0] - 1):
        for i in range(row_grams[row], row_grams[row + 1]):
            feature = features[i]
            if feature >= 0:
                tally[feature] += 1
                seen[feature >> 6] |= ONE << np.uint64(feature & 63)
                seen_words[feature >> 12] |= ONE << np.uint64((feature >> 6) & 63)
                seen_groups[feature >> 18] |= ONE << np.uint64((feature >> 12) & 63)
        squares = 0.0
        for top in range(seen_groups.shape[0]):
            groups = seen_groups[top]
            seen_groups[top] = ZERO
            while groups != ZERO:
                group = 64 * top + lowest_bit(groups)
                groups &= groups - ONE
                words = seen_words[group]
                seen_words[group] = ZERO
                while words != ZERO:
                    word = 64 * group + lowest_bit(words)
                    words &= words - ONE
                    bits = seen[word]
                    seen[word] = ZERO
                    while bits != ZERO:
                        feature = 64 * word + lowest_bit(bits)
                        bits &= bits - ONE
                        count = tally[feature]
                        tally[feature] = 0
                        weight = np.float64(count)
                        if sublinear:
                            weight = logs[count] if count < logs.shape[0] else 1.0 + np.log(weight)
                        value = weight * idf[feature]
                        squares += value * value
                        indices[n] = feature
                        values[n] = value
                        n += 1
        pointer[row + 1] = n
        if squares > 0.0:
            scale = 1.0 / np.sqrt(squares)
            for i in range(pointer[row], n):
                values[i] *= scale


@kernel
def place_rows_into(
    pointer: Pointers,  # (n_rows + 1,)
    indices: Indices,
    values: Floats,
    column: int,  # added to the column numbers
    scales: Floats,  # (n_rows,) of the values
    ends: Pointers,  # (n_rows,) in and out: end of what the rows of the result hold so far
    out_indices: Indices,  # out
    out_values: Floats,  # out
) -> None:
    """Put rows to the right of what other rows hold."""
    for row in range(ends.shape[0]):
        n = ends[row]
        for i in range(pointer[row], pointer[row + 1]):
            out_indices[n] = indices[i] + column
            out_values[n] = values[i] * scales[row]
            n += 1
        ends[row] = n
