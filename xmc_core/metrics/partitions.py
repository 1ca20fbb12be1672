"""How far apart two partitions of the same items are."""

import numpy as np

from xmc_core.errors import DataError, ShapeError
from xmc_core.types import Indices


def variation_of_information(one: Indices, other: Indices) -> float:
    """What each of two partitions leaves unsaid about the other, in bits: H(one | other) +
    H(other | one).

    A metric on partitions: 0 if and only if both are the same, whatever their groups are called,
    and at most log2 of the number of items.

    Parameters
    ----------
    one, other : (n_items,)
        The group of each item; any whole numbers.

    Raises
    ------
    ShapeError
        If the partitions are not of the same items.
    DataError
        If there are no items.

    References
    ----------
    Meilă, "Comparing clusterings: an information based distance", Journal of Multivariate Analysis
    98, 2007.
    """
    one, other = np.asarray(one), np.asarray(other)
    if one.ndim != 1 or one.shape != other.shape:
        raise ShapeError(
            f"the partitions have shapes {one.shape} and {other.shape}; both must be lists of the "
            "groups of the same items in the same order."
        )
    if len(one) == 0:
        raise DataError("two partitions of no items have no distance; give at least one item.")
    _, first, n_first = np.unique(one, return_inverse=True, return_counts=True)
    _, second, n_second = np.unique(other, return_inverse=True, return_counts=True)
    pairs, n_both = np.unique(first.astype(np.int64) * len(n_second) + second, return_counts=True)
    in_first, in_second = n_first[pairs // len(n_second)], n_second[pairs % len(n_second)]
    # Not from three entropies: their rounding would leave equal partitions a little apart.
    bits = np.log2(in_first / n_both) + np.log2(in_second / n_both)
    return float(np.sum(n_both * bits) / len(one))
