"""Which texts go through the encoder together.

A batch is padded to its longest text, so texts of like length belong together. On EUR-Lex titles
cut to 64 tokens random batches of 32 are 19 % padding, sorted ones below 1 %.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xmc_core.types import Indices

BUCKET = 16
"""Batches whose texts are sorted together while training: enough to leave 2 to 3 % of padding,
few enough that a batch is not made of one kind of text alone."""


def encoding_batches(lengths: NDArray[Any], batch_tokens: int) -> list[Indices]:
    """Cut all rows into batches of at most `batch_tokens` tokens, padding included.

    Longest first, so that memory that does not suffice shows at once. A text longer than
    `batch_tokens` gets a batch of its own.
    """
    return _cut(np.argsort(-lengths, kind="stable").astype(np.int32), lengths, batch_tokens)


def micro_batches(
    rows: Indices, lengths: NDArray[Any], max_tokens: int, at_least: int
) -> list[Indices]:
    """Cut one batch, longest row first, into parts of at most `max_tokens` tokens with padding.

    `at_least` so many parts, of like numbers of rows, where there are as many rows. A row longer
    than `max_tokens` gets a part of its own.
    """
    shares = np.array_split(rows, min(at_least, len(rows)))
    return [part for share in shares for part in _cut(share, lengths, max_tokens)]


def _cut(rows: Indices, lengths: NDArray[Any], max_tokens: int) -> list[Indices]:
    """Rows, longest first, in parts of at most `max_tokens` tokens with padding, or of one row."""
    parts = []
    start = 0
    while start < len(rows):
        width = max(int(lengths[rows[start]]), 1)
        end = start + max(max_tokens // width, 1)
        parts.append(rows[start:end])
        start = end
    return parts


def training_batches(
    lengths: NDArray[Any], batch_size: int, steps: int, seed: int, *, skip: int = 0
) -> Iterator[Indices]:
    """Yield `steps` batches of random rows, epoch after epoch; within a batch longest first.

    Every epoch holds each row once, in batches whose sizes differ by one at most and never pass
    `batch_size`. Rows are drawn at random, sorted by length within buckets of BUCKET batches, and
    the batches shuffled again. Same seed, same batches. The first `skip` are drawn, not yielded.
    """
    rng = np.random.default_rng(seed)
    n_rows = len(lengths)
    n_batches = -(-n_rows // batch_size)
    left = steps
    while left > 0:
        rows = rng.permutation(n_rows).astype(np.int32)
        bounds = np.arange(n_batches + 1) * n_rows // n_batches
        for first in range(0, n_batches, BUCKET):
            start, end = bounds[first], bounds[min(first + BUCKET, n_batches)]
            bucket = rows[start:end]
            rows[start:end] = bucket[np.argsort(-lengths[bucket], kind="stable")]
        for batch in rng.permutation(n_batches)[:left]:
            if skip > 0:
                skip -= 1
                continue
            yield rows[bounds[batch] : bounds[batch + 1]]
        left -= n_batches
