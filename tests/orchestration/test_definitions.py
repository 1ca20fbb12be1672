"""What Dagster is told: the same picture as dvc.yaml."""

import datetime
import doctest
import importlib
import json
import subprocess
import sys

import dagster as dg
import pytest
import yaml
from dagster._core.test_utils import create_run_for_test

from orchestration.definitions import defs
from orchestration.dvc_project import DvcProject
from orchestration.partitions import datasets
from orchestration.schedules import weekly_retrain
from orchestration.sensors import data_or_settings_changed

GRAPH = defs.resolve_asset_graph()
PROJECT = DvcProject.here()
PROMOTED = dg.AssetCheckKey(dg.AssetKey("champion"), "challenger_was_promoted")
AFTER_DVC = {"registered_model": {"rankers", "evaluation"}, "champion": {"registered_model"}}


def names(keys) -> set[str]:
    return {key.path[-1] for key in keys}


def _step(key: dg.AssetCheckKey) -> str:
    return f"{key.asset_key.path[-1]}_{key.name}"


def test_every_stage_is_an_asset_with_its_edges_and_its_words():
    stages = {spec.name: spec for spec in PROJECT.stages()}
    assert names(GRAPH.get_all_asset_keys()) == {*stages, *AFTER_DVC}
    for name, spec in stages.items():
        node = GRAPH.get(dg.AssetKey(name))
        assert names(node.parent_keys) == set(spec.upstream)
        assert node.description == spec.description
        assert node.group_name == spec.dagster["group"]
        assert node.kinds == set(spec.dagster["kinds"])
        assert node.pools == ({spec.dagster["pool"]} if "pool" in spec.dagster else set())
    for name, upstream in AFTER_DVC.items():
        assert names(GRAPH.get(dg.AssetKey(name)).parent_keys) == upstream


def test_partitions_are_the_data_sets_of_params_yaml():
    assert datasets.get_partition_keys() == PROJECT.datasets()
    for key in GRAPH.get_all_asset_keys():
        assert GRAPH.get(key).partitions_def == datasets


def test_selections_given_as_strings_work():
    # dvc's dependencies can break Dagster's grammar: see the pins in pyproject.toml.
    selected = dg.AssetSelection.from_string("*").resolve(GRAPH)
    assert selected == GRAPH.get_all_asset_keys()
    assert names(dg.AssetSelection.from_string('+key:"initial_tree"').resolve(GRAPH)) >= {
        "initial_tree",
        "tfidf_features",
    }


def test_jobs_select_what_their_names_say():
    whole = defs.resolve_job_def("train_and_register").asset_layer.executable_asset_keys
    assert whole == GRAPH.get_all_asset_keys()
    part = defs.resolve_job_def("evaluate").asset_layer.executable_asset_keys
    assert names(part) == names(whole) - set(AFTER_DVC)


def test_checks_run_with_the_job_and_the_serious_ones_block():
    job = defs.resolve_job_def("train_and_register")
    assert {key for key in GRAPH.asset_check_keys if _step(key) in job.graph.node_dict} | {
        PROMOTED
    } == GRAPH.asset_check_keys  # that one is reported by its asset itself
    blocking = {
        (key.asset_key.path[-1], key.name)
        for key in GRAPH.asset_check_keys
        if GRAPH.get_check_spec(key).blocking
    }
    assert blocking == {
        ("dataset", "rows_and_labels_are_sound"),
        ("tfidf_features", "rows_are_finite_and_of_unit_length"),
        ("initial_tree", "every_label_has_a_leaf"),
        ("disentangled_tree", "every_label_has_a_leaf"),
        ("matcher", "predictions_are_sound"),
        ("disentangled_tree", "predictions_are_sound"),
        ("rankers", "predictions_are_sound"),
    }


def test_the_schedule_asks_for_a_run_of_every_data_set_and_is_off():
    assert weekly_retrain.default_status == dg.DefaultScheduleStatus.STOPPED
    monday = datetime.datetime(2026, 1, 5, 3, tzinfo=datetime.UTC)
    context = dg.build_schedule_context(
        scheduled_execution_time=monday, repository_def=defs.get_repository_def()
    )
    requests = weekly_retrain.evaluate_tick(context).run_requests
    assert [request.partition_key for request in requests] == PROJECT.datasets()
    assert len({request.run_key for request in requests}) == len(requests)


@pytest.fixture
def one_project(tmp_path):
    """A project of its own with the same data sets, whose files may be touched."""
    (tmp_path / "params.yaml").write_text((PROJECT.folder / "params.yaml").read_text())
    project = DvcProject(root=str(tmp_path))
    for name in project.datasets():
        project.paths(name).raw.mkdir(parents=True)
    return project


