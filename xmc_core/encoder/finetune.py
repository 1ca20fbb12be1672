"""Fine-tuning the encoder, with a linear head on top, on one level of the tree.

Dropout stays off. Levels are trained for fractions of an epoch up to a few epochs, where it only
adds noise, and it costs 11 to 17 % of a step on CPU. It would also be the one random number drawn
inside a step, which could not be the same on every number of threads.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from xmc_core.config import EncoderConfig, per_level
from xmc_core.encoder.batches import training_batches
from xmc_core.encoder.device import resolve_dtype, run_jobs, training_attention
from xmc_core.encoder.head import Head, LevelTargets
from xmc_core.encoder.losses import rate_factor
from xmc_core.encoder.model import TextEncoder
from xmc_core.encoder.tokens import TokenStore
from xmc_core.errors import ConfigError
from xmc_core.reporting import PROGRESS_SECONDS, SILENT, Reporter
from xmc_core.tree import LabelTree

MAX_HEAD_NODES = 32_768
"""The widest level that gets a head. Released XR-Transformer models stop at the same width: finer
levels are left to the linear rankers."""

CPU_PARTS = 4
"""On CPU the gradient of a batch is the sum of this many parts, in this order, each computed on
one thread. It is fixed, so that the sum does not depend on the number of threads."""

MAX_NORM = 1.0
"""Gradients longer than this are shortened, those of encoder and head apart."""

POINTS = 500
"""A level's learning curve has at most about this many points; each is the mean over its steps."""


@dataclass(frozen=True, slots=True)
class LevelPlan:
    """One level to fine-tune."""

    level: int
    """Counts from 1, the children of the root, to the depth of the tree."""

    steps: int
    learning_rate: float


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """The learning curve between two steps."""

    step: int
    """Of all levels together, from 1."""

    level: int
    loss: float
    """Mean over the steps since the point before."""

    learning_rate: float


def plan_levels(tree: LabelTree, config: EncoderConfig) -> list[LevelPlan]:
    """Decide which levels of `tree` are fine-tuned, and how.

    Called before anything is encoded, since what does not fit together must not show after hours.

    Raises
    ------
    ConfigError
        If the tree has fewer levels than `encoder.levels`, one of them is too wide for a head, or
        `encoder.steps` or `encoder.learning_rate` list more levels than are fine-tuned.
    """
    sizes = tree.level_sizes
    if config.leaf_only:
        levels = [max(tree.depth - 1, 1)]
    elif config.levels > tree.depth:
        raise ConfigError(
            f"encoder.levels is {config.levels} but the tree has {tree.depth} levels "
            f"({_sizes(sizes)} nodes); lower it to {tree.depth} or less."
        )
    else:
        levels = list(range(1, config.levels + 1))

    if not levels:
        return []
    for level in levels:
        if sizes[level - 1] > MAX_HEAD_NODES:
            way_out = f"set encoder.levels to {level - 1}"
            if config.leaf_only:
                way_out = "set tree.max_leaf_size higher"
            raise ConfigError(
                f"level {level} of the tree has {sizes[level - 1]:,} nodes; fine-tuning takes "
                f"levels of at most {MAX_HEAD_NODES:,} (all levels: {_sizes(sizes)}): {way_out}."
            )
    for name in ("steps", "learning_rate"):
        values = getattr(config, name)
        if len(values) > len(levels):
            raise ConfigError(
                f"encoder.{name} lists {len(values)} values but {len(levels)} levels are "
                "fine-tuned; give one value for all of them, or one each."
            )
    steps = per_level(config.steps, len(levels))
    rates = per_level(config.learning_rate, len(levels))
    return [LevelPlan(*values) for values in zip(levels, steps, rates, strict=True)]


