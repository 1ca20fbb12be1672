"""From a bundle to a champion that answers: real models in a real MLflow store."""

import shutil
import sys
import tempfile
from dataclasses import replace
from fcntl import LOCK_EX, LOCK_NB, flock
from pathlib import Path
from threading import Timer

import dagster as dg
import numpy as np
import pandas as pd
import pytest
import yaml

from orchestration import gate
from orchestration.assets import champion, registered_model
from orchestration.assets.champion import CHECK
from orchestration.dvc_project import DvcProject
from orchestration.mlflow_model import registry
from orchestration.mlflow_model.registry import MD5, STATUS, aliased, model_name
from orchestration.partitions import datasets
from orchestration.turns import turn
from tests.orchestration.stores import predictions, small_dataset
from xmc_core.config import CalibrationConfig, config_from_mapping, to_mapping
from xmc_core.errors import DataError, StoreError
from xmc_core.features.tfidf import fit_tfidf
from xmc_core.inference.calibration import fit_calibration
from xmc_core.metrics.matching import find_hits
from xmc_core.models import Member, PipelineModel, train_xr_linear

DATASET = datasets.get_partition_keys()[0]
NAME = model_name(DATASET)
RANKERS = ("rankers", DATASET)
CONFIG = config_from_mapping(
    {
        "tfidf": {"min_df": 1},
        "tree": {"branching": 4, "max_leaf_size": 4},
        "disentangle": {"max_clusters": 1},
        "inference": {"top_k": 5},
    },
    "tests",
)


@pytest.fixture(scope="module")
def bundle():
    data = small_dataset()
    vectorizer, X_train = fit_tfidf(data.train_texts, CONFIG.tfidf)
    model = train_xr_linear(X_train, data.Y_train, CONFIG)
    return PipelineModel(vectorizer, (Member(model),), data.label_names)


@pytest.fixture
def project(tmp_path, bundle, monkeypatch):
    """Everything that precedes the registry, in small; the md5s of dvc.lock are not looked at."""
    monkeypatch.setattr(DvcProject, "changed", lambda *_: False)
    params = {"datasets": [DATASET], "settings": {DATASET: to_mapping(CONFIG)}}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    (tmp_path / "dvc.yaml").write_text((DvcProject.here().folder / "dvc.yaml").read_text())
    project = DvcProject(root=str(tmp_path))
    small_dataset().save(project.out("dataset", DATASET))
    bundle.save(project.out("rankers", DATASET) / "bundle")
    return project


def trained(
    project: DvcProject, *, right: float, md5: str, data_md5: str = "d" * 32, seed: int = 0
) -> None:
    """As if the stages had run: predictions of this quality, these md5s in dvc.lock."""
    predictions(right=right, seed=seed).save(project.out("rankers", DATASET) / "predictions")
    md5s = {"dataset": data_md5, "rankers": md5}
    stages = {
        f"{stage}@{DATASET}": {"outs": [{"path": stage, "md5": f"{value}.dir"}]}
        for stage, value in md5s.items()
    }
    (project.folder / "dvc.lock").write_text(yaml.safe_dump({"stages": stages}))


@pytest.fixture
def materialise(project, mlflow, instance):
    """Materialise both assets; Dagster's result."""

    def materialise(*, raise_on_error: bool = True):
        return dg.materialize(
            [dg.AssetSpec("rankers"), dg.AssetSpec("evaluation"), registered_model, champion],
            partition_key=DATASET,
            instance=instance,
            resources={"project": project, "mlflow": mlflow},
            raise_on_error=raise_on_error,
        )

    return materialise


@pytest.fixture
def register(materialise):
    """The same; their metadata by name, and whether the check was satisfied."""

    def register():
        outcome = materialise()
        found = {
            event.asset_key.path[-1]: {
                name: value.value for name, value in event.materialization.metadata.items()
            }
            for event in outcome.get_asset_materialization_events()
        }
        (check,) = outcome.get_asset_check_evaluations()
        assert check.check_name == CHECK
        return found, check

    return register


def aliases(mlflow) -> dict[str, int]:
    client = mlflow.client()
    named = {name: aliased(client, NAME, name) for name in ("challenger", "champion", "previous")}
    return {name: int(version.version) for name, version in named.items() if version}


