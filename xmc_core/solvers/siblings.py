"""Solves the classifiers of a level, sixteen siblings at a time, on several threads."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xmc_core.data.rows import Rows
from xmc_core.kernels import simd
from xmc_core.kernels.coordinate_descent import HINGE, LOGISTIC, SQUARED_HINGE
from xmc_core.kernels.dense_rows import padded
from xmc_core.kernels.lanes import LANES
from xmc_core.kernels.sibling_rankers import AUTO, parent_costs, train_parents
from xmc_core.solvers.scratch import ScratchPool
from xmc_core.types import Doubles, Flags, Floats, Indices, Pointers, SignedShorts

LOSSES = {"squared_hinge": SQUARED_HINGE, "hinge": HINGE, "logistic": LOGISTIC}

JOB_COST = 2e7
"""Nanoseconds that a job should take; smaller clusters share one."""

JOBS_PER_THREAD = 16
"""Of a level, about. A job's weights lie in memory that grows by doubling: the larger the job, the
more is held that nothing fills."""


@dataclass(frozen=True, slots=True, eq=False)
class Clusters:
    """Which rows and which children each parent has."""

    row_pointer: Pointers
    """(parents + 1,)"""

    rows: Indices
    """Rows of each parent, ascending."""

    is_member: Flags
    """Seen by all children of the parent; the others only by the children they are positives of."""

    extra_pointer: Pointers
    """(children + 1,)"""

    extra_rows: Indices
    """Rows that a child sees although its siblings need not, ascending: of the other clusters that
    its label lives in. Each is among the parent's rows."""

    child_pointer: Pointers
    """(parents + 1,)"""

    positive_pointer: Pointers
    """(children + 1,)"""

    positives: Indices
    """Positive rows of each child, ascending; each is among the parent's rows."""

    positive_costs: Floats

    @property
    def n_parents(self) -> int:
        return len(self.child_pointer) - 1

    @property
    def n_children(self) -> int:
        return int(self.child_pointer[-1])


@dataclass(frozen=True, slots=True)
class Problem:
    """What is minimised, and when to stop."""

    loss: str
    cost_negative: float
    bias: float
    tol: float
    max_iter: int
    threshold: float
    max_weights: int
    seed: int
    method: int = AUTO
    vector: bool = simd.HAVE_VECTOR_CODE


@dataclass(frozen=True, slots=True, eq=False)
class Tiles:
    """Weights as training leaves them: tile after tile, in order of parents."""

    features: Indices
    masks: NDArray[np.uint16]
    weights: NDArray[Any]
    """float32, or uint16 once xmc_core.rankers.weights.round_to_halves has made halves of them."""

    n_features: Pointers
    """(tiles,) how many of `features` and `masks` each has."""

    n_weights: Pointers
    biases: Floats
    """(tiles, 16)"""

    statistics: Doubles
    """(tiles, 5)"""

    @classmethod
    def concatenate(cls, pieces: list["Tiles"]) -> "Tiles":
        """Pieces in order, as one. The list is emptied and arrays are freed as they are copied."""
        arrays = [[getattr(piece, name) for piece in pieces] for name in cls.__slots__]
        pieces.clear()
        return cls(*(np.concatenate(arrays.pop(0)) for _ in cls.__slots__))


@dataclass(frozen=True, slots=True, eq=False)
class DenseWeights:
    """Weights of the dense columns of a level's children, none left out; jobs fill in their own."""

    weights: NDArray[Any]
    """(children, n_dims rounded up to a multiple of 64) float32, or int16, whole numbers of each
    child's unit (kernels/whole_numbers.py)."""

    units: Floats
    """(children,), or (0,) where weights are float32 or there are none."""

    n_dims: int

    @classmethod
    def empty(cls, n_children: int, n_dims: int, *, rounded: bool) -> "DenseWeights":
        """To be filled in."""
        shape = n_children, padded(n_dims)
        make = np.empty if shape[1] == n_dims else np.zeros  # of empty ones pages may be large
        weights = make(shape, np.int16 if rounded else np.float32)
        units = np.empty(n_children if rounded and n_dims > 0 else 0, np.float32)
        return cls(weights, units, n_dims)

    def of(self, children: slice | Indices) -> "DenseWeights":
        """Those of some children."""
        units = self.units[children] if len(self.units) else self.units
        return DenseWeights(self.weights[children], units, self.n_dims)

    def by_type(self) -> tuple[Floats, SignedShorts, Floats]:
        """What `train_parents` takes: of weights of either type, one array is empty."""
        nothing = (0, self.weights.shape[1])
        if self.weights.dtype == np.int16:
            return np.empty(nothing, np.float32), self.weights, self.units
        return self.weights, np.empty(nothing, np.int16), self.units


