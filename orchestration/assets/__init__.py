"""The assets: one for each stage of dvc.yaml, and what becomes of the model in the registry."""

from orchestration.assets.champion import champion
from orchestration.assets.registered_model import registered_model
from orchestration.assets.stages import stage_asset

__all__ = ["champion", "registered_model", "stage_asset"]
