"""UTF-8 bytes to units, units to n-grams, all by 64-bit hashes.

A unit is a word or a character. An n-gram's hash is made of the hashes of its units, so no table
of units is needed, and a text is read once. Two different n-grams of a corpus that has n may share
a hash and are then one feature; the odds that this happens at all are n^2 / 2^64, 1 in 180,000 for
10 million n-grams.

Eight bytes are worked on at once as one little-endian number, which is what x86 and ARM have.
"""

import numpy as np
from numpy.typing import NDArray

from xmc_core.kernels._compile import inline_kernel, kernel
from xmc_core.kernels.bits import lowest_bit
from xmc_core.types import Bytes, Indices, Pointers

Hashes = NDArray[np.uint64]

WORD, SPACE, CAPITAL, KNOWN = np.uint8(1), np.uint8(2), np.uint8(4), np.uint8(8)
"""Classes of code points, as bits: part of a word; white space; changed by str.lower; looked up."""

GROUP = 64
"""Bytes that are looked at together. A block's text is followed by as many zero bytes at least."""

# The finaliser of MurmurHash3.
MIX_1 = np.uint64(0xFF51AFD7ED558CCD)
MIX_2 = np.uint64(0xC4CEB9FE1A85EC53)
HALF = np.uint64(33)

LEFT_UNIT = np.uint64(0x9E3779B97F4A7C17)
"""An n-gram's hash is a polynomial in this number, of its units' hashes. These are as good as
random, so a multiplication and an addition are enough. It is 3 modulo 4: the differences between
its powers, which tell apart a b from b a, then lose the fewest bits."""

ZERO, ONE, THREE, SEVEN, EIGHT = (np.uint64(n) for n in (0, 1, 3, 7, 8))
BITS, TOP_BIT, TOP_BYTE = (np.uint64(n) for n in (64, 63, 56))
HIGH_BITS = np.uint64(0x8080808080808080)
GATHER = np.uint64(0x0102040810204080)
"""x * GATHER >> 56 puts the lowest bits of eight bytes side by side."""

BLANK = np.int64(32)

MAX_GRAM = 8
"""An n-gram's place is its last unit * MAX_GRAM + its length - 1."""


@inline_kernel
def _mix(h: np.uint64) -> np.uint64:
    h ^= h >> HALF
    h *= MIX_1
    h ^= h >> HALF
    h *= MIX_2
    return h ^ (h >> HALF)


@inline_kernel
def _code_point(text: Bytes, i: int) -> tuple[np.int64, int]:
    """Code point that starts at byte i of valid UTF-8, and its width in bytes."""
    lead = np.int64(text[i])
    if lead < 0x80:
        return lead, 1
    if lead < 0xE0:
        return (lead & 0x1F) << 6 | np.int64(text[i + 1] & 0x3F), 2
    middle = np.int64(text[i + 1] & 0x3F)
    if lead < 0xF0:
        return (lead & 0x0F) << 12 | middle << 6 | np.int64(text[i + 2] & 0x3F), 3
    tail = np.int64(text[i + 2] & 0x3F) << 6 | np.int64(text[i + 3] & 0x3F)
    return (lead & 0x07) << 18 | middle << 12 | tail, 4


@kernel
def lower_into(
    text: Bytes,  # (n,) valid UTF-8, a zero byte between documents
    lowercase: bool,  # turn A-Z into a-z; other letters stay as they are
    lowered: Bytes,  # (n + GROUP or more, a multiple of GROUP) out: the text, then zeros
    in_word: Bytes,  # out: 1 for A-Z, a-z, 0-9 and _, 0 for all else; as long as `lowered`
) -> None:
    """Copy a text in lower case and say where its ASCII words are."""
    n = text.shape[0]
    # Without branches and tables, so that it becomes vector code.
    for i in range(n):
        c = text[i]
        capital = (c >= 65) & (c <= 90)
        lowered[i] = c + 32 if capital & lowercase else c
        in_word[i] = capital | (c >= 97) & (c <= 122) | (c >= 48) & (c <= 57) | (c == 95)
    lowered[n:] = 0
    in_word[n:] = 0


