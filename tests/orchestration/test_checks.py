"""Asset checks, on sound and on broken files of the stages that they guard."""

from pathlib import Path

import dagster as dg
import numpy as np
import pytest

from orchestration.checks import CHECKS, stage_check
from orchestration.checks.predictions import count_faults
from orchestration.dvc_project import DvcProject
from orchestration.partitions import datasets
from orchestration.turns import turn
from tests.orchestration.stores import (
    N_LABELS,
    N_TEST,
    N_TRAIN,
    labels_of,
    predictions,
    small_dataset,
    small_tree,
    unit_rows,
    write_features,
)
from xmc_core.data import Dataset, Predictions

DATASET = datasets.get_partition_keys()[0]


@pytest.fixture
def project(tmp_path):
    project = DvcProject(root=str(tmp_path))
    small_dataset().save(project.out("dataset", DATASET))
    return project


def result_of(check: str, asset: str, project: DvcProject) -> dg.AssetCheckEvaluation:
    """Run one check as Dagster does, after an asset that does nothing."""
    key = dg.AssetCheckKey(dg.AssetKey(asset), check)
    (definition,) = (found for found in CHECKS if key in found.check_keys)

    @dg.asset(name=asset, partitions_def=datasets)
    def stub() -> None: ...

    outcome = dg.materialize(
        [stub, definition],
        partition_key=DATASET,
        resources={"project": project},
        raise_on_error=False,
    )
    (evaluation,) = outcome.get_asset_check_evaluations()
    assert outcome.success == (evaluation.passed or not evaluation.blocking)
    return evaluation


def test_a_sound_dataset_passes(project):
    found = result_of("rows_and_labels_are_sound", "dataset", project)
    assert found.passed
    assert found.blocking
    assert found.metadata["train_rows"].value == N_TRAIN
    assert found.metadata["labels"].value == N_LABELS


def test_a_check_waits_while_a_run_is_at_work_on_the_data_set(project, tmp_path, monkeypatch):
    folder = project.out("dataset", DATASET)
    others = turn(tmp_path, DATASET, print)
    others.__enter__()
    folder.rename(tmp_path / "aside")  # as DVC does before the stage writes anew

    def turn_after(root: Path, dataset: str, say):
        def the_other_run_ends(line: str) -> None:
            say(line)
            (tmp_path / "aside").rename(folder)
            others.__exit__(None, None, None)

        return turn(root, dataset, the_other_run_ends)

    monkeypatch.setattr(stage_check, "turn", turn_after)
    assert result_of("rows_and_labels_are_sound", "dataset", project).passed


def test_two_labels_of_one_name_stop_the_run(project):
    sound = small_dataset()
    names = ["same", "same", *sound.label_names[2:]]
    Dataset(sound.train_texts, sound.test_texts, names, sound.Y_train, sound.Y_test).save(
        project.out("dataset", DATASET)
    )
    found = result_of("rows_and_labels_are_sound", "dataset", project)
    assert not found.passed
    assert found.metadata["labels_of_the_same_name"].value == 1


def test_a_label_that_train_never_shows_stops_the_run(project):
    sound = small_dataset()
    Y_train = labels_of(N_TRAIN).tolil()
    Y_train[:, 3] = 0
    Y_train = Y_train.tocsr()
    Y_train.eliminate_zeros()
    broken = Dataset(sound.train_texts, sound.test_texts, sound.label_names, Y_train, sound.Y_test)
    broken.save(project.out("dataset", DATASET))
    found = result_of("rows_and_labels_are_sound", "dataset", project)
    assert not found.passed
    assert found.metadata["labels_never_seen_in_train"].value == 1


def test_texts_of_both_splits_are_told_apart(project):
    assert result_of("no_test_text_in_train", "dataset", project).passed


def test_a_test_text_that_train_holds_is_a_warning(project):
    texts = [f"test text {i}" for i in range(N_TEST - 1)] + ["train text 0"]
    small_dataset(texts).save(project.out("dataset", DATASET))
    found = result_of("no_test_text_in_train", "dataset", project)
    assert not found.passed
    assert found.severity == dg.AssetCheckSeverity.WARN
    assert not found.blocking
    assert found.metadata["leaked_rows"].value == 1
    assert found.metadata["examples"].value == ["train text 0"]


