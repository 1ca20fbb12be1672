"""Several models' answers to the same questions, made into one.

As XR-Transformer's released ensembles do it (Zhang, Chang, Yu and Dhillon, NeurIPS 2021): each
member's best labels are weighed (softmax over the row's list, sigmoid, or rank) and added up.
"""

from collections.abc import Sequence

import numpy as np
from scipy.sparse import csr_array

from xmc_core.config import AVERAGES
from xmc_core.data import Predictions
from xmc_core.errors import ConfigError, DataError, ShapeError
from xmc_core.kernels.ensemble import RANK, SIGMOID, SOFTMAX, average_rows_into
from xmc_core.parallel import map_threads, row_blocks
from xmc_core.types import Doubles, Floats, SparseRows

CODES = dict(zip(AVERAGES, (SOFTMAX, SIGMOID, RANK), strict=True))

BLOCK_ROWS = 4096
"""Rows whose lists are put side by side at once."""


def average_predictions(
    members: Sequence[Predictions], how: str, *, top_k: int | None = None, n_threads: int = -1
) -> Predictions:
    """Average what several models predicted for the same samples.

    >>> one = Predictions(np.array([[3, 5]], np.int32), np.array([[2.0, 1.0]], np.float32))
    >>> two = Predictions(np.array([[5, 7]], np.int32), np.array([[0.9, 0.8]], np.float32))
    >>> both = average_predictions([one, two], "rank")
    >>> both.labels.tolist(), both.scores.tolist()
    ([[5, 3]], [[1.5, 1.0]])

    Parameters
    ----------
    members : at least one, of n_samples rows each
        Their lists may differ in length; -1 is no label, wherever it stands. Of a label that is
        twice on one list, the first place counts.
    how
        What a label on a list is worth, 0 to those that are not on it. softmax: its share of
        exp(score) of the list; sigmoid: 1 / (1 + exp(-score)); rank: the length of the longest
        list (its columns, not what is filled of them) for the first label, 1 less for each next.
    top_k
        Labels to return; by default as many as the longest list has columns.

    Returns
    -------
    The labels of highest mean worth over all members. Of equal ones that comes first which is on
    the earlier member's list, or further up on it.

    Raises
    ------
    ConfigError
        If `how` is unknown or top_k below 1.
    ShapeError
        If the members have different numbers of rows, or there is none.
    DataError
        If the score of a label is NaN or infinity; -inf is a score that can be.
    """
    code, n_rows = _checked(members, how)
    best = max(member.labels.shape[1] for member in members)
    if top_k is not None and top_k < 1:
        raise ConfigError(f"top_k must be at least 1, got {top_k}.")
    width = best if top_k is None else top_k
    starts = np.cumsum([0, *(member.labels.shape[1] for member in members)], dtype=np.int32)
    labels = np.empty((n_rows, width), np.int32)
    scores = np.empty((n_rows, width), np.float32)

    def average(block: tuple[int, int]) -> None:
        rows = slice(*block)
        theirs = np.hstack([member.labels[rows] for member in members]).astype(np.int32, copy=False)
        given = np.hstack([member.scores[rows] for member in members])
        given = given.astype(np.float32, copy=False)
        _check_scores(given[theirs >= 0])
        average_rows_into(theirs, given, starts, code, best, labels[rows], scores[rows])

    map_threads(average, row_blocks(n_rows, BLOCK_ROWS), n_threads)
    return Predictions(labels, scores)


def average_scores(members: Sequence[SparseRows], how: str) -> SparseRows:
    """The same for scores of given pairs: the stored entries of a row are every member's list.

    All members, (n_samples, n_labels) each, store the same pairs; so does the result. A rank counts
    down from the number of the row's pairs; equal scores rank in the order of their columns.

    Raises ConfigError, ShapeError and DataError as `average_predictions`, and ShapeError if the
    members do not store the same pairs.
    """
    if how not in CODES:
        raise _unknown(how)
    if not members:
        raise ShapeError("an average needs at least one member, got none.")
    first = members[0]
    for member in members[1:]:
        if not (
            member.shape == first.shape
            and np.array_equal(member.indptr, first.indptr)
            and np.array_equal(member.indices, first.indices)
        ):
            raise ShapeError("the members have scores of different pairs; ask all for the same.")
    total = np.zeros(len(first.data), np.float64)
    for member in members:
        _check_scores(member.data)
        total += _weighed(member, how)
    mean = (total / len(members)).astype(np.float32)
    return csr_array((mean, first.indices, first.indptr), shape=first.shape)


def _weighed(scores: SparseRows, how: str) -> Doubles:
    values = scores.data.astype(np.float64)
    lengths = np.diff(scores.indptr)
    if how == "sigmoid":
        with np.errstate(over="ignore"):  # exp(inf) is what -inf asks for
            sigmoids: Doubles = 1.0 / (1.0 + np.exp(-values))
        return sigmoids
    rows = np.repeat(np.arange(len(lengths)), lengths)
    if how == "rank":
        ranks = np.empty(len(values), np.float64)
        ends = np.asarray(scores.indptr[1:])[rows]
        # Best first within each row: the order's places in a row are the row's own.
        ranks[np.lexsort((-values, rows))] = ends - np.arange(len(values))
        return ranks
    highest = np.full(len(lengths), -np.inf)
    np.maximum.at(highest, rows, values)
    highest[np.isneginf(highest)] = 0.0
    shares = np.exp(values - highest[rows])
    sums = np.bincount(rows, weights=shares, minlength=len(lengths))
    weighed: Doubles = shares / np.where(sums > 0.0, sums, 1.0)[rows]
    return weighed


def _checked(members: Sequence[Predictions], how: str) -> tuple[int, int]:
    """The kernel's number for `how`, and the number of rows."""
    if how not in CODES:
        raise _unknown(how)
    sizes = [len(member.labels) for member in members]
    if len(set(sizes)) != 1:
        found = " and ".join(f"{size:,}" for size in dict.fromkeys(sizes)) or "no"
        raise ShapeError(
            f"the members have predictions for {found} rows; an average needs at least one member, "
            "and all must have answered the same samples in the same order."
        )
    return CODES[how], sizes[0]


def _check_scores(scores: Floats) -> None:
    if np.isnan(scores).any() or np.isposinf(scores).any():
        raise DataError("a score is NaN or infinity; a mean with it would say nothing.")


def _unknown(how: str) -> ConfigError:
    return ConfigError(f"there is no average {how!r}; choose from {', '.join(AVERAGES)}.")
