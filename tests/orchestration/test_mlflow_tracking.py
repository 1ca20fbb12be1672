"""MLflow runs: one for a pipeline run, found again by every step."""

import socket

import dagster as dg
import pytest

from orchestration.resources import MlflowTracking
from orchestration.resources.mlflow_tracking import RUN_TAG
from xmc_core.metrics.ranking import KS, plain_name

PARAMS = {"tree": {"branching": 16}, "rankers": {"cost": [1.0, 2.0]}}


def run_two_steps(mlflow: MlflowTracking, instance: dg.DagsterInstance, **options):
    """A Dagster run of two steps that both record something; the ids of their MLflow runs."""

    @dg.asset
    def first(context: dg.AssetExecutionContext, mlflow: MlflowTracking) -> str:
        with mlflow.run(context, "d", PARAMS, {"git.commit": "abc"}) as tracked:
            tracked.metrics({"loss": 2.0}, prefix="stage", step=1)
            tracked.metrics({"loss": 1.0}, prefix="stage", step=2)
            tracked.dataset("d", "0123456789abcdef0123456789abcdef", "data/d", "{}")
        return tracked.id

    @dg.asset
    def second(context: dg.AssetExecutionContext, mlflow: MlflowTracking, first: str) -> str:
        with mlflow.run(context, "d", PARAMS, {}) as tracked:
            tracked.metrics({"precision_at_1": 71.5}, prefix="xr_transformer")
        return tracked.id

    outcome = dg.materialize(
        [first, second], instance=instance, resources={"mlflow": mlflow}, **options
    )
    return outcome, outcome.output_for_node("first"), outcome.output_for_node("second")


def test_all_steps_of_a_run_write_to_one_mlflow_run(mlflow, instance):
    outcome, first, second = run_two_steps(mlflow, instance)
    assert first == second
    run = mlflow.client().get_run(first)
    assert run.data.params == {"tree.branching": "16", "rankers.cost": "[1.0, 2.0]"}
    assert run.data.metrics == {"stage/loss": 1.0, "xr_transformer/precision_at_1": 71.5}
    assert run.data.tags["dagster.run_id"] == outcome.run_id
    assert run.data.tags["git.commit"] == "abc"
    assert run.info.status == "FINISHED"
    assert instance.get_run_by_id(outcome.run_id).tags[RUN_TAG] == first


def test_curves_keep_their_steps(mlflow, instance):
    _, run_id, _ = run_two_steps(mlflow, instance)
    points = mlflow.client().get_metric_history(run_id, "stage/loss")
    assert [(point.step, point.value) for point in points] == [(1, 2.0), (2, 1.0)]


def test_both_splits_are_inputs_under_the_md5_of_dvc(mlflow, instance):
    _, run_id, _ = run_two_steps(mlflow, instance)
    inputs = mlflow.client().get_run(run_id).inputs.dataset_inputs
    assert {entry.dataset.name for entry in inputs} == {"d/train", "d/test"}
    assert {entry.dataset.digest for entry in inputs} == {"0123456789abcdef0123456789abcdef"}


def test_another_pipeline_run_is_another_mlflow_run(mlflow, instance):
    _, one, _ = run_two_steps(mlflow, instance)
    _, other, _ = run_two_steps(mlflow, instance)
    assert one != other


def test_a_repeated_run_that_inherited_the_tag_gets_a_run_of_its_own(mlflow, instance):
    _, one, _ = run_two_steps(mlflow, instance)
    _, other, _ = run_two_steps(mlflow, instance, tags={RUN_TAG: one})
    assert one != other


def test_artifacts_lie_in_the_project_wherever_the_process_runs(mlflow, instance, tmp_path):
    _, run_id, _ = run_two_steps(mlflow, instance)
    where = mlflow.client().get_run(run_id).info.artifact_uri
    assert where.startswith((tmp_path / ".xmc" / "mlartifacts" / "xmc-d").as_uri())


@pytest.fixture
def nobody(tmp_path):
    """An address where no server listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    return MlflowTracking(root=str(tmp_path), tracking_uri=f"http://127.0.0.1:{port}")


def test_stages_go_on_without_a_server(nobody, instance):
    outcome, first, _ = run_two_steps(nobody, instance)
    assert outcome.success
    assert first == ""
    logged = [e.user_message for e in instance.all_logs(outcome.run_id) if not e.is_dagster_event]
    assert any("this run goes on without it" in line for line in logged)


def test_the_registry_does_not(nobody):
    with pytest.raises(ConnectionError, match="no MLflow server answers at http"):
        nobody.client()


def test_a_given_address_goes_before_the_environment(monkeypatch, tmp_path):
    local = MlflowTracking(root=str(tmp_path))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert local.uri == f"sqlite:///{tmp_path}/.xmc/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://from.environment:5000")
    assert local.uri == "http://from.environment:5000"
    given = MlflowTracking(root=str(tmp_path), tracking_uri="http://given:5000")
    assert given.uri == "http://given:5000"


def test_every_metric_has_a_name_that_mlflow_takes(mlflow, instance):
    names = [f"{kind}@{k}" for kind in ("P", "R", "nDCG", "PSP", "PSnDCG") for k in KS]
    mapped = {plain_name(name) for name in names}
    assert len(mapped) == len(names)
    assert {"precision_at_1", "recall_at_5", "ndcg_at_5", "psp_at_5", "psndcg_at_5"} <= mapped

    @dg.asset
    def all_of_them(context: dg.AssetExecutionContext, mlflow: MlflowTracking) -> str:
        with mlflow.run(context, "d", {}, {}) as tracked:
            tracked.metrics(dict.fromkeys(names, 1.0), prefix="xr_linear")
        return tracked.id

    outcome = dg.materialize([all_of_them], instance=instance, resources={"mlflow": mlflow})
    run = mlflow.client().get_run(outcome.output_for_node("all_of_them"))
    assert set(run.data.metrics) == {f"xr_linear/{name}" for name in mapped}


def test_a_run_that_a_killed_process_left_open_is_ended(mlflow, instance):
    def opened(tags) -> str:
        client = mlflow.client()
        experiment = client.get_experiment_by_name(name)
        return client.create_run(experiment.experiment_id, tags=tags).info.run_id

    first = run_two_steps(mlflow, instance)[1]
    client = mlflow.client()
    name = client.get_experiment(client.get_run(first).info.experiment_id).name
    left, own = opened({"dagster.run_id": "gone"}), opened({"who": "a person"})
    run_two_steps(mlflow, instance)
    assert client.get_run(left).info.status == "KILLED"
    assert client.get_run(own).info.status == "RUNNING"
