"""The embedded defaults."""

from orchestration.home import DAGSTER_YAML, FORMER_YAML, environment


def test_logs_have_a_folder_where_dagsters_own_is_elsewhere(tmp_path, monkeypatch):
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "elsewhere"))
    root = tmp_path / "project"
    root.mkdir()
    assert environment(root)["DAGSTER_HOME"] == str(tmp_path / "elsewhere")
    assert (root / ".xmc").is_dir()


def test_settings_of_an_earlier_release_are_brought_up_to_date_but_not_ones_own(
    tmp_path, monkeypatch
):
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    file = tmp_path / ".xmc" / "dagster" / "dagster.yaml"
    file.parent.mkdir(parents=True)
    for there, after in ((FORMER_YAML, DAGSTER_YAML), ("telemetry: {}\n", "telemetry: {}\n")):
        file.write_text(there)
        environment(tmp_path)
        assert file.read_text() == after
