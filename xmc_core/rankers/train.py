"""Trains the rankers of one level of the tree: one linear classifier per node."""

from collections.abc import Sequence
from dataclasses import dataclass
from threading import Lock
from typing import TypeVar

import numpy as np
from scipy.sparse import csc_array, csr_array

from xmc_core.config import RankersConfig, per_level
from xmc_core.data.rows import Rows
from xmc_core.errors import ShapeError
from xmc_core.kernels.arguments import read_only
from xmc_core.memory import return_freed_memory
from xmc_core.parallel import map_threads, resolve_threads, row_blocks
from xmc_core.rankers.negatives import pattern
from xmc_core.rankers.relevance import normalise_rows
from xmc_core.rankers.shared_labels import TrainedOnce, trained_once
from xmc_core.rankers.weights import HALF, SINGLE, ChunkedWeights, round_to_halves
from xmc_core.reporting import SILENT, Reporter, SharedProgress
from xmc_core.solvers.outcome import LevelOutcome
from xmc_core.solvers.scratch import ScratchPool
from xmc_core.solvers.siblings import (
    Clusters,
    DenseWeights,
    Job,
    Problem,
    Tiles,
    plan_jobs,
    solve,
)
from xmc_core.types import Flags, Indices, Pointers, SparseRows

Value = TypeVar("Value")

GATHERED = 16
"""Blocks in which the rows of a level's parents are gathered: what is needed on the way is four
times what comes out."""

__all__ = ["Level", "LevelOutcome", "train_level", "train_together"]


@dataclass(frozen=True, slots=True, eq=False)
class Level:
    """What one level learns from; see `train_level`."""

    targets: SparseRows
    pointer: Pointers
    active: SparseRows | None
    number: int
    depth: int
    slot_labels: Indices | None = None
    """(children,) where children are slots that may name a label several times: then it is trained
    once, on the rows of all its clusters, and each slot gets the same weights."""


def train_level(
    X: SparseRows,
    targets: SparseRows,
    pointer: Pointers,
    active: SparseRows | None,
    *,
    config: RankersConfig,
    level: int,
    depth: int,
    n_threads: int,
) -> tuple[ChunkedWeights, LevelOutcome]:
    """Train one classifier for each node of a level.

    Parameters
    ----------
    X : (n_samples, n_features)
    targets : (n_samples, n_children)
        A nonzero marks a positive row of a child. Its value, normalised per row as
        `config.relevance` says, multiplies the row's cost; with relevance `none` values are not
        looked at.
    pointer : (parents + 1,)
        Children of parent c are pointer[c] : pointer[c + 1].
    active : (n_samples, parents)
        Stored entries say which rows the children of a parent see besides their own positives;
        None shows them all rows.
    level, depth
        Level number, from 1, and number of levels: they choose from the per-level settings.

    Returns
    -------
    The weights, and what the solver has to say. A classifier without any row has margin -1.

    Raises
    ------
    ShapeError
        If the matrices do not fit together.
    DataError
        If X holds a NaN or an infinity.
    """
    task = Level(targets, pointer, active, level, depth)
    return train_together(X, [task], config=config, n_threads=n_threads)[0]


