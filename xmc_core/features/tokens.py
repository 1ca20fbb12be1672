"""Texts to hashed n-grams, a batch of documents at a time."""

import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import islice

import numpy as np

from xmc_core.config import TfidfBlock, TfidfConfig
from xmc_core.errors import DataError
from xmc_core.features.memory import Memory
from xmc_core.kernels.text import (
    CAPITAL,
    GROUP,
    KNOWN,
    SPACE,
    WORD,
    Hashes,
    find_characters_into,
    find_ends_and_letters_into,
    find_padded_words_into,
    find_words_into,
    join_units_into,
    lower_into,
)
from xmc_core.types import Bytes, Pointers

TEXTS_AT_ONCE = 32
"""Texts that are checked and measured in one go, a third of the time of one by one."""

BATCH_CHARACTERS = 2**16
"""A batch takes about 40 bytes of scratch memory per character while it is read."""


PAGE = 4096
CLASSES = np.zeros(0x110000, np.uint8)
"""Class of each code point, 0 where its page is yet to be looked up, which takes 0.1 ms."""


@dataclass(frozen=True, slots=True, eq=False)
class TextBatch:
    """Documents as bytes, lower-cased and folded as configured."""

    utf8: Bytes
    """A zero byte ends each document, and more follow the last one's."""

    in_word: Bytes
    """1 for the bytes of word characters, 0 for others."""

    ends: Pointers
    """(n_documents,) the zero bytes that end them."""


@dataclass(frozen=True, slots=True, eq=False)
class GramBatch:
    """The n-grams of each document, in order of appearance."""

    hashes: Hashes
    documents: Pointers
    """(n_documents + 1,) n-grams of document d are documents[d] : documents[d + 1]."""

    utf8: Bytes
    places: Pointers
    """(n,) last unit * MAX_GRAM + units - 1 of each n-gram; empty where the text is not wanted."""

    bounds: Pointers
    """First byte of each unit and the byte after its last one, in turn."""


def text_batches(texts: Iterable[str]) -> Iterator[list[str]]:
    """Gather texts into lists of about BATCH_CHARACTERS characters.

    Raises DataError for anything that is not a string, naming its position.
    """
    if isinstance(texts, str):
        raise DataError(
            "texts must be a list or an iterator of strings, got one string; put it in a list."
        )
    iterator = iter(texts)
    batch: list[str] = []
    size = number = 0
    while some := list(islice(iterator, TEXTS_AT_ONCE)):
        if set(map(type, some)) != {str}:
            _check_strings(some, number)
        number += len(some)
        size_of_all = sum(map(len, some))
        if size + size_of_all < BATCH_CHARACTERS:
            batch += some
            size += size_of_all
            continue
        for text in some:
            batch.append(text)
            size += len(text)
            if size >= BATCH_CHARACTERS:
                yield batch
                batch, size = [], 0
    if batch:
        yield batch


def _check_strings(texts: list[str], first: int) -> None:
    for number, text in enumerate(texts, start=first):
        if not isinstance(text, str):
            raise DataError(
                f"text {number:,} is of type {type(text).__name__}; every text must be a string."
            )


