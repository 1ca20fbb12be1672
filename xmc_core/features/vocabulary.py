"""Which n-grams a corpus holds, and which of them become features."""

from dataclasses import dataclass

import numpy as np

from xmc_core.config import TfidfConfig
from xmc_core.errors import DataError
from xmc_core.features.tokens import GramBlock, word_characters
from xmc_core.kernels.arguments import read_only
from xmc_core.kernels.text import Hashes, copy_terms_into, gather_terms_into
from xmc_core.kernels.tfidf import fill_table, learn_grams_into
from xmc_core.types import Bytes, Indices, Pointers


@dataclass(frozen=True, slots=True, eq=False)
class Terms:
    """The terms that became features, in the order of their features."""

    hashes: Hashes
    document_counts: Pointers
    """(n_terms,) training documents that have each."""

    utf8: Bytes
    """Their text, one after the other."""

    ends: Pointers
    """(n_terms,) where each ends in `utf8`."""

    numbers: Indices
    """(n-grams seen,) feature of each n-gram by the order of first appearance; -1: left out."""


class Vocabulary:
    """Grows block by block; `select` ends it."""

    def __init__(self, config: TfidfConfig) -> None:
        self.config = config
        self.n_documents = 0
        self.n_grams = 0
        self._table = np.zeros((1 << 16, 2), np.uint64)
        self._hashes = np.empty(1 << 15, np.uint64)
        self._document_counts = np.empty(1 << 15, np.int64)
        # The text of an n-gram is kept once min_df documents have shown it: most never get there.
        self._ripe: list[Indices] = []
        self._texts: list[tuple[Bytes, Pointers]] = []

    def learn(self, block: GramBlock) -> Indices:
        """Take in a block; returns the number of each of its n-grams, by first appearance."""
        n_new = len(block.hashes)
        self._make_room(self.n_grams + n_new)
        numbers = np.empty(n_new, np.int32)
        ripe = np.empty(n_new, np.int64)
        self.n_grams, n_ripe = learn_grams_into(
            block.hashes, self._table, self._hashes, self._document_counts, self.n_grams,
            self.config.min_df, numbers, ripe,
        )  # fmt: skip
        self.n_documents += len(block.pointer) - 1

        ripe = ripe[:n_ripe]
        starts, ends = block.starts[ripe], block.ends[ripe]
        utf8 = np.empty(int((ends - starts).sum()), np.uint8)
        term_ends = np.empty(n_ripe, np.int64)
        n_bytes = copy_terms_into(block.text, word_characters(), starts, ends, utf8, term_ends)
        self._ripe.append(numbers[ripe])
        self._texts.append((utf8[:n_bytes].copy(), term_ends))
        return numbers

    def select(self) -> Terms:
        """Apply min_df, max_df and max_features.

        Raises DataError if nothing is left, with the rule that left nothing.
        """
        config = self.config
        document_counts = self._document_counts[: self.n_grams]
        most = config.max_df * self.n_documents
        kept = (document_counts >= config.min_df) & (document_counts <= most)
        if not kept.any():
            raise DataError(self._why_nothing_is_left(document_counts, most))
        terms = np.flatnonzero(kept)
        terms = terms[np.argsort(-document_counts[terms], kind="stable")]
        if config.max_features:
            terms = terms[: config.max_features]
        numbers = np.full(self.n_grams, -1, np.int32)
        numbers[terms] = np.arange(len(terms), dtype=np.int32)
        utf8, ends = self._text_of(terms)
        return Terms(self._hashes[terms], document_counts[terms], utf8, ends, numbers)

    def _make_room(self, n_grams: int) -> None:
        if n_grams >= 2**31:
            raise DataError(
                f"the corpus has more than {2**31:,} distinct n-grams, the most that can be "
                "numbered; lower tfidf.max_ngram."
            )
        if n_grams > len(self._hashes):
            size = max(n_grams, 2 * len(self._hashes))
            for name in ("_hashes", "_document_counts"):
                old = getattr(self, name)
                larger = np.empty(size, old.dtype)
                larger[: self.n_grams] = old[: self.n_grams]
                setattr(self, name, larger)
        if 2 * n_grams > len(self._table):
            self._table = hash_table(self._hashes[: self.n_grams], room=n_grams)

    def _text_of(self, terms: Pointers) -> tuple[Bytes, Pointers]:
        utf8 = np.concatenate([part for part, _ in self._texts])
        starts = np.zeros(self.n_grams, np.int64)
        ends = np.zeros(self.n_grams, np.int64)
        offset = 0
        for numbers, (part, part_ends) in zip(self._ripe, self._texts, strict=True):
            ends[numbers] = part_ends + offset
            starts[numbers[1:]] = part_ends[:-1] + offset
            starts[numbers[:1]] = offset
            offset += len(part)
        starts, ends = starts[terms], ends[terms]
        lengths = ends - starts
        out = np.empty(int(lengths.sum()), np.uint8)
        gather_terms_into(utf8, starts, ends, out)
        return out, np.cumsum(lengths)

    def _why_nothing_is_left(self, document_counts: Pointers, most: float) -> str:
        config = self.config
        if self.n_documents == 0:
            return "there are no texts to learn terms from; give at least one."
        if self.n_grams == 0:
            return (
                f"none of the {self.n_documents:,} texts has {config.min_ngram} neighbouring words "
                "(letters, digits, underscores), so there are no terms; check that the right field "
                "was read as text, or lower tfidf.min_ngram."
            )
        rare = int((document_counts < config.min_df).sum())
        common = int((document_counts > most).sum())
        return (
            f"no term is left of {self.n_grams:,} in {self.n_documents:,} texts: {rare:,} occur in "
            f"fewer than tfidf.min_df = {config.min_df} texts, {common:,} in more than "
            f"tfidf.max_df = {config.max_df:g} of them ({most:g}); lower tfidf.min_df or raise "
            "tfidf.max_df."
        )


def hash_table(hashes: Hashes, *, room: int = 0) -> Hashes:
    """(size, 2) open addressing from a hash to its position in `hashes`, at most half full."""
    size = 1 << max(4, (2 * max(len(hashes), room) - 1).bit_length())
    table = np.zeros((size, 2), np.uint64)
    fill_table(read_only(hashes), table)
    return table
