"""What solving a level's classifiers came to."""

from dataclasses import dataclass

from xmc_core.kernels.sibling_rankers import EPOCHS, NO_ROWS, NOT_CONVERGED, OBJECTIVE, ROW_VISITS
from xmc_core.types import Doubles


@dataclass(frozen=True, slots=True)
class LevelOutcome:
    """Figures of one level; equal for equal input, whatever the number of threads."""

    classifiers: int
    objective: float
    """Dual objective summed over the classifiers: a lower bound of the primal one."""

    epochs: int
    """Most passes over the rows that any tile of sixteen classifiers took."""

    row_visits: int
    """Visits of a row, each for the sixteen classifiers of a tile."""

    not_converged: int
    """Classifiers that max_iter stopped."""

    without_rows: int
    """Classifiers with no training row: their margin is -1 for every input."""

    nnz: int
    """Weights kept."""

    @classmethod
    def from_statistics(cls, statistics: Doubles, classifiers: int, nnz: int) -> "LevelOutcome":
        """Add up the (tiles, 5) statistics of the solver."""
        return cls(
            classifiers=classifiers,
            objective=float(statistics[:, OBJECTIVE].sum()),
            epochs=int(statistics[:, EPOCHS].max(initial=0)),
            row_visits=int(statistics[:, ROW_VISITS].sum()),
            not_converged=int(statistics[:, NOT_CONVERGED].sum()),
            without_rows=int(statistics[:, NO_ROWS].sum()),
            nnz=nnz,
        )
