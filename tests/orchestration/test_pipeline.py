"""The whole pipeline, Dagster, DVC and MLflow together, on small data in a copy of the project."""

import json
import os
import random
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import dagster as dg
import pytest
import yaml

from orchestration.dvc_project import DvcProject, tool_environment
from orchestration.resources import MlflowTracking
from xmc_core.metrics.ranking import plain_name
from xmc_core.metrics.report import MODELS
from xmc_core.stages.paths import STAGES

pytestmark = pytest.mark.slow

DATASET = "tiny"
COPIED = ("orchestration", "xmc_core", "dvc.yaml", ".dvcignore", ".gitignore")
TOPICS = {
    "numpy.dot": "matrix product vector multiply",
    "numpy.sort": "order ascending rank values",
    "os.remove": "delete file disk path",
    "os.listdir": "folder names entries path",
    "json.loads": "parse text decode object",
    "json.dumps": "write text encode object",
    "math.sqrt": "root number square positive",
    "math.exp": "power number growth base",
}


def documents(n: int, seed: int) -> str:
    """JSON lines whose words give their labels away."""
    rng = random.Random(seed)
    lines = []
    for _ in range(n):
        labels = rng.sample(sorted(TOPICS), 2)
        words = [word for label in labels for word in rng.sample(TOPICS[label].split(), 3)]
        lines.append(json.dumps({"text": " ".join(words), "labels": labels}) + "\n")
    return "".join(lines)


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """The project as a user has it who cloned it and added a data set, before the first run."""
    source, root = DvcProject.here().folder, tmp_path_factory.mktemp("project")
    for name in COPIED:
        path = source / name
        # Byte code comes along: the kernels' machine code lies there.
        shutil.copytree(path, root / name) if path.is_dir() else shutil.copy2(path, root / name)
    for name in ("config", ".gitignore", "plots"):
        path = source / ".dvc" / name
        (root / ".dvc").mkdir(exist_ok=True)
        target = root / ".dvc" / name
        shutil.copytree(path, target) if path.is_dir() else shutil.copy2(path, target)
    params = yaml.safe_load((source / "params.yaml").read_text())
    settings = dict(params["presets"]["linear"])
    settings["dataset"] = {"source": "files"}
    settings["tree"] = {"branching": 4, "max_leaf_size": 4}
    params |= {"datasets": [DATASET], "settings": {DATASET: settings}}
    (root / "params.yaml").write_text(yaml.safe_dump(params))
    raw = root / "data" / "raw" / DATASET
    raw.mkdir(parents=True)
    shutil.copy2(source / "data" / ".gitignore", root / "data" / ".gitignore")
    (raw / "train.jsonl").write_text(documents(200, seed=0))
    (raw / "test.jsonl").write_text(documents(60, seed=1))
    subprocess.run(["git", "init", "-q", root], check=True)
    return root


