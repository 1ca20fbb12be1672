"""xmc data: taking files in, or refusing them without a trace."""

import gzip
import lzma
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.cli.conftest import PARAMS, Command, small_documents, tree_of, write_documents

ENTRY = "from xmc_core.cli import main; main()"


def test_add_puts_the_files_in_place_and_lists_the_data_set(
    xmc: Command, project: Path, train_file: Path, tmp_path: Path
):
    test = write_documents(tmp_path / "t.jsonl", small_documents(20))
    names = tmp_path / "n.txt"
    names.write_text("t0\ttopic zero\n")
    result = xmc(
        "data", "add", "cars", "--train", train_file, "--test", test, "--label-names", names
    )
    assert result.code == 0
    assert "train rows" in result.out
    assert "documents without a label: 2 (kept)" in result.err
    assert tree_of(project / "data" / "raw") == {
        "cars": b"",
        "cars/train.jsonl": train_file.read_bytes(),
        "cars/test.jsonl": test.read_bytes(),
        "cars/labels.txt": names.read_bytes(),
    }
    assert yaml.safe_load((project / "params.yaml").read_text())["datasets"] == ["here", "cars"]
    assert xmc("data", "check", "cars").code == 0


@pytest.mark.parametrize(("suffix", "pack"), [(".gz", gzip.compress), (".xz", lzma.compress)])
def test_add_takes_packed_files_as_they_are(
    xmc: Command, project: Path, train_file: Path, suffix, pack
):
    packed = train_file.with_name(f"mine.jsonl{suffix}")
    packed.write_bytes(pack(train_file.read_bytes()))
    assert xmc("data", "add", "cars", "--train", packed).code == 0
    kept = project / "data" / "raw" / "cars" / f"train.jsonl{suffix}"
    assert kept.read_bytes() == packed.read_bytes()


def bad_file(folder: Path, name: str) -> Path:
    """One file for each thing that can be wrong with it."""
    good = b'{"text": "a", "labels": ["x"]}\n'
    contents = {
        "not-json": good + b"what is this\n",
        "no-text": good + b'{"labels": ["x"]}\n',
        "no-labels": good + b'{"text": "a"}\n',
        "labels-string": good + b'{"text": "a", "labels": "x"}\n',
        "labels-numbers": good + b'{"text": "a", "labels": [7]}\n',
        "empty": b"",
        "not-utf8": good + b'{"text": "\xe4", "labels": ["x"]}\n',
        "nothing-to-learn": b'{"text": "a", "labels": []}\n{"text": "b", "labels": []}\n',
        "one-document": good,
        "truncated.xz": lzma.compress(good * 1000 + os.urandom(5000).hex().encode())[:-50],
        "damaged.gz": b"\x1f\x8b" + b"no gzip at all",
    }
    path = folder / name
    if name in contents:
        path.write_bytes(contents[name])
    return path


