"""Complete or absent."""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from xmc_core.persistence.atomic import fresh_folder, write_text


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def make(folder: Path, content: str) -> None:
    with fresh_folder(folder) as fresh:
        (fresh / "file").write_text(content)


def make_half(folder: Path, error: BaseException) -> None:
    with fresh_folder(folder) as fresh:
        (fresh / "file").write_text("half")
        raise error


def test_a_folder_appears_when_the_block_is_done(tmp_path: Path):
    target = tmp_path / "deep" / "target"
    with fresh_folder(target) as fresh:
        (fresh / "file").write_text("new")
        assert not target.exists()
    assert (target / "file").read_text() == "new"
    assert names(target.parent) == {"target"}


def test_a_folder_is_replaced_as_a_whole(tmp_path: Path):
    make(tmp_path / "target", "old")
    (tmp_path / "target" / "other").touch()
    make(tmp_path / "target", "new")
    assert (tmp_path / "target" / "file").read_text() == "new"
    assert names(tmp_path / "target") == {"file"}
    assert names(tmp_path) == {"target"}


def test_a_failure_leaves_the_old_folder_and_nothing_else(tmp_path: Path):
    make(tmp_path / "target", "old")
    with pytest.raises(KeyboardInterrupt):
        make_half(tmp_path / "target", KeyboardInterrupt())
    assert (tmp_path / "target" / "file").read_text() == "old"
    assert names(tmp_path) == {"target"}


def test_a_failure_without_an_old_folder_leaves_nothing(tmp_path: Path):
    with pytest.raises(ValueError, match="half"):
        make_half(tmp_path / "target", ValueError("half"))
    assert names(tmp_path) == set()


def test_what_a_killed_process_left_is_removed_by_the_next(tmp_path: Path):
    code = (
        "import sys, time; from pathlib import Path\n"
        "from xmc_core.persistence.atomic import fresh_folder\n"
        "with fresh_folder(Path(sys.argv[1])) as fresh:\n"
        "    (fresh / 'file').write_text('half')\n"
        "    print('now', flush=True)\n"
        "    time.sleep(600)\n"
    )
    make(tmp_path / "target", "old")
    command = [sys.executable, "-c", code, str(tmp_path / "target")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "now\n"
        os.kill(process.pid, signal.SIGKILL)
    assert (tmp_path / "target" / "file").read_text() == "old"
    (left,) = names(tmp_path) - {"target"}
    assert left.startswith(".target.")
    make(tmp_path / "target", "new")
    assert (tmp_path / "target" / "file").read_text() == "new"
    assert names(tmp_path) == {"target"}


def test_a_folder_killed_between_the_two_renames_is_put_back(tmp_path: Path):
    code = (
        "import os, signal, sys; from pathlib import Path\n"
        "from xmc_core.persistence import atomic\n"
        "def halfway(fresh, folder, old):\n"
        "    folder.rename(old)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "atomic._put_in_place = halfway\n"
        "with atomic.fresh_folder(Path(sys.argv[1])): pass\n"
    )
    make(tmp_path / "target", "old")
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "target")], check=False)
    assert not (tmp_path / "target").exists()
    with pytest.raises(ValueError, match="half"):
        make_half(tmp_path / "target", ValueError("half"))
    assert (tmp_path / "target" / "file").read_text() == "old"
    assert names(tmp_path) == {"target"}


def test_of_several_writers_at_a_time_the_last_one_wins_whole(tmp_path: Path):
    target = tmp_path / "target"
    with fresh_folder(target) as first:
        (first / "x").write_text("first")
        with fresh_folder(target) as second:
            (second / "x").write_text("second")
            (second / "y").write_text("second")
        assert names(target) == {"x", "y"}
        (first / "z").write_text("first")
    assert names(target) == {"x", "z"}
    assert (target / "x").read_text() == "first"
    assert names(tmp_path) == {"target"}


def test_many_threads_at_once_leave_a_folder_of_one_of_them(tmp_path: Path):
    target = tmp_path / "target"

    def write(number: int) -> None:
        for _ in range(20):
            with fresh_folder(target) as fresh:
                for name in "abc":
                    (fresh / name).write_text(str(number))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    assert names(target) == set("abc")
    assert len({file.read_text() for file in target.iterdir()}) == 1
    assert names(tmp_path) == {"target"}


@pytest.mark.parametrize("error", [PermissionError("not now"), KeyboardInterrupt("not now")])
def test_a_folder_that_cannot_be_put_in_place_leaves_the_old_one(
    tmp_path: Path, monkeypatch, error: BaseException
):
    make(tmp_path / "target", "old")
    rename = Path.rename

    def no_second_rename(self: Path, to: Path) -> Path:
        if self.name == "new":
            raise error
        return rename(self, to)

    monkeypatch.setattr(Path, "rename", no_second_rename)
    with pytest.raises(type(error), match="not now"):
        make(tmp_path / "target", "new")
    assert (tmp_path / "target" / "file").read_text() == "old"
    assert names(tmp_path) == {"target"}


def test_text_is_replaced_in_one_step(tmp_path: Path):
    path = tmp_path / "deep" / "file.txt"
    write_text(path, "älter")
    write_text(path, "new")
    assert path.read_text(encoding="utf-8") == "new"
    assert names(path.parent) == {"file.txt"}


def test_text_that_cannot_be_written_leaves_the_old_one(tmp_path: Path):
    path = tmp_path / "file.txt"
    write_text(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "half \ud83d")
    assert path.read_text() == "old"
    assert names(tmp_path) == {"file.txt"}


def test_readers_of_a_text_never_see_half_of_it(tmp_path: Path):
    path = tmp_path / "file.txt"
    texts = {letter * 100_000 for letter in "ab"}
    write_text(path, next(iter(texts)))
    code = (
        "import sys; from pathlib import Path; from xmc_core.persistence.atomic import write_text\n"
        "while True:\n"
        "    for letter in 'ab': write_text(Path(sys.argv[1]), letter * 100_000)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(path)])
    try:
        end = time.monotonic() + 1.5
        while time.monotonic() < end:
            assert path.read_text() in texts
    finally:
        process.kill()
        process.wait()