def test_versions_move_through_the_aliases_as_the_gate_decides(project, register, mlflow):
    trained(project, right=0.6, md5="a" * 32)
    found, check = register()
    assert found["registered_model"]["version"] == 1
    assert not found["registered_model"]["reused"]
    assert found["champion"]["promoted"]
    assert check.passed
    assert aliases(mlflow) == {"challenger": 1, "champion": 1}

    # The same bundle again: nothing new.
    found, check = register()
    assert found["registered_model"]["reused"]
    assert found["champion"]["champion_version"] == 1
    assert aliases(mlflow) == {"challenger": 1, "champion": 1}
    assert "first version" in mlflow.client().get_model_version(NAME, "1").tags["gate"]

    # A much worse one: registered, and refused.
    trained(project, right=0.1, md5="b" * 32)
    found, check = register()
    assert found["registered_model"]["version"] == 2
    assert found["champion"]["champion_version"] == 1
    assert not found["champion"]["promoted"]
    assert "worse than the champion" in found["champion"]["reason"]
    assert not check.passed
    assert check.severity == dg.AssetCheckSeverity.WARN
    assert aliases(mlflow) == {"challenger": 2, "champion": 1}
    assert mlflow.client().get_model_version(NAME, "2").tags[STATUS] == "refused"

    # A better one: promoted, and the way back is kept.
    trained(project, right=0.9, md5="c" * 32)
    found, check = register()
    assert found["champion"]["promoted"]
    assert check.passed
    assert aliases(mlflow) == {"challenger": 3, "champion": 3, "previous": 1}
    assert "| P@1 |" in found["champion"]["comparison"]

    # Other data: the champion's bundle has to answer the present test split.
    trained(project, right=0.9, md5="e" * 32, data_md5="f" * 32)
    found, _ = register()
    assert found["champion"]["challenger_version"] == 4
    assert "comparison" in found["champion"]


def statuses(mlflow) -> dict[int, str]:
    versions = mlflow.client().search_model_versions(f"name = '{NAME}'")
    return {int(version.version): version.tags[STATUS] for version in versions}


def test_a_champion_that_was_taken_back_by_hand_stays_back(project, register, mlflow):
    trained(project, right=0.6, md5="a" * 32)
    register()
    trained(project, right=0.9, md5="b" * 32)
    register()
    assert aliases(mlflow) == {"challenger": 2, "champion": 2, "previous": 1}
    assert statuses(mlflow) == {1: "replaced", 2: "passed"}

    mlflow.client().set_registered_model_alias(NAME, "champion", "1")
    for _ in range(2):  # nothing has changed: not the first run nor the next brings it back
        found, check = register()
        assert found["registered_model"]["reused"]
        assert found["champion"]["champion_version"] == 1
        assert "version 2 was champion and was taken back by hand" in found["champion"]["reason"]
        assert not check.passed
        assert aliases(mlflow) == {"challenger": 2, "champion": 1, "previous": 1}
        assert statuses(mlflow) == {1: "replaced", 2: "passed"}

    trained(project, right=0.9, md5="c" * 32)  # a new version is judged
    found, _ = register()
    assert found["champion"]["promoted"]
    assert aliases(mlflow) == {"challenger": 3, "champion": 3, "previous": 1}


def test_a_champion_that_was_replaced_may_return_with_its_settings(project, register, mlflow):
    for md5 in "aba":
        trained(project, right=0.6, md5=md5 * 32)
        found, _ = register()
        assert found["champion"]["promoted"]
    assert aliases(mlflow) == {"challenger": 1, "champion": 1, "previous": 2}
    assert statuses(mlflow) == {1: "passed", 2: "replaced"}


def test_a_refused_version_stays_refused_and_says_why_again(project, register, mlflow):
    for md5, right in zip("abc", (0.3, 0.9, 0.5), strict=True):
        trained(project, right=right, md5=md5 * 32)
        refusal = register()[0]["champion"]
    assert not refusal["promoted"]
    mlflow.client().set_registered_model_alias(NAME, "champion", "1")  # worse than the refused one
    found, _ = register()
    assert found["champion"]["reason"] == refusal["reason"]
    assert aliases(mlflow) == {"challenger": 3, "champion": 1, "previous": 1}


