"""The command line as a whole: help, errors, exit codes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Command
from xmc_core import __version__
from xmc_core.cli.app import explain
from xmc_core.errors import DataError

COMMANDS = ["data", "run", "train", "predict", "evaluate", "doctor", "warmup"]


def test_help_names_every_command(xmc: Command):
    result = xmc("--help")
    assert result.code == 0
    assert all(command in result.out for command in COMMANDS)


@pytest.mark.parametrize("command", [*COMMANDS, "data add", "data list", "data check"])
def test_every_command_has_help(xmc: Command, command: str):
    result = xmc(*command.split(), "-h")
    assert result.code == 0
    assert "Usage: xmc" in result.out


def test_help_waits_for_nothing_heavy():
    code = (
        "import sys\n"
        "from xmc_core.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'numpy', 'scipy', 'numba', 'torch', 'transformers', 'yaml', 'matplotlib'}\n"
        "sys.exit(', '.join(heavy & sys.modules.keys()) or 0)"
    )
    folder = str(Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": folder},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_version_is_that_of_the_library(xmc: Command):
    assert xmc("--version").out == f"xmc {__version__}\n"


def test_without_arguments_it_shows_help(xmc: Command):
    assert "Usage: xmc" in xmc().out


@pytest.mark.parametrize(
    "arguments",
    [
        ["no-such-command"],
        ["run"],
        ["run", "-d"],
        ["predict", "m", "t", "-k", "0"],
        ["data", "add"],
    ],
)
def test_wrong_usage_ends_with_exit_code_2(xmc: Command, arguments: list[str]):
    result = xmc(*arguments)
    assert result.code == 2
    assert "Traceback" not in result.err


def test_an_error_is_one_line_and_debug_shows_where_it_comes_from(
    xmc: Command, project: Path, capsys: pytest.CaptureFixture[str]
):
    from xmc_core.cli import main

    result = xmc("run", "dataset", "-d", "nowhere")
    assert result.code == 2
    assert result.err == "Error: params.yaml has no settings.nowhere; it knows here.\n"
    with pytest.raises(Exception, match=r"no settings.nowhere"):
        main(["--debug", "run", "dataset", "-d", "nowhere"])


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (DataError("row 7 is bad."), "row 7 is bad."),
        (OSError(28, "No space left on device", "a/b"), "a/b: No space left on device; free some"),
        (OSError(13, "Permission denied", "a/b"), "a/b: Permission denied; you may not do that"),
        (OSError(5, "Input/output error"), "Input/output error."),
        (OSError("strange"), "strange."),
    ],
)
def test_errors_of_the_system_are_one_line_with_a_way_out(error, words):
    assert explain(error).startswith(words)
