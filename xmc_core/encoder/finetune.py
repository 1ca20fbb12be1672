"""Fine-tuning the encoder, with a linear head on top, on one level of the tree.

Dropout stays off. Levels are trained for fractions of an epoch up to a few epochs, where it only
adds noise, and it costs 11 to 17 % of a step on CPU. It would also be the one random number drawn
inside a step, which could not be the same on every number of threads.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor

from xmc_core.config import EncoderConfig
from xmc_core.encoder.batches import training_batches
from xmc_core.encoder.checkpoint import Saved, packed, unpacked
from xmc_core.encoder.device import MasterWeights
from xmc_core.encoder.distributed import ALONE, World, is_sharded
from xmc_core.encoder.gradients import BatchGradient, recomputing, trainable_weights
from xmc_core.encoder.head import Head, LevelTargets
from xmc_core.encoder.losses import rate_factor
from xmc_core.encoder.model import TextEncoder
from xmc_core.encoder.plan import LevelPlan
from xmc_core.encoder.sharded import ShardedGradient, dealt, full
from xmc_core.encoder.tokens import TokenStore
from xmc_core.encoder.validation import RANKS, Validation
from xmc_core.errors import EncoderError
from xmc_core.reporting import PROGRESS_SECONDS, SILENT, Reporter, peak_memory_mb
from xmc_core.types import Indices, Json

MAX_NORM = 1.0
"""Gradients longer than this are shortened, those of encoder and head apart."""

POINTS = 500
"""A level's learning curve has at most about this many points; each is the mean over its steps."""

LOOKS = 5
"""So often a level is validated, unless `encoder.validate_every` says how often."""


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """The learning curve between two steps."""

    step: int
    """Of all levels together, from 1."""

    level: int
    loss: float
    """Mean over the steps since the point before."""

    learning_rate: float


@dataclass(frozen=True, slots=True)
class Look:
    """What the documents held out said after a step."""

    step: int
    level: int
    precision: tuple[float, ...]
    """P@1, P@3, P@5 of the level's nodes, percent."""

    @property
    def figure(self) -> float:
        """By which the best weights are chosen."""
        return sum(self.precision) / len(self.precision)


@dataclass(frozen=True, slots=True)
class LevelCurve:
    """How the training of one level went."""

    points: tuple[CurvePoint, ...]
    looks: tuple[Look, ...] = ()
    train_tokens: int = 0
    """What memory had room for at the end: `encoder.train_tokens`, or less."""


def train_level_head(
    encoder: TextEncoder,
    head: Head,
    tokens: TokenStore,
    task: LevelTargets,
    plan: LevelPlan,
    config: EncoderConfig,
    *,
    validation: Validation | None = None,
    first_step: int = 0,
    total_steps: int | None = None,
    saved: Saved | None = None,
    keep: Callable[[Saved], None] | None = None,
    n_threads: int = -1,
    world: World = ALONE,
    report: Reporter = SILENT,
) -> LevelCurve:
    """Train `encoder` and `head`, both in place, for `plan.steps` steps on one level.

    AdamW; the rates of encoder and head rise linearly over `config.warmup` of the steps and fall
    to 0, and start anew with every level. Every step counts: without `validation` what the last one
    leaves is the result, with it the best of the weights looked at, the last among them. Same input
    and seed, same weights, on any number of CPU threads; on a GPU sums may be ordered differently
    from run to run.

    `keep` is given a checkpoint every `config.checkpoint_every` steps and after the last; with
    `saved`, one of these, training goes on from there. Steps count on from `first_step`; of
    `total_steps` in all levels, the time left is told.

    Raises EncoderError if a text is too much for the memory, or if losses or weights are no numbers
    any more.
    """
    training = _Training(
        encoder, head, tokens, task, plan, config, validation, n_threads, world, report
    )
    training.first_step = first_step
    training.total_steps = total_steps or first_step + plan.steps
    torch_threads = torch.get_num_threads()
    try:
        if encoder.device.type == "cpu":
            torch.set_num_threads(1)  # norms and updates too shall not depend on the machine
        if saved is not None:
            training.restore(saved)
        with recomputing(encoder, config.gradient_checkpointing):
            training.run(keep)
        return LevelCurve(
            tuple(training.points), tuple(training.looks), training.gradient.max_tokens
        )
    finally:
        torch.set_num_threads(torch_threads)
        training.weights.close()


