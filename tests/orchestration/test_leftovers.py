"""Runs whose process is gone."""

import dagster as dg
import pytest
from dagster._core.test_utils import create_run_for_test

from orchestration.leftovers import at_work, end_if_nobody_is_at_work, end_left_over_runs

STATUS = dg.DagsterRunStatus


@pytest.mark.parametrize("status", [STATUS.STARTING, STATUS.STARTED, STATUS.CANCELING])
def test_what_is_said_to_be_going_on_has_failed(instance, status):
    left = create_run_for_test(instance, status=status)
    others = [
        create_run_for_test(instance, status=other)
        for other in (STATUS.NOT_STARTED, STATUS.SUCCESS, STATUS.FAILURE)
    ]
    assert end_left_over_runs(instance) == [left.run_id]
    assert instance.get_run_by_id(left.run_id).status == STATUS.FAILURE
    for run in others:
        assert instance.get_run_by_id(run.run_id).status == run.status


def test_nothing_is_ended_while_a_run_goes_on_in_another_process(tmp_path, monkeypatch):
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    with dg.DagsterInstance.get() as instance:
        left = create_run_for_test(instance, status=STATUS.STARTED)
        with at_work(tmp_path), at_work(tmp_path):  # of two data sets, perhaps
            assert end_if_nobody_is_at_work(tmp_path) == []
        assert instance.get_run_by_id(left.run_id).status == STATUS.STARTED
        assert end_if_nobody_is_at_work(tmp_path) == [left.run_id]
