"""Which n-grams a corpus holds, and which of them become features."""

import numpy as np

from xmc_core.config import TfidfBlock
from xmc_core.errors import DataError
from xmc_core.features.memory import Memory
from xmc_core.features.terms import TermBlock
from xmc_core.features.tokens import GramBatch
from xmc_core.kernels.arguments import read_only
from xmc_core.kernels.text import copy_grams_into, grams_size, measure_terms_into, place_terms_into
from xmc_core.kernels.tfidf import (
    fill_table,
    learn_grams_into,
    order_by_count_into,
)
from xmc_core.types import Bytes, Indices, Pointers

FIRST_ROOM = 2**17
"""Terms that fit before the table grows for the first time. Memory costs nothing before it is
touched, and from 4 MB on it comes in large pages."""

SMALL_ROOM = 2**19
"""Below it a table grows to four times its size."""


class Vocabulary:
    """Grows batch by batch; `select` ends it."""

    def __init__(self, config: TfidfBlock, name: str) -> None:
        self.config = config
        self.name = name
        """Of the config, in errors."""

        self.n_documents = 0
        self.n_grams = 0
        self.nnz = 0
        """Of the selected terms: a document counts once for each that it has."""

        self._table = np.zeros(4 * FIRST_ROOM, np.uint64)
        self._hashes = np.empty(FIRST_ROOM, np.uint64)
        self._document_counts = np.empty(FIRST_ROOM, np.int32)
        self._texts: list[tuple[Indices, Bytes, Pointers]] = []
        """Batch by batch: numbers of n-grams, their text, and where each ends. The text of an
        n-gram is kept once min_df documents have shown it: most never get there."""

        self._memory = Memory()

    def learn(self, batch: GramBatch) -> Indices:
        """Take in a batch; returns the number of each of its n-grams, by first appearance."""
        numbers = np.empty(len(batch.hashes), np.int32)
        ripe = self._memory.array("ripe", len(batch.hashes), np.int64)
        done = n_ripe = 0
        while True:
            done, self.n_grams, n_ripe = learn_grams_into(
                batch.hashes, batch.documents, done, self.n_documents, self._table, self._hashes,
                self._document_counts, self.n_grams, self.config.min_df, numbers, ripe, n_ripe,
            )  # fmt: skip
            if done == len(numbers):
                break
            self._make_room()
        self.n_documents += len(batch.documents) - 1

        ripe = ripe[:n_ripe]
        utf8 = np.empty(grams_size(batch.bounds, batch.places, ripe), np.uint8)
        ends = np.empty(n_ripe, np.int64)
        copy_grams_into(
            batch.utf8, batch.bounds, batch.places, ripe, self.config.analyzer == "word",
            utf8, ends,
        )  # fmt: skip
        self._texts.append((numbers[ripe], utf8[: ends[-1] if n_ripe else 0].copy(), ends))
        return numbers

    def select(self) -> tuple[TermBlock, Indices]:
        """Apply min_df, max_df and max_features.

        Returns the terms, whose text `write_text` is still to write, and the feature of each
        n-gram by the order of first appearance, -1 where it is left out.

        Raises DataError if nothing is left, with the rule that left nothing.
        """
        config = self.config
        document_counts = self._document_counts[: self.n_grams]
        most = config.max_df * self.n_documents
        terms = np.empty(self.n_grams, np.int32)
        n_terms = order_by_count_into(document_counts, config.min_df, int(most), terms)
        if n_terms == 0:
            raise DataError(self._why_nothing_is_left(document_counts, most))
        terms = terms[: min(n_terms, config.max_features or n_terms)]
        counts = document_counts[terms]
        self.nnz = int(counts.sum(dtype=np.int64))
        features = np.full(self.n_grams, -1, np.int32)
        features[terms] = np.arange(len(terms), dtype=np.int32)
        idf = (np.log((1 + self.n_documents) / (1 + counts)) + 1).astype(np.float32)
        sizes = np.empty(len(terms), np.int64)
        for numbers, _, ends in self._texts:
            measure_terms_into(numbers, ends, features, sizes)
        ends = np.cumsum(sizes)
        utf8 = np.empty(ends[-1], np.uint8)
        return TermBlock(config, self._hashes[terms], idf, utf8, ends), features

    def write_text(self, terms: TermBlock, features: Indices) -> None:
        """Write the text of what was selected."""
        for numbers, utf8, ends in self._texts:
            place_terms_into(numbers, ends, features, utf8, terms.ends, terms.utf8)

    def _make_room(self) -> None:
        # Doubling twice took 11 of Gutenberg's 103 ms; a large table costs memory.
        size = (4 if len(self._hashes) < SMALL_ROOM else 2) * len(self._hashes)
        if size > 2**31:
            raise DataError(
                f"the corpus has more than {2**30:,} distinct n-grams, the most that can be "
                f"numbered; lower {self.name}.max_ngram."
            )
        for name in ("_hashes", "_document_counts"):
            old = getattr(self, name)
            larger = np.empty(size, old.dtype)
            larger[: len(old)] = old
            setattr(self, name, larger)
        self._table = np.zeros(4 * size, np.uint64)
        fill_table(read_only(self._hashes[: self.n_grams]), self._table)

    def _why_nothing_is_left(self, document_counts: Indices, most: float) -> str:
        config, name = self.config, self.name
        if self.n_documents == 0:
            return "there are no texts to learn terms from; give at least one."
        if self.n_grams == 0:
            units = (
                "words (letters, digits, underscores)"
                if config.analyzer == "word"
                else "characters"
            )
            return (
                f"none of the {self.n_documents:,} texts has {config.min_ngram} neighbouring "
                f"{units}, so there are no terms; check that the right field was read as text, or "
                f"lower {name}.min_ngram."
            )
        rare = int((document_counts < config.min_df).sum())
        common = int((document_counts > most).sum())
        return (
            f"no term is left of {self.n_grams:,} in {self.n_documents:,} texts: {rare:,} occur in "
            f"fewer than {name}.min_df = {config.min_df} texts, {common:,} in more than "
            f"{name}.max_df = {config.max_df:g} of them ({most:g}); lower {name}.min_df or raise "
            f"{name}.max_df."
        )
