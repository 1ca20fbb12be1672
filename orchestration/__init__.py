"""Runs the pipeline: Dagster decides when, DVC keeps the bytes, MLflow the history.

The stages are defined in `dvc.yaml` and nowhere else; see docs/architecture.md.
"""

import warnings

# Partitioned asset checks are a preview in Dagster 1.13, and it says so once for each of them.
warnings.filterwarnings("ignore", message="Specifying a partitions_def on an AssetCheckSpec")
