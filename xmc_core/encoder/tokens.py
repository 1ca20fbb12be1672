"""Texts as token ids: tokenised once, kept flat, read by every pass over the data.

A store of n texts is one array of ids and n + 1 offsets: 4 bytes a token, no padding. The lists
that a tokeniser returns take 30 to 40 bytes a token.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xmc_core.errors import EncoderError
from xmc_core.parallel import row_blocks
from xmc_core.reporting import SILENT, Reporter
from xmc_core.types import Flags, Indices, Pointers

BLOCK = 4096
"""Texts given to the tokeniser at once: enough for its threads, little to hold as lists."""

CHARACTERS_PER_TOKEN = 64
"""A text is cut after this many characters per token of max_length, as tokenising the rest of a
book costs far more than the few tokens that are kept. English has 4 to 5 characters a token."""


@dataclass(frozen=True, slots=True, eq=False)
class TokenStore:
    """Token ids of many texts, special tokens included."""

    ids: Indices
    """(tokens,) all texts one after another."""

    offsets: Pointers
    """(n_texts + 1,) text i is ids[offsets[i]:offsets[i + 1]]."""

    pad: int
    """Id that fills up shorter rows; the attention mask hides it."""

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> Pointers:
        """(n_texts,) tokens of each text."""
        return np.diff(self.offsets)

    def take(self, rows: NDArray[Any]) -> "TokenStore":
        """The store of some of the texts."""
        counts = self.lengths[rows]
        offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        shifts = np.repeat(self.offsets[rows] - offsets[:-1], counts)
        return TokenStore(self.ids[np.arange(len(shifts)) + shifts], offsets, self.pad)

    def padded(self, rows: NDArray[Any]) -> tuple[Pointers, Flags]:
        """Ids and mask of some texts, (len(rows), longest of them); the mask is true on tokens."""
        starts, ends = self.offsets[rows], self.offsets[np.asarray(rows) + 1]
        width = int((ends - starts).max(initial=0))
        positions = starts[:, None] + np.arange(width)
        mask = positions < ends[:, None]
        ids = np.full(mask.shape, self.pad, np.int64)
        ids[mask] = self.ids[positions[mask]]
        return ids, mask


def cut_to(max_length: int, tokenizer: Any) -> None:
    """Make a tokeniser cut texts to `max_length` tokens, without padding them.

    Once, when it is loaded, as this alters the tokeniser, and a server's threads share it. Raises
    EncoderError if it has no padding token.
    """
    if tokenizer.pad_token_id is None:
        raise EncoderError(
            f"the tokeniser in {tokenizer.name_or_path} has no padding token; name one (pad_token) "
            "in its tokenizer_config.json."
        )
    tokenizer.backend_tokenizer.enable_truncation(max_length)
    tokenizer.backend_tokenizer.no_padding()


def tokenize(
    texts: Sequence[str], tokenizer: Any, max_length: int, report: Reporter = SILENT
) -> TokenStore:
    """Turn texts into ids, each cut to `max_length` tokens with the special ones kept.

    `tokenizer` is a fast one of Hugging Face that `cut_to` has set to the same length.
    """
    backend = tokenizer.backend_tokenizer
    characters = max_length * CHARACTERS_PER_TOKEN
    lengths = np.zeros(len(texts) + 1, np.int64)
    parts = []
    blocks = row_blocks(len(texts), BLOCK)
    for start, end in report.track(blocks, len(blocks), f"blocks of {BLOCK:,} texts tokenised"):
        block = [text[:characters] for text in texts[start:end]]
        encoded = backend.encode_batch_fast(block, add_special_tokens=True)
        lengths[start + 1 : end + 1] = [len(text.ids) for text in encoded]
        parts.append(np.array([i for text in encoded for i in text.ids], np.int32))
    ids = np.concatenate(parts) if parts else np.empty(0, np.int32)
    return TokenStore(ids, np.cumsum(lengths), tokenizer.pad_token_id)
