"""Beam search: from the root to the labels, keeping the best nodes of each level."""

from collections.abc import Sequence

import numpy as np

from xmc_core.data import Predictions
from xmc_core.errors import ShapeError
from xmc_core.inference.post_processors import codes_per_level, path_scores, works_in_logarithms
from xmc_core.kernels import simd
from xmc_core.kernels.arguments import read_only
from xmc_core.kernels.beam import search_level
from xmc_core.parallel import map_threads, resolve_threads, row_blocks
from xmc_core.rankers.weights import ChunkedWeights
from xmc_core.types import Floats, Indices, SparseRows

SMALL_BATCH = 64
"""Up to so many rows are answered one by one, through the bitmaps of the chunks: the map that
serves large batches costs more to set up than it saves."""

BLOCK_ROWS = 65_536
"""Rows that one thread searches together. More share the set-up of each chunk; memory is about
24 bytes × beam_size × rows."""

_NO_LABELS = read_only(np.zeros(0, np.int32))
_NO_WORDS = read_only(np.zeros((0, 0), np.uint64))
_NO_RANKS = read_only(np.zeros((0, 0), np.int32))


def beam_search(
    X: SparseRows,
    levels: Sequence[ChunkedWeights],
    *,
    beam_size: int,
    top_k: int,
    post_processor: tuple[str, ...],
    slot_labels: Indices | None,
    n_labels: int,
    n_threads: int,
    vector: bool = simd.HAVE_VECTOR_CODE,
) -> Predictions:
    """Find the best `top_k` labels, or nodes, of each row.

    A node's score is its parent's score times a factor of its own margin (`post_processor`, which
    counts from the last of `levels`); with `none` it is the margin itself and the path does not
    matter. At each level but the last the `beam_size` best nodes are kept; among equals the
    smaller number wins. A row's answer depends neither on the other rows nor on the threads.

    Parameters
    ----------
    X : (n_samples, n_features)
    levels
        From the first level on. `levels[:t]` searches nodes of level t.
    top_k
        Columns of the result. Rows for which fewer are in reach end in -1 and -inf.
    slot_labels : (children of the last level,)
        Which label each slot stands for: one that is reached through several slots appears once,
        with its best score. None: columns are the children themselves.
    n_labels
        Labels, or nodes, that exist; only checked.

    Raises
    ------
    ShapeError
        If X has another number of columns than the levels were trained on, or the levels do not
        follow one another.
    """
    _check(X, levels, slot_labels, n_labels)
    n_samples = X.shape[0]
    codes = codes_per_level(post_processor, len(levels))
    linear = not works_in_logarithms(codes)
    indptr = read_only(X.indptr, np.int64)
    indices = read_only(X.indices, np.int32)
    values = read_only(X.data, np.float32)
    names = _NO_LABELS if slot_labels is None else read_only(slot_labels, np.int32)
    small = n_samples <= SMALL_BATCH

    def search(rows: tuple[int, int]) -> tuple[Indices, Floats]:
        first, last = rows
        beam = np.zeros((last - first, 1), np.int32)
        scores = np.full((last - first, 1), 1.0 if linear else 0.0, np.float32)
        feature_map = np.full(0 if small else X.shape[1], -1, np.int32)
        for number, (weights, code) in enumerate(zip(levels, codes, strict=True), start=1):
            is_last = number == len(levels)
            width = top_k if is_last else min(beam_size, weights.n_children)
            found = np.empty((last - first, width), np.int32)
            found_scores = np.empty((last - first, width), np.float32)
            words, ranks = weights.index if small else (_NO_WORDS, _NO_RANKS)
            search_level(
                indptr, indices, values, first, beam, scores, weights.pointer,
                weights.chunk_pointer, weights.features, weights.block, weights.entry_start,
                weights.row_pointer, weights.offsets, weights.values, weights.biases, words, ranks,
                feature_map, code, linear, names if is_last else _NO_LABELS, vector, found,
                found_scores,
            )  # fmt: skip
            beam, scores = found, found_scores
        return beam, scores

    n_threads = resolve_threads(n_threads)
    block = n_samples if small else min(BLOCK_ROWS, -(-n_samples // n_threads))
    blocks = row_blocks(n_samples, max(block, 1))
    pieces = [search(blocks[0])] if len(blocks) == 1 else map_threads(search, blocks, n_threads)
    if not pieces:
        return Predictions(np.empty((0, top_k), np.int32), np.empty((0, top_k), np.float32))
    labels = np.concatenate([labels for labels, _ in pieces]) if len(pieces) > 1 else pieces[0][0]
    scores = np.concatenate([scores for _, scores in pieces]) if len(pieces) > 1 else pieces[0][1]
    return Predictions(labels, path_scores(labels, scores, codes))


def _check(
    X: SparseRows, levels: Sequence[ChunkedWeights], slot_labels: Indices | None, n_labels: int
) -> None:
    if not levels:
        raise ShapeError("beam search needs at least one level.")
    n_nodes = 1
    for number, weights in enumerate(levels, start=1):
        if weights.n_features != X.shape[1]:
            raise ShapeError(
                f"X has {X.shape[1]:,} features but level {number} was trained on "
                f"{weights.n_features:,}; use the vectoriser of the model."
            )
        if weights.n_parents != n_nodes:
            raise ShapeError(
                f"level {number} has {weights.n_parents:,} parents but level {number - 1} has "
                f"{n_nodes:,} nodes."
            )
        n_nodes = weights.n_children
    if slot_labels is None and n_nodes != n_labels:
        raise ShapeError(f"the last level has {n_nodes:,} nodes, not {n_labels:,}.")
    if slot_labels is not None and len(slot_labels) != n_nodes:
        raise ShapeError(
            f"the last level has {n_nodes:,} slots but slot_labels names {len(slot_labels):,}."
        )
