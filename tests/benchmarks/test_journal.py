import json
from argparse import ArgumentParser
from pathlib import Path

import journal
import pytest
import report

TASKS = [journal.Task("a-set", 1, "train", pair, "xmc", "default") for pair in range(3)]


@pytest.fixture(autouse=True)
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(journal, "RESULTS", tmp_path)
    return tmp_path


def run(value: float, *flags: str, tasks: list[journal.Task] = TASKS) -> list[dict]:
    parser = ArgumentParser()
    journal.add_arguments(parser)
    table = journal.Journal("table", parser.parse_args(flags))
    journal.run_all(tasks, table, lambda task: {"cpu": value}, lambda task: 1.0)
    return table.rows


@pytest.mark.parametrize(
    ("flags", "expected"),
    [([], [2.0, 2.0]), (["--resume"], [1.0, 1.0, 2.0]), (["--again"], [1.0, 2.0, 2.0])],
)
def test_what_becomes_of_the_results_that_are_there(
    flags: list[str], expected: list[float], results: Path
):
    run(1.0, tasks=TASKS[:2])
    run(2.0, *flags, tasks=TASKS[1:])
    rows = json.loads((results / "table.json").read_text())
    assert [row["cpu"] for row in rows] == expected
    assert len({row["pair"] for row in rows}) == len(rows)


def test_a_table_says_which_sets_are_of_which_machine():
    rows = run(1.0)
    [line] = report.origins(rows)
    assert line == f"{rows[0]['machine']}; commit {rows[0]['commit']}"
    other = {**rows[0], "set": "b-set", "machine": "an abacus", "commit": "abc"}
    assert list(report.origins([*rows, other]))[1] == "an abacus; b-set; commit abc"
