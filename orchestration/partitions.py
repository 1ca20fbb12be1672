"""A partition is a data set: the names under `datasets:` in params.yaml, as in DVC's matrix."""

import dagster as dg

from orchestration.dvc_project import DvcProject

project = DvcProject.here()

datasets = dg.StaticPartitionsDefinition(project.datasets())
