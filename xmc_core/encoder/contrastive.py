"""Documents that share a label are drawn together, others pushed apart.

Supervised contrastive learning (Khosla et al., NeurIPS 2020) beside the heads: these ask that
clusters can be told apart, which a few thousand documents satisfy by what is peculiar to them. That
two documents of one rare label lie close is what pretrained sentence encoders were made for, so
it bends them towards the labels without narrowing what they know.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csc_array, csr_array
from torch import Tensor

from xmc_core.data.rows import as_rows
from xmc_core.types import Floats, Indices, SparseRows

OUT_OF_REACH = -1e4
"""Score of a document with itself: no share of any exponential."""


@dataclass(frozen=True, slots=True, eq=False)
class Relations:
    """Which of some documents share labels, the rarer the better."""

    labels: SparseRows
    """(n_samples, n_labels) ones."""

    rows: csc_array
    """The same, by label."""

    weights: Floats
    """(n_labels,) 1 / the label's rows."""

    @classmethod
    def of(cls, Y: SparseRows) -> "Relations":
        """From the labels of documents, (n_samples, n_labels)."""
        labels = as_rows(Y).astype(np.float32)  # a copy
        labels.eliminate_zeros()
        labels.data[:] = 1.0
        counts = np.bincount(labels.indices, minlength=Y.shape[1])
        return cls(labels, labels.tocsc(), (1.0 / np.maximum(counts, 1)).astype(np.float32))

    def with_partners(self, rows: NDArray[Any], seed: tuple[int, ...]) -> Indices:
        """`rows` and, for each, another document that shares a label with it, ascending.

        The label is drawn with a probability in proportion to 1 / its rows, then one of these. A
        row whose labels nobody shares brings none, and one that is there already does not come
        twice. Same seed, same partners.
        """
        rng = np.random.default_rng(seed)
        of_rows = csr_array(self.labels[rows])
        place = np.repeat(np.arange(len(rows)), np.diff(of_rows.indptr))
        label, starts = of_rows.indices, self.rows.indptr
        count = starts[label + 1] - starts[label]
        # Of exponential times the one with rate 1 / count comes first as often as it shall.
        when = np.where(count > 1, count * rng.exponential(size=len(count)), np.inf)
        order = np.lexsort((when, place))
        _, firsts = np.unique(place[order], return_index=True)
        drawn = order[firsts][np.isfinite(when[order[firsts]])]
        row, label, count = rows[place[drawn]], label[drawn], count[drawn]
        at = starts[label] + rng.integers(0, count - 1, len(row))
        at += self.rows.indices[at] >= row  # the row itself is passed over
        partner = self.rows.indices[at]
        return np.union1d(rows, partner).astype(np.int32)

    def shares(self, rows: NDArray[Any]) -> Floats:
        """(rows, rows) how much each row belongs to each other one; a row without relatives among
        them has zeros, all other rows sum to 1."""
        labels = csr_array(self.labels[rows])
        weighted = labels.copy()
        weighted.data *= self.weights[labels.indices]
        related = (weighted @ labels.T).toarray()
        np.fill_diagonal(related, 0.0)
        totals = related.sum(axis=1, keepdims=True)
        shares: Floats = (related / np.where(totals > 0, totals, 1.0)).astype(np.float32)
        return shares


def contrastive_loss(vectors: Tensor, shares: Tensor, temperature: float) -> Tensor:
    """Mean over the rows of the cross-entropy between `shares`, (rows, rows), and the softmax of a
    row's dot products with the others, divided by `temperature`; 0 for a row without relatives.

    vectors : (rows, n_dims) of unit length.
    """
    scores = vectors @ vectors.T / temperature
    itself = torch.eye(len(scores), dtype=torch.bool, device=scores.device)
    scores = scores.masked_fill(itself, OUT_OF_REACH)
    losses = -(shares * torch.log_softmax(scores, dim=1)).sum(dim=1)
    return losses.mean()
