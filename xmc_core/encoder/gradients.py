"""The gradient of one batch, whatever its size, the memory and the number of threads or devices.

A batch is cut into parts of at most `encoder.train_tokens` tokens; their gradients are added up in
a fixed order. On CPU parts run side by side, each on one thread. When memory runs out the parts are
made half as large and the batch is done again: the step is the same one.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from xmc_core.config import EncoderConfig
from xmc_core.encoder.batches import micro_batches
from xmc_core.encoder.device import autocast, on_device, resolve_dtype, run_jobs, training_attention
from xmc_core.encoder.distributed import ALONE, World
from xmc_core.encoder.head import Head, LevelTargets
from xmc_core.encoder.model import TextEncoder
from xmc_core.encoder.tokens import TokenStore
from xmc_core.errors import EncoderError
from xmc_core.reporting import SILENT, Reporter
from xmc_core.types import Indices

CPU_PARTS = 4
"""On CPU a batch is cut into at least this many parts. It is fixed, so that the sum of gradients
does not depend on the number of threads."""

GPU_MULTIPLE = 8
"""On GPU batches are padded to a multiple of this many tokens: tensor cores want it, and
`torch.compile` meets fewer shapes."""


def trainable_weights(encoder: TextEncoder) -> list[torch.nn.Parameter]:
    """The transformer's weights that are trained; `TextEncoder.freeze` has marked the others."""
    return [weight for weight in encoder.model.parameters() if weight.requires_grad]


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
        self.loss, self.n_threads, self.world, self.report = config.loss, n_threads, world, report
        self.dtype = resolve_dtype(config.precision, encoder.device)
        self.parameters = [*weights, *head.parameters()]
        self.max_tokens = config.train_tokens
        on_cpu = encoder.device.type == "cpu"
        self._at_least = max(CPU_PARTS // world.size, 1) if on_cpu else 1
        self._multiple = 1 if on_cpu else GPU_MULTIPLE

    def of(self, rows: Indices) -> tuple[Tensor, list[Tensor]]:
        """Mean loss of the batch and its gradients, float32, in the order of `parameters`.

        Raises EncoderError if a single text is too much for the memory.
        """
        mine, n_rows = self.world.rows(rows)
        while True:
            result = None
            try:
                result = self._attempt(mine, n_rows)
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
            # All processes cut smaller, or none: they count on each other's sums.
            if not self.world.any(result is None, self.encoder.device):
                break
            self._halve(rows)
        assert result is not None
        loss, gradients = result
        self.world.add([loss, *gradients])
        return loss, gradients

    def _attempt(self, rows: Indices, n_rows: float) -> tuple[Tensor, list[Tensor]]:
        parts = micro_batches(rows, self.tokens.lengths, self.max_tokens, self._at_least)
        device = self.encoder.device
        with training_attention(self.encoder.model, device):
            sums: list[Tensor] = []
            total = torch.zeros((), device=device)
            # A few parts at a time, so that their gradients do not pile up.
            at_once = CPU_PARTS if device.type == "cpu" else 1
            for start in range(0, len(parts), at_once):
                results = run_jobs(
                    lambda part: self.part(part, n_rows),
                    parts[start : start + at_once],
                    device,
                    self.n_threads,
                )
                for loss, gradients in results:
                    total = total + loss
                    if sums:
                        torch._foreach_add_(sums, gradients)
                    else:
                        sums = [gradient.float() for gradient in gradients]
        return total, sums

    def part(self, rows: Indices, n_rows: float) -> tuple[Tensor, list[Tensor]]:
        """Loss and gradients of some rows, as a share of a batch of `n_rows`."""
        loss = self.part_loss(rows, n_rows)
        gradients = torch.autograd.grad(
            loss, self.parameters, allow_unused=True, materialize_grads=True
        )
        return loss.detach(), list(gradients)

    def part_loss(self, rows: Indices, n_rows: float) -> Tensor:
        """The rows' share of the mean loss of a batch of `n_rows`."""
        device = self.encoder.device
        ids, mask = (on_device(array, device) for array in self.tokens.padded(rows, self._multiple))
        vectors = self.encoder.forward(ids, mask, self.dtype)
        with autocast(device, self.dtype):
            losses = self.head.loss(vectors, self.task.candidates(rows), self.loss)
        return losses.sum() / n_rows

    def _halve(self, rows: Indices) -> None:
        if self.encoder.device.type == "cuda":
            torch.cuda.empty_cache()
        longest = int(self.tokens.lengths[rows].max())
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


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of torch says that memory ran out, on whatever device."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
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
    if not model.supports_gradient_checkpointing:
        raise EncoderError(
            f"{type(model).__name__} cannot recompute its layers; set "
            "encoder.gradient_checkpointing to false."
        )
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
