"""Each device keeps a share of the encoder's weights, gradients and optimiser states (FSDP2).

A layer's weights are brought together when it is their turn, and let go after it. For encoders that
do not fit into one device with their optimiser; everything smaller is faster with whole copies.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from xmc_core.encoder.device import is_out_of_memory
from xmc_core.encoder.gradients import BatchGradient
from xmc_core.encoder.model import TextEncoder
from xmc_core.errors import EncoderError
from xmc_core.types import Indices


def shard(encoder: TextEncoder, dtype: torch.dtype) -> None:
    """Deal the encoder's weights out to the processes, layer by layer; in place."""
    policy = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32)
    for layer in encoder.layers:
        fully_shard(layer, mp_policy=policy)
    # By default what lies outside the layers stays together after a forward pass; the model then
    # shows whole weights in place of the shares that the optimiser knows.
    fully_shard(encoder.model, mp_policy=policy, reshard_after_forward=True)


def full(tensor: Tensor) -> Tensor:
    """A tensor of which each process may hold a share, as a whole; all have to ask together."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def dealt(value: Tensor, like: Tensor) -> Tensor:
    """A whole tensor, dealt out as `like` is."""
    if isinstance(like, DTensor):
        return distribute_tensor(value.to(like.device), like.device_mesh, like.placements)
    return value


class ShardedGradient(BatchGradient):
    """The gradient of one batch where no process has the encoder as a whole."""

    def of(self, rows: Indices) -> tuple[Tensor, list[Tensor]]:
        """Mean loss of the batch and its gradients, in the order of `parameters`; those of the
        encoder dealt out as its weights are."""
        model: Any = self.encoder.model
        size = self.world.size
        # All processes take each pass together, as many as the one that has the most.
        passes = max(len(self.parts(rows[rank::size])) for rank in range(min(size, len(rows))))
        mine, n_rows = self.world.rows(rows)
        parts = self.parts(mine)
        total = torch.zeros((), device=self.encoder.device)
        try:
            if self.task.relations is not None:
                with torch.no_grad():
                    for number in range(passes):
                        part = parts[min(number, len(parts) - 1)]
                        part.vectors = self.vectors(part.rows)
                total += self._contrast(rows, parts)
            for number in range(passes):
                model.set_requires_gradient_sync(number == passes - 1)
                counts = number < len(parts)
                objective, loss = self.objective(parts[number if counts else -1], n_rows)
                # FSDP takes the mean over the processes, and the sum is wanted.
                (objective * (size if counts else 0)).backward()  # type: ignore[no-untyped-call]
                total += loss.detach() * counts
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            raise EncoderError(
                "out of memory with encoder.sharded, where no process can cut its batch smaller on "
                f"its own: set encoder.train_tokens below {self.max_tokens:,}."
            ) from error
        gradients = [_gradient(parameter) for parameter in self.parameters]
        of_head = [gradient for gradient in gradients if not isinstance(gradient, DTensor)]
        torch._foreach_div_(of_head, float(size))
        self.world.add([total, *of_head])
        return total, gradients


def _gradient(parameter: nn.Parameter) -> Tensor:
    gradient = parameter.grad
    parameter.grad = None
    return torch.zeros_like(parameter) if gradient is None else gradient
