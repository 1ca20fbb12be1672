"""Runs in MLflow: one for each pipeline run and data set, whatever process its steps run in.

MLflow takes three seconds to import, and four more to make its tables in a fresh database; both
happen when the first step needs them, never when definitions are loaded. Everything goes through
`MlflowClient` and a run id: the fluent API keeps its run in the process, where the next step of a
parallel run would not find it.
"""

import os
import socket
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import dagster as dg

from orchestration.metadata import flat
from xmc_core.metrics.ranking import plain_name
from xmc_core.persistence.locks import locked

if TYPE_CHECKING:
    from mlflow import MlflowClient

RUN_TAG = "mlflow/run_id"
"""Dagster run tag that leads from the pipeline run to the MLflow run."""

UI_VARIABLE = "MLFLOW_UI_URL"
"""Where people open MLflow, if that is neither the tracking server nor `make ui`."""

LOCAL_UI = "http://127.0.0.1:5000"
MAX_VALUE = 6000
"""Characters of a parameter that MLflow accepts."""


class MlflowTracking(dg.ConfigurableResource):
    """The MLflow store: a server, or a database in the project's own .xmc folder."""

    root: str
    """The project's folder."""

    tracking_uri: str = ""
    """Empty: the environment variable MLFLOW_TRACKING_URI, else SQLite under .xmc/."""

    @property
    def uri(self) -> str:
        database = Path(self.root).resolve() / ".xmc" / "mlflow.db"
        return self.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{database}"

    @property
    def ui(self) -> str:
        """Address of the web UI."""
        served = self.uri if self.uri.startswith("http") else LOCAL_UI
        return (os.environ.get(UI_VARIABLE) or served).rstrip("/")

    def client(self) -> "MlflowClient":
        """A client whose store is reachable and has its tables.

        Raises ConnectionError within seconds if a server does not answer; MLflow itself would try
        for minutes.
        """
        address = urlsplit(self.uri)
        if address.scheme in ("http", "https"):
            port = address.port or (443 if address.scheme == "https" else 80)
            try:
                socket.create_connection((address.hostname or "", port), timeout=5).close()
            except OSError as error:
                raise ConnectionError(
                    f"no MLflow server answers at {self.uri} ({error})"
                ) from error
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
        import mlflow

        # Registry calls and model logging have no client of their own to be told the store.
        mlflow.set_tracking_uri(self.uri)
        with self._alone():
            # Two processes that both find an empty database would both try to make its tables.
            client = mlflow.MlflowClient(self.uri)
            client.search_experiments(max_results=1)
        return client

    def run(
        self, context: Any, dataset: str, params: Mapping[str, Any], tags: Mapping[str, str]
    ) -> "TrackedRun":
        """The MLflow run of this pipeline run: found by the Dagster run's tag, or created.

        Where the store cannot be reached, the run that comes back swallows everything, after one
        warning: an hour of training is not thrown away for want of a place to note its curves.
        """
        try:
            return self.required_run(context, dataset, params, tags)
        except Exception as error:
            context.log.warning(f"MLflow is not reachable, this run goes on without it: {error}")
            return TrackedRun(None, "", "", context.log.warning)

    def required_run(
        self, context: Any, dataset: str, params: Mapping[str, Any], tags: Mapping[str, str]
    ) -> "TrackedRun":
        """The same, but an unreachable store is an error."""
        client = self.client()
        experiment = self._experiment(client, dataset)
        with self._alone():
            run_id = self._known_run(client, context)
            if run_id is None:
                run_id = self._create_run(client, experiment, context, dataset, params, tags)
                context.instance.add_run_tags(context.run.run_id, {RUN_TAG: run_id})
        self._end_left_over(client, experiment, run_id)
        client.update_run(run_id, status="RUNNING")
        url = f"{self.ui}/#/experiments/{experiment}/runs/{run_id}"
        return TrackedRun(client, run_id, url, context.log.warning)

    def _end_left_over(self, client: "MlflowClient", experiment: str, run_id: str) -> None:
        """Runs of the data set that a killed process left open. Whoever asks has the data set's
        turn, and between their steps runs are closed."""
        for run in client.search_runs([experiment], "attributes.status = 'RUNNING'"):
            if run.info.run_id != run_id and "dagster.run_id" in run.data.tags:
                client.set_terminated(run.info.run_id, "KILLED")

    def _known_run(self, client: "MlflowClient", context: Any) -> str | None:
        stored = context.instance.get_run_by_id(context.run.run_id)
        run_id = (stored or context.run).tags.get(RUN_TAG)
        if run_id is None:
            return None
        # A re-execution inherits the tags of the run that it repeats, but is a run of its own.
        owner = client.get_run(run_id).data.tags.get("dagster.run_id")
        return run_id if owner == context.run.run_id else None

    def _create_run(
        self,
        client: "MlflowClient",
        experiment: str,
        context: Any,
        dataset: str,
        params: Mapping[str, Any],
        tags: Mapping[str, str],
    ) -> str:
        from mlflow.entities import Param

        run = client.create_run(
            experiment,
            run_name=f"{dataset} {context.run.run_id[:8]}",
            tags={
                "dagster.run_id": context.run.run_id,
                "dagster.job": context.run.job_name,
                "dataset": dataset,
                **tags,
            },
        )
        values = [Param(name, str(value)[:MAX_VALUE]) for name, value in flat(params).items()]
        client.log_batch(run.info.run_id, params=values)
        return str(run.info.run_id)

    def _experiment(self, client: "MlflowClient", dataset: str) -> str:
        """One experiment a data set: its runs are the ones worth comparing."""
        from mlflow.exceptions import MlflowException

        name = f"xmc-{dataset}"
        found = client.get_experiment_by_name(name)
        if found is not None:
            return str(found.experiment_id)
        # A server decides itself where artifacts go. Without one, MLflow would put them into
        # whatever folder the process happens to run in.
        folder = Path(self.root).resolve() / ".xmc" / "mlartifacts" / name
        location = None if self.uri.startswith("http") else folder.as_uri()
        try:
            return str(client.create_experiment(name, artifact_location=location))
        except MlflowException:
            found = client.get_experiment_by_name(name)  # somebody was faster
            if found is None:
                raise
            return str(found.experiment_id)

    def _alone(self) -> AbstractContextManager[None]:
        """Keep other processes of this project out."""
        return locked(Path(self.root).resolve() / ".xmc" / "mlflow.lock")


