"""The embedded defaults: everything that the three tools keep lies in the project's .xmc folder."""

import os
from pathlib import Path

from orchestration.dvc_project import tool_environment

DAGSTER_UI = "http://127.0.0.1:3000"

DAGSTER_YAML = """\
# Dagster's own settings for `make demo` and `make ui`; all else is SQLite in this folder.
telemetry:
  enabled: false
nux: # no request to join a newsletter
  enabled: false
concurrency:
  runs:
    max_concurrent_runs: 1 # a stage uses all cores and, at its largest, most of the memory
"""
FORMER_YAML = DAGSTER_YAML.partition("concurrency:")[0]
"""As it was written before; not touched by anybody, it is brought up to date."""


def environment(root: Path) -> dict[str, str]:
    """Variables for Dagster and MLflow on this machine; what the user has set stays."""
    (root / ".xmc").mkdir(exist_ok=True)  # logs go there, wherever Dagster's folder is
    home = Path(os.environ.get("DAGSTER_HOME") or root / ".xmc" / "dagster").resolve()
    home.mkdir(parents=True, exist_ok=True)
    settings = home / "dagster.yaml"
    if not settings.exists() or settings.read_text(encoding="utf-8") == FORMER_YAML:
        settings.write_text(DAGSTER_YAML, encoding="utf-8")
    return {
        **tool_environment(),
        "DAGSTER_HOME": str(home),
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    }