@kernel
def find_ends_and_letters_into(
    text: Bytes,  # as lower_into leaves it
    text_8: Hashes,  # the same memory, eight bytes at a time
    classes: Bytes,  # (0x110000,) class of each code point, 0 where it is not known yet
    ends: Pointers,  # (n_documents,) out: the first zero bytes
    in_word: Bytes,  # in and out: 1 as well for the bytes of word characters beyond ASCII
) -> tuple[int, bool]:
    """Say where documents end and where the letters and digits of other scripts are.

    Returns the first code point of unknown class, where it stops, or -1; and whether there are
    capitals beyond ASCII among those before.
    """
    found = 0
    done = 0  # bytes that characters beyond ASCII have taken
    kinds = np.uint8(0)
    for group in range(text_8.shape[0]):
        eight = text_8[group]
        # The high bit of each byte that is zero: no carry leaves a byte.
        zeros = ~((eight & ~HIGH_BITS) + ~HIGH_BITS | eight) & HIGH_BITS
        while zeros != ZERO and found < ends.shape[0]:
            ends[found] = 8 * group + (lowest_bit(zeros) >> 3)
            found += 1
            zeros &= zeros - ONE
        high = eight & HIGH_BITS
        while high != ZERO:
            i = 8 * group + (lowest_bit(high) >> 3)
            high &= high - ONE
            if i < done:
                continue
            point, width = _code_point(text, i)
            kind = classes[point]
            if kind == 0:
                return int(point), False
            kinds |= kind
            done = i + width
            for j in range(i, done):
                in_word[j] = kind & WORD
    return -1, kinds & CAPITAL != 0


@inline_kernel
def _eight_bytes(text_8: Hashes, i: np.uint64) -> np.uint64:
    """Bytes i .. i + 7."""
    shift = (i & SEVEN) << THREE
    low: np.uint64 = text_8[i >> THREE] >> shift
    high: np.uint64 = text_8[(i >> THREE) + ONE] << ONE << (TOP_BIT - shift)
    return low | high


@kernel
def find_words_into(
    text_8: Hashes,  # as lower_into leaves it
    in_word_8: Hashes,  # eight bytes of `in_word` at a time
    document_ends: Pointers,  # (n_documents,)
    words: Hashes,  # out: hash of each word; half as long as the text is enough
    bounds: Pointers,  # out: first byte of each word and the byte after its last one, in turn
    document_words: Pointers,  # (n_documents + 1,) out: words of d are [d] : [d + 1]
) -> int:
    """Split a block of documents into words; returns their number."""
    n_bounds = 0
    before = ZERO
    for group in range(0, in_word_8.shape[0], 8):
        mask = ZERO
        for j in range(8):
            mask |= (in_word_8[group + j] * GATHER >> TOP_BYTE) << np.uint64(8 * j)
        # A bit where a word begins, and one behind its end.
        edges = mask ^ (mask << ONE | before)
        before = mask >> TOP_BIT
        while edges != ZERO:
            bounds[n_bounds] = 8 * group + lowest_bit(edges)
            n_bounds += 1
            edges &= edges - ONE

    n_words = n_bounds // 2
    document = 0
    document_words[0] = 0
    for word in range(n_words):
        while document_ends[document] < bounds[2 * word]:
            document += 1
            document_words[document] = word
        i = np.uint64(bounds[2 * word])
        end = np.uint64(bounds[2 * word + 1])
        h = ZERO
        while end - i > EIGHT:
            h = _mix(h ^ _eight_bytes(text_8, i)) * LEFT_UNIT
            i += EIGHT
        spare = BITS - ((end - i) << THREE)
        words[word] = _mix(h ^ (_eight_bytes(text_8, i) << spare) >> spare)
    document_words[document + 1 :] = n_words
    return n_words


@inline_kernel
def _put(
    characters: Hashes, bounds: Pointers, n: int, point: np.int64, start: int, end: int
) -> int:
    characters[n] = _mix(np.uint64(point))
    bounds[2 * n] = start
    bounds[2 * n + 1] = end
    return n + 1


@kernel
def find_characters_into(
    text: Bytes,  # as lower_into leaves it
    classes: Bytes,  # (0x110000,)
    document_ends: Pointers,  # (n_documents,)
    characters: Hashes,  # out: hash of each; as long as the text is enough
    bounds: Pointers,  # out: first byte of each, byte after it; equal where it is a space put in
    document_characters: Pointers,  # (n_documents + 1,) out: those of d are [d] : [d + 1]
) -> int:
    """Split documents into characters, one space for two or more of white space; their number."""
    n = 0
    i = 0
    document_characters[0] = 0
    for document in range(document_ends.shape[0]):
        blank = False
        while i < document_ends[document]:
            point, width = _code_point(text, i)
            before = blank
            blank = classes[point] & SPACE != 0
            if blank and before:
                _put(characters, bounds, n - 1, BLANK, i, i)
            else:
                n = _put(characters, bounds, n, point, i, i + width)
            i += width
        document_characters[document + 1] = n
        i += 1
    return n