def failure(outcome) -> str:
    (event,) = (e for e in outcome.all_events if e.is_step_failure)
    return event.step_failure_data.user_failure_data.description


def test_a_champion_that_moves_during_the_comparison_is_left_alone(
    project, register, materialise, mlflow, monkeypatch
):
    for md5 in "ab":
        trained(project, right=0.6, md5=md5 * 32)
        register()
    module = sys.modules["orchestration.assets.champion"]
    compare = module.compare
    taken = []

    def meanwhile(*arguments):
        with (project.folder / ".xmc" / "locks" / f"{DATASET}.lock").open() as file:
            try:
                flock(file, LOCK_EX | LOCK_NB)
            except BlockingIOError:
                taken.append(True)
        mlflow.client().set_registered_model_alias(NAME, "champion", "1")
        return compare(*arguments)

    monkeypatch.setattr(module, "compare", meanwhile)
    trained(project, right=0.9, md5="c" * 32)
    told = failure(materialise(raise_on_error=False))
    assert taken == [True, True]  # with the champion, and with the best: other runs wait for both
    assert "was moved while the challenger was compared" in told
    assert aliases(mlflow) == {"challenger": 3, "champion": 1, "previous": 1}
    assert statuses(mlflow)[3] == "pending"


def test_a_champion_cannot_sink_night_by_night(project, register, mlflow):
    def night(right: float, md5: str, seed: int):
        trained(project, right=right, md5=md5 * 32, seed=seed)
        found = register()[0]["champion"]
        best = int(aliased(mlflow.client(), NAME, "best").version)
        return found["champion_version"], best, found["reason"]

    assert night(0.9, "a", 0)[:2] == (1, 1)
    assert night(0.8, "b", 1)[:2] == (2, 1)  # within its noise, and not better
    champion, best, reason = night(0.65, "c", 2)  # within the noise of the second alone
    assert (champion, best) == (2, 1)
    assert reason.startswith("not worse than the champion, but worse than version 1, the best so f")
    assert statuses(mlflow)[3] == "refused"
    assert night(1.0, "d", 3)[:2] == (4, 4)


def test_the_champion_of_before_is_the_best_where_none_is_named(project, register, mlflow):
    for md5, right, seed in zip("ab", (0.9, 0.8), (0, 1), strict=True):
        trained(project, right=right, md5=md5 * 32, seed=seed)
        if md5 == "b":
            mlflow.client().delete_registered_model_alias(NAME, "best")
        assert register()[0]["champion"]["promoted"]
    assert int(aliased(mlflow.client(), NAME, "best").version) == 1


def test_a_best_version_that_cannot_answer_holds_up_nothing(project, register, mlflow, monkeypatch):
    for md5, right, seed in zip("ab", (0.9, 0.8), (0, 1), strict=True):
        trained(project, right=right, md5=md5 * 32, seed=seed)
        register()
    module = sys.modules["orchestration.assets.champion"]
    compare = module.compare

    def of_old(project, dataset, challenger, other):
        if int(other.version) == 1:
            raise StoreError("its weights are in layout 1")
        return compare(project, dataset, challenger, other)

    monkeypatch.setattr(module, "compare", of_old)
    trained(project, right=0.65, md5="c" * 32, seed=2)
    found = register()[0]["champion"]
    assert found["promoted"]
    assert (
        "version 1, the best so far, cannot answer: its weights are in layout 1"
        in (found["reason"])
    )
    assert int(aliased(mlflow.client(), NAME, "best").version) == 3


def remove_files(mlflow, version: int) -> None:
    client = mlflow.client()
    model = client.get_model_version(NAME, str(version)).source.removeprefix("models:/")
    location = client.get_logged_model(model).artifact_location
    shutil.rmtree(Path(location.removeprefix("file://")) / "artifacts")


