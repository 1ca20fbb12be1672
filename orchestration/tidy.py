"""Give back the disk that many nights have filled: `make tidy`, and `make tidy YES=1` to do it.

    python -m orchestration.tidy [--keep 3] [--yes]

Versions of a model that nobody needs any more are deleted in MLflow, with their files: all but
those with an alias, those that are not judged yet, and the newest few. DVC's cache is left with
what dvc.lock names. Figures, reports and settings of old runs stay in MLflow.

Not by `mlflow gc`: that empties the whole trash besides, of all experiments, whoever's they are.
"""

import argparse
import subprocess
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from orchestration.dvc_project import DvcProject, tool_environment
from orchestration.mlflow_model.registry import PENDING, STATUS, all_versions, model_name
from orchestration.partitions import project
from orchestration.resources import MlflowTracking
from orchestration.turns import turn

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

KEEP = 3
"""The newest versions of each data set, whatever became of them."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Say what would be deleted, or delete it; exit code 1 if a tool failed."""
    parser = argparse.ArgumentParser(prog="python -m orchestration.tidy", description=__doc__)
    parser.add_argument("--keep", type=int, default=KEEP, help="newest versions that stay")
    parser.add_argument("--yes", action="store_true", help="delete; without it, only tell")
    options = parser.parse_args(arguments)
    client = MlflowTracking(root=project.root).client()
    for dataset in project.datasets():
        with turn(project.folder, dataset, print):
            versions = superfluous(client, model_name(dataset), options.keep)
            for version in versions:
                told = f"version {version.version} ({version.tags.get(STATUS, 'no status')})"
                print(f"{model_name(dataset)}: {told}{'' if options.yes else ' would be deleted'}")
                if options.yes:
                    delete(client, version)
    if not options.yes:
        print("DVC's cache would be left with what dvc.lock names.")
        print("Nothing was deleted; `make tidy YES=1` does it.")
        return 0
    return tidy_cache(project)


def superfluous(client: "MlflowClient", name: str, keep: int) -> "list[ModelVersion]":
    """Versions that have no alias, are judged, and are none of the newest `keep`; oldest first."""
    models = client.search_registered_models(f"name = '{name}'")
    named = {str(version) for model in models for version in model.aliases.values()}
    ordered = all_versions(client, name)
    return [
        version
        for version in ordered[: max(0, len(ordered) - keep)]
        if str(version.version) not in named and version.tags.get(STATUS) != PENDING
    ]


def delete(client: "MlflowClient", version: "ModelVersion") -> None:
    """Delete a version and the files of its model, wherever MLflow keeps them: the files first, as
    nothing leads to them once the version is gone."""
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    model = str(version.source).removeprefix("models:/")
    location = client.get_logged_model(model).artifact_location
    get_artifact_repository(location, client.tracking_uri).delete_artifacts()
    client.delete_model_version(version.name, version.version)
    client.delete_logged_model(model)


def tidy_cache(project: DvcProject) -> int:
    """Leave in DVC's cache what the present dvc.lock names."""
    command = [sys.executable, "-m", "dvc", "--wait-for-lock", "gc", "--workspace", "--force"]
    return subprocess.run(command, cwd=project.folder, env=tool_environment()).returncode


if __name__ == "__main__":
    sys.exit(main())
