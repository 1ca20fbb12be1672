"""What turns a margin into a factor of the path's score."""

from collections.abc import Sequence

import numpy as np

from xmc_core.config import POST_PROCESSORS, per_level
from xmc_core.errors import ConfigError
from xmc_core.kernels.beam import HINGE_1, HINGE_2, HINGE_3, HINGE_4, NONE, SIGMOID
from xmc_core.types import Floats, Indices

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
        if name not in CODES:
            known = ", ".join(POST_PROCESSORS)
            raise ConfigError(f"there is no post-processor {name!r}; choose from {known}.")
    return tuple(CODES[name] for name in per_level(tuple(names), depth))


def works_in_logarithms(codes: Sequence[int]) -> bool:
    """Whether path scores are kept as sums of logarithms.

    That is faster and tells apart what a product rounds to 0. Where a level above the last ranks
    by bare margins, which may be negative, products it must be.
    """
    return all(code != NONE for code in codes[:-1])


def path_scores(labels: Indices, best_scores: Floats, codes: Sequence[int]) -> Floats:
    """What the search leaves, turned in place into the scores that users see."""
    if works_in_logarithms(codes) and codes[-1] != NONE:
        np.exp(best_scores, out=best_scores, where=labels >= 0)
    return best_scores
