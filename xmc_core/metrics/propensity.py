"""How likely a label that applies is to have been annotated."""

import numpy as np
from numpy.typing import NDArray

from xmc_core.errors import DataError
from xmc_core.types import Doubles


def jain_propensity(
    label_counts: NDArray[np.integer], n_samples: int, *, a: float = 0.55, b: float = 1.5
) -> Doubles:
    """Estimate label propensities from label frequencies.

    Annotators overlook rare labels more often than common ones. PSP@k and PSnDCG@k undo this by
    weighting each label with the inverse of its propensity.

    Parameters
    ----------
    label_counts : (n_labels,), training samples
        Positives per label; zero is allowed.
    n_samples : training samples
        At least 3.
    a, b : dimensionless
        Set per benchmark: 0.5, 0.4 for WikiLSHTC-325K and Wikipedia-500K; 0.6, 2.6 for Amazon-670K
        and Amazon-3M; the defaults otherwise.

    Returns
    -------
    (n_labels,), probability in (0, 1)

    Raises
    ------
    DataError
        If n_samples is below 3, where the formula's constant turns negative, or a label occurs
        more often than there are samples.

    References
    ----------
    Jain, Prabhu and Varma, "Extreme Multi-label Loss Functions for Recommendation, Tagging,
    Ranking & Other Missing Label Applications", KDD 2016.
    """
    if n_samples < 3:
        raise DataError(f"propensities need at least 3 training samples, got {n_samples}.")
    counts = np.asarray(label_counts, np.float64)
    if len(counts) and counts.max() > n_samples:
        label = int(counts.argmax())
        raise DataError(
            f"label {label} occurs {int(counts[label]):,} times in {n_samples:,} training samples; "
            "label_counts and n_train must come from the same training split."
        )
    scale = (np.log(n_samples) - 1.0) * (b + 1.0) ** a
    propensity: Doubles = 1.0 / (1.0 + scale * (counts + b) ** -a)
    return propensity