def test_a_best_version_whose_files_are_gone_holds_up_nothing_and_a_champion_says_so(
    project, register, materialise, mlflow
):
    for md5, right, seed in zip("ab", (0.9, 0.8), (0, 1), strict=True):
        trained(project, right=right, md5=md5 * 32, seed=seed)
        register()
    remove_files(mlflow, 1)
    trained(project, right=0.75, md5="c" * 32, seed=2)
    found = register()[0]["champion"]
    assert found["promoted"]
    assert "version 1, the best so far, cannot answer: version 1 of" in found["reason"]
    assert "has no artifacts/predictions in MLflow any more" in found["reason"]
    remove_files(mlflow, 3)
    trained(project, right=0.75, md5="d" * 32, seed=3)
    told = failure(materialise(raise_on_error=False))
    assert "(version 3 of xmc-python-api has no artifacts/predictions in MLflow any more;" in told


def test_what_was_taken_back_by_hand_is_no_measure_for_those_after_it(project, register, mlflow):
    for md5, right in zip("ab", (0.6, 1.0), strict=True):  # the second profits from a leak
        trained(project, right=right, md5=md5 * 32)
        register()
    mlflow.client().set_registered_model_alias(NAME, "champion", "1")
    trained(project, right=0.65, md5="c" * 32, seed=2)
    assert register()[0]["champion"]["champion_version"] == 3
    assert int(aliased(mlflow.client(), NAME, "best").version) in (1, 3)


def test_a_promotion_that_broke_off_is_ended_by_the_next_run(
    project, register, materialise, mlflow, monkeypatch
):
    trained(project, right=0.6, md5="a" * 32)
    register()
    trained(project, right=0.95, md5="b" * 32)
    client = type(mlflow.client())
    set_tag = client.set_model_version_tag

    def broken(self, name, version, key, value):
        if value == "passed":
            raise dg.Failure("the server was started anew", allow_retries=False)
        set_tag(self, name, version, key, value)

    with monkeypatch.context() as patch:
        patch.setattr(client, "set_model_version_tag", broken)
        materialise(raise_on_error=False)
    assert aliases(mlflow) == {"challenger": 2, "champion": 2, "previous": 1}
    assert statuses(mlflow) == {1: "replaced", 2: "pending"}
    assert register()[0]["champion"]["champion_version"] == 2
    assert aliases(mlflow) == {"challenger": 2, "champion": 2, "previous": 1}
    assert statuses(mlflow) == {1: "replaced", 2: "passed"}


def test_nothing_is_crowned_in_place_of_a_champion_that_is_gone(
    project, register, materialise, mlflow
):
    for md5, right in zip("ab", (0.9, 0.1), strict=True):  # the second is refused
        trained(project, right=right, md5=md5 * 32)
        register()
    mlflow.client().delete_registered_model_alias(NAME, "champion")
    told = failure(materialise(raise_on_error=False))
    assert "has no version under the alias `champion`, but had one: version 1." in told
    assert aliases(mlflow) == {"challenger": 2}
    mlflow.client().set_registered_model_alias(NAME, "champion", "1")
    assert register()[0]["champion"]["champion_version"] == 1


def test_the_registry_waits_for_another_run_of_the_data_set(
    project, materialise, instance, tmp_path
):
    trained(project, right=0.6, md5="a" * 32)
    others = turn(tmp_path, DATASET, print)
    others.__enter__()
    Timer(0.5, others.__exit__, (None, None, None)).start()
    logged = [e.user_message for e in instance.all_logs(materialise().run_id)]
    assert sum("waits for its turn" in line for line in logged) == 1


def test_a_bundle_that_is_not_what_dvc_recorded_is_not_registered(
    project, materialise, mlflow, monkeypatch
):
    trained(project, right=0.6, md5="a" * 32)
    monkeypatch.setattr(DvcProject, "changed", lambda _, stage, of: (stage, of) == RANKERS)
    told = failure(materialise(raise_on_error=False))
    assert str(project.out("rankers", DATASET)) in told
    assert "is not what dvc.lock says" in told
    assert "materialise `rankers`" in told
    assert aliases(mlflow) == {}


