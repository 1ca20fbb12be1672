"""Retraining by the clock; off until somebody switches it on."""

from collections.abc import Iterator

import dagster as dg

from orchestration.jobs import train_and_register
from orchestration.partitions import datasets


@dg.schedule(
    job=train_and_register,
    cron_schedule="0 3 * * 1",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.STOPPED,
)
def weekly_retrain(context: dg.ScheduleEvaluationContext) -> Iterator[dg.RunRequest]:
    """Mondays at 3:00 UTC, a run for each data set. What has not changed, DVC skips."""
    moment = context.scheduled_execution_time.strftime("%Y-%m-%d")
    for dataset in datasets.get_partition_keys():
        yield dg.RunRequest(run_key=f"{moment} {dataset}", partition_key=dataset)
