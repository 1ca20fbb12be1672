"""The linear layer over one level's nodes, and the candidates that a batch is trained on."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from xmc_core.encoder.contrastive import Relations
from xmc_core.encoder.device import on_device
from xmc_core.encoder.losses import row_losses
from xmc_core.tree.label_tree import parents
from xmc_core.types import Flags, Floats, Indices, Pointers, SparseRows


@dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """The (row, node) pairs of a batch that count."""

    nodes: Indices
    """(nodes,) ascending: the union over the rows."""

    truth: Floats
    """(rows, nodes) 0 where the node does not apply, else how often its loss counts."""

    mask: Flags | None
    """(rows, nodes) true where the node is a candidate of the row; None: all are."""


@dataclass(frozen=True, slots=True, eq=False)
class LevelTargets:
    """What one level has to predict, and which pairs it is trained on."""

    targets: SparseRows
    """(n_samples, nodes): a stored value means that the node applies; it is the number of the row's
    labels below."""

    pointer: Pointers
    """(parents + 1,) children of parent c are the nodes pointer[c]:pointer[c + 1]."""

    active: SparseRows | None
    """(n_samples, parents): a stored value makes the parent's children candidates of the row.
    Parents of nodes that apply always count. None: every node is a candidate of every row."""

    weighted: bool = False
    """The loss of a node that applies counts as often as the row has labels below."""

    relations: Relations | None = None
    """Which rows share labels, for the contrastive loss; None: without it."""

    def candidates(self, rows: NDArray[Any]) -> Candidates:
        """Children of the rows' active parents: the true ones and the mistakes worth making.

        One union for all rows makes the scores a single matrix product; a mask undoes what the
        union adds. With lists per row they would be gathered row by row, which takes as much
        memory as rows x candidates x dims.
        """
        n_nodes = self.targets.shape[1]
        row, at = _entries(self.targets, rows)
        positive = self.targets.indices[at]
        counts = self.targets.data[at] if self.weighted else np.float32(1.0)
        if self.active is None:
            truth = np.zeros((len(rows), n_nodes), np.float32)
            truth[row, positive] = counts
            return Candidates(np.arange(n_nodes, dtype=np.int32), truth, None)

        parent_of = parents(self.pointer)
        reached: Flags = np.zeros((len(rows), len(self.pointer) - 1), np.bool_)
        active_row, at = _entries(self.active, rows)
        reached[active_row, self.active.indices[at]] = True
        reached[row, parent_of[positive]] = True
        used: Flags = np.logical_or.reduce(reached, axis=0)
        nodes = np.flatnonzero(used[parent_of]).astype(np.int32)
        truth = np.zeros((len(rows), len(nodes)), np.float32)
        truth[row, np.searchsorted(nodes, positive)] = counts
        return Candidates(nodes, truth, reached[:, parent_of[nodes]])


class Head(torch.nn.Linear):
    """Scores of one level's nodes: a vector and a bias for each."""

    def __init__(self, weight: Floats, bias: Floats) -> None:
        super().__init__(weight.shape[1], weight.shape[0], device="meta")
        self.weight = torch.nn.Parameter(torch.tensor(weight, dtype=torch.float32))
        self.bias = torch.nn.Parameter(torch.tensor(bias, dtype=torch.float32))

    @classmethod
    def random(cls, n_nodes: int, n_dims: int, seed: int) -> "Head":
        """Small random weights; on unit vectors the scores then spread by 0.02."""
        rng = np.random.default_rng(seed)
        weight = rng.normal(0.0, 0.02, (n_nodes, n_dims)).astype(np.float32)
        return cls(weight, np.zeros(n_nodes, np.float32))

    def inherited(self, parent_of: Indices) -> "Head":
        """A head for the level below that starts from each node's parent."""
        weight, bias = self.weight.detach().cpu().numpy(), self.bias.detach().cpu().numpy()
        return Head(weight[parent_of], bias[parent_of])

    def scores(self, vectors: Tensor, nodes: Tensor | None = None) -> Tensor:
        """(rows, nodes) float32 scores of `vectors`, (rows, n_dims), for some nodes or for all."""
        if nodes is None:
            return self(vectors).float()  # type: ignore[no-any-return]
        return torch.nn.functional.linear(vectors, self.weight[nodes], self.bias[nodes]).float()

    def loss(self, vectors: Tensor, candidates: Candidates, kind: str) -> Tensor:
        """(rows,) loss of each row."""
        device = vectors.device
        truth = on_device(candidates.truth, device)
        if candidates.mask is None:
            return row_losses(self.scores(vectors), truth, None, kind)
        nodes = on_device(candidates.nodes, device)
        mask = on_device(candidates.mask, device)
        return row_losses(self.scores(vectors, nodes), truth, mask, kind)


def _entries(matrix: SparseRows, rows: NDArray[Any]) -> tuple[Pointers, Pointers]:
    """Of the stored entries of some rows: position within `rows`, and place in indices and data."""
    counts = np.diff(matrix.indptr)[rows]
    row = np.repeat(np.arange(len(rows)), counts)
    within = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)
    return row, matrix.indptr[rows][row] + within
