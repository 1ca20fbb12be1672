"""The terms that became features, and the rows that they make."""

from dataclasses import dataclass, field

import numpy as np

from xmc_core.config import TfidfBlock
from xmc_core.features.blocks import Rows
from xmc_core.features.memory import Memory
from xmc_core.features.tokens import GramBatch
from xmc_core.kernels.arguments import read_only
from xmc_core.kernels.bits import Words
from xmc_core.kernels.text import Hashes
from xmc_core.kernels.tfidf import fill_table, look_up_into, weigh_rows_into
from xmc_core.types import Bytes, Floats, Indices, Pointers

TERM_ARRAYS = ("hashes", "idf", "utf8", "ends")
"""What a saved block consists of."""

LOGS = 1.0 + np.log(np.maximum(np.arange(256.0), 1.0))


@dataclass(frozen=True, slots=True, eq=False)
class TermBlock:
    """The terms of one block of columns, in the order of their features."""

    config: TfidfBlock

    hashes: Hashes
    """(n_features,) 64-bit hash of each term. Terms are recognised by it alone: see the odds of a
    collision in xmc_core.kernels.text."""

    idf: Floats
    """(n_features,)."""

    utf8: Bytes
    """Their text, one after the other."""

    ends: Pointers
    """(n_features,) where each ends in `utf8`."""

    _table: list[Hashes] = field(init=False, repr=False)
    """Made when `rows` first needs it: fitting does not. Two threads may both make it."""

    _scratch: list[tuple[Indices, Words, Words, Words]] = field(init=False, repr=False)
    """Kept from call to call, one for each thread that was ever in `weigh`: arrays of zeros."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "_table", [])
        object.__setattr__(self, "_scratch", [])

    @property
    def n_features(self) -> int:
        return len(self.hashes)

    def terms(self) -> list[str]:
        """The n-gram of each feature."""
        text = self.utf8.tobytes()
        ends = self.ends.tolist()
        return [text[a:b].decode("utf-8") for a, b in zip([0, *ends[:-1]], ends, strict=True)]

    def rows(self, grams: GramBatch, memory: Memory) -> Rows:
        """tf-idf of a batch of documents, in `memory`; unknown n-grams are left out."""
        if not self._table:
            self._table.append(hash_table(self.hashes))
        features = memory.array("features", len(grams.hashes), np.int32)
        look_up_into(grams.hashes, self._table[0], features)
        return self.weigh(grams.documents, features, memory)

    def weigh(self, documents: Pointers, features: Indices, memory: Memory) -> Rows:
        """tf-idf of n-grams whose features are known, -1 for one that is none, in `memory`."""
        try:
            scratch = self._scratch.pop()
        except IndexError:
            n = self.n_features
            scratch = (
                np.zeros(n, np.int32),
                np.zeros((n >> 6) + 1, np.uint64),
                np.zeros((n >> 12) + 1, np.uint64),
                np.zeros((n >> 18) + 1, np.uint64),
            )
        pointer = memory.array("pointer", len(documents), np.int64)
        indices = memory.array("indices", len(features), np.int32)
        values = memory.array("values", len(features), np.float32)
        weigh_rows_into(
            documents, features, read_only(self.idf), self.config.sublinear, LOGS,
            *scratch, pointer, indices, values,
        )  # fmt: skip
        self._scratch.append(scratch)
        return pointer, indices[: pointer[-1]], values[: pointer[-1]]


def hash_table(hashes: Hashes) -> Hashes:
    """Open addressing from a hash to its position in `hashes`, at most half full."""
    slots = 1 << max(4, (2 * len(hashes) - 1).bit_length())
    table = np.zeros(2 * slots, np.uint64)
    fill_table(read_only(hashes), table)
    return table