BAD = {
    "not-json": "not-json, line 2: not JSON (Expecting value, column 1)",
    "no-text": 'no-text, line 2: the key "text" is missing',
    "no-labels": 'no-labels, line 2: the key "labels" is missing',
    "labels-string": 'line 2: "labels" must be a list of strings, got "x"; write ["..."]',
    "labels-numbers": 'line 2: "labels" must be a list of strings, one is 7; put it in quotes',
    "empty": "empty holds no documents; it needs one a line",
    "not-utf8": "not-utf8, line 2: byte 11 is not UTF-8; convert the file",
    "nothing-to-learn": "no label occurs, so there is nothing to learn",
    "one-document": "cannot be split into train and test",
    "truncated.xz": "truncated.xz is cut off after line",
    "damaged.gz": "damaged.gz is damaged after line 0",
    "missing": "missing: No such file or directory",
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_files_are_refused_in_one_line_and_nothing_changes(
    xmc: Command, project: Path, tmp_path: Path, kind: str
):
    before = tree_of(project)
    result = xmc("data", "add", "cars", "--train", bad_file(tmp_path, kind))
    assert result.code == 2
    assert result.out == ""
    error = result.err.splitlines()[-1]
    assert error.startswith("Error: ")
    assert BAD[kind] in error
    assert "Traceback" not in result.err
    assert tree_of(project) in (before, {**before, "data": b"", "data/raw": b""})


@pytest.mark.parametrize("kind", BAD)
def test_the_stage_refuses_the_same_files_with_the_same_words(
    xmc: Command, project: Path, tmp_path: Path, kind: str
):
    raw = project / "data" / "raw" / "here"
    raw.mkdir(parents=True)
    path = bad_file(tmp_path, kind)
    if path.exists():
        path.rename(raw / f"train.jsonl{path.suffix}")
    result = xmc("run", "dataset", "--dataset", "here")
    assert result.code == 2
    words = BAD[kind].replace(kind, f"train.jsonl{path.suffix}")
    assert ("has no train.jsonl" if kind == "missing" else words) in result.err
    assert not list((project / "data").glob("artifacts/*/*"))


def test_bad_test_files_and_names_are_refused_too(xmc: Command, train_file: Path, tmp_path: Path):
    test = write_documents(tmp_path / "t.jsonl", [("a", ["unheard of"])])
    result = xmc("data", "add", "cars", "--train", train_file, "--test", test)
    assert result.code == 2
    assert "t.jsonl: none of its labels occurs in " in result.err
    names = tmp_path / "n.txt"
    names.write_text("no tab here\n")
    result = xmc("data", "add", "cars", "--train", train_file, "--label-names", names)
    assert result.code == 2
    assert "n.txt, line 1: expected `id<TAB>name`" in result.err


def test_an_existing_data_set_is_replaced_only_on_demand(
    xmc: Command, project: Path, train_file: Path, tmp_path: Path
):
    assert xmc("data", "add", "cars", "--train", train_file).code == 0
    (project / "data" / "raw" / "cars" / "README.md").write_text("from the dealer")
    params = (project / "params.yaml").read_text()
    other = write_documents(tmp_path / "other.jsonl", small_documents(30))

    refused = xmc("data", "add", "cars", "--train", other)
    assert refused.code == 2
    assert "the data set 'cars' exists already; --replace" in refused.err
    assert xmc("data", "add", "cars", "--train", other, "--replace").code == 0
    assert tree_of(project / "data" / "raw" / "cars") == {
        "README.md": b"from the dealer",
        "train.jsonl": other.read_bytes(),
    }
    assert (project / "params.yaml").read_text() == params
    refused = xmc("data", "add", "cars", "--train", other, "--replace", "--preset", "linear")
    assert "'cars' has settings already; leave out --preset" in refused.err


@pytest.mark.parametrize(
    ("name", "option"), [("test.jsonl.gz", "--test"), ("labels.txt", "--label-names")]
)
def test_a_file_that_is_not_given_anew_is_not_lost(
    xmc: Command, project: Path, train_file: Path, name: str, option: str
):
    folder = project / "data" / "raw" / "cars"
    assert xmc("data", "add", "cars", "--train", train_file).code == 0
    (folder / name).write_bytes(b"by hand")
    (folder / "scripts").mkdir()
    (folder / "scripts" / "download.py").write_text("print()")
    before = tree_of(folder)
    refused = xmc("data", "add", "cars", "--train", folder / "train.jsonl", "--replace")
    assert refused.code == 2
    assert f"{name} is there and --replace would leave it out; give it with {option}" in (
        " ".join(refused.err.split())
    )
    assert tree_of(folder) == before
    (folder / name).unlink()
    assert xmc("data", "add", "cars", "--train", folder / "train.jsonl", "--replace").code == 0
    assert (folder / "scripts" / "download.py").read_text() == "print()"


@pytest.fixture
def meanwhile(monkeypatch: pytest.MonkeyPatch):
    """Do something when the next `data add` has read the files, or written params.yaml."""
    from xmc_core.cli import intake

    def patch(what: str, act: Callable[[], None]) -> None:
        real = getattr(intake, what)

        def slow(*arguments, **options):
            outcome = real(*arguments, **options)
            monkeypatch.setattr(intake, what, real)
            act()
            return outcome

        monkeypatch.setattr(intake, what, slow)

    return patch


def test_what_others_change_while_files_are_read_stays(
    xmc: Command, project: Path, train_file: Path, meanwhile
):
    params = project / "params.yaml"

    def change() -> None:
        params.write_text(params.read_text().replace("branching: 4", "branching: 5"))
        assert xmc("data", "add", "boats", "--train", train_file).code == 0

    meanwhile("read_raw", change)
    assert xmc("data", "add", "cars", "--train", train_file).code == 0
    content = yaml.safe_load(params.read_text())
    assert content["datasets"] == ["here", "boats", "cars"]
    assert content["settings"].keys() == {"here", "boats", "cars"}
    assert content["presets"]["other"]["tree"]["branching"] == 5


def test_the_same_data_set_added_meanwhile_is_not_replaced(
    xmc: Command, project: Path, train_file: Path, tmp_path: Path, meanwhile
):
    other = write_documents(tmp_path / "other.jsonl", small_documents(30))
    meanwhile("read_raw", lambda: xmc("data", "add", "cars", "--train", other))
    result = xmc("data", "add", "cars", "--train", train_file)
    assert result.code == 2
    assert "the data set 'cars' exists already; --replace" in result.err
    kept = project / "data" / "raw" / "cars" / "train.jsonl"
    assert kept.read_bytes() == other.read_bytes()


@pytest.mark.parametrize("edited", [False, True])
def test_when_the_files_cannot_be_put_there_only_its_own_lines_are_taken_back(
    xmc: Command, project: Path, train_file: Path, meanwhile, edited: bool
):
    params = project / "params.yaml"

    def fail() -> None:
        if edited:
            params.write_text(f"{params.read_text()}# a newer edit\n")
        raise OSError("no place there")

    meanwhile("write_text", fail)
    result = xmc("data", "add", "cars", "--train", train_file)
    assert result.code == 2
    assert "no place there" in result.err
    assert not (project / "data" / "raw" / "cars").exists()
    if edited:
        assert params.read_text().endswith("# a newer edit\n")
    else:
        assert params.read_text() == PARAMS


def test_two_data_sets_added_at_a_time_are_both_there(project: Path, train_file: Path):
    names = [f"set{n}" for n in range(4)]
    adding = [
        subprocess.Popen(
            [sys.executable, "-c", ENTRY, "data", "add", name, "--train", str(train_file)],
            env=with_this_code(),
            stdout=subprocess.DEVNULL,
        )
        for name in names
    ]
    assert [process.wait(120) for process in adding] == [0] * len(names)
    content = yaml.safe_load((project / "params.yaml").read_text())
    assert sorted(content["datasets"]) == ["here", *names]
    assert content["settings"].keys() == {"here", *names}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"presets: [", "params.yaml is not valid YAML: while parsing"),
        (b"# caf\xe9\n" + PARAMS.encode(), "params.yaml is not UTF-8 (byte 6); convert it."),
        (b"- here\n", "params.yaml must hold a mapping"),
        (b"datasets: 7\n", "params.yaml: datasets must be a list, got 7."),
        (
            PARAMS.replace("settings:", "settings:\n  2024: {}").encode(),
            "params.yaml: settings has 2024, which YAML does not take for text; choose another",
        ),
    ],
)
def test_a_broken_params_file_is_one_line(
    xmc: Command, project: Path, train_file: Path, content: bytes, words: str
):
    (project / "params.yaml").write_bytes(content)
    for command in (["data", "add", "cars", "--train", train_file], ["run", "-d", "nowhere"]):
        result = xmc(*command)
        assert result.code == 2
        assert words in result.err
        assert len(result.err.splitlines()) == 1