def test_unit_rows_pass(project):
    write_features(project.out("tfidf_features", DATASET), unit_rows(N_TRAIN), unit_rows(N_TEST))
    assert result_of("rows_are_finite_and_of_unit_length", "tfidf_features", project).passed


def test_an_empty_row_is_no_fault(project):
    X = unit_rows(N_TRAIN).tolil()
    X[7, :] = 0
    X = X.tocsr()
    X.eliminate_zeros()
    write_features(project.out("tfidf_features", DATASET), X, unit_rows(N_TEST))
    found = result_of("rows_are_finite_and_of_unit_length", "tfidf_features", project)
    assert found.passed
    assert found.metadata["X_train_empty_rows"].value == 1


@pytest.mark.parametrize(
    ("value", "fault"), [(np.nan, "X_test_not_finite"), (2.0, "X_test_rows_not_unit")]
)
def test_a_row_of_another_length_or_without_value_stops_the_run(project, value, fault):
    X_test = unit_rows(N_TEST)
    X_test.data[0] = value
    write_features(project.out("tfidf_features", DATASET), unit_rows(N_TRAIN), X_test)
    found = result_of("rows_are_finite_and_of_unit_length", "tfidf_features", project)
    assert not found.passed
    assert found.blocking
    assert found.metadata[fault].value == 1


@pytest.mark.parametrize("stage", ["initial_tree", "disentangled_tree"])
def test_a_tree_with_every_label_passes(project, stage):
    small_tree().save(project.out(stage, DATASET) / "tree")
    assert result_of("every_label_has_a_leaf", stage, project).passed


@pytest.mark.parametrize("stage", ["initial_tree", "disentangled_tree"])
def test_a_tree_that_lost_a_label_stops_the_run_and_names_it(project, stage):
    small_tree(lose=5).save(project.out(stage, DATASET) / "tree")
    found = result_of("every_label_has_a_leaf", stage, project)
    assert not found.passed
    assert found.blocking
    assert found.metadata["lost_names"].value == ["label.5"]


def test_sound_predictions_pass(project):
    predictions(right=0.7).save(project.out("rankers", DATASET) / "predictions")
    found = result_of("predictions_are_sound", "rankers", project)
    assert found.passed
    assert found.blocking


def test_missing_rows_of_predictions_stop_the_run(project):
    whole = predictions(right=0.7)
    part = Predictions(whole.labels[1:], whole.scores[1:])
    part.save(project.out("rankers", DATASET) / "predictions")
    found = result_of("predictions_are_sound", "rankers", project)
    assert not found.passed
    assert found.metadata["rows_missing"].value == 1


def test_each_fault_of_predictions_is_counted_by_rows():
    labels = np.array([[0, 1], [0, 0], [1, 99], [1, 2], [-1, 2], [1, -1]], np.int32)
    scores = np.array([[2, 1], [2, 1], [2, 1], [1, 2], [2, 1], [np.inf, 1]], np.float32)
    assert count_faults(Predictions(labels, scores), n_labels=5) == {
        "rows_with_unknown_labels": 1,
        "rows_with_a_label_twice": 1,
        "rows_not_descending": 1,
        "rows_with_scores_not_finite": 1,
        "rows_with_gaps": 1,
    }


def test_padding_is_no_fault():
    labels = np.array([[3, -1, -1], [-1, -1, -1]], np.int32)
    scores = np.array([[1, -np.inf, -np.inf], [-np.inf] * 3], np.float32)
    assert not any(count_faults(Predictions(labels, scores), n_labels=5).values())


def test_every_check_guards_a_stage_of_the_pipeline(tmp_path: Path):
    stages = {spec.name for spec in DvcProject.here().stages()}
    for check in CHECKS:
        assert {key.asset_key.path[-1] for key in check.check_keys} <= stages
