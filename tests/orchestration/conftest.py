"""MLflow stores without the seconds that their tables take."""

import shutil

import dagster as dg
import pytest

from orchestration.resources import MlflowTracking


@pytest.fixture(scope="session")
def migrated(tmp_path_factory):
    """A fresh MLflow database, made once."""
    root = tmp_path_factory.mktemp("mlflow")
    MlflowTracking(root=str(root), tracking_uri=f"sqlite:///{root}/.xmc/mlflow.db").client()
    return root / ".xmc" / "mlflow.db"


@pytest.fixture
def mlflow(tmp_path, migrated, monkeypatch):
    """The tracking resource of a project in `tmp_path`."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / ".xmc").mkdir()
    shutil.copy(migrated, tmp_path / ".xmc" / "mlflow.db")
    return MlflowTracking(root=str(tmp_path))


@pytest.fixture
def instance():
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance
