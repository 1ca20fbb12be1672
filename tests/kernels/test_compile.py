"""Machine code on disk follows the sources."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from xmc_core.kernels import _compile

HELPER = """
from pack._compile import kernel

@kernel
def helper(n: int) -> int:
    return n + {added}
"""
CALLER = """
from pack._compile import kernel
from pack.helper import helper

@kernel
def caller(n: int) -> int:
    return helper(n)
"""


def answer(folder: Path, **environment: str) -> list[int]:
    """What the caller returns in a new process, and how many kernels came from the cache."""
    code = "from pack.caller import caller as c; print(c(1), sum(c.stats.cache_hits.values()))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return [int(number) for number in done.stdout.split()]


@pytest.mark.parametrize("elsewhere", [False, True])
def test_an_edit_of_a_helper_reaches_its_callers(tmp_path: Path, elsewhere: bool):
    pack = tmp_path / "pack"
    pack.mkdir()
    (pack / "__init__.py").touch()
    shutil.copy(_compile.__file__, pack / "_compile.py")
    (pack / "helper.py").write_text(HELPER.format(added=1))
    (pack / "caller.py").write_text(CALLER)
    cache = {"NUMBA_CACHE_DIR": str(tmp_path / "cache") if elsewhere else ""}
    assert answer(tmp_path, **cache) == [2, 0]
    for file in pack.glob("*.py"):
        os.utime(file)  # as a fresh copy of the same sources has other times
    assert answer(tmp_path, **cache) == [2, 1]
    (pack / "helper.py").write_text(HELPER.format(added=5))
    os.utime(pack / "helper.py", (1, 1))
    assert answer(tmp_path, **cache) == [6, 0]
