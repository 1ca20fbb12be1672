"""What turns a margin into a factor of the path's score."""

from collections.abc import Sequence

from xmc_core.config import POST_PROCESSORS, per_level
from xmc_core.errors import ConfigError
from xmc_core.kernels.beam import (
    HINGE_1,
    HINGE_2,
    HINGE_3,
    HINGE_4,
    LOGARITHMS,
    LOGARITHMS_OUT,
    NONE,
    PRODUCTS,
    SIGMOID,
)

LOG = "log-"
CODES = {
    "none": NONE,
    "l1-hinge": HINGE_1,
    "l2-hinge": HINGE_2,
    "l3-hinge": HINGE_3,
    "l4-hinge": HINGE_4,
    "sigmoid": SIGMOID,
}


def codes_per_level(names: Sequence[str], depth: int) -> tuple[int, ...]:
    """The kernels' numbers for the post-processors of `depth` levels; names count from the last."""
    for name in names:
        if name not in POST_PROCESSORS:
            known = ", ".join(POST_PROCESSORS)
            raise ConfigError(f"there is no post-processor {name!r}; choose from {known}.")
    return tuple(CODES[name.removeprefix(LOG)] for name in per_level(tuple(names), depth))


def kept_as(names: Sequence[str], depth: int) -> int:
    """How the kernels keep the scores of paths: as sums of logarithms where that can be.

    That is faster and tells apart what a product rounds to 0. Where a level above the last ranks
    by bare margins, which may be negative, products it must be. A last level that asks for
    logarithms (`log-`) gets the sums as they are.
    """
    chosen = per_level(tuple(names), depth)
    products = any(name == "none" for name in chosen[:-1])
    if not chosen[-1].startswith(LOG):
        return PRODUCTS if products else LOGARITHMS
    if products:
        raise ConfigError(
            f"post-processor {chosen[-1]} needs factors at the levels above it, which `none` does "
            "not give."
        )
    return LOGARITHMS_OUT
