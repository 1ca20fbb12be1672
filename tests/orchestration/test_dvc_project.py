"""dvc.yaml, params.yaml and dvc.lock as orchestration reads them."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from orchestration.dvc_project import ITEM, DvcProject, parse_stages, tool_environment
from tests.orchestration.imports import imported_files
from xmc_core.errors import ConfigError
from xmc_core.stages.paths import STAGES

PROJECT = DvcProject.here()
SPECS = {spec.name: spec for spec in PROJECT.stages()}

NOT_DECIDING = frozenset(
    {
        "xmc_core",
        "xmc_core.errors",
        "xmc_core.types",
        "xmc_core.reporting",
        "xmc_core.parallel",
        "xmc_core.memory",
    }
    | {f"xmc_core.stages{name}" for name in ("", ".inputs", ".paths", ".runner")}
)
"""Modules that every stage runs and that leave no trace in its bytes."""


def test_the_stages_are_those_of_the_library_in_their_order():
    assert tuple(SPECS) == STAGES


def test_edges_follow_the_folders_that_stages_read():
    assert {name: set(spec.upstream) for name, spec in SPECS.items()} == {
        "dataset": set(),
        "tfidf_features": {"dataset"},
        "initial_tree": {"dataset", "tfidf_features"},
        "matcher": {"dataset", "tfidf_features", "initial_tree"},
        "disentangled_tree": {"dataset", "tfidf_features", "initial_tree", "matcher"},
        "xr_transformer": {"dataset", "tfidf_features", "disentangled_tree"},
        "rankers": {"dataset", "tfidf_features", "xr_transformer", "matcher", "disentangled_tree"},
        "evaluation": {
            "dataset",
            "tfidf_features",
            "initial_tree",
            "matcher",
            "disentangled_tree",
            "xr_transformer",
            "rankers",
        },
    }


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_runs_itself_and_writes_its_own_folder(name):
    spec = SPECS[name]
    assert spec.command == f"xmc run {name} --dataset {ITEM}"
    assert spec.outs[0] == f"data/artifacts/{ITEM}/{name}"
    own = PROJECT.out(name, "some-data").relative_to(PROJECT.folder)
    assert str(own) == spec.outs[0].replace(ITEM, "some-data")
    assert spec.description


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_depends_on_all_the_code_that_decides_its_bytes_and_on_no_other(name):
    files = imported_files(f"xmc_core.stages.{name}", PROJECT.folder, NOT_DECIDING)
    files = {file for file in files if not file.endswith("__init__.py")}
    code = [path for path in SPECS[name].inputs if path.startswith("xmc_core/")]

    def within(file: str, path: str) -> bool:
        return file == path or file.startswith(f"{path}/")

    assert {f for f in files if not any(within(f, path) for path in code)} == set()
    assert {path for path in code if not any(within(f, path) for f in files)} == set()


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_names_the_settings_that_it_reads(name):
    for dataset in PROJECT.datasets():
        settings = yaml.safe_load((PROJECT.folder / "params.yaml").read_text())["settings"][dataset]
        for param in SPECS[name].params:
            prefix, _, section = param.replace(ITEM, dataset).partition(dataset)
            assert prefix == "settings."
            assert not section or section[1:] in settings


def test_the_folder_of_raw_files_is_there_for_every_data_set():
    for dataset in PROJECT.datasets():
        assert PROJECT.paths(dataset).raw.is_dir()


def test_a_dependency_inside_an_output_makes_an_edge():
    specs = parse_stages(
        {
            "stages": {
                "a": {"cmd": "a", "outs": [{"out/a": {"cache": False}}]},
                "b": {"cmd": "b", "deps": ["out/a/part", "code"], "metrics": ["m.json"]},
            }
        }
    )
    assert [spec.upstream for spec in specs] == [(), ("a",)]
    assert specs[1].outs == ("m.json",)


def test_versions_are_the_md5s_of_the_lock(tmp_path):
    outs = [{"path": "data/artifacts/d/dataset", "md5": "0123456789abcdef.dir", "size": 7}]
    (tmp_path / "dvc.lock").write_text(yaml.safe_dump({"stages": {"dataset@d": {"outs": outs}}}))
    project = DvcProject(root=str(tmp_path))
    assert project.md5("dataset", "d") == "0123456789abcdef"
    assert project.size("dataset", "d") == 7
    assert project.md5("matcher", "d") is None


def test_a_lock_file_that_dvc_is_rewriting_is_waited_for(tmp_path):
    text = yaml.safe_dump({"stages": {"dataset@d": {"outs": [{"path": "p", "md5": "abc"}]}}})
    (tmp_path / "dvc.lock").write_text(text)
    (tmp_path / ".dvc" / "tmp").mkdir(parents=True)
    (tmp_path / ".dvc" / "tmp" / "lock").touch()
    # What DVC does at the end of a stage: take its lock, empty the file, write it anew.
    rewrite = f"""
import fcntl, time
with open(".dvc/tmp/lock", "a") as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)
    with open("dvc.lock", "w") as file:
        print("writing", flush=True)
        time.sleep(0.5)
        file.write({text!r})
"""
    dvc = subprocess.Popen([sys.executable, "-c", rewrite], cwd=tmp_path, stdout=subprocess.PIPE)
    assert dvc.stdout.readline() == b"writing\n"
    assert (tmp_path / "dvc.lock").read_text() == ""
    assert DvcProject(root=str(tmp_path)).md5("dataset", "d") == "abc"
    assert dvc.wait() == 0


def test_before_the_first_run_there_is_no_version(tmp_path):
    assert DvcProject(root=str(tmp_path)).md5("dataset", "d") is None


def test_a_project_without_data_sets_says_how_to_add_one(tmp_path):
    (tmp_path / "params.yaml").write_text("datasets: []\n")
    with pytest.raises(ConfigError, match="xmc data add"):
        DvcProject(root=str(tmp_path)).datasets()


def test_a_file_that_is_no_text_is_named(tmp_path):
    (tmp_path / "params.yaml").write_bytes(b"datasets: [caf\xe9]\n")
    with pytest.raises(ConfigError, match=r"cannot read .*params.yaml: .*utf-8"):
        DvcProject(root=str(tmp_path)).datasets()


def test_tools_are_found_without_an_activated_environment(monkeypatch):
    monkeypatch.setenv("PATH", "/usr/bin")
    first, second = tool_environment()["PATH"].split(":")
    assert (first, second) == (str(Path(sys.executable).parent), "/usr/bin")


def test_a_commit_is_dirty_if_more_than_the_lock_has_changed(tmp_path):
    def git(*arguments: str) -> str:
        identity = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
        command = ["git", "-C", str(tmp_path), *identity, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    project = DvcProject(root=str(tmp_path))
    assert project.git_commit() == "unknown"
    git("init", "--quiet")
    for name in ("dvc.lock", "code.py"):
        (tmp_path / name).write_text("1")
    git("add", ".")
    git("commit", "--quiet", "-m", "first")
    commit = git("rev-parse", "HEAD")
    (tmp_path / "dvc.lock").write_text("2")
    (tmp_path / "new.txt").write_text("not tracked")
    assert project.git_commit() == commit
    (tmp_path / "code.py").write_text("2")
    assert project.git_commit() == f"{commit}-dirty"
