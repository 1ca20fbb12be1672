"""The table of contents: what Dagster is told about this project.

    dagster dev -m orchestration.definitions        (or `make ui`)

Nothing heavy is imported here: torch and MLflow wait until a step needs them.
"""

import dagster as dg

from orchestration.assets import champion, registered_model, stage_asset
from orchestration.checks import CHECKS
from orchestration.jobs import evaluate, train_and_register
from orchestration.partitions import project
from orchestration.resources import MlflowTracking
from orchestration.schedules import weekly_retrain
from orchestration.sensors import data_or_settings_changed

defs = dg.Definitions(
    assets=[*(stage_asset(spec) for spec in project.stages()), registered_model, champion],
    asset_checks=CHECKS,
    jobs=[train_and_register, evaluate],
    schedules=[weekly_retrain],
    sensors=[data_or_settings_changed],
    resources={"project": project, "mlflow": MlflowTracking(root=project.root)},
    executor=dg.in_process_executor,
)