def test_a_bad_replacement_leaves_the_old_files(
    xmc: Command, project: Path, train_file: Path, tmp_path: Path
):
    assert xmc("data", "add", "cars", "--train", train_file).code == 0
    before = tree_of(project)
    assert (
        xmc("data", "add", "cars", "--train", bad_file(tmp_path, "not-json"), "--replace").code == 2
    )
    assert tree_of(project) == before


def test_a_data_set_read_from_elsewhere_takes_no_files(
    xmc: Command, project: Path, train_file: Path
):
    params = project / "params.yaml"
    own = "  code: {dataset: {source: python-api, packages: [rich]}}\n"
    params.write_text(params.read_text() + own)
    before = tree_of(project)
    told = xmc("data", "add", "code", "--train", train_file, "--replace")
    assert told.code == 2
    assert (
        "'code' is read from python-api (settings.code.dataset.source in params.yaml)" in told.err
    )
    assert tree_of(project) == before


@pytest.mark.parametrize("name", ["../up", "a b", "2024"])
def test_a_name_that_cannot_be_is_refused(xmc: Command, train_file: Path, name: str):
    result = xmc("data", "add", name, "--train", train_file)
    assert result.code == 2
    assert "cannot be a data set's name" in result.err


def test_a_preset_that_does_not_exist_is_refused(xmc: Command, train_file: Path):
    result = xmc("data", "add", "cars", "--train", train_file, "--preset", "big")
    assert result.code == 2
    assert "no presets.big; it knows linear, other" in result.err


def test_outside_of_a_project_nothing_is_added(xmc: Command, project: Path, train_file: Path):
    (project / "params.yaml").unlink()
    result = xmc("data", "add", "cars", "--train", train_file)
    assert result.code == 2
    assert "there is no params.yaml here; run xmc from the project's folder" in result.err


def test_a_full_disk_is_one_message_and_leaves_nothing(project: Path, tmp_path: Path):
    """A limit on file sizes stands for the full disk: the kernel refuses the write either way."""
    train = write_documents(tmp_path / "big.jsonl", small_documents(2000))
    assert train.stat().st_size > 100_000
    before = tree_of(project)
    done = subprocess.run(
        [sys.executable, "-c", ENTRY, "data", "add", "cars", "--train", str(train)],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000)),
        env=with_this_code(),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 2
    assert "File too large; the limit on file sizes is too low" in done.stderr
    assert "Traceback" not in done.stderr
    lock = {".xmc": b"", ".xmc/params.lock": b""}
    assert tree_of(project) == {**before, **lock, "data": b"", "data/raw": b""}