def train_level_head(
    encoder: TextEncoder,
    head: Head,
    tokens: TokenStore,
    task: LevelTargets,
    plan: LevelPlan,
    config: EncoderConfig,
    *,
    first_step: int = 0,
    n_threads: int = -1,
    report: Reporter = SILENT,
) -> list[CurvePoint]:
    """Train `encoder` and `head`, both in place, for `plan.steps` steps on one level.

    AdamW; the rates of encoder and head rise linearly over `config.warmup` of the steps and fall
    to 0, and start anew with every level. Every step counts: what the last one leaves is the
    result. Same input and seed, same weights, on any number of CPU threads; on a GPU sums may be
    ordered differently from run to run.

    Returns the learning curve, whose steps count on from `first_step`.
    """
    device = encoder.device
    head.to(device).train()
    weights = trainable_weights(encoder)
    groups = [
        {"params": [w for w in weights if w.ndim > 1], "peak": plan.learning_rate},
        # As everywhere, biases and the gains of layer norms do not decay.
        {
            "params": [w for w in weights if w.ndim <= 1],
            "peak": plan.learning_rate,
            "weight_decay": 0.0,
        },
        {"params": list(head.parameters()), "peak": config.head_learning_rate, "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=0.0, weight_decay=config.weight_decay, fused=True)
    step = _Step(encoder, head, tokens, task, config, weights, n_threads)

    curve: list[CurvePoint] = []
    every = max(plan.steps // POINTS, 1)
    losses: list[Tensor] = []
    began = told = time.monotonic()
    torch_threads = torch.get_num_threads()
    try:
        if device.type == "cpu":
            torch.set_num_threads(1)  # norms and updates too shall not depend on the machine
        seed = config.seed * 1_000_003 + plan.level
        for done, rows in enumerate(
            training_batches(tokens.lengths, config.batch_size, plan.steps, seed)
        ):
            factor = rate_factor(done, plan.steps, config.warmup)
            for group in optimizer.param_groups:
                group["lr"] = factor * group["peak"]
            losses.append(step.gradients(rows))
            torch.nn.utils.clip_grad_norm_(weights, MAX_NORM)
            torch.nn.utils.clip_grad_norm_(head.parameters(), MAX_NORM)
            optimizer.step()

            if (done + 1) % every == 0 or done + 1 == plan.steps:
                loss = float(torch.stack(losses).mean())
                point = CurvePoint(
                    first_step + done + 1, plan.level, loss, factor * plan.learning_rate
                )
                curve.append(point)
                losses = []
                report.curve(
                    point.step, level=plan.level, loss=loss, learning_rate=point.learning_rate
                )
            if (now := time.monotonic()) - told >= PROGRESS_SECONDS:
                told = now
                report.progress(done + 1, plan.steps, f"steps on level {plan.level}", now - began)
    finally:
        torch.set_num_threads(torch_threads)
        for weight in weights:
            weight.grad = None
    return curve


def trainable_weights(encoder: TextEncoder) -> list[torch.nn.Parameter]:
    """The transformer's weights without the table of word vectors, which stays as pretrained."""
    table = encoder.model.get_input_embeddings().weight  # type: ignore[operator]
    return [weight for weight in encoder.model.parameters() if weight is not table]


class _Step:
    """The gradient of one batch."""

    def __init__(
        self,
        encoder: TextEncoder,
        head: Head,
        tokens: TokenStore,
        task: LevelTargets,
        config: EncoderConfig,
        weights: Sequence[torch.nn.Parameter],
        n_threads: int,
    ) -> None:
        self.encoder, self.head, self.tokens, self.task = encoder, head, tokens, task
        self.loss, self.n_threads = config.loss, n_threads
        self.dtype = resolve_dtype(config.precision, encoder.device)
        self.parameters = [*weights, *head.parameters()]

    def gradients(self, rows: np.ndarray) -> Tensor:
        """Put the batch's gradient into the parameters' `grad`; returns its mean loss."""
        n_parts = CPU_PARTS if self.encoder.device.type == "cpu" else 1
        parts = [part for part in np.array_split(rows, n_parts) if len(part)]
        with training_attention(self.encoder.device):
            results = run_jobs(
                lambda part: self._part(part, len(rows)), parts, self.encoder.device, self.n_threads
            )
        total, sums = results[0]
        for loss, gradients in results[1:]:
            total = total + loss
            torch._foreach_add_(sums, gradients)
        for parameter, gradient in zip(self.parameters, sums, strict=True):
            parameter.grad = gradient
        return total

    def _part(self, rows: np.ndarray, n_rows: int) -> tuple[Tensor, list[Tensor]]:
        device = self.encoder.device
        ids, mask = (torch.from_numpy(array).to(device) for array in self.tokens.padded(rows))
        vectors = self.encoder.forward(ids, mask, self.dtype)
        losses = self.head.loss(vectors, self.task.candidates(rows), self.loss)
        loss = losses.sum() / n_rows
        return loss.detach(), list(
            torch.autograd.grad(loss, self.parameters, allow_unused=True, materialize_grads=True)
        )


def _sizes(sizes: Sequence[int]) -> str:
    return ", ".join(f"{size:,}" for size in sizes)