def train_together(
    X: SparseRows | Rows,
    levels: Sequence[Level],
    *,
    config: RankersConfig,
    n_threads: int,
    precision: str = SINGLE,
    report: Reporter = SILENT,
) -> list[tuple[ChunkedWeights, LevelOutcome]]:
    """Train several levels from one queue of jobs; they share one progress bar.

    Long jobs come first, so that none is left to run alone at the end. Then the levels whose jobs
    gather most of X, while few weights are held beside them, then level by level, the last and
    largest one first. Whoever ends a level brings its weights into their chunks at once, so that
    only one level at a time is held twice. `precision` is that of the weights
    that are kept, `half` or `single`.
    """
    n_threads = resolve_threads(n_threads)
    rows = X if isinstance(X, Rows) else Rows.of(X)
    scratch = ScratchPool(rows.n_features)
    plans = [_plan(rows, level, config, n_threads, precision) for level in levels]
    first, last = levels[0].number, levels[-1].number
    which = f"level {first}" if first == last else f"levels {first} to {last}"
    progress = SharedProgress(report, sum(plan.cost for plan in plans), f"% of {which}")
    lock = Lock()

    def run(item: tuple[_Plan, int]) -> None:
        plan, number = item
        job = plan.jobs[number]
        plan.pieces[number] = solve(job, rows, plan.clusters, plan.problem, scratch, plan.dense)
        progress.add(job.cost)
        with lock:
            plan.waiting -= 1
            done = plan.waiting == 0
        if done:
            plan.finish(scratch, precision)

    queue = [(plan, number) for plan in plans for number in range(len(plan.jobs))]
    long = sum(plan.cost for plan in plans) / (4 * n_threads) if n_threads > 1 else np.inf

    def urgency(item: tuple[_Plan, int]) -> tuple[float, bool, int, int]:
        plan, number = item
        cost = plan.jobs[number].cost
        return (-cost if cost > long else 0.0, not plan.gathers_all, -plan.level.number, number)

    map_threads(run, sorted(queue, key=urgency), n_threads)
    return [plan.result for plan in plans]


class _Plan:
    """The jobs of a level, what they have left so far, and what came of it."""

    def __init__(
        self,
        level: Level,
        shared: TrainedOnce | None,
        clusters: Clusters,
        problem: Problem,
        jobs: list[Job],
        dense: DenseWeights,
    ) -> None:
        self.level = level
        self.shared = shared
        self.clusters = clusters
        self.problem = problem
        self.jobs = jobs
        self.dense = dense
        self.cost = sum(job.cost for job in jobs)
        most_rows = int(np.diff(clusters.row_pointer).max(initial=0))
        self.gathers_all = 2 * most_rows > level.targets.shape[0]
        self.pieces: dict[int, Tiles] = {}
        self.waiting = len(jobs)
        self.result: tuple[ChunkedWeights, LevelOutcome]

    def finish(self, scratch: ScratchPool, precision: str) -> None:
        """Bring the weights into their chunks, on this thread alone: the others train on."""
        pieces = [self.pieces.pop(number) for number in range(len(self.jobs))]
        exponent = round_to_halves(pieces) if precision == HALF else None
        statistics = np.concatenate([piece.statistics for piece in pieces])
        dense = self.dense
        if self.shared is not None:
            dense = dense.of(self.shared.sources)
            pieces = [self.shared.copied(Tiles.concatenate(pieces), self.level.pointer, scratch)]
        weights = ChunkedWeights.from_tiles(
            pieces,
            dense,
            self.level.pointer,
            scratch.n_features,
            n_threads=1,
            scratch=scratch,
            exponent=exponent,
        )
        n_trained = self.clusters.n_children
        outcome = LevelOutcome.from_statistics(statistics, n_trained, weights.nnz)
        self.result = weights, outcome
        return_freed_memory()


def _plan(rows: Rows, level: Level, config: RankersConfig, n_threads: int, precision: str) -> _Plan:
    _check(rows, level)

    def setting(values: tuple[Value, ...]) -> Value:
        return per_level(values, level.depth)[level.number - 1]

    shared = trained_once(level)
    if shared is None:
        clusters = gather_clusters(level, setting(config.cost), config.relevance)
    else:
        clusters = gather_clusters(
            shared.level, setting(config.cost), config.relevance, shared.guests
        )
    problem = Problem(
        loss=setting(config.loss),
        cost_negative=setting(config.cost_negative),
        bias=setting(config.bias),
        tol=setting(config.tol),
        max_iter=setting(config.max_iter),
        threshold=setting(config.threshold),
        max_weights=setting(config.max_weights),
        seed=level.number,
    )
    dense = DenseWeights.empty(clusters.n_children, rows.dense.n_dims, rounded=precision == HALF)
    jobs = plan_jobs(clusters, rows, n_threads)
    return _Plan(level, shared, clusters, problem, jobs, dense)


