"""Labels by the mean of the paths that lead to them, where `best` takes the largest.

A label may sit in several leaves, with the same classifier in each. The mean of its paths is never
above the best of them, so beam search by best paths bounds it: the first labels by best path are
ranked anew by their means, and more are asked for until no other label can get among the first
`top_k` (the threshold algorithm of Fagin, Lotem and Naor, "Optimal Aggregation Algorithms for
Middleware", PODS 2001). The kernels know nothing of it.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from xmc_core.config import per_level
from xmc_core.data import Predictions
from xmc_core.data.rows import as_rows
from xmc_core.inference.beam import ALONE, BLOCK_ROWS, Searcher
from xmc_core.inference.post_processors import LOG, kept_as
from xmc_core.kernels.beam import LOGARITHMS, PRODUCTS
from xmc_core.kernels.simd import HAVE_VECTOR_CODE
from xmc_core.parallel import map_threads, resolve_threads, row_blocks
from xmc_core.rankers.weights import ChunkedWeights
from xmc_core.types import Flags, Floats, Indices, Pointers, SparseRows

LAST = np.iinfo(np.int32).max
"""Stands for the number of no label, which comes after those of all labels."""


def make_searcher(
    paths: str,
    levels: Sequence[ChunkedWeights],
    *,
    post_processor: Sequence[str],
    path_weight: float = 0.0,
    slot_labels: Indices,
    n_labels: int,
    allowed: Sequence[Flags] | None = None,
) -> "Searcher | MeanSearcher":
    """A searcher by `paths`, best or mean: the plain one where that makes no difference.

    Parameters and errors are those of Searcher; the slots of a label have equal weights, and lie in
    different leaves.
    """
    bare = post_processor[-1] == "none" and path_weight == 0.0
    by_mean = paths == "mean" and not bare and np.bincount(slot_labels).max(initial=0) > 1
    kind = MeanSearcher if by_mean else Searcher
    return kind(
        levels,
        post_processor=post_processor,
        path_weight=path_weight,
        slot_labels=slot_labels,
        n_labels=n_labels,
        allowed=allowed,
    )


class MeanSearcher:
    """As Searcher, but a label's path counts the mean of its paths' products of factors, over those
    of its leaves that the row's beam holds. Safe to share between threads.

    Parameters and errors are those of Searcher; there must be two levels or more. A label's score
    is the mean of its paths' scores; with `none` at the last level and path_weight w, it is its
    margin + w * log(mean of the products).
    """

    def __init__(
        self,
        levels: Sequence[ChunkedWeights],
        *,
        post_processor: Sequence[str],
        path_weight: float = 0.0,
        slot_labels: Indices,
        n_labels: int,
        allowed: Sequence[Flags] | None = None,
    ) -> None:
        names = per_level(tuple(post_processor), len(levels))
        kept = kept_as(names, len(levels))
        bare = names[-1] == "none"
        # Logarithms tell apart, and rank, what would be rounded to 0 outside.
        self._logs_inside = kept == LOGARITHMS and not bare
        self._best = Searcher(
            levels,
            post_processor=(*names[:-1], LOG + names[-1]) if self._logs_inside else names,
            path_weight=path_weight,
            slot_labels=slot_labels,
            n_labels=n_labels,
            allowed=allowed,
        )
        self._above = self._best.above()
        # A score is so many times the logarithm of a path, and something that all paths share.
        self._scale = 0.0 if kept == PRODUCTS else float(np.float32(path_weight)) if bare else 1.0
        self._n_labels = n_labels
        self._n_leaves = levels[-1].n_parents
        self._leaf_of = np.repeat(
            np.arange(self._n_leaves, dtype=np.int32), np.diff(levels[-1].pointer)
        )
        self._shared = np.bincount(slot_labels, minlength=n_labels) > 1

    def search(
        self,
        X: SparseRows | Floats,
        *,
        beam_size: int,
        top_k: int,
        n_threads: int,
        vector: bool = HAVE_VECTOR_CODE,
    ) -> Predictions:
        """Find the best `top_k` labels of each row, as Searcher.search does.

        The beam is the same; among labels of equal score the smaller number wins.
        """
        X = as_rows(X)
        n_samples = X.shape[0]
        labels = np.full((n_samples, top_k), -1, np.int32)
        scores = np.full((n_samples, top_k), -np.inf, np.float32)

        def search(rows: tuple[int, int]) -> None:
            out = slice(*rows)
            part = X if rows == (0, n_samples) else X[out]
            self._search(part, beam_size, vector, labels[out], scores[out])

        # No rows are a block, too, as the number of their columns is checked there.
        n_threads = resolve_threads(n_threads)
        share = n_samples if n_samples <= ALONE else min(BLOCK_ROWS, -(-n_samples // n_threads))
        map_threads(search, row_blocks(n_samples, max(1, share)) or [(0, 0)], n_threads)
        return Predictions(labels, self._outside(scores, labels >= 0))

    def score(
        self,
        X: SparseRows | Floats,
        pairs: SparseRows,
        *,
        n_threads: int,
        vector: bool = HAVE_VECTOR_CODE,
    ) -> SparseRows:
        """Scores of given (row, label) pairs, as Searcher.score: the mean is over all leaves."""
        paths, pair_of = self._best.score_pairs(X, pairs, n_threads=n_threads, vector=vector)
        n_pairs = len(pairs.indices)
        reached = np.bincount(pair_of, minlength=n_pairs) > 0
        scores = self._outside(mean_by_pair(paths, pair_of, n_pairs, self._scale), reached)
        return csr_array((scores, pairs.indices.copy(), pairs.indptr.copy()), pairs.shape)

    def _search(
        self, X: SparseRows, beam_size: int, vector: bool, labels: Indices, scores: Floats
    ) -> None:
        """Fills `labels` and `scores`, (n_samples, top_k)."""
        beam = self._above.search(
            X,
            beam_size=beam_size,
            top_k=min(beam_size, self._n_leaves),
            n_threads=1,
            vector=vector,
        ).labels
        top_k = min(labels.shape[1], self._n_labels)
        n_candidates = 2 * top_k
        waiting = np.arange(len(labels))
        while True:
            n_candidates = min(n_candidates, self._n_labels)
            found = self._best.search(
                X, beam_size=beam_size, top_k=n_candidates, n_threads=1, vector=vector
            )
            means = self._means(X, found, beam, vector)
            known = np.where(found.labels < 0, LAST, found.labels)
            order = np.lexsort((known, -means))[:, :top_k]
            best, best_means = (np.take_along_axis(x, order, 1) for x in (found.labels, means))
            labels[waiting, :top_k] = best
            scores[waiting, :top_k] = best_means
            # A label that was not found comes after the last that was, by its best path and so by
            # the mean: it stays out if the last of the ranked ones does not come after that.
            bound, ranked = found.scores[:, -1], best_means[:, -1]
            settled = (ranked > bound) | ((ranked == bound) & (best[:, -1] <= found.labels[:, -1]))
            settled |= found.labels[:, -1] < 0
            if n_candidates == self._n_labels or settled.all():
                return
            X, beam, waiting = X[~settled], beam[~settled], waiting[~settled]
            n_candidates *= 2

    def _means(
        self, X: SparseRows, found: Predictions, beam: Indices, vector: bool
    ) -> NDArray[np.float32]:
        """Scores of the labels found, by the mean of the paths through the beam's leaves."""
        wanted = self._shared[found.labels] & (found.labels >= 0)
        rows = np.nonzero(wanted)[0]
        n_pairs = len(rows)
        slots, pair_of = self._best.slots_of(rows, found.labels[wanted])
        held = (beam[rows[pair_of]] == self._leaf_of[slots][:, None]).any(axis=1)
        several = np.bincount(pair_of[held], minlength=n_pairs) > 1
        held &= several[pair_of]
        slots, pair_of = slots[held], pair_of[held]
        if not len(slots):
            return found.scores
        paths = self._best.score_paths(X, rows[pair_of], slots, n_threads=1, vector=vector)
        scores = found.scores[wanted]
        scores[several] = mean_by_pair(paths, pair_of, n_pairs, self._scale)[several]
        means = found.scores.copy()
        means[wanted] = scores
        return means

    def _outside(self, scores: Floats, reached: Flags) -> Floats:
        """Scores as the caller wants them; -inf stays where no path was."""
        if not self._logs_inside:
            return scores
        products = np.exp(scores.astype(np.float64)).astype(np.float32)
        return np.where(reached, products, np.float32(-np.inf))


