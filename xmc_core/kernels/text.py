"""UTF-8 bytes to words, words to counted n-grams, all by 64-bit hashes.

A word is a maximal run of word characters; an n-gram's hash is made of the hashes of its words, so
no vocabulary of words is needed, and a text is read once. Two different n-grams of a corpus that
has n may share a hash and are then one feature; the odds that this happens at all are n^2 / 2^65,
1 in 370,000 for 10 million n-grams.
"""

import numpy as np
from numpy.typing import NDArray

from xmc_core.kernels._compile import inline_kernel, kernel
from xmc_core.types import Bytes, Indices, Pointers

Hashes = NDArray[np.uint64]

# FNV-1a over a word's bytes, then the finaliser of MurmurHash3: FNV alone leaves the high bits of
# short words almost equal.
FNV_OFFSET = np.uint64(0xCBF29CE484222325)
FNV_PRIME = np.uint64(0x100000001B3)
MIX_1 = np.uint64(0xFF51AFD7ED558CCD)
MIX_2 = np.uint64(0xC4CEB9FE1A85EC53)
HALF = np.uint64(33)
LEFT_WORD = np.uint64(0x9E3779B97F4A7C15)
ONE = np.uint64(1)


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
def find_words_into(
    text: Bytes,  # valid UTF-8; a zero byte ends each document, the last one's included
    is_word: Bytes,  # (0x110000,) 1 for the code points that words are made of
    hashes: Hashes,  # out: hash of each word; half as long as `text` is enough
    starts: Pointers,  # out: first byte of each word
    ends: Pointers,  # out: byte after its last one
    document_words: Pointers,  # (n_documents + 1,) out: words of d are [d] : [d + 1]
) -> int:
    """Split a block of documents into words; returns their number."""
    n_words = 0
    document = 0
    document_words[0] = 0
    inside = False
    h = FNV_OFFSET
    i = 0
    while i < text.shape[0]:
        point, width = _code_point(text, i)
        if is_word[point]:
            if not inside:
                inside = True
                h = FNV_OFFSET
                starts[n_words] = i
            for j in range(i, i + width):
                h = (h ^ np.uint64(text[j])) * FNV_PRIME
        else:
            if inside:
                inside = False
                hashes[n_words] = _mix(h)
                ends[n_words] = i
                n_words += 1
            if point == 0:
                document += 1
                document_words[document] = n_words
        i += width
    return n_words


@kernel
def count_grams_into(
    words: Hashes,  # (n_words,)
    starts: Pointers,  # (n_words,)
    ends: Pointers,  # (n_words,)
    document_words: Pointers,  # (n_documents + 1,)
    min_n: int,
    max_n: int,
    slots: Indices,  # scratch: a power of two, at least twice the n-grams of the largest document
    grams: Hashes,  # out: hash of each distinct n-gram of each document, never 0
    gram_starts: Pointers,  # out: where it first stands in the text
    gram_ends: Pointers,  # out
    counts: Indices,  # out: how often the document has it
    document_grams: Pointers,  # (n_documents + 1,) out
) -> int:
    """Count the n-grams of each document, in order of appearance; returns how many there are."""
    total = 0
    document_grams[0] = 0
    for document in range(document_words.shape[0] - 1):
        first = document_words[document]
        last = document_words[document + 1]
        # A document's own table, as small as it can be: it stays in the fastest cache.
        size = 4
        while size < 2 * (last - first) * (max_n - min_n + 1):
            size *= 2
        mask = np.uint64(size - 1)
        slots[:size] = -1
        for i in range(first, last):
            h = np.uint64(0)
            for n in range(1, min(max_n, i - first + 1) + 1):
                word = words[i - n + 1]
                h = word if n == 1 else _mix(word * LEFT_WORD + h)
                if n < min_n:
                    continue
                key = h if h != np.uint64(0) else ONE
                p = key & mask
                while True:
                    known = slots[p]
                    if known < 0:
                        slots[p] = total - document_grams[document]
                        grams[total] = key
                        gram_starts[total] = starts[i - n + 1]
                        gram_ends[total] = ends[i]
                        counts[total] = 1
                        total += 1
                        break
                    if grams[document_grams[document] + known] == key:
                        counts[document_grams[document] + known] += 1
                        break
                    p = (p + ONE) & mask
        document_grams[document + 1] = total
    return total


@kernel
def copy_terms_into(
    text: Bytes,
    is_word: Bytes,  # (0x110000,)
    starts: Pointers,  # (n_terms,) spans of `text`, from a first word to a last word
    ends: Pointers,  # (n_terms,)
    out: Bytes,  # out: as long as all spans together is enough
    out_ends: Pointers,  # (n_terms,) out
) -> int:
    """Copy n-grams, one space between words whatever stood there; returns the bytes written."""
    n = 0
    for term in range(starts.shape[0]):
        i = starts[term]
        between = False
        while i < ends[term]:
            point, width = _code_point(text, i)
            if is_word[point]:
                for j in range(i, i + width):
                    out[n] = text[j]
                    n += 1
                between = False
            elif not between:
                out[n] = 32
                n += 1
                between = True
            i += width
        out_ends[term] = n
    return n


@kernel
def gather_terms_into(
    text: Bytes,
    starts: Pointers,  # (n_terms,)
    ends: Pointers,  # (n_terms,)
    out: Bytes,  # out: as long as all spans together
) -> None:
    """Put spans of bytes one after the other."""
    n = 0
    for term in range(starts.shape[0]):
        for i in range(starts[term], ends[term]):
            out[n] = text[i]
            n += 1
