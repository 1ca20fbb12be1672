"""Partitions that cannot be made."""

import os
import subprocess
import sys

import pytest

from orchestration.dvc_project import DvcProject


@pytest.mark.parametrize("command", ["demo", "ui"])
@pytest.mark.parametrize(
    ("params", "words"),
    [("datasets: []", "add one with `xmc data add`."), ("datasets: [", "while parsing")],
)
def test_without_data_sets_the_commands_end_with_one_line(tmp_path, command, params, words):
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    (tmp_path / "params.yaml").write_text(params)
    done = subprocess.run(
        [sys.executable, "-m", f"orchestration.{command}"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": DvcProject.here().root},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert words in line
