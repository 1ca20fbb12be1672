"""What nobody needs any more goes, and nothing else."""

import pytest

from orchestration import tidy
from tests.orchestration.test_registry import (  # noqa: F401
    NAME,
    aliases,
    bundle,
    materialise,
    project,
    register,
    trained,
)


@pytest.fixture
def nights(project, register, mlflow):  # noqa: F811
    """Versions 1 and 5 were the best of their time, the others refused."""
    for md5, right in zip("abcde", (0.6, 0.1, 0.1, 0.1, 0.95), strict=True):
        trained(project, right=right, md5=md5 * 32)
        register()
    assert aliases(mlflow) == {"challenger": 5, "champion": 5, "previous": 1}
    return mlflow


def numbers(versions) -> list[int]:
    return [int(version.version) for version in versions]


def test_versions_with_an_alias_and_the_newest_stay(nights):
    client = nights.client()
    assert numbers(tidy.superfluous(client, NAME, keep=1)) == [2, 3, 4]
    assert numbers(tidy.superfluous(client, NAME, keep=3)) == [2]
    assert numbers(tidy.superfluous(client, NAME, keep=9)) == []
    client.set_model_version_tag(NAME, "3", tidy.STATUS, tidy.PENDING)
    assert numbers(tidy.superfluous(client, NAME, keep=1)) == [2, 4]
    assert tidy.superfluous(client, "xmc-nothing-yet", keep=1) == []


def test_a_deleted_version_leaves_no_file_and_the_champion_all_of_its_own(
    nights,
    project,  # noqa: F811
    register,  # noqa: F811
    monkeypatch,
):
    monkeypatch.setattr(tidy, "project", project)
    client = nights.client()
    root = project.folder / ".xmc" / "mlartifacts"
    sources = {int(v.version): v.source for v in client.search_model_versions(f"name = '{NAME}'")}

    def there(version: int) -> bool:
        return any(root.rglob(f"{sources[version].removeprefix('models:/')}/artifacts/MLmodel"))

    assert all(map(there, sources))
    other = client.create_experiment("theirs", (project.folder / "theirs").as_uri())
    in_the_trash = client.create_run(other).info.run_id
    client.log_text(in_the_trash, "to be restored", "note.txt")
    client.delete_run(in_the_trash)
    with monkeypatch.context() as patch:
        patch.setattr(tidy, "tidy_cache", lambda _: 0)
        assert tidy.main(["--keep", "1"]) == 0
        assert all(map(there, sources))
        assert tidy.main(["--keep", "1", "--yes"]) == 0
    client.restore_run(in_the_trash)
    assert [file.path for file in client.list_artifacts(in_the_trash)] == ["note.txt"]
    assert sorted(filter(there, sources)) == [1, 5]
    assert register()[0]["champion"]["champion_version"] == 5
