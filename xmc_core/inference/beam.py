"""Beam search: from the root to the labels, keeping the best nodes of each level."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from xmc_core.config import per_level
from xmc_core.data import Predictions
from xmc_core.data.rows import as_rows, require_finite
from xmc_core.errors import ConfigError, ShapeError
from xmc_core.inference.post_processors import codes_per_level, kept_as
from xmc_core.kernels.arguments import read_only
from xmc_core.kernels.beam import PRODUCTS, search_few, search_rows
from xmc_core.kernels.chunks import ALLOWED, POST_PROCESSOR, WIDTH
from xmc_core.kernels.pairs import score_slots
from xmc_core.kernels.simd import HAVE_VECTOR_CODE
from xmc_core.kernels.views import address_of
from xmc_core.parallel import Turns, map_threads, resolve_threads, row_blocks
from xmc_core.rankers.weights import ChunkedWeights, hashing
from xmc_core.types import Flags, Floats, Indices, Pointers, SparseRows

HELD_WORK = 2_500
"""Where calls of few rows have up to so many non-zeros × nodes on average, some 50 µs, they keep
the interpreter's lock: one that lets go of it waits for milliseconds to get it back while other
threads are calling. Longer calls let go, and take turns. All calls of a model go the same way:
one that lets go among others that do not waits for 5 ms."""

ALONE = 64
"""Up to so many rows are searched one by one; more are sorted by node, which pays when several
rows meet in a chunk."""

_TURNS = Turns()

BLOCK_ROWS = 2_048
"""Rows searched together: their non-zeros, beams and hits stay in the second cache."""

BLOCK_VALUES = 2**18
"""Values of dense columns in such a block, 1 MB in single precision, for the same reason: rows of
384 come in blocks of 682. In blocks of 2,048 a search takes up to 1.4 times as long where other
work has the third cache, and nothing less where not."""


class Searcher:
    """The levels of a tree, ready to be searched. Safe to share between threads.

    Rows are CSR with float32 values, or dense float32: the same answers, as zeros are left out.

    Parameters
    ----------
    levels
        From the first level on. `levels[:t]` searches nodes of level t.
    post_processor
        Turns a node's margin into a factor of its path's score; counts from the last of `levels`.
    path_weight
        Where the last level's is `none`: what is added to a margin, times the logarithm of the
        score of the path above it.
    slot_labels : (children of the last level,)
        Which label each slot stands for: one that is reached through several slots appears once,
        with its best score. None: columns are the children themselves.
    n_labels
        Labels, or nodes, that exist; only checked.
    allowed
        For each level, (children,) flags of the nodes that may be entered. None: all of them.

    Raises
    ------
    ShapeError
        If the levels do not follow one another, or do not end in the slots.
    ConfigError
        If there is no such post-processor, or path_weight has no logarithm to multiply.
    """

    def __init__(
        self,
        levels: Sequence[ChunkedWeights],
        *,
        post_processor: Sequence[str],
        path_weight: float = 0.0,
        slot_labels: Indices | None,
        n_labels: int,
        allowed: Sequence[Flags] | None = None,
    ) -> None:
        _check(levels, slot_labels, n_labels)
        codes = codes_per_level(post_processor, len(levels))
        self.n_features = levels[0].n_features
        self.n_nodes = levels[-1].n_children
        self._levels = tuple(levels)
        self._allowed = (
            None if allowed is None else [read_only(flags, np.uint8) for flags in allowed]
        )
        self._codes = codes
        self._table = self._addresses()
        self._post_processor = per_level(tuple(post_processor), len(levels))
        self._kept_as = kept_as(post_processor, len(levels))
        if path_weight and self._kept_as == PRODUCTS:
            raise ConfigError(
                "inference.path_weight needs factors at the levels above the last, which the "
                "post-processor `none` does not give; set it to 0."
            )
        self._path_weight = np.float32(path_weight)
        self._hashing = hashing(self.n_features)
        self._width = int(self._table[0, WIDTH])
        self._n_labels = n_labels
        self._usual_work = 0.0
        self._slot_labels = read_only(
            np.zeros(0, np.int32) if slot_labels is None else slot_labels, np.int32
        )

    def _addresses(self) -> Pointers:
        """What kernels get: where levels and flags lie, so good only as long as these do."""
        table = np.stack([level.row_of_table for level in self._levels])
        table[:, POST_PROCESSOR] = self._codes
        if self._allowed is not None:
            table[:, ALLOWED] = [address_of(flags) for flags in self._allowed]
        return read_only(table)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_table"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        # A copy, perhaps in another process: its arrays lie elsewhere, and can be written.
        self.__dict__.update(state)
        self._slot_labels = read_only(self._slot_labels)
        self._table = self._addresses()

    def search(
        self,
        X: SparseRows | Floats,
        *,
        beam_size: int,
        top_k: int,
        n_threads: int,
        vector: bool = HAVE_VECTOR_CODE,
    ) -> Predictions:
        """Find the best `top_k` labels, or nodes, of each row.

        A node's score is its parent's score times a factor of its own margin; with `none` it is the
        margin itself and the path does not matter. At each level but the last the `beam_size` best
        nodes are kept; among equals the smaller number wins. A row's answer depends neither on the
        other rows nor on the threads. Rows for which fewer than `top_k` are in reach end in -1 and
        -inf.

        Raises ShapeError if X, (n_samples, n_features), has another number of columns than the
        levels were trained on, and DataError if a value is not finite.
        """
        indptr, indices, values = self._rows(X)
        if n_threads == 0 or n_threads < -1:
            resolve_threads(n_threads)  # says what is wrong; else asked where there are threads
        n_samples = len(indptr) - 1
        labels = np.empty((n_samples, top_k), np.int32)
        scores = np.empty((n_samples, top_k), np.float32)
        if n_samples <= ALONE and self._is_short(len(indices) * beam_size * len(self._levels)):
            sound = search_few(
                indptr, indices, values, self._table, self.n_features, *self._hashing,
                self._slot_labels, beam_size, self._kept_as, self._path_weight, vector, labels,
                scores,
            )  # fmt: skip
        elif n_samples <= ALONE:
            with _TURNS:
                sound = search_rows(
                    indptr, indices, values, 0, n_samples, 1, self._table, self.n_features,
                    *self._hashing, self._slot_labels, beam_size, self._kept_as,
                    self._path_weight, vector, labels, scores,
                )  # fmt: skip
        else:
            block = min(BLOCK_ROWS, BLOCK_VALUES // max(1, self._width))

            def search(rows: tuple[int, int]) -> bool:
                out = slice(*rows)
                return search_rows(
                    indptr, indices, values, *rows, block, self._table, self.n_features,
                    *self._hashing, self._slot_labels, beam_size, self._kept_as,
                    self._path_weight, vector, labels[out], scores[out],
                )  # fmt: skip

            n_threads = resolve_threads(n_threads)
            share = max(1, min(BLOCK_ROWS, -(-n_samples // n_threads)))
            sound = all(map_threads(search, row_blocks(n_samples, share), n_threads))
        if not sound:
            require_finite(values)
            X = as_rows(csr_array((values, indices, indptr), (n_samples, self.n_features)))
            return self.search(
                X, beam_size=beam_size, top_k=top_k, n_threads=n_threads, vector=vector
            )
        return Predictions(labels, scores)

    def score(
        self,
        X: SparseRows | Floats,
        pairs: SparseRows,
        *,
        n_threads: int,
        vector: bool = HAVE_VECTOR_CODE,
    ) -> SparseRows:
        """Scores of given (row, label) pairs, as a search that kept every node would find them.

        `pairs` is (n_samples, n_labels); its stored entries are asked for, and the result has the
        same ones. A label in several leaves has the best of its scores, one in no leaf -inf.

        Raises ShapeError if X or pairs have another shape, DataError if a value is not finite.
        """
        paths, pair_of = self.score_pairs(X, pairs, n_threads=n_threads, vector=vector)
        scores = np.full(len(pairs.indices), -np.inf, np.float32)
        np.maximum.at(scores, pair_of, paths)
        return csr_array((scores, pairs.indices.copy(), pairs.indptr.copy()), pairs.shape)

    def score_pairs(
        self, X: SparseRows | Floats, pairs: SparseRows, *, n_threads: int, vector: bool
    ) -> tuple[Floats, Pointers]:
        """(paths,) scores of all paths to the labels of `pairs`, and the stored entry of each.

        Raises ShapeError if X or pairs have another shape than `score` says.
        """
        if pairs.shape != (X.shape[0], self._n_labels):
            raise ShapeError(
                f"pairs are {pairs.shape}, expected ({X.shape[0]}, {self._n_labels}): a row for "
                "each row of X and a column for each label."
            )
        rows = np.repeat(np.arange(pairs.shape[0]), np.diff(pairs.indptr))
        slots, pair_of = self.slots_of(rows, pairs.indices)
        scores = self.score_paths(X, rows[pair_of], slots, n_threads=n_threads, vector=vector)
        return scores, pair_of

    def slots_of(self, rows: Pointers, labels: Indices) -> tuple[Indices, Pointers]:
        """Slots of (row, label) pairs, rows ascending, and the number of the pair of each: sorted
        by row, then by slot."""
        pointer, slots = self._label_slots
        begins, counts = pointer[labels], np.diff(pointer)[labels]
        pair_of = np.repeat(np.arange(len(counts)), counts)
        within = np.arange(len(pair_of)) - np.repeat(np.cumsum(counts) - counts, counts)
        found = slots[begins[pair_of] + within]
        order = np.lexsort((found, rows[pair_of]))
        return found[order], pair_of[order]

    def score_paths(
        self,
        X: SparseRows | Floats,
        rows: Pointers,
        slots: Indices,
        *,
        n_threads: int,
        vector: bool = HAVE_VECTOR_CODE,
    ) -> Floats:
        """(paths,) scores of the paths that lead to slots of given rows, sorted as by `slots_of`:
        those of a search that kept every node. Raises DataError if a value of X is not finite."""
        indptr, indices, values = self._rows(X if isinstance(X, np.ndarray) else as_rows(X))
        require_finite(values)
        n_samples = len(indptr) - 1
        pointer = read_only(np.searchsorted(rows, np.arange(n_samples + 1)), np.int64)
        slots = read_only(slots, np.int32)
        own = read_only(np.arange(len(slots)), np.int64)
        scores = np.full(len(slots), -np.inf, np.float32)

        def score(block: tuple[int, int]) -> bool:
            return score_slots(
                indptr, indices, values, *block, self._table, *self._hashing, pointer, slots, own,
                self._kept_as, self._path_weight, vector, scores,
            )  # fmt: skip

        n_threads = resolve_threads(n_threads)
        share = max(1, min(BLOCK_ROWS, -(-n_samples // n_threads)))
        map_threads(score, row_blocks(n_samples, share), n_threads)
        return scores

    def above(self) -> "Searcher":
        """The search of all levels but the last, of which there must be some: what it finds is the
        beam that this one's last level is searched from."""
        upper = Searcher(
            self._levels[:-1],
            post_processor=self._post_processor[:-1],
            slot_labels=None,
            n_labels=self._levels[-1].n_parents,
            allowed=None if self._allowed is None else self._allowed[:-1],
        )
        upper._kept_as = self._kept_as  # two products may be equal where their logarithms are not
        return upper

    def _is_short(self, work: int) -> bool:
        # Threads may lose each other's updates: it is an estimate, and no answer depends on it.
        self._usual_work += (work - self._usual_work) / 16
        return self._usual_work <= HELD_WORK and work <= 8 * HELD_WORK

    @cached_property
    def _label_slots(self) -> tuple[Pointers, Indices]:
        """Pointers of the labels, and their slots."""
        names = self._slot_labels if len(self._slot_labels) else np.arange(self.n_nodes)
        counts = np.bincount(names, minlength=self._n_labels)
        pointer = np.concatenate([[0], np.cumsum(counts)])
        return pointer, np.argsort(names, kind="stable").astype(np.int32)

    def _rows(self, X: SparseRows | Floats) -> tuple[Pointers, Indices, Floats]:
        shape = X.shape  # scipy works it out anew at each question
        if len(shape) != 2 or shape[1] != self.n_features:
            raise ShapeError(
                f"X is {shape} but the model was trained on {self.n_features:,} features: rows "
                "must be the output of the model's own vectoriser."
            )
        parts: tuple[NDArray[Any], NDArray[Any], NDArray[Any]]
        if isinstance(X, np.ndarray):
            filled = X != 0
            ends = np.cumsum(np.count_nonzero(filled, axis=1))
            parts = np.concatenate([[0], ends]), np.nonzero(filled)[1], X[filled]
        else:
            X = X if isinstance(X, csr_array) else csr_array(X)
            parts = X.indptr, X.indices, X.data
        indptr, indices, values = parts
        return (
            read_only(indptr, np.int64),
            read_only(indices, np.int32),
            read_only(values, np.float32),
        )