@kernel
def find_padded_words_into(
    text: Bytes,  # as lower_into leaves it
    classes: Bytes,  # (0x110000,)
    document_ends: Pointers,  # (n_documents,)
    characters: Hashes,  # out: twice as long as the text and 2 is enough
    bounds: Pointers,  # out: see find_characters_into
    word_characters: Pointers,  # out: characters of word w are [w] : [w + 1]
    document_words: Pointers,  # (n_documents + 1,) out
) -> int:
    """Split documents into what stands between white space, a space put before and after each;
    returns the number of characters."""
    n = 0
    words = 0
    i = 0
    word_characters[0] = 0
    document_words[0] = 0
    for document in range(document_ends.shape[0]):
        blank = True
        while i <= document_ends[document]:
            point, width = _code_point(text, i)
            before = blank
            blank = i == document_ends[document] or classes[point] & SPACE != 0
            if blank != before:
                n = _put(characters, bounds, n, BLANK, i, i)
            if not blank:
                n = _put(characters, bounds, n, point, i, i + width)
            elif not before:
                words += 1
                word_characters[words] = n
            i += width
        document_words[document + 1] = words
    return n


@kernel
def join_units_into(
    units: Hashes,  # (n_units,)
    span_units: Pointers,  # (n_spans + 1,) units of span s are [s] : [s + 1]
    document_spans: Pointers,  # (n_documents + 1,) spans of document d are [d] : [d + 1]
    min_n: int,
    max_n: int,  # MAX_GRAM at most
    short_ones: bool,  # a span with fewer than min_n units is an n-gram itself
    grams: Hashes,  # out: hash of each n-gram, never 0; n_units * (max_n - min_n + 1) is enough
    places: Pointers,  # out: last unit * MAX_GRAM + units - 1 of each, or empty
    document_grams: Pointers,  # (n_documents + 1,) out: n-grams of d are [d] : [d + 1]
) -> None:
    """Hash the n-grams of each span, in the order of their last units, short ones first."""
    n_grams = 0
    document_grams[0] = 0
    for document in range(document_grams.shape[0] - 1):
        for span in range(document_spans[document], document_spans[document + 1]):
            first = span_units[span]
            last = span_units[span + 1]
            least = min(min_n, last - first) if short_ones else min_n
            for unit in range(first, last):
                h = ZERO
                for n in range(1, min(max_n, unit - first + 1) + 1):
                    h = h * LEFT_UNIT + units[unit - n + 1]
                    if n >= least:
                        grams[n_grams] = h if h != ZERO else ONE
                        if places.shape[0] > 0:
                            places[n_grams] = unit * MAX_GRAM + n - 1
                        n_grams += 1
        document_grams[document + 1] = n_grams


@kernel
def grams_size(
    bounds: Pointers,  # (2 * n_units,)
    places: Pointers,  # (n,)
    chosen: Pointers,  # (n_grams,) entries of `places`
) -> int:
    """Bytes that are enough for copy_grams_into."""
    size = 0
    for gram in chosen:
        last = places[gram] // MAX_GRAM
        first = last - places[gram] % MAX_GRAM
        # An n-gram of characters may begin and end with a space that is not in the text.
        size += bounds[2 * last + 1] - bounds[2 * first] + 2
    return size


@kernel
def copy_grams_into(
    text: Bytes,
    bounds: Pointers,  # (2 * n_units,)
    places: Pointers,  # (n,)
    chosen: Pointers,  # (n_grams,) entries of `places`
    words: bool,  # a space between two units
    out: Bytes,  # out
    out_ends: Pointers,  # (n_grams,) out
) -> None:
    """Copy the text of n-grams, one after the other."""
    n = 0
    for number in range(chosen.shape[0]):
        last = places[chosen[number]] // MAX_GRAM
        first = last - places[chosen[number]] % MAX_GRAM
        for unit in range(first, last + 1):
            start = bounds[2 * unit]
            end = bounds[2 * unit + 1]
            if (words and unit > first) or start == end:
                out[n] = BLANK
                n += 1
            for i in range(start, end):
                out[n] = text[i]
                n += 1
        out_ends[number] = n


@kernel
def measure_terms_into(
    numbers: Indices,  # (n_grams,) of the n-grams that copy_grams_into has copied
    gram_ends: Pointers,  # (n_grams,) where it says that they end
    features: Indices,  # feature of each number, -1 for one left out
    sizes: Pointers,  # (n_features,) out
) -> None:
    """Say how many bytes the text of features has."""
    start = np.int64(0)
    for gram in range(numbers.shape[0]):
        feature = features[numbers[gram]]
        if feature >= 0:
            sizes[feature] = gram_ends[gram] - start
        start = gram_ends[gram]


@kernel
def place_terms_into(
    numbers: Indices,  # as for measure_terms_into
    gram_ends: Pointers,
    features: Indices,
    text: Bytes,  # what copy_grams_into has copied
    ends: Pointers,  # (n_features,) where the text of each feature ends
    out: Bytes,  # out
) -> None:
    """Put the text of features where it belongs."""
    start = np.int64(0)
    for gram in range(numbers.shape[0]):
        feature = features[numbers[gram]]
        end = gram_ends[gram]
        if feature >= 0:
            shift = ends[feature] - end
            for i in range(start, end):
                out[i + shift] = text[i]
        start = end
