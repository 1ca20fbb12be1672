"""The gradient of one batch, whatever its size, the memory and the number of threads or devices.

A batch is cut into parts of at most `encoder.train_tokens` tokens; their gradients are added up in
a fixed order. On CPU parts run side by side, each on one thread. When memory runs out the parts are
made half as large and the batch is done again: the step is the same one.

The contrastive loss looks at all documents of a batch at once. It needs no more than their vectors,
so these come first; its gradient by them then goes back through each part beside that of the heads
(Gao et al., "Scaling deep contrastive learning batch size under memory limited setup", 2021).
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from xmc_core.config import EncoderConfig
from xmc_core.encoder.batches import micro_batches
from xmc_core.encoder.contrastive import contrastive_loss
from xmc_core.encoder.device import (
    autocast,
    is_out_of_memory,
    on_device,
    resolve_dtype,
    run_jobs,
    training_attention,
)
from xmc_core.encoder.distributed import ALONE, World
from xmc_core.encoder.head import Head, LevelTargets
from xmc_core.encoder.model import TextEncoder
from xmc_core.encoder.tokens import TokenStore
from xmc_core.errors import EncoderError
from xmc_core.reporting import SILENT, Reporter
from xmc_core.types import Indices

Result = TypeVar("Result")

CPU_PARTS = 4
"""On CPU a batch is cut into at least this many parts. It is fixed, so that the sum of gradients
does not depend on the number of threads."""

GPU_MULTIPLE = 8
"""On GPU batches are padded to a multiple of this many tokens: tensor cores want it, and
`torch.compile` meets fewer shapes."""


def trainable_weights(encoder: TextEncoder) -> list[torch.nn.Parameter]:
    """The transformer's weights that are trained; `TextEncoder.freeze` has marked the others."""
    return [weight for weight in encoder.model.parameters() if weight.requires_grad]


@dataclass(slots=True, eq=False)
class _Part:
    """Some rows of a batch, while its gradient is found."""

    rows: Indices
    vectors: Tensor | None = None
    """Encoded already, for the contrastive loss; with what the way back needs, or without."""

    pull: Tensor | None = None
    """Gradient of the contrastive loss by the vectors."""


