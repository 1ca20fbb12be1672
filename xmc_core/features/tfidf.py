r"""Word n-grams weighted by tf-idf.

A word is a maximal run of characters that `\w` matches (letters, digits, the underscore, of any
script), after lower-casing. A term is 1 to max_ngram neighbouring words of a document. Its weight

    (1 + ln tf) * idf,    idf = ln((1 + documents) / (1 + documents with the term)) + 1

is that of scikit-learn's TfidfVectorizer(sublinear_tf=True, token_pattern=r"(?u)\w+"); rows have
unit length. Terms are numbered by falling document frequency, and where that is equal, by first
appearance: feature 0 is the most frequent term, and features that are used together lie together.

>>> vectorizer, X = fit_tfidf(["red wine", "Red, red wine", "white wine"], TfidfConfig())
>>> vectorizer.terms()
['wine', 'red', 'red wine']
>>> X.toarray().round(2)
array([[0.48, 0.62, 0.62],
       [0.37, 0.8 , 0.47],
       [1.  , 0.  , 0.  ]], dtype=float32)
"""

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np

from xmc_core.config import TfidfConfig
from xmc_core.features.blocks import Rows, stack
from xmc_core.features.tokens import count_grams, text_blocks
from xmc_core.features.vocabulary import Vocabulary, hash_table
from xmc_core.kernels.arguments import read_only
from xmc_core.kernels.text import Hashes
from xmc_core.kernels.tfidf import count_known_into, look_up_into, weigh_rows_into
from xmc_core.parallel import map_threads, resolve_threads
from xmc_core.persistence import read_store, write_store
from xmc_core.types import Bytes, Floats, Indices, Pointers, SparseRows

KIND = "tfidf-vectorizer"

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True, eq=False)
class TfidfVectorizer:
    """Turns texts into rows of tf-idf weights of the terms that `fit_tfidf` has learned."""

    config: TfidfConfig

    hashes: Hashes
    """(n_features,) 64-bit hash of each term. Terms are recognised by it alone: see the odds of a
    collision in xmc_core.kernels.text."""

    idf: Floats
    """(n_features,)."""

    term_utf8: Bytes
    term_ends: Pointers

    n_documents: int
    """Training documents."""

    _table: Hashes = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_table", hash_table(self.hashes))

    @property
    def n_features(self) -> int:
        return len(self.hashes)

    def terms(self) -> list[str]:
        """The n-gram of each feature, words separated by a space."""
        text = self.term_utf8.tobytes()
        ends = self.term_ends.tolist()
        return [text[a:b].decode("utf-8") for a, b in zip([0, *ends[:-1]], ends, strict=True)]

    def transform(self, texts: Iterable[str], n_threads: int = -1) -> SparseRows:
        """(n_texts, n_features); a text without a known term gets an empty row.

        Texts are read in blocks, so an iterator over a large corpus is never held whole.

        Raises DataError if a text is not a string.
        """

        def transform_block(block: list[str]) -> Rows:
            grams = count_grams(block, self.config)
            numbers = np.empty(len(grams.hashes), np.int32)
            look_up_into(grams.hashes, self._table, numbers)
            return weigh(grams.pointer, numbers, grams.counts, self.idf, self.config)

        rows: list[Rows] = []
        for blocks in groups(text_blocks(texts), n_threads):
            rows += map_threads(transform_block, blocks, n_threads)
        return stack(rows, self.n_features)

    def save(self, folder: Path) -> None:
        write_store(
            folder,
            KIND,
            arrays={
                "hashes": self.hashes,
                "idf": self.idf,
                "terms.utf8": self.term_utf8,
                "terms.ends": self.term_ends,
            },
            facts={"config": asdict(self.config), "documents": self.n_documents},
        )

    @classmethod
    def load(cls, folder: Path) -> "TfidfVectorizer":
        """Raises StoreError if the folder is not a complete, unaltered vectorizer."""
        store = read_store(folder, KIND)
        return cls(
            config=TfidfConfig(**store.facts["config"]),
            hashes=store.arrays["hashes"],
            idf=store.arrays["idf"],
            term_utf8=store.arrays["terms.utf8"],
            term_ends=store.arrays["terms.ends"],
            n_documents=store.facts["documents"],
        )


def fit_tfidf(
    texts: Iterable[str], config: TfidfConfig, n_threads: int = -1
) -> tuple[TfidfVectorizer, SparseRows]:
    """Learn the terms of a corpus and return its features, reading it once.

    Parameters
    ----------
    texts : training documents
        Read in blocks of about a million characters; of the corpus only the numbers and counts of
        its n-grams are held, 8 bytes for each distinct n-gram of each document.
    n_threads : count, or -1 for every core
        The result does not depend on it.

    Returns
    -------
    vectorizer
    X : (n_texts, n_features), rows of unit length
        The same as vectorizer.transform(texts).

    Raises
    ------
    DataError
        If a text is not a string, or if no term survives min_df, max_df and max_features.
    """
    vocabulary = Vocabulary(config)
    counted: list[tuple[Pointers, Indices, Indices] | None] = []
    for blocks in groups(text_blocks(texts), n_threads):
        for grams in map_threads(lambda block: count_grams(block, config), blocks, n_threads):
            numbers = vocabulary.learn(grams)
            counted.append((grams.pointer, numbers, grams.counts.copy()))

    terms = vocabulary.select()
    n = vocabulary.n_documents
    idf = (np.log((1 + n) / (1 + terms.document_counts)) + 1).astype(np.float32)

    def weigh_block(block: int) -> Rows:
        pointer, numbers, counts = counted[block]  # type: ignore[misc]
        counted[block] = None  # frees the block: the counts and the result are never both whole
        return weigh(pointer, terms.numbers[numbers], counts, idf, config)

    rows = map_threads(weigh_block, range(len(counted)), n_threads)
    vectorizer = TfidfVectorizer(config, terms.hashes, idf, terms.utf8, terms.ends, n)
    return vectorizer, stack(rows, vectorizer.n_features)


def weigh(
    pointer: Pointers, numbers: Indices, counts: Indices, idf: Floats, config: TfidfConfig
) -> Rows:
    """tf-idf of a block of counted rows."""
    out_pointer = np.zeros(len(pointer), np.int64)
    count_known_into(pointer, numbers, out_pointer[1:])
    np.cumsum(out_pointer, out=out_pointer)
    indices = np.empty(out_pointer[-1], np.int32)
    values = np.empty(out_pointer[-1], np.float32)
    weigh_rows_into(
        pointer, numbers, counts, read_only(idf), config.sublinear, out_pointer, indices, values
    )
    return out_pointer, indices, values


def groups(items: Iterable[Item], n_threads: int) -> Iterator[list[Item]]:
    """Take four items per thread at a time: that many blocks are in memory at once."""
    iterator = iter(items)
    while group := list(islice(iterator, 4 * resolve_threads(n_threads))):
        yield group
