"""What one level's scores cost, node by node and then row by row.

A row's loss is the mean over its own candidates, whatever their number, and the loss of a batch is
the mean over its rows. So the size of a gradient depends neither on the longest candidate list of
the data set nor on what the rest of the batch brings along.
"""

import torch
from torch import Tensor
from torch.nn import functional


def row_losses(scores: Tensor, truth: Tensor, candidate: Tensor | None, kind: str) -> Tensor:
    """Mean loss of each row over its candidates; 0 for a row without any.

    Parameters
    ----------
    scores : (rows, nodes), margins
    truth : (rows, nodes), 0 where the node does not apply, else how often its loss counts: 1, or
        the number of the row's labels below it
    candidate : (rows, nodes), true where the pair counts
        None: every pair counts.
    kind : squared_hinge, hinge, bce
    """
    applies = truth > 0
    if kind == "bce":
        losses = functional.binary_cross_entropy_with_logits(
            scores, applies.to(scores.dtype), reduction="none"
        )
    else:
        losses = functional.relu(1.0 - torch.where(applies, scores, -scores))
        if kind == "squared_hinge":
            losses = losses.square()
    losses = losses * torch.where(applies, truth, 1.0)
    if candidate is None:
        return losses.mean(dim=1)
    counted = candidate.to(losses.dtype)
    return (losses * counted).sum(dim=1) / counted.sum(dim=1).clamp(min=1.0)


def rate_factor(step: int, steps: int, warmup: float) -> float:
    """Share of the learning rate in step 0 .. steps - 1: up over the warm-up, then down to 0.

    Neither the first nor the last step is one of rate 0.

    >>> [round(rate_factor(step, 5, 0.4), 2) for step in range(5)]
    [0.5, 1.0, 1.0, 0.67, 0.33]
    """
    rising = round(steps * warmup)
    if step < rising:
        return (step + 1) / rising
    return (steps - step) / (steps - rising)