class BatchGradient:
    """Computes the gradients of `weights` and of the head's, by batches of rows."""

    def __init__(
        self,
        encoder: TextEncoder,
        head: Head,
        tokens: TokenStore,
        task: LevelTargets,
        config: EncoderConfig,
        weights: Sequence[torch.nn.Parameter],
        *,
        n_threads: int = -1,
        world: World = ALONE,
        report: Reporter = SILENT,
    ) -> None:
        self.encoder, self.head, self.tokens, self.task = encoder, head, tokens, task
        self.lengths = tokens.lengths
        self.loss, self.n_threads, self.world, self.report = config.loss, n_threads, world, report
        self.contrastive, self.temperature = config.contrastive, config.temperature
        self.dtype = resolve_dtype(config.precision, encoder.device)
        self.parameters = [*weights, *head.parameters()]
        self.max_tokens = config.train_tokens
        on_cpu = encoder.device.type == "cpu"
        self._at_least = max(CPU_PARTS // world.size, 1) if on_cpu else 1
        self._multiple = 1 if on_cpu else GPU_MULTIPLE
        self._widest = encoder.positions

    def of(self, rows: Indices) -> tuple[Tensor, list[Tensor]]:
        """Mean loss of the batch and its gradients, float32, in the order of `parameters`.

        Raises EncoderError if a single text is too much for the memory.
        """
        mine, n_rows = self.world.rows(rows)
        longest = int(self.lengths[rows].max())
        with training_attention(self.encoder.model, self.encoder.device, longest):
            while (result := self._attempt(rows, mine, n_rows)) is None:
                self._halve(rows)
        loss, gradients = result
        self.world.add([loss, *gradients])
        return loss, gradients

    def _attempt(
        self, batch: Indices, mine: Indices, n_rows: float
    ) -> tuple[Tensor, list[Tensor]] | None:
        """This process's share of loss and gradients; None where memory ran out, in any process."""
        parts = self.parts(mine)
        contrast = torch.zeros((), device=self.encoder.device)
        if self.task.relations is not None:
            encoded = self._within_memory(lambda: self._encode(parts))
            if encoded is None:
                return None
            for part, vectors in zip(parts, encoded, strict=True):
                part.vectors = vectors
            contrast = self._contrast(batch, parts)
        sums = self._within_memory(lambda: self._add_up(parts, n_rows))
        if sums is None:
            return None
        loss, gradients = sums
        return contrast + loss, gradients

    def parts(self, rows: Indices) -> list["_Part"]:
        """Rows that go through the encoder together, one after another."""
        cut = micro_batches(rows, self.lengths, self.max_tokens, self._at_least)
        return [_Part(rows) for rows in cut]

    def _within_memory(self, work: Callable[[], Result]) -> Result | None:
        """What `work` returns, which is not None; None where memory ran out, in any process: they
        count on each other's sums."""
        result = None
        try:
            result = work()
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
        return None if self.world.any(result is None, self.encoder.device) else result

    @property
    def _at_once(self) -> int:
        """Parts whose gradients are held side by side before they are added up."""
        return CPU_PARTS if self.encoder.device.type == "cpu" else 1

    def _encode(self, parts: Sequence["_Part"]) -> list[Tensor]:
        """Vectors of all parts. What these need for the way back is kept if they may be in memory
        together (`encoder.train_tokens`); else they are encoded again then."""
        lengths = self.lengths
        keep = sum(len(p.rows) * int(lengths[p.rows].max()) for p in parts) <= self.max_tokens

        def encode(part: "_Part") -> Tensor:
            with torch.set_grad_enabled(keep):
                return self.vectors(part.rows)

        return run_jobs(encode, parts, self.encoder.device, self.n_threads)

    def _contrast(self, batch: Indices, parts: Sequence["_Part"]) -> Tensor:
        """This process's share of the contrastive loss of the whole batch; its gradient by the
        vectors goes into the parts."""
        assert self.task.relations is not None
        device = self.encoder.device
        found = [part.vectors.detach() for part in parts if part.vectors is not None]
        mine = torch.cat(found)  # in the order of the batch
        places = torch.arange(len(batch), device=device)[self.world.rank :: self.world.size]
        mine = mine[: len(places)]  # none where there are more processes than rows
        whole = torch.zeros((len(batch), mine.shape[1]), device=device)
        whole[places] = mine
        self.world.add([whole])
        whole.requires_grad_()
        shares = on_device(self.task.relations.shares(batch), device)
        loss = self.contrastive * contrastive_loss(whole, shares, self.temperature)
        (gradient,) = torch.autograd.grad(loss, whole)
        if len(places) > 0:
            sizes = [len(part.rows) for part in parts]
            for part, pull in zip(parts, torch.split(gradient[places], sizes), strict=True):
                part.pull = pull
        return loss.detach() / self.world.size

    def _add_up(self, parts: Sequence["_Part"], n_rows: float) -> tuple[Tensor, list[Tensor]]:
        """The parts' losses and gradients, added up in their order."""
        total = torch.zeros((), device=self.encoder.device)
        sums: list[Tensor] = []
        # A few parts at a time, so that their gradients do not pile up.
        for start in range(0, len(parts), self._at_once):
            results = run_jobs(
                lambda part: self.part(part, n_rows),
                parts[start : start + self._at_once],
                self.encoder.device,
                self.n_threads,
            )
            for loss, gradients in results:
                total += loss
                if sums:
                    torch._foreach_add_(sums, gradients)
                else:
                    sums = [gradient.float() for gradient in gradients]
        return total, sums

    def part(self, part: "_Part", n_rows: float) -> tuple[Tensor, list[Tensor]]:
        """Loss and gradients of some rows, as a share of a batch of `n_rows`."""
        objective, loss = self.objective(part, n_rows)
        gradients = torch.autograd.grad(
            objective, self.parameters, allow_unused=True, materialize_grads=True
        )
        return loss.detach(), list(gradients)

    def objective(self, part: "_Part", n_rows: float) -> tuple[Tensor, Tensor]:
        """What to differentiate for some rows, and their share of the mean loss of a batch of
        `n_rows`: the first also holds the pull of the contrastive loss on them."""
        vectors = part.vectors
        if vectors is None or not vectors.requires_grad:
            vectors = self.vectors(part.rows)
        with autocast(self.encoder.device, self.dtype):
            losses = self.head.loss(vectors, self.task.candidates(part.rows), self.loss)
        loss = losses.sum() / n_rows
        return loss if part.pull is None else loss + (vectors * part.pull).sum(), loss

    def vectors(self, rows: Indices) -> Tensor:
        """Encode some rows."""
        return self.encoder.vectors(self.tokens, rows, self.dtype, self._multiple, self._widest)

    def _halve(self, rows: Indices) -> None:
        if self.encoder.device.type == "cuda":
            torch.cuda.empty_cache()
        longest = int(self.lengths[rows].max())
        if self.max_tokens <= longest:
            raise EncoderError(
                f"a single text of {longest:,} tokens does not fit into the memory of "
                f"{self.encoder.device}: set encoder.gradient_checkpointing, lower "
                "encoder.max_length, or choose a smaller encoder."
            )
        self.max_tokens = max(self.max_tokens // 2, longest)
        self.report.message(
            f"out of memory: parts of {self.max_tokens:,} tokens from here on, same batches "
            "(encoder.train_tokens)"
        )


@contextmanager
def recomputing(encoder: TextEncoder, wanted: bool) -> Iterator[None]:
    """With `wanted`, layers keep their input alone and compute the rest again on the way back.

    transformers does so in layers in training mode alone. What lies inside them stays in evaluation
    mode, without dropout.
    """
    if not wanted:
        yield
        return
    model: Any = encoder.model
    # transformers 5 renames these on the way.
    enable = getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)
    disable = getattr(
        model, "activation_checkpointing_disable", model.gradient_checkpointing_disable
    )
    enable({"use_reentrant": False})
    layers = [module for module in model.modules() if hasattr(module, "gradient_checkpointing")]
    for layer in layers:
        layer.training = True
    try:
        yield
    finally:
        for layer in layers:
            layer.training = False
        disable()