def call(copy: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run something in the copy, on its own embedded stores."""
    own = {
        k: v
        for k, v in tool_environment().items()
        if k not in ("DAGSTER_HOME", "MLFLOW_TRACKING_URI")
    }
    return subprocess.run(
        [sys.executable, "-m", *command],
        cwd=copy,
        env=own,
        capture_output=True,
        text=True,
        timeout=300,
    )


def demo(copy: Path) -> subprocess.CompletedProcess[str]:
    return call(copy, "orchestration.demo", "--dataset", DATASET)


@pytest.fixture(scope="module")
def first(copy):
    done = demo(copy)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def project(copy, first):
    return DvcProject(root=str(copy))


def done_lines(text: str) -> dict[str, str]:
    """What the demo says of each asset."""
    return dict(re.findall(r"^✓ (\w+) +(.*)$", text, re.MULTILINE))


def test_one_line_a_stage_the_three_models_answers_and_the_model(first):
    assert list(done_lines(first)) == [*STAGES, "registered_model", "champion"]
    assert not any(line.startswith("reused") for line in done_lines(first).values())
    for words in (
        "P@1",
        "nDCG@5",
        "PSP@5",
        "XR-Linear, initial tree",
        "XR-Linear, disentangled tree",
    ):
        assert words in first
    assert "xmc-tiny, version 1, alias champion" in first
    assert sum(first.count(label) for label in TOPICS) >= 5


def test_dvc_in_a_terminal_has_nothing_left_to_do(copy, first):
    done = call(copy, "dvc", "repro")
    assert done.returncode == 0
    assert "Data and pipelines are up to date." in done.stdout
    assert "Running stage" not in done.stdout
    assert "up to date" in call(copy, "dvc", "status").stdout


def test_a_bundle_that_was_changed_by_hand_is_noticed(project):
    assert not project.changed("rankers", DATASET)
    added = project.out("rankers", DATASET) / "bundle" / "by-hand"
    added.touch()
    assert project.changed("rankers", DATASET)
    added.unlink()
    assert not project.changed("rankers", DATASET)


def test_a_bundle_of_other_settings_is_noticed(project):
    params = project.folder / "params.yaml"
    before = params.read_text()
    settings = yaml.safe_load(before)
    settings["settings"][DATASET]["rankers"]["cost"] = [7.0]
    params.write_text(yaml.safe_dump(settings))
    assert project.changed("rankers", DATASET)
    params.write_text(before)
    assert not project.changed("rankers", DATASET)


def test_dvc_shows_metrics_plots_and_the_graph(copy, first, project):
    shown = json.loads(call(copy, "dvc", "metrics", "show", "--json").stdout)
    (metrics,) = shown[""]["data"].values()
    reports = project.paths(DATASET).reports
    assert metrics["data"] == json.loads((reports / "metrics.json").read_text())
    plots = call(copy, "dvc", "plots", "show")
    assert plots.returncode == 0, plots.stderr
    page = (copy / ".xmc" / "plots" / "index.html").read_text()
    for file in ("slices.csv", "recall.csv", "metrics.png"):
        assert f"data/reports/{DATASET}/{file}" in page
    dag = call(copy, "dvc", "dag", "--dot").stdout
    assert f'"matcher@{DATASET}" -> "disentangled_tree@{DATASET}"' in dag
    assert call(copy, "dvc", "params", "diff").returncode == 0


def test_nothing_that_dvc_keeps_is_left_for_git(copy, first):
    status = subprocess.run(
        ["git", "status", "--porcelain", "--untracked-files=all"],
        cwd=copy,
        capture_output=True,
        text=True,
    )
    assert "data/artifacts" not in status.stdout
    assert "data/reports" not in status.stdout
    assert "dvc.lock" in status.stdout


def test_versions_in_dagster_are_the_md5s_of_dvc(copy, project):
    with dg.DagsterInstance.from_config(str(copy / ".xmc" / "dagster")) as instance:
        for stage in STAGES:
            event = instance.get_latest_materialization_event(dg.AssetKey(stage))
            materialization = event.asset_materialization
            assert materialization.partition == DATASET
            assert materialization.tags["dagster/data_version"] == project.md5(stage, DATASET)
            assert "seconds" in materialization.metadata


def test_mlflow_has_the_figures_of_metrics_json_and_the_report(copy, project, first):
    client = MlflowTracking(
        root=str(copy), tracking_uri=f"sqlite:///{copy}/.xmc/mlflow.db"
    ).client()
    version = client.get_model_version_by_alias(f"xmc-{DATASET}", "champion")
    run = client.get_run(version.run_id)
    metrics = json.loads((project.paths(DATASET).reports / "metrics.json").read_text())
    assert set(metrics) == set(MODELS)
    for model, values in metrics.items():
        for name, value in values.items():
            assert run.data.metrics[f"{model}/{plain_name(name)}"] == pytest.approx(value)
    assert {entry.dataset.digest for entry in run.inputs.dataset_inputs} == {
        project.md5("dataset", DATASET)
    }
    files = {entry.path for entry in client.list_artifacts(run.info.run_id, "report")}
    assert {"report/report.html", "report/metrics.json", "report/metrics.png"} <= files
    assert version.tags["dvc.md5.rankers"] == project.md5("rankers", DATASET)


def test_the_served_model_answers(copy, first):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    env = {**tool_environment(), "MLFLOW_TRACKING_URI": f"sqlite:///{copy}/.xmc/mlflow.db"}
    command = ["models", "serve", "-m", f"models:/xmc-{DATASET}@champion", "--env-manager", "local"]
    server = subprocess.Popen(
        [sys.executable, "-m", "mlflow", *command, "--port", str(port), "--host", "127.0.0.1"],
        env=env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        until = time.monotonic() + 120
        while not _listens(port):
            assert server.poll() is None, "the server ended"
            assert time.monotonic() < until, "the server does not answer"
            time.sleep(0.2)
        question = {"inputs": ["delete file disk parse text decode"], "params": {"top_k": 2}}
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/invocations",
            json.dumps(question).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=120) as response:
            (answer,) = json.load(response)["predictions"]
    finally:
        os.killpg(server.pid, 9)
        server.wait()
    assert set(answer["labels"]) == {"os.remove", "json.loads"}
    assert answer["scores"] == sorted(answer["scores"], reverse=True)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_a_second_run_reuses_everything(copy, first):
    second = demo(copy)
    assert second.returncode == 0, second.stdout + second.stderr
    stages = {name: line for name, line in done_lines(second.stdout).items() if name != "champion"}
    assert all(line.startswith("reused") for line in stages.values())
    assert "xmc-tiny, version 1, alias champion" in second.stdout


def test_a_broken_line_of_data_is_named_in_dagster_and_mending_it_costs_nothing(copy, first):
    file = copy / "data" / "raw" / DATASET / "train.jsonl"
    sound = file.read_text()
    file.write_text(sound + "{not json\n")
    try:
        broken = demo(copy)
        assert broken.returncode == 1
        assert "✗ dataset  failed" in broken.stdout
        assert re.search(r"train\.jsonl.*201", broken.stdout)
        with dg.DagsterInstance.from_config(str(copy / ".xmc" / "dagster")) as instance:
            (run,) = instance.get_runs(limit=1)
            events = instance.all_logs(run.run_id)
            (failure,) = (
                e.dagster_event
                for e in events
                if e.dagster_event and e.dagster_event.is_step_failure
            )
            assert "Its last lines:" in failure.step_failure_data.user_failure_data.description
    finally:
        file.write_text(sound)
    mended = call(copy, "dvc", "repro")
    assert mended.returncode == 0
    assert "Running stage" not in mended.stdout
