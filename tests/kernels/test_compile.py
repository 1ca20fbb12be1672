"""The cache of machine code follows the sources."""

import os

from xmc_core.kernels._compile import drop_stale_cache


def write(file, seconds):
    file.parent.mkdir(exist_ok=True)
    file.write_text("")
    os.utime(file, (seconds, seconds))
    return file


def test_code_older_than_any_kernel_source_is_dropped(tmp_path):
    write(tmp_path / "caller.py", 100)
    write(tmp_path / "helper.py", 300)
    old = write(tmp_path / "__pycache__" / "caller.nbi", 200)
    machine_code = write(tmp_path / "__pycache__" / "caller.1.nbc", 200)
    assert drop_stale_cache(tmp_path) == 2
    assert not old.exists()
    assert not machine_code.exists()


def test_code_newer_than_every_kernel_source_stays(tmp_path):
    write(tmp_path / "helper.py", 300)
    fresh = write(tmp_path / "__pycache__" / "helper.nbi", 400)
    assert drop_stale_cache(tmp_path) == 0
    assert fresh.exists()