def read_texts(texts: list[str], config: TfidfConfig, memory: Memory) -> TextBatch:
    """Join texts into UTF-8 bytes, which lie in `memory`.

    A zero character within a text becomes a space, a lone surrogate a question mark.
    """
    encoded, lowercase = (
        _folded(texts, config) if config.fold_accents else (_encoded(texts), config.lowercase)
    )
    utf8 = np.frombuffer(encoded, np.uint8)
    size = (len(encoded) // GROUP + 2) * GROUP
    batch = TextBatch(
        memory.array("utf8", size, np.uint8),
        memory.array("in_word", size, np.uint8),
        memory.array("ends", len(texts), np.int64),
    )
    utf8_8 = batch.utf8.view(np.uint64)
    lower_into(utf8, lowercase, batch.utf8, batch.in_word)
    arrays = batch.utf8, utf8_8, CLASSES, batch.ends, batch.in_word
    unknown, capitals = find_ends_and_letters_into(*arrays)
    while unknown >= 0:
        look_up_page(unknown // PAGE)
        unknown, capitals = find_ends_and_letters_into(*arrays)
    if batch.ends[-1] != len(encoded):
        return read_texts([text.replace("\0", " ") for text in texts], config, memory)
    if capitals and lowercase:
        # Only letters beyond ASCII need str.lower, with its special cases.
        lower = [text if text.isascii() else text.lower() for text in texts]
        return read_texts(lower, config, memory)
    return batch


def _encoded(texts: list[str]) -> bytes:
    try:
        return b"\0".join(map(str.encode, texts))
    except UnicodeEncodeError:
        return b"\0".join([text.encode("utf-8", "replace") for text in texts])


def _folded(texts: list[str], config: TfidfConfig) -> tuple[bytes, bool]:
    """UTF-8 without accents, and whether ASCII capitals are still to be made small."""
    joined = "\0".join(texts)
    if joined.isascii():
        return joined.encode(), config.lowercase
    if config.lowercase:  # before folding, which brings forth capitals from letter-like symbols
        joined = "\0".join([text.lower() for text in texts])
    folded = _marks().sub("", unicodedata.normalize("NFKD", joined))
    return folded.encode("utf-8", "replace"), False


def find_grams(
    batch: TextBatch, config: TfidfBlock, memory: Memory, *, with_places: bool = False
) -> GramBatch:
    """Hash the n-grams of each text; they lie in `memory`, beside the batch if it is there."""
    n_documents = len(batch.ends)
    size = len(batch.utf8)
    if config.analyzer == "char_wb":
        size *= 2
    elif config.analyzer == "word":
        size //= 2
    units = memory.array("units", size, np.uint64)
    bounds = memory.array("bounds", 2 * size, np.int64)
    spans = memory.array("spans", n_documents + 1, np.int64)
    documents = np.arange(n_documents + 1)
    if config.analyzer == "word":
        n = find_words_into(
            batch.utf8.view(np.uint64), batch.in_word.view(np.uint64), batch.ends, units, bounds,
            spans,
        )  # fmt: skip
    elif config.analyzer == "char":
        n = find_characters_into(batch.utf8, CLASSES, batch.ends, units, bounds, spans)
    else:
        spans = memory.array("spans", size // 2, np.int64)
        n = find_padded_words_into(
            batch.utf8, CLASSES, batch.ends, units, bounds, spans,
            documents,
        )  # fmt: skip

    n_grams = n * (config.max_ngram - config.min_ngram + 1)
    hashes = memory.array("hashes", n_grams, np.uint64)
    places = memory.array("places", n_grams if with_places else 0, np.int64)
    document_grams = np.empty(n_documents + 1, np.int64)
    join_units_into(
        units, spans, documents, config.min_ngram, config.max_ngram, config.analyzer == "char_wb",
        hashes, places, document_grams,
    )  # fmt: skip
    return GramBatch(hashes[: document_grams[-1]], document_grams, batch.utf8, places, bounds)


def look_up_page(page: int) -> None:
    r"""Put the classes of PAGE code points into CLASSES: WORD for those that `\w` matches,
    alphanumeric ones and the underscore, SPACE for those that `\s` matches, CAPITAL for those that
    str.lower changes."""
    # Through UTF-32: character by character it would take ten times as long.
    points = np.arange(page * PAGE, (page + 1) * PAGE, dtype="<u4")
    points[(points >= 0xD800) & (points < 0xE000)] = 0  # surrogates: nothing, as the zero character
    text = points.tobytes().decode("utf-32-le")
    classes = np.full(PAGE, KNOWN)
    for pattern, kind in ((r"\w+", WORD), (r"\s+", SPACE)):
        for run in re.finditer(pattern, text):
            classes[run.start() : run.end()] |= kind
    # The one letter whose small form is two characters is put aside.
    small = np.frombuffer(text.replace("\u0130", "i").lower().encode("utf-32-le"), "<u4")
    classes[small != points] |= CAPITAL
    CLASSES[page * PAGE : (page + 1) * PAGE] = classes


look_up_page(0)


@cache
def _marks() -> re.Pattern[str]:
    """Combining marks, which NFKD splits off their letters."""
    marks = (chr(point) for point in range(0x300, 0x110000) if unicodedata.combining(chr(point)))
    return re.compile(f"[{''.join(marks)}]+")
