"""What assets and checks are handed: the DVC project and the MLflow store."""

from orchestration.dvc_project import DvcProject
from orchestration.resources.mlflow_tracking import MlflowTracking, TrackedRun

__all__ = ["DvcProject", "MlflowTracking", "TrackedRun"]
