"""Which levels of the tree are fine-tuned, and how: settled before anything is loaded.

What does not fit together must show in seconds, not after hours.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from xmc_core.config import EncoderConfig, per_level
from xmc_core.errors import ConfigError
from xmc_core.tree import LabelTree

MAX_HEAD_NODES = 32_768
"""The widest level that gets a head. Released XR-Transformer models stop at the same width: finer
levels are left to the linear rankers."""


@dataclass(frozen=True, slots=True)
class LevelPlan:
    """One level to fine-tune."""

    level: int
    """Counts from 1, the children of the root, to the depth of the tree."""

    steps: int
    learning_rate: float
    batch_size: int = 32


def plan_levels(tree: LabelTree, config: EncoderConfig) -> list[LevelPlan]:
    """Decide which levels of `tree` are fine-tuned, and how.

    Raises
    ------
    ConfigError
        If the tree has fewer levels than `encoder.levels`, one of them is too wide for a head, or
        `encoder.steps`, `encoder.learning_rate` or `encoder.batch_size` list more levels than are
        fine-tuned.
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
    columns = []
    for name in ("steps", "learning_rate", "batch_size"):
        values = getattr(config, name)
        if len(values) > len(levels):
            raise ConfigError(
                f"encoder.{name} lists {len(values)} values but {len(levels)} levels are "
                "fine-tuned; give one value for all of them, or one each."
            )
        columns.append(per_level(values, len(levels)))
    return [LevelPlan(*values) for values in zip(levels, *columns, strict=True)]


def _sizes(sizes: Sequence[int]) -> str:
    return ", ".join(f"{size:,}" for size in sizes)
