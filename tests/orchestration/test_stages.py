"""The asset of a stage: what becomes of its MLflow run, and of others beside it."""

import sys
from threading import Timer

import dagster as dg
import pytest
import yaml

from orchestration.assets import stage_asset
from orchestration.dvc_project import DvcProject, StageSpec, tool_environment
from orchestration.partitions import datasets
from orchestration.stage_run import StageRun
from orchestration.turns import turn

DATASET = datasets.get_partition_keys()[0]
STARTED = """
import json, os
with open(os.environ["XMC_EVENTS"], "a") as file:
    file.write(json.dumps({"event": "started", "stage": "rankers"}) + "\\n")
"""


@pytest.fixture
def materialise(tmp_path, mlflow, instance, monkeypatch):
    """Materialise a stage whose command is a script, in a project without anything else."""
    (tmp_path / "params.yaml").write_text(
        yaml.safe_dump({"datasets": [DATASET], "settings": {DATASET: {}}})
    )
    project = DvcProject(root=str(tmp_path))
    command = [sys.executable, "-c", STARTED]
    run = StageRun(f"rankers@{DATASET}", command, tmp_path, tool_environment())
    monkeypatch.setattr(DvcProject, "start", lambda *_, **__: run)
    spec = StageSpec("rankers", "", "", (), (), ("rankers",), (), {})

    def materialise():
        return dg.materialize(
            [stage_asset(spec)],
            partition_key=DATASET,
            instance=instance,
            resources={"project": project, "mlflow": mlflow},
        )

    return materialise


def statuses(mlflow) -> list[str]:
    client = mlflow.client()
    experiment = client.get_experiment_by_name(f"xmc-{DATASET}")
    return [run.info.status for run in client.search_runs([experiment.experiment_id])]


def test_a_finished_stage_finishes_its_mlflow_run(materialise, mlflow):
    assert materialise().success
    assert statuses(mlflow) == ["FINISHED"]


def test_an_interrupted_stage_leaves_no_mlflow_run_without_an_end(materialise, mlflow, monkeypatch):
    def events(run):
        yield {"event": "started", "stage": "rankers"}
        raise KeyboardInterrupt

    monkeypatch.setattr(StageRun, "events", events)
    with pytest.raises(KeyboardInterrupt):
        materialise()
    assert statuses(mlflow) == ["FAILED"]


def test_a_stage_whose_result_cannot_be_read_has_failed(materialise, mlflow, tmp_path):
    facts = tmp_path / "data" / "artifacts" / DATASET / "rankers" / "facts.json"
    facts.parent.mkdir(parents=True)
    facts.write_text("{")
    with pytest.raises(ValueError, match="Expecting property name"):
        materialise()
    assert statuses(mlflow) == ["FAILED"]


def test_a_stage_waits_for_another_run_of_its_data_set(materialise, instance, tmp_path):
    others = turn(tmp_path, DATASET, print)
    others.__enter__()
    Timer(0.5, others.__exit__, (None, None, None)).start()
    outcome = materialise()
    logged = [e.user_message for e in instance.all_logs(outcome.run_id)]
    assert any("waits for its turn" in line for line in logged)