@dataclass(frozen=True, slots=True)
class Job:
    """Tiles first_tile .. last_tile of the parents first_parent .. last_parent."""

    first_parent: int
    last_parent: int
    first_tile: int
    last_tile: int
    cost: float


def plan_jobs(clusters: Clusters, X: Rows, n_threads: int) -> list[Job]:
    """Cut a level into jobs, in order of parents and tiles.

    Small clusters share a job; the tiles of a large one may be spread over several, each of which
    gathers the rows again. What a tile learns does not depend on the cut.
    """
    n_tiles = -(-np.diff(clusters.child_pointer) // LANES)
    costs = np.empty(clusters.n_parents)
    parent_costs(
        X.indptr, X.dense.n_dims, clusters.row_pointer, clusters.rows,
        clusters.child_pointer, costs,
    )  # fmt: skip
    costs[n_tiles == 0] = 0.0
    limit = max(JOB_COST, costs.sum() / (JOBS_PER_THREAD * n_threads))
    jobs: list[Job] = []
    first, cost = 0, 0.0
    for parent in range(clusters.n_parents):
        tiles = int(n_tiles[parent])
        if costs[parent] > 2 * limit and tiles > 1 and n_threads > 1:
            if parent > first:
                jobs.append(Job(first, parent, 0, 2**31, cost))
            step = max(1, int(tiles * limit / costs[parent]))
            for tile in range(0, tiles, step):
                share = min(step, tiles - tile) / tiles
                jobs.append(Job(parent, parent + 1, tile, tile + step, costs[parent] * share))
            first, cost = parent + 1, 0.0
            continue
        cost += costs[parent]
        if cost >= limit or parent == clusters.n_parents - 1:
            jobs.append(Job(first, parent + 1, 0, 2**31, cost))
            first, cost = parent + 1, 0.0
    return jobs


def solve(
    job: Job,
    X: Rows,
    clusters: Clusters,
    problem: Problem,
    scratch: ScratchPool,
    dense: DenseWeights,
) -> Tiles:
    """Train the classifiers of one job; their weights of dense columns go into `dense`."""
    pointer = clusters.child_pointer
    first = pointer[job.first_parent] + LANES * job.first_tile
    last = min(pointer[job.last_parent], pointer[job.last_parent - 1] + LANES * job.last_tile)
    with scratch.borrow() as (feature_map, seen):
        return Tiles(
            *train_parents(
                X.indptr, X.indices, X.values, X.dense, clusters.row_pointer,
                clusters.rows, clusters.is_member, clusters.extra_pointer, clusters.extra_rows,
                clusters.child_pointer, clusters.positive_pointer, clusters.positives,
                clusters.positive_costs,
                job.first_parent, job.last_parent, job.first_tile, job.last_tile,
                LOSSES[problem.loss], problem.cost_negative,
                np.float32(problem.bias), problem.tol, problem.max_iter,
                np.float32(problem.threshold), problem.max_weights, np.uint64(problem.seed),
                problem.method, problem.vector, feature_map, seen,
                *dense.of(slice(first, last)).by_type(),
            )
        )  # fmt: skip


def parent_runs(costs: NDArray[Any], n_runs: int) -> list[tuple[int, int]]:
    """Cut parents into at most `n_runs` neighbouring runs of about equal cost."""
    ends = np.cumsum(costs, dtype=np.float64) + np.arange(1, len(costs) + 1) * 1e-6
    if len(ends) == 0:
        return []
    cuts = np.searchsorted(ends, ends[-1] * np.arange(1, n_runs) / n_runs)
    bounds = np.unique(np.concatenate([[0], cuts, [len(costs)]]))
    return list(zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True))
