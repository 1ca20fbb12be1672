"""The linear layer over one level's nodes, and the candidates that a batch is trained on."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from xmc_core.encoder.losses import row_losses
from xmc_core.tree.label_tree import parents
from xmc_core.types import Flags, Floats, Indices, Pointers, SparseRows


@dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """The (row, node) pairs of a batch that count."""

    nodes: Indices
    """(nodes,) ascending: the union over the rows."""

    truth: Floats
    """(rows, nodes) 1 where the node applies."""

    mask: Flags | None
    """(rows, nodes) true where the node is a candidate of the row; None: all are."""


@dataclass(frozen=True, slots=True, eq=False)
class LevelTargets:
    """What one level has to predict, and which pairs it is trained on."""

    targets: SparseRows
    """(n_samples, nodes): a stored value means that the node applies."""

    pointer: Pointers
    """(parents + 1,) children of parent c are the nodes pointer[c]:pointer[c + 1]."""

    active: SparseRows | None
    """(n_samples, parents): a stored value makes the parent's children candidates of the row.
    Parents of nodes that apply always count. None: every node is a candidate of every row."""

    def candidates(self, rows: NDArray[Any]) -> Candidates:
        """Children of the rows' active parents: the true ones and the mistakes worth making.

        One union for all rows makes the scores a single matrix product; a mask undoes what the
        union adds. With lists per row they would be gathered row by row, which takes as much
        memory as rows x candidates x dims.
        """
        n_nodes = self.targets.shape[1]
        row, positive = _entries(self.targets, rows)
        if self.active is None:
            truth = np.zeros((len(rows), n_nodes), np.float32)
            truth[row, positive] = 1.0
            return Candidates(np.arange(n_nodes, dtype=np.int32), truth, None)

        parent_of = parents(self.pointer)
        reached: Flags = np.zeros((len(rows), len(self.pointer) - 1), np.bool_)
        reached[_entries(self.active, rows)] = True
        reached[row, parent_of[positive]] = True
        used: Flags = np.logical_or.reduce(reached, axis=0)
        nodes = np.flatnonzero(used[parent_of]).astype(np.int32)
        truth = np.zeros((len(rows), len(nodes)), np.float32)
        truth[row, np.searchsorted(nodes, positive)] = 1.0
        return Candidates(nodes, truth, reached[:, parent_of[nodes]])


class Head(torch.nn.Module):
    """Scores of one level's nodes: a vector and a bias for each."""

    def __init__(self, weight: Floats, bias: Floats) -> None:
        super().__init__()
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

    def loss(self, vectors: Tensor, candidates: Candidates, kind: str) -> Tensor:
        """(rows,) loss of each row; `vectors` is (rows, n_dims)."""
        device = vectors.device
        truth = torch.from_numpy(candidates.truth).to(device)
        if candidates.mask is None:
            scores = torch.addmm(self.bias, vectors, self.weight.T)
            return row_losses(scores, truth, None, kind)
        nodes = torch.from_numpy(candidates.nodes).to(device)
        scores = torch.addmm(self.bias[nodes], vectors, self.weight[nodes].T)
        return row_losses(scores, truth, torch.from_numpy(candidates.mask).to(device), kind)


def _entries(matrix: SparseRows, rows: NDArray[Any]) -> tuple[Pointers, Indices]:
    """Positions within `rows`, and columns, of the stored entries of some rows."""
    counts = np.diff(matrix.indptr)[rows]
    row = np.repeat(np.arange(len(rows)), counts)
    within = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)
    return row, matrix.indices[matrix.indptr[rows][row] + within]