def test_a_stage_on_a_full_disk_leaves_what_was_there(xmc: Command, project: Path, tmp_path: Path):
    write_documents(project / "data" / "raw" / "here" / "train.jsonl", small_documents())
    assert xmc("run", "dataset", "-d", "here").code == 0
    before = tree_of(project / "data" / "artifacts")
    write_documents(project / "data" / "raw" / "here" / "train.jsonl", small_documents(5000))
    done = subprocess.run(
        [sys.executable, "-c", ENTRY, "run", "dataset", "-d", "here"],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000)),
        env=with_this_code(),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("Error: ")
    assert tree_of(project / "data" / "artifacts") == before


def test_a_killed_stage_leaves_what_was_there_and_the_next_run_starts_anew(
    xmc: Command, project: Path, tmp_path: Path
):
    raw = write_documents(project / "data" / "raw" / "here" / "train.jsonl", small_documents())
    assert xmc("run", "dataset", "-d", "here").code == 0
    before = tree_of(project / "data" / "artifacts")

    large = write_documents(raw, small_documents(100_000))  # half a second to read
    here = project / "data" / "artifacts" / "here"
    process = subprocess.Popen(
        [sys.executable, "-c", ENTRY, "run", "dataset", "-d", "here"],
        env=with_this_code(),
        stderr=subprocess.DEVNULL,
    )
    while not list(here.glob(".dataset.*/lock")) and process.poll() is None:
        time.sleep(0.001)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    left = tree_of(project / "data" / "artifacts")
    assert process.returncode == -signal.SIGKILL
    assert before.items() < left.items()
    assert all(name.startswith("here/.dataset.") for name in left.keys() - before.keys())

    write_documents(large, small_documents(70))
    assert xmc("run", "dataset", "-d", "here").code == 0
    now = tree_of(project / "data" / "artifacts")
    assert now.keys() == before.keys()
    assert now != before


def test_list_shows_source_preset_and_counts(xmc: Command, project: Path, train_file: Path):
    assert xmc("data", "add", "cars", "--train", train_file, "--preset", "other").code == 0
    lines = {
        line.split("│")[1].strip(): [cell.strip() for cell in line.split("│")[2:-1]]
        for line in xmc("data", "list").out.splitlines()
        if "│" in line
    }
    assert lines["cars"] == ["files", "other", "–", "–", "–"]
    assert lines["here"] == ["files", "linear", "–", "–", "–"]
    assert xmc("run", "dataset", "-d", "cars", "-q").code == 0
    (row,) = (line for line in xmc("data", "list").out.splitlines() if "cars" in line)
    assert row.split("│")[-2].strip() == "17"


def test_check_lists_every_problem_of_a_file(xmc: Command, tmp_path: Path):
    path = write_documents(tmp_path / "f.jsonl", small_documents(5))
    path.write_text(path.read_text() + '{"text": 1}\n' * 30)
    result = xmc("data", "check", path)
    assert result.code == 2
    assert "rows" in result.out
    assert len(result.err.splitlines()) == 21
    assert 'line 8: "text" must be a string, got 1' in result.err
    assert result.err.splitlines()[-1] == "... and 10 more."


def test_check_is_content_with_a_good_file(xmc: Command, train_file: Path):
    result = xmc("data", "check", train_file)
    assert result.code == 0
    assert "Nothing is wrong." in result.out


def test_check_tells_what_neither_file_nor_data_set_is(xmc: Command, project: Path):
    result = xmc("data", "check", "nowhere")
    assert result.code == 2
    assert "nowhere is no file, and no data set either" in result.err
    result = xmc("data", "check", "here")
    assert result.code == 2
    assert "data/raw/here has no train.jsonl" in result.err


def test_check_reads_the_built_in_source(xmc: Command, project: Path):
    text = PARAMS.replace("source: files }", "source: python-api, packages: [networkx] }")
    (project / "params.yaml").write_text(text)
    result = xmc("data", "check", "here")
    assert result.code == 0
    assert "rows" in result.out
    (project / "params.yaml").write_text(text.replace("networkx", "no_such_thing"))
    result = xmc("data", "check", "here")
    assert result.code == 2
    assert "pip install no_such_thing" in result.err


def with_this_code(**more: str) -> dict[str, str]:
    """The environment for a process that finds xmc_core although it runs elsewhere."""
    return {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), **more}
