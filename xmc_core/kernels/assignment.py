"""Which clusters the beams of a label's samples reach most often, and who gets a place there."""

import numpy as np

from xmc_core.kernels._compile import kernel
from xmc_core.kernels.selection import Keys, largest_first
from xmc_core.types import Flags, Indices, Pointers

COUNT_SHIFT = np.uint64(33)
HOME_BIT = np.uint64(1) << np.uint64(32)
LOW_BITS = np.uint64(0xFFFFFFFF)


@kernel
def top_leaves_into(
    label_pointer: Pointers,  # (n_labels + 1,) positives of l: samples[label_pointer[l] : [l + 1]]
    samples: Indices,  # rows of the beams
    beam_pointer: Pointers,  # (n_samples + 1,)
    beam_leaves: Indices,  # leaves that the beam of each sample reaches
    home_pointer: Pointers,  # (n_labels + 1,)
    home_leaves: Indices,  # leaves that name each label now
    n_leaves: int,
    first: int,  # labels first : last are this call's
    last: int,
    leaves: Indices,  # (n_labels, n_best) out: best first, -1 pads
    counts: Indices,  # (n_labels, n_best) out
) -> None:
    """A label's leaves by how many of its samples reach them: one row of N = Y' M at a time.

    Equal counts: a leaf that names the label already, then the smaller number.
    """
    n_best = leaves.shape[1]
    reached = np.zeros(n_leaves, np.int32)
    met = np.empty(n_leaves, np.int32)
    home = np.zeros(n_leaves, np.uint8)
    keys: Keys = np.empty(n_leaves, np.uint64)
    for label in range(first, last):
        n = 0
        for p in range(label_pointer[label], label_pointer[label + 1]):
            for q in range(beam_pointer[samples[p]], beam_pointer[samples[p] + 1]):
                leaf = beam_leaves[q]
                if reached[leaf] == 0:
                    met[n] = leaf
                    n += 1
                reached[leaf] += 1
        for q in range(home_pointer[label], home_pointer[label + 1]):
            home[home_leaves[q]] = 1
        for i in range(n):
            key = np.uint64(reached[met[i]]) << COUNT_SHIFT | (LOW_BITS - np.uint64(met[i]))
            keys[i] = key | HOME_BIT if home[met[i]] else key
            reached[met[i]] = 0
        for q in range(home_pointer[label], home_pointer[label + 1]):
            home[home_leaves[q]] = 0

        kept = min(n, n_best)
        largest_first(keys, n, kept)
        keys[:kept].sort()
        for i in range(n_best):
            leaves[label, i] = -1
            counts[label, i] = 0
            if i < kept:
                key = keys[kept - 1 - i]
                leaves[label, i] = np.int64(LOW_BITS - (key & LOW_BITS))
                counts[label, i] = np.int64(key >> COUNT_SHIFT)


@kernel
def assign_into(
    labels: Indices,  # (n,) wishes, the strongest first
    leaves: Indices,  # (n,)
    most_leaves: int,  # of a label
    room: Pointers,  # (n_leaves,) in and out: labels that each leaf still takes
    taken: Indices,  # (n_labels,) in and out: leaves that each label has
    granted: Flags,  # (n,) out
) -> None:
    """Grant wishes in order, as long as the label may have more and the leaf has room."""
    for i in range(labels.shape[0]):
        granted[i] = taken[labels[i]] < most_leaves and room[leaves[i]] > 0
        if granted[i]:
            taken[labels[i]] += 1
            room[leaves[i]] -= 1


@kernel
def place_nearby_into(
    homes: Indices,  # (n,) where each of the labels that got no leaf lived
    room: Pointers,  # (n_leaves,) in and out
    leaves: Indices,  # (n,) out
) -> None:
    """Give each label its old leaf, or the nearest one with room: neighbours are alike."""
    n_leaves = room.shape[0]
    for i in range(homes.shape[0]):
        for distance in range(n_leaves):
            left = homes[i] - distance
            right = homes[i] + distance
            if left >= 0 and room[left] > 0:
                leaves[i] = left
                break
            if right < n_leaves and room[right] > 0:
                leaves[i] = right
                break
        room[leaves[i]] -= 1
