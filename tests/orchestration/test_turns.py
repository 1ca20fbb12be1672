"""Runs of one data set take turns."""

import subprocess
import sys

from orchestration.turns import turn

HOLD = """
import sys
from pathlib import Path
from orchestration.turns import turn
with turn(Path(sys.argv[1]), "cars", print):
    print("mine", flush=True)
    sys.stdin.readline()
"""


def held(root):
    """Another process whose turn it is, until it is told something or dies."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(root)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "mine\n"
    return process


def test_the_second_waits_for_the_first_and_says_so(tmp_path):
    other = held(tmp_path)
    said = []

    def say(line):
        assert other.poll() is None
        said.append(line)
        other.communicate("done\n")

    with turn(tmp_path, "cars", say):
        assert other.returncode == 0
    assert said == ["another run is at work on cars; this one waits for its turn"]


def test_the_turn_of_a_process_that_was_killed_is_over(tmp_path):
    other = held(tmp_path)
    other.kill()
    other.communicate()
    said = []
    with turn(tmp_path, "cars", said.append):
        assert said == []


def test_data_sets_do_not_wait_for_each_other(tmp_path):
    said = []
    with turn(tmp_path, "cars", said.append), turn(tmp_path, "books", said.append):
        assert said == []
