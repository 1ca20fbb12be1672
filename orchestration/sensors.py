"""Retraining when something was touched; off until somebody switches it on.

A sensor only notices that something may have changed. What has really changed, and what has to run
for it, DVC decides when the run has started.
"""

import hashlib
import json

import dagster as dg

from orchestration.dvc_project import DvcProject
from orchestration.jobs import train_and_register
from orchestration.partitions import datasets
from xmc_core.config import to_mapping
from xmc_core.errors import ConfigError


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
    its settings, is left as it was seen last, and holds up no other.
    """
    seen: dict[str, str] | None = json.loads(context.cursor) if context.cursor else None
    now: dict[str, str] = {}
    unread: list[str] = []
    for name in datasets.get_partition_keys():
        try:
            now[name] = fingerprint(project, name)
        except (ConfigError, OSError) as error:
            unread.append(f"{name} is left out: {error}")
            context.log.warning(unread[-1])
            if seen is not None and name in seen:
                now[name] = seen[name]
    changed = [] if seen is None else [name for name in now if seen.get(name) != now[name]]
    return dg.SensorResult(
        # No run key: Dagster would never again start a run for settings that were here before.
        run_requests=[dg.RunRequest(partition_key=name) for name in changed],
        skip_reason="\n".join(unread) if unread and not changed else None,
        cursor=json.dumps(now, sort_keys=True),
    )


def fingerprint(project: DvcProject, dataset: str) -> str:
    """Changes with the settings, and with name, size or time of any raw file: nothing is read."""
    raw = project.paths(dataset).raw
    files = sorted(file for file in raw.rglob("*") if file.is_file())
    state = [
        to_mapping(project.config(dataset)),
        [(str(f.relative_to(raw)), f.stat().st_size, f.stat().st_mtime_ns) for f in files],
    ]
    return hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()[:16]
