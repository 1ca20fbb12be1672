"""Texts as token ids: tokenised once, kept flat, read by every pass over the data.

A store of n texts is one array of ids and n + 1 offsets: 2 bytes a token for vocabularies of up to
65,536 (BERT, RoBERTa), else 4, and no padding. The lists that a tokeniser returns take 30 to 40.
With a folder the ids go straight to a file and are memory-mapped.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xmc_core.errors import EncoderError
from xmc_core.parallel import row_blocks
from xmc_core.reporting import SILENT, Reporter
from xmc_core.types import Flags, Pointers

BLOCK = 4096
"""Texts given to the tokeniser at once: enough for its threads, little to hold as lists."""

BLOCK_CHARACTERS = 2**23
"""No more of them than have so many characters: the tokeniser encodes all of a text before it cuts
it, and takes 25 bytes a character (13 GB for 4,096 texts that are cut at 2,048 tokens)."""

CHARACTERS_PER_TOKEN = 64
"""A text is cut after this many characters per token of max_length, as tokenising the rest of a
book costs far more than the few tokens that are kept. English has 4 to 5 characters a token."""


@dataclass(frozen=True, slots=True, eq=False)
class TokenStore:
    """Token ids of many texts, special tokens included."""

    ids: NDArray[Any]
    """(tokens,) uint16 or int32, all texts one after another."""

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
        ids = np.empty(offsets[-1], self.ids.dtype)
        for start, end in row_blocks(len(rows), BLOCK):  # numbers of tokens take 8 bytes each
            first, last = offsets[start], offsets[end]
            shifts = self.offsets[rows[start:end]] - offsets[start:end]
            ids[first:last] = self.ids[
                np.arange(first, last) + np.repeat(shifts, counts[start:end])
            ]
        return TokenStore(ids, offsets, self.pad)

    def padded(
        self, rows: NDArray[Any], multiple: int = 1, widest: int | None = None
    ) -> tuple[Pointers, Flags]:
        """Ids and mask of some texts, (len(rows), longest of them, rounded up to `multiple`, though
        not beyond `widest`, the model's positions); the mask is true on tokens."""
        starts, ends = self.offsets[rows], self.offsets[np.asarray(rows) + 1]
        longest = max(
            1, int((ends - starts).max(initial=0))
        )  # models want a token, if a hidden one
        width = -(-longest // multiple) * multiple
        if widest is not None:
            width = max(longest, min(width, widest))
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
    texts: Sequence[str],
    tokenizer: Any,
    max_length: int,
    report: Reporter = SILENT,
    folder: Path | None = None,
) -> TokenStore:
    """Turn texts into ids, each cut to `max_length` tokens with the special ones kept.

    `tokenizer` is a fast one of Hugging Face that `cut_to` has set to the same length. With
    `folder`, an existing one, the ids are written to a file there instead of held in memory.
    """
    backend = tokenizer.backend_tokenizer
    kind = np.dtype(np.uint16 if largest_id(tokenizer) < 2**16 else np.int32)
    characters = max_length * CHARACTERS_PER_TOKEN
    lengths = np.zeros(len(texts) + 1, np.int64)
    blocks = _blocks(texts, characters)
    with _Ids(kind, folder) as ids:
        for start, end in report.track(blocks, len(blocks), "blocks of texts tokenised"):
            block = [text[:characters] for text in texts[start:end]]
            encoded = backend.encode_batch_fast(block, add_special_tokens=True)
            lengths[start + 1 : end + 1] = [len(text.ids) for text in encoded]
            ids.append(np.array([i for text in encoded for i in text.ids], kind))
    return TokenStore(ids.array(), np.cumsum(lengths), tokenizer.pad_token_id)


def _blocks(texts: Sequence[str], characters: int) -> list[tuple[int, int]]:
    """Half-open ranges of texts to be tokenised together, of each its first `characters`."""
    blocks = []
    start = held = 0
    for i, text in enumerate(texts):
        length = min(len(text), characters)
        if i > start and (i - start == BLOCK or held + length > BLOCK_CHARACTERS):
            blocks.append((start, i))
            start, held = i, 0
        held += length
    return [*blocks, (start, len(texts))] if len(texts) else []


def largest_id(tokenizer: Any) -> int:
    """The largest id that a fast tokeniser may return; added tokens may leave gaps before it."""
    return max(tokenizer.backend_tokenizer.get_vocab().values(), default=0)


class _Ids:
    """One array that grows, in memory or in a file."""

    def __init__(self, kind: np.dtype[Any], folder: Path | None) -> None:
        self.kind = kind
        self.path = folder / "token-ids.bin" if folder else None
        self.parts: list[NDArray[Any]] = []

    def __enter__(self) -> "_Ids":
        self.file = self.path.open("wb") if self.path else None
        return self

    def __exit__(self, *_: object) -> None:
        if self.file is not None:
            self.file.close()

    def append(self, ids: NDArray[Any]) -> None:
        if self.file is None:
            self.parts.append(ids)
        else:
            self.file.write(ids.tobytes())

    def array(self) -> NDArray[Any]:
        if self.path is not None and self.path.stat().st_size > 0:  # an empty file has no map
            return np.memmap(self.path, self.kind, "r")
        return np.concatenate(self.parts) if self.parts else np.empty(0, self.kind)
