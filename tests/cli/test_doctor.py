"""xmc doctor: findings and remedies, on real ports, files and databases."""

import http.server
import shutil
import socket
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import PARAMS, Command, small_documents, write_documents
from xmc_core.cli import doctor
from xmc_core.cli.doctor import Finding

PROJECT = Path(__file__).parents[2]


def only(findings: Iterator[Finding], what: str) -> Finding:
    (finding,) = [finding for finding in findings if finding.what == what]
    return finding


@pytest.fixture
def sound(project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv(doctor.MLFLOW_VARIABLE, raising=False)
    write_documents(project / "data" / "raw" / "here" / "train.jsonl", small_documents())
    return project


def test_a_sound_machine_passes(xmc: Command, sound: Path):
    result = xmc("doctor")
    assert result.code == 0
    assert "Nothing is broken." in result.out
    for what in ("Python", "packages: core", "threads", "disk", "port 3000", "MLflow store"):
        assert what in result.out


def test_a_broken_part_is_exit_code_1_with_its_remedy(
    xmc: Command, sound: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv(doctor.MLFLOW_VARIABLE, f"http://127.0.0.1:{free_port()}")
    result = xmc("doctor")
    assert result.code == 1
    assert "does not answer" in result.out
    assert "→ start it, or unset MLFLOW_TRACKING_URI" in result.out
    assert "1 broken." in result.out


def test_brackets_in_a_remedy_are_no_markup(xmc: Command, sound: Path, capsys):
    finding = doctor._packages("demo", ("no-such-package",), "warning", "pip install -e '.[demo]'")
    assert finding.found == "missing: no-such-package"
    assert finding.remedy.endswith("[demo]'")


def test_settings_and_raw_files_of_every_data_set_are_looked_at(sound: Path):
    assert only(doctor.check_settings(), "data set here").state == "good"
    (sound / "data" / "raw" / "here" / "train.jsonl").unlink()
    finding = only(doctor.check_settings(), "data set here")
    assert finding.state == "broken"
    assert "has no train.jsonl" in finding.found
    (sound / "params.yaml").write_text(PARAMS.replace("branching: 3", "branching: 0"))
    assert (
        "tree.branching must be at least 2" in only(doctor.check_settings(), "data set here").found
    )


def test_sections_that_dvc_would_miss_are_named(sound: Path):
    shutil.copy(PROJECT / "dvc.yaml", sound)
    finding = only(doctor.check_settings(), "data set here")
    assert finding.state == "broken"
    assert "settings.here lacks inference, rankers, ensemble: xmc takes" in finding.found
    assert "write `inference: {}` and so on" in finding.remedy
    sections = "    inference: {}\n    rankers: {}\n    ensemble: {}\n"
    (sound / "params.yaml").write_text(PARAMS + sections)
    assert only(doctor.check_settings(), "data set here").state == "good"


def test_an_encoder_that_is_not_here_is_broken(sound: Path):
    (sound / "params.yaml").write_text(PARAMS.replace("name: none", "name: no/such-encoder"))
    finding = only(doctor.check_settings(), "encoder no/such-encoder")
    assert finding.state == "broken"
    assert "no/such-encoder" in finding.found


def test_the_encoders_of_all_members_are_looked_at(sound: Path):
    members = "    ensemble: { members: [{}, { name: no/such-encoder }] }\n"
    (sound / "params.yaml").write_text(PARAMS + members)
    assert only(doctor.check_settings(), "encoder no/such-encoder").state == "broken"


def test_outside_of_a_project_it_says_so(sound: Path):
    (sound / "params.yaml").unlink()
    assert only(doctor.check_settings(), "project").remedy == "run xmc from the project's folder"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_taken_port_is_a_warning(monkeypatch: pytest.MonkeyPatch):
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        monkeypatch.setattr(doctor, "PORTS", {port: "Dagster"})
        (finding,) = doctor.check_ports()
        assert (finding.state, finding.found) == ("warning", "something listens there")
    (finding,) = doctor.check_ports()
    assert (finding.state, finding.found) == ("good", "free for Dagster")


def test_the_mlflow_database_is_opened(sound: Path):
    assert "is made by the first run" in only(doctor.check_mlflow(), "MLflow store").found
    (sound / ".xmc").mkdir()
    file = sound / doctor.MLFLOW_DATABASE
    with sqlite3.connect(file) as database:
        database.execute("create table runs (id text)")
        database.execute("insert into runs values ('a'), ('b')")
    database.close()
    assert only(doctor.check_mlflow(), "MLflow store").found.endswith("mlflow.db, 2 runs")
    file.write_bytes(b"no database at all, but long enough to be looked at" * 100)
    finding = only(doctor.check_mlflow(), "MLflow store")
    assert finding.state == "broken"
    assert "mlflow db upgrade sqlite:///" in finding.remedy


class Version(http.server.BaseHTTPRequestHandler):
    """As an MLflow server answers."""

    status = 200

    def do_GET(self) -> None:
        self.send_response(self.status)
        self.end_headers()
        self.wfile.write(b"3.17.2")

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.mark.parametrize(("status", "state"), [(200, "good"), (403, "broken")])
def test_the_mlflow_server_is_asked_for_its_version(
    monkeypatch: pytest.MonkeyPatch, status: int, state: str
):
    monkeypatch.setattr(Version, "status", status)
    with http.server.HTTPServer(("127.0.0.1", 0), Version) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv(doctor.MLFLOW_VARIABLE, f"http://127.0.0.1:{server.server_port}/")
        finding = only(doctor.check_mlflow(), "MLflow store")
        server.shutdown()
    assert finding.state == state
    assert ("version 3.17.2" if status == 200 else "Forbidden") in finding.found


def test_a_check_that_crashes_is_a_finding(sound: Path):
    (sound / "params.yaml").write_text("datasets: 7")
    findings = doctor.examine()
    finding = only(iter(findings), "settings")
    assert finding.state == "broken"
    assert finding.found == "ConfigError: params.yaml: datasets must be a list, got 7."


def test_versions_come_from_the_installed_metadata():
    assert doctor.version_of("numpy") is not None
    assert doctor.version_of("no-such-package") is None