def test_nothing_that_was_fetched_is_left(project, register, tmp_path, monkeypatch):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    trained(project, right=0.6, md5="a" * 32)
    register()
    fetched = []
    module = sys.modules["orchestration.assets.champion"]

    def fetch(*arguments):
        fetched.append(registry.fetch(*arguments))
        return fetched[-1]

    monkeypatch.setattr(module, "fetch", fetch)
    trained(project, right=0.6, md5="b" * 32, data_md5="f" * 32)
    assert "comparison" in register()[0]["champion"]
    assert [path.name for path in fetched] == ["predictions", "bundle"]
    assert all(path.is_relative_to(scratch) and not path.exists() for path in fetched)


def test_a_champion_of_an_older_release_answers_by_its_own_library(
    project, register, materialise, mlflow, monkeypatch
):
    trained(project, right=0.6, md5="a" * 32)
    register()
    answered = gate.answer_again(project.out("rankers", DATASET) / "bundle", small_dataset())
    asked = []

    def of_now(bundle, data):
        raise StoreError(f"{bundle} has its weights in layout 1")

    def as_registered(*arguments):
        asked.append(as_before(*arguments))
        return asked[-1]

    as_before = gate.answer_as_registered
    monkeypatch.setattr(gate, "answer_again", of_now)
    monkeypatch.setattr(gate, "answer_as_registered", as_registered)
    trained(project, right=0.6, md5="b" * 32, data_md5="f" * 32)
    assert "comparison" in register()[0]["champion"]
    np.testing.assert_array_equal(asked[0].labels, answered.labels)
    np.testing.assert_array_equal(asked[0].scores, answered.scores)

    monkeypatch.setattr(gate, "answer_as_registered", lambda *_: of_now("it", None))
    trained(project, right=0.6, md5="c" * 32, data_md5="e" * 32)
    told = failure(materialise(raise_on_error=False))
    assert "cannot be asked about the present test documents (it has its weights in" in told
    assert "set the alias `champion` in MLflow" in told


def test_a_library_that_does_not_answer_says_why(tmp_path):
    (tmp_path / "code").mkdir()
    with pytest.raises(StoreError, match=r"registered with it does not answer: .*is not a saved"):
        gate.answer_as_registered(tmp_path, tmp_path / "code", small_dataset())


def test_a_version_leads_back_to_where_it_came_from(project, register, mlflow):
    trained(project, right=0.6, md5="a" * 32)
    register()
    version = mlflow.client().get_model_version(NAME, "1")
    run = mlflow.client().get_run(version.run_id)
    assert version.tags[f"{MD5}rankers"] == "a" * 32
    assert version.tags["dagster.run_id"] == run.data.tags["dagster.run_id"]
    assert version.tags["dataset"] == DATASET
    assert version.tags["git.commit"]
    assert run.data.params["tree.max_leaf_size"] == "4"


def test_the_champion_answers_texts_with_names_and_scores(project, register, mlflow, bundle):
    import mlflow as library

    trained(project, right=0.6, md5="a" * 32)
    register()
    model = library.pyfunc.load_model(f"models:/{NAME}@champion")
    texts = ["train text 3", "nothing that was ever seen"]
    expected = bundle.named(bundle.predict(texts, top_k=2))

    answers = model.predict(texts, params={"top_k": 2})
    assert [list(zip(a["labels"], a["scores"], strict=True)) for a in answers] == expected
    assert model.predict(pd.DataFrame({"text": texts}), params={"top_k": 2}) == answers
    frame = pd.DataFrame({"id": [1, 2], "text": texts})
    assert model.predict(frame[["text", "id"]], params={"top_k": 2}) == answers
    # MLflow hands on the first column alone; numbers are not texts, but would be answered.
    with pytest.raises(DataError, match="first column is 'id'; the texts must come first"):
        model.predict(frame.astype(str))
    assert model.predict(np.array(texts), params={"top_k": 2}) == answers
    assert model.predict(pd.Series(texts), params={"top_k": 2}) == answers
    assert len(model.predict(texts)[0]["labels"]) == CONFIG.inference.top_k

    signature = model.metadata.signature
    assert [p.name for p in signature.params.params] == [
        "top_k", "beam_size", "calibrated", "threshold", "precision"
    ]  # fmt: skip
    assert not any(answer["none_of_these"] for answer in answers)
    least = answers[0]["scores"][1]
    (passed,) = model.predict(texts[:1], params={"top_k": 3, "threshold": least})
    assert passed["labels"] == answers[0]["labels"]
    (empty,) = model.predict(texts[:1], params={"threshold": 1e9})
    assert empty == {"labels": [], "scores": [], "none_of_these": True}
    with pytest.raises(DataError, match="this model is not calibrated"):
        model.predict(texts, params={"precision": 80.0})
    requirements = library.pyfunc.get_model_dependencies(f"models:/{NAME}@champion")
    pinned = Path(requirements).read_text()
    assert f"numpy=={np.__version__}" in pinned
    assert "torch" not in pinned