def mean_by_pair(
    scores: Floats, pair_of: Pointers, n_pairs: int, scale: float
) -> NDArray[np.float32]:
    """(n_pairs,) scores by the mean of the products behind `scores`, (paths,); -inf without a path.

    `scale` is 0 where scores are products, else what they are times a product's logarithm. Never
    above the largest of a pair's scores: sums of float32 in float64, and rounding, keep order.

    >>> mean_by_pair(np.log([0.2, 0.4, 0.7]), np.array([0, 0, 1]), 3, 1.0)
    array([-1.2039728 , -0.35667494,        -inf], dtype=float32)
    """
    counts = np.bincount(pair_of, minlength=n_pairs)
    with np.errstate(divide="ignore", invalid="ignore"):
        if scale == 0.0:
            sums = np.bincount(pair_of, weights=scores, minlength=n_pairs)
            return np.where(counts > 0, sums / counts, -np.inf).astype(np.float32)
        best = np.full(n_pairs, -np.inf)
        np.maximum.at(best, pair_of, scores)
        finite = np.where(np.isfinite(best), best, 0.0)
        shares = np.exp((scores - finite[pair_of]) / scale)
        sums = np.bincount(pair_of, weights=shares, minlength=n_pairs)
        return np.where(counts > 0, best + scale * np.log(sums / counts), -np.inf).astype(
            np.float32
        )
