"""Which clusters the beams of a label's samples reach, and who gets a place there."""

import numpy as np

from xmc_core.kernels._compile import kernel
from xmc_core.types import Flags, Floats, Indices, Pointers

SCORE_SHARE = 0.01
"""Of a sample: a beam's score, 0 to 1, is there to tell leaves of like counts apart."""

HOME_SHARE = 1e-4
"""What a leaf that names the label already has in advance."""


@kernel
def wishes_into(
    label_pointer: Pointers,  # (n_labels + 1,) positives of l: samples[label_pointer[l] : [l + 1]]
    samples: Indices,  # rows of the beams
    covered: Flags,  # (positives,) whose beam reaches a leaf that the label has been given
    beam_pointer: Pointers,  # (n_samples + 1,)
    beam_leaves: Indices,  # leaves that the beam of each sample reaches
    beam_scores: Floats,
    home_pointer: Pointers,  # (n_labels + 1,)
    home_leaves: Indices,  # leaves that name each label now
    worth: Floats,  # (n_leaves,) of a sample that the leaf covers
    first: int,  # labels first : last are this call's
    last: int,
    leaves: Indices,  # (n_labels, n_wishes) out: best first, -1 pads
    gains: Floats,  # (n_labels, n_wishes) out: their worth, and what tells equal ones apart
    counts: Indices,  # (n_labels, n_wishes) out: samples that the leaf would cover
) -> None:
    """A label's leaves by what its samples that reach them and are not covered yet are worth.

    Equal gains: the smaller leaf first.
    """
    n_wishes, n_leaves = leaves.shape[1], len(worth)
    count = np.zeros(n_leaves, np.int32)
    score = np.zeros(n_leaves, np.float64)
    met = np.empty(n_leaves, np.int32)
    for label in range(first, last):
        n = 0
        for p in range(label_pointer[label], label_pointer[label + 1]):
            if covered[p]:
                continue
            for q in range(beam_pointer[samples[p]], beam_pointer[samples[p] + 1]):
                leaf = beam_leaves[q]
                if count[leaf] == 0:
                    met[n] = leaf
                    n += 1
                count[leaf] += 1
                score[leaf] += worth[leaf] * (1.0 + SCORE_SHARE * beam_scores[q])
        for q in range(home_pointer[label], home_pointer[label + 1]):
            score[home_leaves[q]] += HOME_SHARE
        for i in range(n_wishes):
            best = -1
            for j in range(n):
                leaf = met[j]
                if count[leaf] > 0 and (
                    best < 0
                    or score[leaf] > score[best]
                    or (score[leaf] == score[best] and leaf < best)
                ):
                    best = leaf
            leaves[label, i] = best
            gains[label, i] = 0.0
            counts[label, i] = 0
            if best >= 0:
                gains[label, i] = score[best]
                counts[label, i] = count[best]
                count[best] = 0
        for j in range(n):
            count[met[j]] = 0
            score[met[j]] = 0.0
        for q in range(home_pointer[label], home_pointer[label + 1]):
            score[home_leaves[q]] = 0.0


@kernel
def cover_into(
    labels: Indices,  # (n,) that have been given a leaf
    leaves: Indices,  # (n,) which
    label_pointer: Pointers,
    samples: Indices,
    beam_pointer: Pointers,
    beam_leaves: Indices,
    covered: Flags,  # (positives,) in and out
) -> None:
    for i in range(len(labels)):
        for p in range(label_pointer[labels[i]], label_pointer[labels[i] + 1]):
            for q in range(beam_pointer[samples[p]], beam_pointer[samples[p] + 1]):
                if beam_leaves[q] == leaves[i]:
                    covered[p] = True


@kernel
def grant_into(
    labels: Indices,  # (n,) wishes, the strongest first
    leaves: Indices,  # (n,)
    room: Pointers,  # (n_leaves,) in and out: labels that each leaf still takes
    given: Flags,  # (n_labels,) in and out: whether the label has got its leaf of this turn
    granted: Flags,  # (n,) out
) -> None:
    """Grant wishes in order, one a label, as long as the leaf has room."""
    for i in range(len(labels)):
        granted[i] = not given[labels[i]] and room[leaves[i]] > 0
        if granted[i]:
            given[labels[i]] = True
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