def test_an_ensemble_is_registered_and_answers(project, register, mlflow, bundle):
    import mlflow as library

    members = CONFIG.replace(**{"ensemble.members": [{}, {"seed": 1}]})
    params = {"datasets": [DATASET], "settings": {DATASET: to_mapping(members)}}
    (project.folder / "params.yaml").write_text(yaml.safe_dump(params))
    data, folder = small_dataset(), project.out("rankers", DATASET) / "bundle"
    X_train = bundle.vectorizer.transform(data.train_texts)
    models = [train_xr_linear(X_train, data.Y_train, own) for own in members.members]
    ensemble = PipelineModel(bundle.vectorizer, tuple(map(Member, models)), data.label_names)
    shutil.rmtree(folder)
    ensemble.save(folder)
    trained(project, right=0.6, md5="a" * 32)
    register()
    model = library.pyfunc.load_model(f"models:/{NAME}@champion")
    expected = ensemble.named(ensemble.predict(["train text 3"], top_k=2))
    [answer] = model.predict(["train text 3"], params={"top_k": 2})
    assert [list(zip(answer["labels"], answer["scores"], strict=True))] == expected


def test_a_bundle_with_an_encoder_needs_torch():
    from orchestration.mlflow_model.registry import needs_encoder

    assert not needs_encoder(CONFIG)
    assert needs_encoder(CONFIG.replace(**{"encoder.name": "a"}))
    for_one = [{"name": "none"}, {"name": "a"}]
    assert needs_encoder(CONFIG.replace(**{"ensemble.members": for_one}))
    neither = [{"name": "none"}, {"name": "none", "seed": 1}]
    assert not needs_encoder(CONFIG.replace(**{"encoder.name": "a", "ensemble.members": neither}))


def test_a_calibrated_champion_answers_with_probabilities(project, register, mlflow, bundle):
    import mlflow as library

    data = small_dataset()
    found = bundle.predict(data.train_texts)
    hits = find_hits(found.labels, data.Y_train)
    positives = np.bincount(found.labels[hits], minlength=data.n_labels)
    settings = CalibrationConfig(method="platt")
    calibrated = replace(bundle, calibration=fit_calibration(found, hits, positives, settings))
    calibrated.save(project.out("rankers", DATASET) / "bundle")
    trained(project, right=0.6, md5="f" * 32)
    register()
    model = library.pyfunc.load_model(f"models:/{NAME}@champion")
    texts = data.train_texts[:3]
    expected = calibrated.named(calibrated.predict(texts))
    answers = model.predict(texts)
    assert [list(zip(a["labels"], a["scores"], strict=True)) for a in answers] == expected
    raw = model.predict(texts, params={"calibrated": False})
    assert raw[0]["scores"] == [score for _, score in bundle.named(bundle.predict(texts))[0]]
    wanted = float(calibrated.calibration.points[0, 1])
    threshold = calibrated.operating_point(wanted).score
    for answer in model.predict(texts, params={"precision": wanted}):
        assert all(score >= np.float32(threshold) for score in answer["scores"])


def test_without_a_bundle_the_message_says_what_to_run(project, mlflow, instance):
    outcome = dg.materialize(
        [dg.AssetSpec("rankers"), dg.AssetSpec("evaluation"), registered_model],
        partition_key=DATASET,
        instance=instance,
        resources={"project": project, "mlflow": mlflow},
        raise_on_error=False,
    )
    assert not outcome.success
    assert "materialise `rankers` first" in failure(outcome)
