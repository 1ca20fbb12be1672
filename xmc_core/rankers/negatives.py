"""Which rows the classifiers below a parent see besides their own positives: its active rows."""

from collections.abc import Sequence

import numpy as np
from scipy.sparse import csr_array

from xmc_core.config import NEGATIVES
from xmc_core.errors import ConfigError, ShapeError
from xmc_core.types import SparseRows

TEACHER_FORCING, MATCHER_AWARE, HELD_OUT, GIVEN = NEGATIVES


def pattern(matrix: SparseRows) -> SparseRows:
    """The stored entries of a CSR matrix, as ones; a stored zero counts."""
    ones = np.ones(len(matrix.data), np.float32)
    return csr_array((ones, matrix.indices, matrix.indptr), shape=matrix.shape)


def union(patterns: Sequence[SparseRows]) -> SparseRows:
    """Entries stored in any of the matrices, which must have one shape."""
    first, *others = patterns
    result = pattern(first)
    for other in others:
        if other.shape != result.shape:
            raise ShapeError(
                f"active rows of shapes {result.shape} and {other.shape} cannot be joined."
            )
        result = csr_array(result + pattern(other))
    return pattern(result)


def active_rows(
    kinds: Sequence[str],
    parent_targets: SparseRows | None,
    beam: SparseRows | None = None,
    held_out: SparseRows | None = None,
    given: SparseRows | None = None,
) -> SparseRows | None:
    """Active rows of each parent, (n_samples, parents); None means all rows, as at the first level.

    Parameters
    ----------
    kinds
        Any of teacher_forcing, matcher_aware, held_out, given; see `rankers.negatives`.
    parent_targets
        (n_samples, parents) targets of the level above; None at the first level.
    beam
        (n_samples, parents) nodes that beam search over the trained levels reaches.
    held_out
        (n_samples, parents) nodes that it would reach had it not seen the row.
    given
        (n_samples, parents) rows of the user's choice.

    Raises
    ------
    ConfigError
        If a kind is asked for whose matrix is missing.
    """
    if parent_targets is None:
        return None
    sources = {
        TEACHER_FORCING: parent_targets,
        MATCHER_AWARE: beam,
        HELD_OUT: held_out,
        GIVEN: given,
    }
    chosen = []
    for kind in kinds:
        matrix = sources[kind]
        if matrix is None:
            raise ConfigError(
                f"rankers.negatives asks for {kind} but there are no such rows; "
                "pass `given=` to train_xr_linear, or choose others."
            )
        chosen.append(matrix)
    return union(chosen)
