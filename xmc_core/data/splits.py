"""Which documents are held out for testing, decided by a hash.

The hash of a key (a text, a file) decides alone, so more documents, fewer, or another order move no
document to the other side; and what shares a key stays together.
"""

from collections.abc import Sequence
from hashlib import blake2b

import numpy as np

from xmc_core.errors import DataError
from xmc_core.types import Flags


def position(key: str) -> float:
    """A number in [0, 1) that is the same on every machine.

    >>> position("a") == position("a"), round(position("a"), 4)
    (True, 0.2626)
    """
    digest = blake2b(key.encode("utf-8", "surrogatepass"), digest_size=6).digest()
    return int.from_bytes(digest, "big") / 2**48  # 48 bits: exact in a double


def held_out(keys: Sequence[str], share: float, source: str) -> Flags:
    """(len(keys),) True for test: about `share` of the keys, at least one, never all.

    Raises DataError, naming `source`, if all keys are equal.
    """
    positions = np.array([position(key) for key in keys])
    lowest, highest = (positions.min(), positions.max()) if len(keys) else (0.0, 0.0)
    if lowest == highest:
        raise DataError(
            f"{source} cannot be split into train and test: it needs at least two different texts, "
            "or give a test file of its own (--test)."
        )
    test: Flags = positions < share
    if not test.any():
        test = positions == lowest
    return positions < highest if test.all() else test
