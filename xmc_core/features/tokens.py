"""Texts to counted n-grams, a block of documents at a time."""

import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np

from xmc_core.config import TfidfConfig
from xmc_core.errors import DataError
from xmc_core.kernels.text import Hashes, count_grams_into, find_words_into
from xmc_core.types import Bytes, Indices, Pointers

BLOCK_CHARACTERS = 2**18
"""A block takes about 50 bytes of scratch memory per character while it is read."""


@dataclass(frozen=True, slots=True, eq=False)
class GramBlock:
    """The distinct n-grams of each document of a block, in order of appearance."""

    text: Bytes
    """The normalised text; a zero byte ends each document."""

    pointer: Pointers
    """(n_documents + 1,) n-grams of document d are pointer[d] : pointer[d + 1]."""

    hashes: Hashes
    counts: Indices
    starts: Pointers
    """First byte of an n-gram's first occurrence in the document."""

    ends: Pointers


def text_blocks(texts: Iterable[str]) -> Iterator[list[str]]:
    """Gather texts into lists of about BLOCK_CHARACTERS characters.

    Raises DataError for anything that is not a string, naming its position.
    """
    if isinstance(texts, str):
        raise DataError(
            "texts must be a list or an iterator of strings, got one string; put it in a list."
        )
    block: list[str] = []
    size = 0
    for number, text in enumerate(texts):
        if not isinstance(text, str):
            raise DataError(
                f"text {number:,} is of type {type(text).__name__}; every text must be a string."
            )
        block.append(text)
        size += len(text)
        if size >= BLOCK_CHARACTERS:
            yield block
            block, size = [], 0
    if block:
        yield block


def normalise(texts: list[str], config: TfidfConfig) -> Bytes:
    """Join texts into UTF-8 bytes, each ended by a zero byte, lower-cased and folded as configured.

    A zero character within a text becomes a space, a lone surrogate a question mark: neither is
    part of a word.
    """
    if config.lowercase:
        texts = [text.lower() for text in texts]  # one by one: ASCII texts are five times faster
    joined = "\0".join([*texts, ""])
    if joined.count("\0") != len(texts):
        joined = "\0".join([*(text.replace("\0", " ") for text in texts), ""])
    if config.fold_accents and not joined.isascii():
        joined = _marks().sub("", unicodedata.normalize("NFKD", joined))
    return np.frombuffer(joined.encode("utf-8", "replace"), np.uint8)


def count_grams(texts: list[str], config: TfidfConfig) -> GramBlock:
    """Count the word n-grams of each text."""
    text = normalise(texts, config)
    bound = len(text) // 2 + 1
    words = np.empty(bound, np.uint64)
    starts = np.empty(bound, np.int64)
    ends = np.empty(bound, np.int64)
    document_words = np.empty(len(texts) + 1, np.int64)
    n_words = find_words_into(text, word_characters(), words, starts, ends, document_words)

    lengths = config.max_ngram - config.min_ngram + 1
    largest = int(np.diff(document_words).max(initial=0)) * lengths
    slots = np.empty(1 << max(2, (2 * largest - 1).bit_length()), np.int32)
    hashes = np.empty(n_words * lengths, np.uint64)
    counts = np.empty(n_words * lengths, np.int32)
    gram_starts = np.empty(n_words * lengths, np.int64)
    gram_ends = np.empty(n_words * lengths, np.int64)
    pointer = np.empty(len(texts) + 1, np.int64)
    n = count_grams_into(
        words, starts, ends, document_words, config.min_ngram, config.max_ngram,
        slots, hashes, gram_starts, gram_ends, counts, pointer,
    )  # fmt: skip
    return GramBlock(text, pointer, hashes[:n], counts[:n], gram_starts[:n], gram_ends[:n])


@cache
def word_characters() -> Bytes:
    r"""(0x110000,) 1 for the code points that `\w` matches: alphanumeric ones, underscore."""
    table = np.zeros(0x110000, np.uint8)
    for run in re.finditer(r"\w+", "".join(map(chr, range(0x110000)))):
        table[run.start() : run.end()] = 1
    return table


@cache
def _marks() -> re.Pattern[str]:
    """Combining marks, which NFKD splits off their letters."""
    marks = (chr(point) for point in range(0x300, 0x110000) if unicodedata.combining(chr(point)))
    return re.compile(f"[{''.join(marks)}]+")
