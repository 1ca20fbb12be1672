"""Several processes on one task, one for each GPU, or on CPU over gloo.

Each holds the whole model (data parallel) or a share of it (`encoder.sharded`, FSDP2), takes its
share of every batch, and adds its gradients to the others'. Only the first one reports and writes.
"""

import ctypes
import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from xmc_core.errors import EncoderError
from xmc_core.types import Indices

Item = TypeVar("Item")

BUCKET = 2**25
"""Numbers that are added up over the processes in one call: 128 MB of float32."""

WAIT_HOURS = 12
"""The others wait while the first process prepares a level; by default they give up after half an
hour or less."""


@dataclass(frozen=True, slots=True)
class World:
    """The processes that work together; the default is one alone."""

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this process is the one that reports and writes."""
        return self.rank == 0

    def share(self, items: Sequence[Item]) -> list[tuple[Item, bool]]:
        """This process's part of `items`, dealt out in turn, each with: does it count?

        Every process gets the same number, so that those of a sharded model, which take each pass
        together, stay in step: who has one less does the last item once more, for nothing.
        """
        mine = [(item, True) for item in items[self.rank :: self.size]]
        if items and len(mine) < -(-len(items) // self.size):
            mine.append((items[-1], False))
        return mine

    def rows(self, batch: Indices) -> tuple[Indices, float]:
        """This process's rows of a batch, and by how many rows the sum of their losses is divided.

        Where there are more processes than rows, some take the last one for nothing: all of them
        count on each other's sums.
        """
        mine = batch[self.rank :: self.size]
        return (mine, len(batch)) if len(mine) else (batch[-1:], math.inf)

    def add(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its sum over the processes; in place."""
        if self.size == 1:
            return
        for bucket in _buckets(tensors):
            flat = torch.cat([tensor.reshape(-1) for tensor in bucket])
            dist.all_reduce(flat)
            parts = torch.split(flat, [tensor.numel() for tensor in bucket])
            for tensor, part in zip(bucket, parts, strict=True):
                tensor.copy_(part.view_as(tensor))

    def any(self, flag: bool, device: torch.device) -> bool:
        """Whether `flag` is true in one of the processes."""
        if self.size == 1:
            return flag
        votes = torch.tensor([float(flag)], device=device)
        dist.all_reduce(votes)
        return bool(votes.item() > 0)

    def wait(self) -> None:
        """Until all processes have come here."""
        if self.size > 1:
            dist.barrier()


ALONE = World()


def is_sharded(model: torch.nn.Module) -> bool:
    """Whether each process holds a share of the model, see sharded.py."""
    if not (dist.is_available() and dist.is_initialized()):
        return False
    from torch.distributed.fsdp import FSDPModule  # not for those who only ask a model

    return isinstance(model, FSDPModule)


def _buckets(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    bucket: list[Tensor] = []
    numbers = 0
    for tensor in tensors:
        if bucket and numbers + tensor.numel() > BUCKET:
            yield bucket
            bucket, numbers = [], 0
        bucket.append(tensor)
        numbers += tensor.numel()
    if bucket:
        yield bucket


@contextmanager
def joined(device: torch.device) -> Iterator[World]:
    """Join the processes that torchrun has started; alone where it has started none."""
    if "RANK" not in os.environ or int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield ALONE
        return
    if device.type == "cuda":
        torch.cuda.set_device(local_device(device))
    dist.init_process_group(
        "nccl" if device.type == "cuda" else "gloo", timeout=timedelta(hours=WAIT_HOURS)
    )
    try:
        yield World(dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()


def local_device(device: torch.device) -> torch.device:
    """The GPU of this process."""
    if device.type != "cuda":
        return device
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


PR_SET_PDEATHSIG = 1


def _ends_with(parent: int) -> Callable[[], None] | None:
    """What a child calls to be sent SIGTERM when its parent is gone."""
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl  # looked up now: between fork and exec little may be done

    def call() -> None:
        prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # gone already
            os._exit(1)

    return call


def torchrun(module: str, arguments: Sequence[str], processes: int) -> None:
    """Run a module in `processes` processes on this machine, and wait for them.

    On Linux they end when this process does, even if it is killed. Raises EncoderError if one of
    them fails; the others are stopped then.
    """
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", str(processes), "-m", module, *arguments]
    environment: dict[str, Any] = {"OMP_NUM_THREADS": "1", **os.environ}
    with subprocess.Popen(command, env=environment, preexec_fn=_ends_with(os.getpid())) as process:
        try:
            code = process.wait()
        except BaseException:
            process.send_signal(signal.SIGTERM)  # torchrun stops its processes
            raise
    if code != 0:
        raise EncoderError(
            f"one of {processes} training processes failed (torchrun ended with code {code}); its "
            "own words are above."
        )