def tick(project: DvcProject, cursor: str | None, instance: dg.DagsterInstance | None = None):
    context = dg.build_sensor_context(
        instance=instance or dg.DagsterInstance.ephemeral(),
        cursor=cursor,
        resources={"project": project},
        repository_def=defs.get_repository_def(),
    )
    return data_or_settings_changed.evaluate_tick(context)


def look(project: DvcProject, cursor: str | None, instance: dg.DagsterInstance | None = None):
    found = tick(project, cursor, instance)
    return [request.partition_key for request in found.run_requests], found.cursor


def set_leaves(project: DvcProject, dataset: str, size: int | str) -> None:
    file = project.folder / "params.yaml"
    params = yaml.safe_load(file.read_text())
    params["settings"][dataset]["tree"] = {"max_leaf_size": size}
    file.write_text(yaml.safe_dump(params))


def test_the_sensor_asks_only_for_the_data_set_that_was_touched(one_project):
    first = datasets.get_partition_keys()[0]
    requested, cursor = look(one_project, None)
    assert requested == []  # the first look only remembers
    requested, cursor = look(one_project, cursor)
    assert requested == []
    (one_project.paths(first).raw / "train.jsonl").write_text("{}")
    requested, cursor = look(one_project, cursor)
    assert requested == [first]
    requested, cursor = look(one_project, cursor)
    assert requested == []


def test_the_sensor_sees_changed_settings(one_project):
    _, cursor = look(one_project, None)
    first = datasets.get_partition_keys()[0]
    set_leaves(one_project, first, 7)
    requested, _ = look(one_project, cursor)
    assert requested == [first]
    assert data_or_settings_changed.default_status == dg.DefaultSensorStatus.STOPPED


def test_settings_that_were_here_before_are_run_again(one_project):
    first = datasets.get_partition_keys()[0]
    set_leaves(one_project, first, 7)
    cursor = look(one_project, None)[1]
    for size in (8, 7, 8):
        set_leaves(one_project, first, size)
        found = tick(one_project, cursor)
        cursor = found.cursor
        (request,) = found.run_requests
        assert request.partition_key == first
        assert request.run_key is None  # Dagster skips every key that it has seen


def test_a_run_that_failed_is_asked_for_again(one_project, instance, monkeypatch):
    first = datasets.get_partition_keys()[0]
    cursor = look(one_project, None, instance)[1]
    set_leaves(one_project, first, 7)
    (request,) = tick(one_project, cursor, instance).run_requests
    cursor = look(one_project, cursor, instance)[1]

    def ended(status: dg.DagsterRunStatus):
        create_run_for_test(
            instance, job_name="train_and_register", status=status, tags=request.tags
        )
        return look(one_project, cursor, instance)[0]

    assert ended(dg.DagsterRunStatus.FAILURE) == []  # not at once
    monkeypatch.setattr("orchestration.sensors.AGAIN_SECONDS", -1)
    assert look(one_project, cursor, instance)[0] == [first]
    assert ended(dg.DagsterRunStatus.STARTED) == []
    assert ended(dg.DagsterRunStatus.FAILURE) == []  # the third: somebody has to look


def test_a_data_set_that_cannot_be_read_holds_up_no_other(one_project, monkeypatch):
    sound = datasets.get_partition_keys()[0]
    both = dg.StaticPartitionsDefinition(["wrong", sound])
    monkeypatch.setattr("orchestration.sensors.datasets", both)
    params = {"datasets": ["wrong", sound], "settings": {"wrong": {}, sound: {}}}
    (one_project.folder / "params.yaml").write_text(yaml.safe_dump(params))
    cursor = look(one_project, None)[1]

    set_leaves(one_project, "wrong", "many")
    found = tick(one_project, cursor)
    assert found.run_requests == []
    assert "wrong is left out" in found.skip_message
    assert "max_leaf_size" in found.skip_message
    set_leaves(one_project, sound, 7)
    requested, later = look(one_project, found.cursor)
    assert requested == [sound]
    with monkeypatch.context() as patch:  # nor where its run failed and is due again
        patch.setattr("orchestration.sensors.has_failed", lambda *_: True)
        assert look(one_project, later)[0] == [sound]
    # As it was seen last, so that the mended settings are a change only if they differ from those.
    assert json.loads(later)["wrong"] == json.loads(cursor)["wrong"]


def test_loading_the_definitions_imports_nothing_heavy():
    heavy = ("torch", "transformers", "mlflow", "numba", "dvc", "matplotlib")
    code = (
        "import orchestration.definitions, sys; "
        f"print([name for name in {heavy!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert "Warning" not in done.stderr


@pytest.mark.parametrize("module", ["metadata", "gate"])
def test_the_examples_in_the_docstrings_hold(module):
    found = doctest.testmod(importlib.import_module(f"orchestration.{module}"))
    assert found.attempted > 0
    assert found.failed == 0