def allowed_nodes(
    levels: Sequence[ChunkedWeights], slot_labels: Indices, labels: Indices
) -> list[Flags]:
    """For each level, (children,) flags of the nodes with one of `labels` below them."""
    flags = [np.isin(slot_labels, labels)]
    for level in reversed(levels[1:]):
        before = np.concatenate([[0], np.cumsum(flags[-1])])
        flags.append(before[level.pointer[1:]] > before[level.pointer[:-1]])
    return flags[::-1]


def _dense_part(weights: ChunkedWeights) -> str:
    first, n_dims = (int(number) for number in weights.dense_columns)
    if n_dims == 0:
        return "no dense columns"
    return f"dense columns {first:,} .. {first + n_dims - 1:,} in {weights.precision} precision"


def _check(levels: Sequence[ChunkedWeights], slot_labels: Indices | None, n_labels: int) -> None:
    if not levels:
        raise ShapeError("beam search needs at least one level.")
    n_nodes = 1
    for number, weights in enumerate(levels, start=1):
        if weights.n_features != levels[0].n_features:
            raise ShapeError(
                f"level {number} was trained on {weights.n_features:,} features but level 1 on "
                f"{levels[0].n_features:,}."
            )
        if _dense_part(weights) != _dense_part(levels[0]):  # a row's is made ready once for all
            raise ShapeError(
                f"level {number} has {_dense_part(weights)}, but level 1 "
                f"{_dense_part(levels[0])}; train all on the same X, with one inference.weights."
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