class TrackedRun:
    """One MLflow run. A call that fails warns once, and the run falls silent.

    As a context manager it sets the run's status at the end, by whether the block raised.
    """

    def __init__(
        self, client: "MlflowClient | None", run_id: str, url: str, warn: Callable[[str], None]
    ) -> None:
        self.client = client
        self.id = run_id
        self.url = url
        self._warn = warn

    def __enter__(self) -> "TrackedRun":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.finish(failed=kind is not None)

    def metrics(self, values: Mapping[str, float], *, prefix: str, step: int = 0) -> None:
        """Log numbers under `<prefix>/<name>`, `P@1` as `precision_at_1`: MLflow refuses `@`."""
        if self.client is None or not values:
            return
        from time import time

        from mlflow.entities import Metric

        now = int(time() * 1000)
        points = [
            Metric(f"{prefix}/{plain_name(name)}", float(value), now, step)
            for name, value in values.items()
        ]
        self._try(lambda client: client.log_batch(self.id, metrics=points))

    def dataset(self, name: str, md5: str, source: str, facts: str) -> None:
        """Name the data set that this run used, by DVC's md5 of it."""
        if self.client is None:
            return
        from mlflow.entities import Dataset, DatasetInput, InputTag

        inputs = [
            DatasetInput(
                Dataset(f"{name}/{split}", md5, "local", source, profile=facts),
                [InputTag("mlflow.data.context", purpose)],
            )
            for split, purpose in (("train", "training"), ("test", "testing"))
        ]
        self._try(lambda client: client.log_inputs(self.id, datasets=inputs))

    def files(self, folder_or_file: Path, under: str | None = None) -> None:
        """Copy a file, or what a folder holds, into the run's artifacts."""
        if not folder_or_file.exists():
            return
        if folder_or_file.is_dir():
            self._try(lambda client: client.log_artifacts(self.id, str(folder_or_file), under))
        else:
            self._try(lambda client: client.log_artifact(self.id, str(folder_or_file), under))

    def finish(self, *, failed: bool = False) -> None:
        """Set the status. Later steps of the same pipeline run open the run again."""
        status = "FAILED" if failed else "FINISHED"
        self._try(lambda client: client.set_terminated(self.id, status))

    def _try(self, call: Callable[["MlflowClient"], object]) -> None:
        if self.client is None:
            return
        try:
            call(self.client)
        except Exception as error:
            self._warn(f"MLflow did not take a record, this step goes on without it: {error}")
            self.client = None
