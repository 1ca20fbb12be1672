"""Following a stage while it runs: real processes, standing in for `dvc repro`."""

import os
import sys
import textwrap
import time

import pytest

from orchestration import stage_run
from orchestration.dvc_project import tool_environment
from orchestration.stage_run import StageError, StageRun

TELL = """
import json, os, sys, time
def tell(event, **values):
    with open(os.environ["XMC_EVENTS"], "a") as file:
        file.write(json.dumps({"event": event, "stage": "s", "dataset": "d", **values}) + "\\n")
"""


@pytest.fixture
def start(tmp_path):
    def start(script: str) -> StageRun:
        command = [sys.executable, "-c", TELL + textwrap.dedent(script)]
        return StageRun("s@d", command, tmp_path, tool_environment())

    return start


def test_events_arrive_in_order_and_while_the_stage_runs(start):
    run = start("""
        tell("started")
        tell("curve", step=1, values={"loss": 0.5})
        while not os.path.exists("seen"):
            time.sleep(0.01)
        tell("finished", seconds=1.0, peak_memory_mb=12.5)
    """)
    kinds = []
    for event in run.events():
        kinds.append(event["event"])
        if event["event"] == "curve":
            (run.folder / "seen").touch()  # the stage waits for this: it is still running
    assert kinds == ["started", "curve", "finished"]
    assert run.peak_memory_mb == 12.5
    assert not run.reused


def test_a_stage_that_never_began_is_reused(start):
    run = start("print(\"Stage 's@d' didn't change, skipping\")")
    assert list(run.events()) == []
    assert run.reused


def test_half_a_line_waits_for_its_end(start):
    run = start("""
        with open(os.environ["XMC_EVENTS"], "a") as file:
            file.write('{"event": "mess')
            file.flush()
            time.sleep(0.6)
            file.write('age", "text": "whole"}\\n')
    """)
    assert [event["text"] for event in run.events()] == ["whole"]


def test_a_failure_shows_the_stages_own_error_and_its_last_lines(start):
    run = start("""
        tell("started")
        print("reading train.jsonl")
        print("To track the changes with git, run:")
        tell("failed", error="train.jsonl, line 3: not JSON; mend the line.")
        sys.exit(2)
    """)
    with pytest.raises(StageError, match=r"^s@d: train\.jsonl, line 3: not JSON") as raised:
        list(run.events())
    assert raised.value.explained
    assert "reading train.jsonl" in str(raised.value)
    assert "To track the changes" not in str(raised.value)


def test_a_killed_stage_is_told_from_one_that_explains_itself(start):
    run = start("""
        tell("started")
        print("about to need much memory", flush=True)
        os.kill(os.getpid(), 9)
    """)
    with pytest.raises(StageError, match="killed by signal 9") as raised:
        list(run.events())
    assert not raised.value.explained
    assert "about to need much memory" in str(raised.value)


def test_what_dvc_refuses_to_start_is_not_tried_again(start):
    run = start("""
        print("ERROR: failed to reproduce 's@d': missing data 'source': data/artifacts/d/dataset")
        sys.exit(255)
    """)
    with pytest.raises(
        StageError, match=r"^s@d: failed to reproduce 's@d': missing data"
    ) as raised:
        list(run.events())
    assert raised.value.explained


def busy(times: int) -> str:
    """A script that DVC keeps from its files so many times."""
    return f"""
        tries = int(open("tries").read()) + 1 if os.path.exists("tries") else 1
        open("tries", "w").write(str(tries))
        if tries <= {times}:
            print("ERROR: failed to reproduce 's@d': 'out' is busy, it is being blocked by:")
            print("  (PID 7): dvc repro")
            sys.exit(255)
        tell("started")
        print("at work")
    """


def test_a_stage_waits_while_another_command_is_at_its_files(start, monkeypatch):
    monkeypatch.setattr(stage_run, "BUSY_POLL_SECONDS", 0.01)
    run = start(busy(times=2))
    told, began = run.events()
    assert "waits until DVC is free" in told["text"]
    assert "(PID 7): dvc repro" in told["text"]
    assert began["event"] == "started"
    assert not run.reused
    assert list(run.last_lines) == ["at work"]


def test_it_does_not_wait_for_ever(start, monkeypatch):
    monkeypatch.setattr(stage_run, "BUSY_SECONDS", 0.0)
    with pytest.raises(StageError, match="it is being blocked by") as raised:
        list(start(busy(times=9)).events())
    assert "(PID 7): dvc repro" in str(raised.value)


def test_only_the_last_lines_are_kept(start):
    run = start("""
        for i in range(200):
            print("line", i)
        sys.exit(1)
    """)
    with pytest.raises(StageError) as raised:
        list(run.events())
    assert "line 199" in str(raised.value)
    assert "line 100" not in str(raised.value)


def test_output_is_repeated_on_standard_error(start, capsys):
    list(start("print('hello from the stage')").events())
    assert "hello from the stage" in capsys.readouterr().err


def test_an_interrupted_run_stops_the_stage_and_its_children(start, tmp_path):
    run = start("""
        import subprocess
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
        tell("message", text=str(child.pid))
        time.sleep(60)
    """)
    events = run.events()
    child = int(next(events)["text"])
    events.close()
    for _ in range(100):
        if not _alive(child):
            break
        time.sleep(0.1)
    assert not _alive(child)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # A process that nobody has waited for still has a number.
    state = os.popen(f"ps -o stat= -p {pid}").read().strip()
    return bool(state) and not state.startswith("Z")