class _Training:
    """One level while it is trained."""

    def __init__(
        self,
        encoder: TextEncoder,
        head: Head,
        tokens: TokenStore,
        task: LevelTargets,
        plan: LevelPlan,
        config: EncoderConfig,
        validation: Validation | None,
        n_threads: int,
        world: World,
        report: Reporter,
    ) -> None:
        self.encoder, self.head = encoder, head.to(encoder.device)
        self.tokens, self.task, self.plan, self.config = tokens, task, plan, config
        self.validation = validation
        self.n_threads, self.world, self.report = n_threads, world, report
        trained = trainable_weights(encoder)
        sharded = is_sharded(encoder.model)
        self.gradient = (ShardedGradient if sharded else BatchGradient)(
            encoder, head, tokens, task, config, trained,
            n_threads=n_threads, world=world, report=report,
        )  # fmt: skip
        # A sharded encoder casts its weights itself, whenever it brings them together.
        dtype = torch.float32 if sharded else self.gradient.dtype
        self.weights = MasterWeights([encoder.model, self.head], dtype)
        self.masters = self.weights.of(self.gradient.parameters)
        self.n_encoder = len(trained)
        of_encoder, of_head = self.masters[: self.n_encoder], self.masters[self.n_encoder :]
        rate = plan.learning_rate
        groups = [
            {"params": [w for w in of_encoder if w.ndim > 1], "peak": rate},
            # As everywhere, biases and the gains of layer norms do not decay.
            {"params": [w for w in of_encoder if w.ndim <= 1], "peak": rate, "weight_decay": 0.0},
            {"params": of_head, "peak": config.head_learning_rate, "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(
            [group for group in groups if group["params"]],
            lr=0.0,
            weight_decay=config.weight_decay,
            fused=True,
        )
        self.first_step, self.total_steps = 0, plan.steps
        self.done = 0
        self.points: list[CurvePoint] = []
        self.looks: list[Look] = []
        self.pending: list[Tensor] = []
        """Losses since the last point, still on the device: asking for them would stop it."""

        self.unread: list[tuple[int, float, Tensor]] = []
        """Points since somebody looked, also on the device: step, learning rate, loss."""

        self.best: list[Tensor] = []
        """The weights at the best look so far, on the CPU."""

    @property
    def over(self) -> bool:
        """Whether all steps are done, or patience is at its end."""
        if self.done >= self.plan.steps:
            return True
        patience = self.config.patience
        if not patience or len(self.looks) <= patience:
            return False
        figures = [look.figure for look in self.looks]
        return max(figures[-patience:]) <= max(figures[:-patience])

    def run(self, keep: Callable[[Saved], None] | None) -> None:
        """Take the steps that are left, and end with the best weights."""
        config, plan = self.config, self.plan
        batches = self._batches()
        pace = _Pace(self)
        look_every = config.validate_every or max(plan.steps // LOOKS, 1)
        while not self.over:
            upcoming = self.done + 1
            look = self.validation is not None and (
                upcoming % look_every == 0 or upcoming == plan.steps
            )
            self._step(next(batches), pace, point=look)
            if look:
                self._look()
            last = self.over
            if last or (keep is not None and _due(self.done, config.checkpoint_every)):
                self._read(pace)
                self._require_numbers()
                if keep is not None:
                    keep(self.state())
        if self.best:
            self._assign(self.best)

    def _batches(self) -> Iterator[Indices]:
        """Drawn level by level; of a level that goes on, from where it was left."""
        plan, lengths, relations = self.plan, self.tokens.lengths, self.task.relations
        seed = self.config.seed * 1_000_003 + plan.level
        if relations is None:
            yield from training_batches(lengths, plan.batch_size, plan.steps, seed, skip=self.done)
            return
        # Half of a batch is drawn, the other half for it.
        half = training_batches(lengths, plan.batch_size // 2, plan.steps, seed, skip=self.done)
        for step, rows in enumerate(half, start=self.done):
            batch = relations.with_partners(rows, (seed, step))
            yield batch[np.argsort(-lengths[batch], kind="stable")]

    def _step(self, rows: Indices, pace: "_Pace", *, point: bool) -> None:
        """One step of the optimiser; a point of the curve if it is time, or wanted."""
        plan = self.plan
        factor = rate_factor(self.done, plan.steps, self.config.warmup)
        for group in self.optimizer.param_groups:
            group["lr"] = factor * group["peak"]
        loss, gradients = self.gradient.of(rows)
        for master, gradient in zip(self.masters, gradients, strict=True):
            master.grad = gradient
        torch.nn.utils.clip_grad_norm_(self.masters[: self.n_encoder], MAX_NORM)
        torch.nn.utils.clip_grad_norm_(self.masters[self.n_encoder :], MAX_NORM)
        self.optimizer.step()
        self.weights.publish()
        self.done += 1
        self.pending.append(loss)
        pace.add(int(self.tokens.lengths[rows].sum()))

        every = max(plan.steps // POINTS, 1)
        if point or self.done % every == 0 or self.done == plan.steps:
            mean = torch.stack(self.pending).mean()
            self.unread.append((self.first_step + self.done, factor * plan.learning_rate, mean))
            self.pending = []
        if point or pace.due:
            self._read(pace)
        pace.tell()

    def _read(self, pace: "_Pace") -> None:
        """Bring the points of the curve from the device, and tell them."""
        if not self.unread:
            return
        level, figures = self.plan.level, pace.figures()
        losses = torch.stack([loss for _, _, loss in self.unread]).tolist()
        for (step, rate, _), loss in zip(self.unread, losses, strict=True):
            if not math.isfinite(loss):
                raise self._diverged(f"the loss is {loss} at step {step:,}")
            self.points.append(CurvePoint(step, level, loss, rate))
            self.report.curve(step, level=level, loss=loss, learning_rate=rate, **figures)
        self.unread = []

    def _require_numbers(self) -> None:
        """A single infinity among gradients takes all weights with it, and no later step brings
        them back: better to say so than to keep them."""
        sound = torch.stack([torch.isfinite(full(master)).all() for master in self.masters])
        if not bool(sound.all()):
            raise self._diverged(f"weights are no numbers after step {self.first_step + self.done}")

    def _diverged(self, what: str) -> EncoderError:
        return EncoderError(
            f"level {self.plan.level}: {what}. Lower encoder.learning_rate, or set "
            "encoder.precision to fp32; what was kept before that is still there."
        )

    def _look(self) -> None:
        assert self.validation is not None
        precision = self.validation.precision(
            self.encoder, self.head, self.config, n_threads=self.n_threads, world=self.world
        )
        look = Look(self.first_step + self.done, self.plan.level, precision)
        self.looks.append(look)
        if max(self.looks, key=lambda known: known.figure) is look:  # the first of equal ones
            self.best = [full(master).detach().cpu().clone() for master in self.masters]
        names = (f"validation_precision_at_{k}" for k in RANKS)
        self.report.curve(look.step, **dict(zip(names, precision, strict=True)))

    def state(self) -> Saved:
        """A checkpoint of this moment."""
        states = [self.optimizer.state[master] for master in self.masters]
        facts: Json = {
            "level": self.plan.level,
            "first_step": self.first_step,
            "done": self.done,
            "over": self.over,
            "max_tokens": self.gradient.max_tokens,
            "points": [asdict(point) for point in self.points],
            "looks": [asdict(look) for look in self.looks],
            "pending": [float(loss) for loss in self.pending],
        }
        tensors = {
            **packed("weight", map(full, self.masters)),
            **packed("mean", (full(state["exp_avg"]) for state in states)),
            **packed("square", (full(state["exp_avg_sq"]) for state in states)),
            **packed("best", self.best),
        }
        return Saved(facts, tensors)

    def restore(self, saved: Saved) -> None:
        """Go on from a checkpoint of the same level."""
        facts, tensors = saved.facts, saved.tensors
        self.done = facts["done"]
        self.gradient.max_tokens = facts["max_tokens"]
        self.points, self.looks = curves(facts)
        self.pending = [torch.tensor(x, device=self.encoder.device) for x in facts["pending"]]
        self.best = unpacked("best", tensors)
        self._assign(unpacked("weight", tensors))
        means, squares = unpacked("mean", tensors), unpacked("square", tensors)
        for master, mean, square in zip(self.masters, means, squares, strict=True):
            self.optimizer.state[master] = {
                "step": torch.tensor(float(self.done), device=master.device),
                "exp_avg": dealt(mean.to(master.device), master),
                "exp_avg_sq": dealt(square.to(master.device), master),
            }

    def _assign(self, values: Sequence[Tensor]) -> None:
        for master, value in zip(self.masters, values, strict=True):
            master.copy_(dealt(value, master))
        self.weights.publish()


def curves(facts: Json) -> tuple[list[CurvePoint], list[Look]]:
    """The learning curve that a checkpoint holds."""
    points = [CurvePoint(**point) for point in facts["points"]]
    looks = [Look(look["step"], look["level"], tuple(look["precision"])) for look in facts["looks"]]
    return points, looks


def _due(done: int, every: int) -> bool:
    return every > 0 and done % every == 0


class _Pace:
    """Tokens a second, and the time that is left of all levels."""

    def __init__(self, training: _Training) -> None:
        self.training = training
        self.tokens = self.tokens_then = 0
        self.began = self.told = self.then = time.monotonic()
        self.done_before = training.done

    def add(self, tokens: int) -> None:
        self.tokens += tokens

    def figures(self) -> dict[str, float]:
        """Since they were last asked for."""
        now = time.monotonic()
        speed = (self.tokens - self.tokens_then) / max(now - self.then, 1e-9)
        self.then, self.tokens_then = now, self.tokens
        device = self.training.encoder.device
        memory = (
            torch.cuda.max_memory_allocated(device) / 2**20
            if device.type == "cuda"
            else peak_memory_mb()
        )
        return {"tokens_per_second": round(speed, 1), "memory_mb": round(memory, 1)}

    @property
    def due(self) -> bool:
        """Whether it is time to tell something."""
        return time.monotonic() - self.told >= PROGRESS_SECONDS

    def tell(self) -> None:
        """Progress over all levels, every few seconds."""
        if not self.due:
            return
        now = self.told = time.monotonic()
        training = self.training
        steps = training.done - self.done_before
        at = training.first_step + training.done
        training.report.progress(
            at,
            training.total_steps,
            f"steps (level {training.plan.level})",
            now - self.began,
            left=(now - self.began) / steps * (training.total_steps - at),
        )
