"""How good ranked labels are, where they are good, and how much of it is noise."""

from xmc_core.metrics.bootstrap import (
    Gate,
    Interval,
    PairedResult,
    bootstrap_intervals,
    compare_models,
    not_worse,
    paired_bootstrap,
    paired_bootstraps,
)
from xmc_core.metrics.partitions import variation_of_information
from xmc_core.metrics.propensity import jain_propensity
from xmc_core.metrics.ranking import NAMES, RowScores, evaluate, plain_name, rounded, row_scores
from xmc_core.metrics.rows import load_rows, save_rows, split_digest
from xmc_core.metrics.slices import (
    Slice,
    f1_scores,
    label_coverage,
    matcher_recall,
    slice_by_frequency,
)

__all__ = [
    "NAMES",
    "Gate",
    "Interval",
    "PairedResult",
    "RowScores",
    "Slice",
    "bootstrap_intervals",
    "compare_models",
    "evaluate",
    "f1_scores",
    "jain_propensity",
    "label_coverage",
    "load_rows",
    "matcher_recall",
    "not_worse",
    "paired_bootstrap",
    "paired_bootstraps",
    "plain_name",
    "rounded",
    "row_scores",
    "save_rows",
    "slice_by_frequency",
    "split_digest",
    "variation_of_information",
]
