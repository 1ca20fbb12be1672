"""Events for programs, lines for people."""

import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from xmc_core.reporting import (
    EVENTS_VARIABLE,
    SILENT,
    Recorder,
    StageReporter,
    TerminalReporter,
    describe,
    peak_memory_mb,
)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def report_everything(report: StageReporter) -> None:
    report.emit("started")
    report.message("a word")
    report.progress(5, 20, "rows", 2.0)
    report.metrics(rows=12345, share=0.25)
    report.metrics(labels=7)
    report.curve(100, loss=0.5)
    report.finished()


@pytest.fixture
def events(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "events.jsonl"
    monkeypatch.setenv(EVENTS_VARIABLE, str(path))
    return path


def test_a_stage_writes_one_json_object_a_line(events: Path):
    report_everything(StageReporter("dataset", "own", quiet=True))
    lines = [json.loads(line) for line in events.read_text().splitlines()]
    assert [line["event"] for line in lines] == [
        "started",
        "message",
        "progress",
        "metrics",
        "metrics",
        "curve",
        "finished",
    ]
    assert all(line["stage"] == "dataset" and line["dataset"] == "own" for line in lines)
    assert lines[2]["left"] == 6.0
    assert lines[-1]["peak_memory_mb"] > 1


def test_facts_are_all_metrics_together():
    report = StageReporter("dataset", "own", quiet=True)
    report_everything(report)
    assert report.facts == {"rows": 12345, "share": 0.25, "labels": 7}


def test_numbers_of_numpy_become_plain_ones(events: Path):
    report = StageReporter("dataset", "own", quiet=True)
    report.metrics(rows=np.int64(3), share=np.float32(0.5))
    report.curve(1, loss=np.float64(0.25))
    assert report.facts == {"rows": 3, "share": 0.5}
    assert type(report.facts["rows"]) is int
    assert [json.loads(line)["values"] for line in events.read_text().splitlines()] == [
        {"rows": 3, "share": 0.5},
        {"loss": 0.25},
    ]


def test_people_read_one_line_an_event(capsys: pytest.CaptureFixture[str]):
    report_everything(StageReporter("dataset", "own"))
    *lines, last = capsys.readouterr().err.splitlines()
    assert [line.removeprefix("           dataset  ") for line in lines] == [
        "a word",
        "5 of 20 rows, 6.0 s left",
        "rows 12,345, share 0.25",
        "labels 7",
        "step 100: loss 0.5",
    ]
    assert "done in 0.0 s, peak memory" in last


def test_quiet_says_nothing(capsys: pytest.CaptureFixture[str]):
    report_everything(StageReporter("dataset", "own", quiet=True))
    assert capsys.readouterr() == ("", "")


def test_an_error_goes_to_the_events_and_is_left_to_the_caller_on_the_terminal(
    events: Path, capsys: pytest.CaptureFixture[str]
):
    StageReporter("dataset", "own").emit("failed", error="no rows")
    assert json.loads(events.read_text())["error"] == "no rows"
    assert capsys.readouterr().err == ""
    assert describe({"event": "failed", "error": "no rows"}) == "failed: no rows"


def test_on_a_terminal_progress_is_a_bar_that_makes_way(monkeypatch: pytest.MonkeyPatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    report = TerminalReporter()
    report.progress(5, 20, "rows", 2.0)
    assert terminal.getvalue() == f"{'━' * 6}{'─' * 18} 5 of 20 rows, 6.0 s left"
    report.message("done")
    assert terminal.getvalue().endswith("left\r\x1b[2Kdone\n")
    report.close()
    assert terminal.getvalue().endswith("done\n")


def test_track_yields_everything_and_tells_how_far_it_is(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("xmc_core.reporting.PROGRESS_SECONDS", 0.0)
    report = Recorder()
    assert list(report.track("abc", 3, "letters")) == ["a", "b", "c"]
    assert [event["done"] for event in report.events] == [0, 1, 2]
    assert report.events[0]["left"] is None


def test_track_keeps_still_while_it_is_quick():
    report = Recorder()
    assert list(report.track(range(1000), 1000, "rows")) == list(range(1000))
    assert report.events == []


def test_a_reporter_that_nobody_listens_to_takes_everything():
    SILENT.message("x")
    SILENT.metrics(rows=1)
    SILENT.curve(1, loss=2.0)
    assert list(SILENT.track([1, 2], 2, "rows")) == [1, 2]


def test_peak_memory_is_that_of_a_python_with_numpy():
    assert 10 < peak_memory_mb() < 100_000
