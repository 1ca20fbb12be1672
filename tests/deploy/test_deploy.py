"""The deployment files, checked without a Docker engine."""

import importlib.util
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
COMPOSE = DEPLOY / "compose" / "compose.yaml"
DOCKERFILE = DEPLOY / "docker" / "Dockerfile"


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    return yaml.safe_load(COMPOSE.read_text())


def tool(name: str) -> str:
    found = shutil.which(name, path=f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin")
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def run(*command: str | Path) -> None:
    done = subprocess.run(
        [str(c) for c in command], capture_output=True, text=True, timeout=120, cwd=ROOT
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_compose_file_fits_the_compose_schema():
    run(tool("check-jsonschema"), "--builtin-schema", "vendor.compose-spec", COMPOSE)


def test_a_wrong_compose_file_does_not_fit(tmp_path):
    wrong = yaml.safe_load(COMPOSE.read_text())
    wrong["services"]["mlflow"]["port"] = wrong["services"]["mlflow"].pop("ports")
    (tmp_path / "compose.yaml").write_text(yaml.safe_dump(wrong))
    with pytest.raises(AssertionError, match="port"):
        run(
            tool("check-jsonschema"),
            "--builtin-schema",
            "vendor.compose-spec",
            tmp_path / "compose.yaml",
        )


def test_dockerfile_passes_hadolint():
    run(tool("hadolint"), DOCKERFILE)


def test_yaml_files_are_tidy():
    rules = "{extends: relaxed, rules: {line-length: {max: 200}}}"
    run(tool("yamllint"), "--strict", "--config-data", rules, DEPLOY, ROOT / "params.yaml")


def test_every_variable_is_explained_in_the_example():
    used = set(re.findall(r"\$\{([A-Z_]+)", COMPOSE.read_text()))
    example = (DEPLOY / "compose" / ".env.example").read_text()
    explained = set(re.findall(r"^([A-Z_]+)=", example, re.MULTILINE))
    assert used == explained


def test_no_password_has_a_default(compose):
    assert re.search(
        r"^POSTGRES_PASSWORD=$", (DEPLOY / "compose" / ".env.example").read_text(), re.M
    )
    assert "${POSTGRES_PASSWORD:-" not in COMPOSE.read_text()


def test_the_example_names_what_a_password_in_a_url_cannot_hold():
    comment = (DEPLOY / "compose" / ".env.example").read_text().partition("POSTGRES_PASSWORD=")[0]
    assert all(f" {sign} " in comment for sign in "@:/#")


def test_whoever_is_waited_for_to_be_healthy_has_a_health_check(compose):
    services = compose["services"]
    image_has_one = "HEALTHCHECK" in DOCKERFILE.read_text()
    waited_for = {
        name
        for service in services.values()
        for name, how in service.get("depends_on", {}).items()
        if how["condition"] == "service_healthy"
    }
    assert waited_for == {"postgres", "mlflow", "code"}
    for name in waited_for:
        own_image = services[name]["image"].startswith("xmc:")
        assert "healthcheck" in services[name] or (own_image and image_has_one), name


def test_ports_are_distinct_and_bound_to_the_loopback_address(compose):
    ports = [port for service in compose["services"].values() for port in service.get("ports", [])]
    assert len(ports) == len(set(ports)) == 2
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_images_are_pinned_and_nothing_is_privileged(compose):
    for name, service in compose["services"].items():
        assert re.search(r":\d", service["image"]), name
        assert not service.get("privileged"), name
    for base in re.findall(r"^FROM (\S+)", DOCKERFILE.read_text(), re.MULTILINE):
        assert re.search(r":\d+\.\d+\.\d+", base), base


def test_the_container_does_not_run_as_root_but_as_the_user_of_the_build(compose):
    text = DOCKERFILE.read_text()
    assert re.findall(r"^ARG XMC_UID=(\d+)$", text, re.MULTILINE) == ["1000"]
    assert re.findall(r"^USER (\S+)", text, re.MULTILINE)[-1:] == ["${XMC_UID}"]
    assert re.findall(r"useradd .*--uid (\S+)", text) == ['"${XMC_UID}"']
    assert compose["services"]["code"]["build"]["args"] == {"XMC_UID": "${XMC_UID:-1000}"}


def test_the_code_location_can_be_loaded_again():
    # `dagster api grpc` answers "Reload definitions" with what it has.
    (command,) = re.findall(r"^CMD (.+)$", DOCKERFILE.read_text(), re.MULTILINE)
    shell, _, script = json.loads(command)
    before, _, server = script.partition(" && exec ")
    assert (shell, before) == ("sh", "python -m orchestration.leftovers")
    assert importlib.util.find_spec("orchestration.leftovers")
    words = server.split()
    assert words[:3] == ["dagster", "code-server", "start"]
    help_text = subprocess.run(
        [tool("dagster"), *words[1:3], "--help"], capture_output=True, text=True, check=True
    ).stdout
    assert all(re.search(rf"(^| ){word}[, ]", help_text, re.M) for word in words if word[0] == "-")


def test_mlflow_answers_to_the_name_that_the_other_services_use(compose):
    address = compose["services"]["code"]["environment"]["MLFLOW_TRACKING_URI"]
    host = re.fullmatch(r"http://([a-z]+):5000", address).group(1)
    assert host in compose["services"]
    allowed = compose["services"]["mlflow"]["environment"]["MLFLOW_SERVER_ALLOWED_HOSTS"]
    assert {host, f"{host}:*"} <= set(allowed.split(","))


def test_files_that_the_image_copies_are_in_the_build_context():
    sources = [
        source
        for line in re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE.read_text(), re.MULTILINE)
        for source in line.split()[:-1]
    ]
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    kept = [line[1:] for line in ignored if line.startswith("!")]
    assert sources
    for source in sources:
        assert (ROOT / source).exists(), source
        assert any(source == k or source.startswith(f"{k}/") for k in kept), source


def test_what_a_step_prints_is_where_the_webserver_looks(compose):
    from dagster._core.instance.ref import configurable_class_data
    from dagster._core.storage.local_compute_log_manager import LocalComputeLogManager

    settings = yaml.safe_load((DEPLOY / "dagster" / "dagster.yaml").read_text())
    manager = configurable_class_data(settings["compute_logs"]).rehydrate(LocalComputeLogManager)
    folder = Path(manager.get_captured_local_path(["run", "compute_logs", "step"], "err"))
    for service in ("code", "webserver", "daemon"):
        mounts = [volume.rsplit(":", 1)[1] for volume in compose["services"][service]["volumes"]]
        assert any(folder.is_relative_to(mount) for mount in mounts), service


def test_dagster_reads_the_instance_and_the_workspace(monkeypatch):
    pytest.importorskip("dagster_postgres", reason="the extra `deploy` is not installed")
    from dagster._core.instance.ref import InstanceRef
    from dagster._core.workspace.load import location_origins_from_yaml_paths

    monkeypatch.setenv("DAGSTER_POSTGRES_URL", "postgresql://xmc:x@127.0.0.1:1/dagster")
    instance = InstanceRef.from_dir(str(DEPLOY / "dagster"))
    assert instance.storage_data.class_name == "DagsterPostgresStorage"
    assert instance.settings["telemetry"] == {"enabled": False}
    origins = location_origins_from_yaml_paths([str(DEPLOY / "dagster" / "workspace.yaml")])
    assert [origin.location_name for origin in origins] == ["xmc"]


def test_no_password_is_an_argument(compose):
    # Those of a container are for every user of its host to see.
    for service in compose["services"].values():
        assert "PASSWORD" not in str(service.get("command", ""))
    environment = compose["services"]["mlflow"]["environment"]
    assert environment["MLFLOW_BACKEND_STORE_URI"].endswith("@postgres:5432/mlflow")
