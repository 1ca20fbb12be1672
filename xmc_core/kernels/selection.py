"""The m largest of n, without sorting all of them."""

import numpy as np
from numpy.typing import NDArray

from xmc_core.kernels._compile import inline_kernel, kernel
from xmc_core.types import Floats, Indices, Pointers

Keys = NDArray[np.uint64]

HIGH = np.uint64(32)
LOW_BITS = np.uint64(0xFFFFFFFF)


@kernel
def largest_first(keys: Keys, n: int, m: int) -> None:
    """Reorder keys[:n] so that the m largest stand first, in no order (Hoare's quick-select)."""
    low = 0
    high = n - 1
    while low < high:
        pivot = keys[(low + high) >> 1]
        i = low
        j = high
        while i <= j:
            while keys[i] > pivot:
                i += 1
            while keys[j] < pivot:
                j -= 1
            if i <= j:
                keys[i], keys[j] = keys[j], keys[i]
                i += 1
                j -= 1
        if m - 1 <= j:
            high = j
        elif m - 1 >= i:
            low = i
        else:
            break


@inline_kernel
def strongest_first(
    features: Indices,  # in and out: the first n are reordered, the m strongest to the front
    strengths: Floats,  # their absolute values
    n: int,
    m: int,
    keys: Keys,  # scratch
) -> None:
    """Choose the m features of largest absolute value; equal ones by the smaller number."""
    # The bit patterns of non-negative floats are in the order of the floats.
    patterns = strengths.view(np.uint32)
    for i in range(n):
        keys[i] = np.uint64(patterns[i]) << HIGH | (LOW_BITS - np.uint64(features[i]))
    largest_first(keys, n, m)
    for i in range(n):
        features[i] = np.int64(LOW_BITS - (keys[i] & LOW_BITS))


@kernel
def prune_rows_into(
    pointer: Pointers,  # (n_rows + 1,)
    indices: Indices,
    values: Floats,
    first: int,  # rows first : last are this call's
    last: int,
    out_pointer: Pointers,  # (n_rows + 1,) how many to keep of each row, summed up
    out_indices: Indices,  # out: ascending within a row
    out_values: Floats,  # out: unit length
) -> None:
    """Keep the strongest entries of each row, scaled to unit length again."""
    longest = 1
    for row in range(first, last):
        longest = max(longest, pointer[row + 1] - pointer[row])
    features = np.empty(longest, np.int32)
    strengths = np.empty(longest, np.float32)
    keys = np.empty(longest, np.uint64)
    for row in range(first, last):
        start = pointer[row]
        n = pointer[row + 1] - start
        out = out_pointer[row]
        m = out_pointer[row + 1] - out
        # Positions instead of features: ascending features are ascending positions.
        for i in range(n):
            features[i] = i
            strengths[i] = abs(values[start + i])
        if m < n:
            strongest_first(features, strengths, n, m, keys)
            features[:m].sort()
        squares = 0.0
        for i in range(m):
            squares += np.float64(values[start + features[i]]) ** 2
        scale = 1.0 / np.sqrt(squares) if squares > 0.0 else 0.0
        for i in range(m):
            out_indices[out + i] = indices[start + features[i]]
            out_values[out + i] = values[start + features[i]] * scale
