"""The embedded defaults."""

from orchestration.home import environment


def test_logs_have_a_folder_where_dagsters_own_is_elsewhere(tmp_path, monkeypatch):
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "elsewhere"))
    root = tmp_path / "project"
    root.mkdir()
    assert environment(root)["DAGSTER_HOME"] == str(tmp_path / "elsewhere")
    assert (root / ".xmc").is_dir()
