"""Retraining when something was touched; off until somebody switches it on.

A sensor only notices that something may have changed. What has really changed, and what has to run
for it, DVC decides when the run has started.
"""

import hashlib
import json
import time

import dagster as dg

from orchestration.dvc_project import DvcProject
from orchestration.jobs import train_and_register
from orchestration.partitions import datasets
from xmc_core.config import to_mapping
from xmc_core.errors import ConfigError

FINGERPRINT = "xmc/fingerprint"
"""Tag of a run: the state of data and settings that it was started for."""

TRIES, AGAIN_SECONDS = 3, 1800
"""Runs for one state, at most, and how long after a failed one the next is asked for: what is
broken by itself, a server that is away, is mended by then, and what is not should be seen."""


@dg.sensor(
    job=train_and_register,
    minimum_interval_seconds=60,
    default_status=dg.DefaultSensorStatus.STOPPED,
)
def data_or_settings_changed(
    context: dg.SensorEvaluationContext, project: DvcProject
) -> dg.SensorResult:
    """Start a run for each data set whose raw files or settings differ from the last look.

    The first look only remembers. A data set that was added since is run, once the definitions
    have been loaded again and know it as a partition. One that cannot be read, a typing error in
    its settings, is left as it was seen last, and holds up no other. If the run fails, another one
    is asked for half an hour later, and once more.
    """
    seen: dict[str, str] | None = json.loads(context.cursor) if context.cursor else None
    now: dict[str, str] = {}
    unread: dict[str, str] = {}
    for name in datasets.get_partition_keys():
        try:
            now[name] = fingerprint(project, name)
        except (ConfigError, OSError) as error:
            unread[name] = f"{name} is left out: {error}"
            context.log.warning(unread[name])
            if seen is not None and name in seen:
                now[name] = seen[name]
    changed = [] if seen is None else [name for name in now if seen.get(name) != now[name]]
    others = [name for name in now if name not in changed and name not in unread]
    again = [name for name in others if has_failed(context, now[name])]
    return dg.SensorResult(
        # No run key: Dagster would never again start a run for settings that were here before.
        run_requests=[
            dg.RunRequest(partition_key=name, tags={FINGERPRINT: now[name]})
            for name in [*changed, *again]
        ],
        skip_reason="\n".join(unread.values()) if unread and not (changed or again) else None,
        cursor=json.dumps(now, sort_keys=True),
    )


def has_failed(context: dg.SensorEvaluationContext, state: str) -> bool:
    """Whether the run for this state failed some time ago, and may be tried again."""
    filters = dg.RunsFilter(job_name=train_and_register.name, tags={FINGERPRINT: state})
    records = context.instance.get_run_records(filters=filters, limit=TRIES)
    if not records or len(records) == TRIES:
        return False
    last = records[0]
    failed = last.dagster_run.status == dg.DagsterRunStatus.FAILURE
    return failed and time.time() - last.update_timestamp.timestamp() > AGAIN_SECONDS


def fingerprint(project: DvcProject, dataset: str) -> str:
    """Changes with the settings, and with name, size or time of any raw file: nothing is read."""
    state = [to_mapping(project.config(dataset)), project.paths(dataset).raw_state()]
    return hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()[:16]