def gather_clusters(
    level: Level, cost: float, relevance: str, guests: SparseRows | None = None
) -> Clusters:
    """Rows and positives of every parent of a level.

    `guests`, (parents, children), says whose active rows a child sees besides those of its parent.
    """
    targets = csr_array(level.targets)
    if not np.all(targets.data):
        targets = targets.copy()
        targets.eliminate_zeros()
    by_child = normalise_rows(targets, relevance).tocsc()
    n_samples, n_parents = targets.shape[0], len(level.pointer) - 1

    extra_pointer, extra_rows = np.zeros(targets.shape[1] + 1, np.int64), np.empty(0, np.int32)
    if level.active is None:
        row_pointer = np.arange(n_parents + 1, dtype=np.int64) * n_samples
        rows = np.tile(np.arange(n_samples, dtype=np.int32), n_parents)
        is_member = np.ones(len(rows), np.bool_)
    else:
        active = pattern(level.active).tocsc()
        parts = [
            _gather_parents(active, by_child, level.pointer, guests, first, last)
            for first, last in row_blocks(n_parents, -(-n_parents // GATHERED))
        ]
        sizes, members, gathered, extra_sizes, extras = zip(*parts, strict=True)
        rows, is_member = np.concatenate(gathered), np.concatenate(members)
        row_pointer = np.concatenate([[0], np.cumsum(np.concatenate(sizes))])
        if guests is not None:
            extra_rows = np.concatenate(extras)
            extra_pointer = np.concatenate([[0], np.cumsum(np.concatenate(extra_sizes))])
    return Clusters(
        row_pointer=read_only(row_pointer, np.int64),
        rows=read_only(rows, np.int32),
        is_member=read_only(is_member),
        extra_pointer=read_only(extra_pointer, np.int64),
        extra_rows=read_only(extra_rows, np.int32),
        child_pointer=read_only(level.pointer, np.int64),
        positive_pointer=read_only(by_child.indptr, np.int64),
        positives=read_only(by_child.indices, np.int32),
        positive_costs=read_only(by_child.data * cost, np.float32),
    )


def _gather_parents(
    active: csc_array,
    by_child: csc_array,
    pointer: Pointers,
    guests: SparseRows | None,
    first: int,
    last: int,
) -> tuple[Pointers, Flags, Indices, Pointers, Indices]:
    """Of parents first .. last: how many rows each has, whether they are active, which they are;
    how many rows each child has besides, and which."""
    begin, end = pointer[first], pointer[last]
    sizes = np.diff(pointer[first : last + 1])
    of_child = np.repeat(np.arange(last - first), sizes)

    def by_parent(matrix: csc_array) -> csc_array:
        counts = np.bincount(of_child, weights=np.diff(matrix.indptr), minlength=last - first)
        ends = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        ones = np.ones(len(matrix.indices), np.float32)
        parents = csc_array((ones, matrix.indices, ends), (matrix.shape[0], last - first))
        parents.sum_duplicates()
        parents.data[:] = 1.0
        return parents

    # Entries are 4 or more where a row is active, less where it is there for some children.
    seen = 4 * active[:, first:last] + by_parent(by_child[:, begin:end])
    extra_sizes, extra_rows = np.zeros(end - begin, np.int64), np.empty(0, np.int32)
    if guests is not None:
        extra = csc_array(active @ guests[:, begin:end])
        extra.sort_indices()
        extra_sizes, extra_rows = np.diff(extra.indptr), extra.indices.astype(np.int32)
        seen = seen + by_parent(extra)
    seen = csc_array(seen)
    seen.sort_indices()
    rows = seen.indices.astype(np.int32)
    return np.diff(seen.indptr), seen.data >= 4, rows, extra_sizes, extra_rows


def _check(X: Rows, level: Level) -> None:
    n_samples, n_children = level.targets.shape
    n_parents = len(level.pointer) - 1
    if n_samples != X.shape[0]:
        raise ShapeError(
            f"X has {X.shape[0]:,} rows but the targets of level {level.number} have "
            f"{n_samples:,}; both must hold the same samples in the same order."
        )
    if n_children != level.pointer[-1]:
        raise ShapeError(
            f"the targets of level {level.number} have {n_children:,} columns but its pointers "
            f"name {int(level.pointer[-1]):,} children."
        )
    if level.active is not None and level.active.shape != (n_samples, n_parents):
        raise ShapeError(
            f"active rows of level {level.number} are {level.active.shape}, expected "
            f"({n_samples}, {n_parents}): a column for each parent."
        )
