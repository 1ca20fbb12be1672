"""How well the encoder and a level's head do on documents that they are not trained on."""

from dataclasses import dataclass

import numpy as np
import torch

from xmc_core.config import EncoderConfig
from xmc_core.encoder.device import autocast, on_device, resolve_dtype
from xmc_core.encoder.distributed import ALONE, World
from xmc_core.encoder.head import Head
from xmc_core.encoder.model import TextEncoder
from xmc_core.encoder.tokens import TokenStore
from xmc_core.tree.label_tree import parents
from xmc_core.types import Pointers, SparseRows

RANKS = (1, 3, 5)
BLOCK = 4096
"""Rows whose scores are held at once: 0.5 GB at the widest level."""


@dataclass(frozen=True, slots=True, eq=False)
class Validation:
    """The documents held out, and what one level should say of them."""

    tokens: TokenStore
    targets: SparseRows
    """(n_rows, nodes): a stored value means that the node applies."""

    pointer: Pointers
    active: SparseRows | None
    """(n_rows, parents) that the level above reaches, true or not. None: all nodes count."""

    def precision(
        self,
        encoder: TextEncoder,
        head: Head,
        config: EncoderConfig,
        *,
        n_threads: int = -1,
        world: World = ALONE,
    ) -> tuple[float, ...]:
        """P@1, P@3 and P@5, in percent, of the level's nodes by the head's scores."""
        vectors = encoder.embed(self.tokens, config, n_threads=n_threads, world=world)
        dtype = resolve_dtype(config.precision, encoder.device)
        parent_of = parents(self.pointer)
        hits = np.zeros(len(RANKS))
        for start in range(0, len(vectors), BLOCK):
            block = slice(start, start + BLOCK)
            with torch.no_grad(), autocast(encoder.device, dtype):
                scores = head.scores(on_device(vectors[block], encoder.device).float())
                if self.active is not None:
                    reached = torch.from_numpy(self.active[block].toarray() != 0)
                    scores.masked_fill_(~reached[:, parent_of].to(encoder.device), -torch.inf)
                best = scores.topk(min(RANKS[-1], scores.shape[1]), dim=1)
            true = np.take_along_axis(
                self.targets[block].toarray() != 0, best.indices.cpu().numpy(), axis=1
            )
            true &= torch.isfinite(best.values).cpu().numpy()  # others fill up short lists
            hits += [true[:, :k].sum() / k for k in RANKS]
        return tuple(float(100 * hit / len(vectors)) for hit in hits)
