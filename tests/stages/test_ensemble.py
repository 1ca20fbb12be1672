"""Ensembles through the stages: members without an encoder, by seed."""

import json

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from scipy.sparse import csr_array

from xmc_core.config import Config
from xmc_core.data import Dataset, Predictions
from xmc_core.errors import DataError
from xmc_core.inference.ensemble import average_predictions
from xmc_core.metrics import load_rows
from xmc_core.metrics.bootstrap import paired_bootstraps
from xmc_core.metrics.report import MODELS
from xmc_core.models import PipelineModel, train_xr_linear
from xmc_core.stages.inputs import Inputs
from xmc_core.stages.paths import STAGES, ProjectPaths
from xmc_core.stages.rankers import features_of_labels
from xmc_core.stages.runner import run_stage

SINGLE = Config().replace(
    **{
        "tfidf.min_df": 1,
        "tree.max_leaf_size": 2,
        "tree.branching": 2,
        "tree.seed": 3,
        "inference.beam_size": 2,
        "inference.top_k": 6,
    }
)
CONFIG = SINGLE.replace(ensemble={"members": [{}, {"seed": 1}, {"seed": 2}], "average": "rank"})
WORDS = [f"word{n}" for n in range(12)]


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> ProjectPaths:
    """All stages with an ensemble of three."""
    paths = ProjectPaths(tmp_path_factory.mktemp("project"), "toy")
    rng = np.random.default_rng(0)
    Y = (rng.random((90, 12)) < 0.25).astype(np.float32)
    texts = [" ".join(rng.permutation(np.array(WORDS)[row > 0])) or "nothing" for row in Y]
    half = csr_array(Y[:60]), csr_array(Y[60:])
    Dataset(texts[:60], texts[60:], WORDS, *half).save(paths.out("dataset"))
    for stage in STAGES[1:]:
        run_stage(stage, paths, CONFIG, quiet=True)
    return paths


def test_every_member_has_a_tree_of_its_seed(project):
    inputs = Inputs(project)
    bundle = PipelineModel.load(project.out("rankers") / "bundle")
    assert len(bundle.members) == 3
    Z = features_of_labels(inputs, inputs.X_train, CONFIG)
    for member, own in zip(bundle.members, CONFIG.members, strict=True):
        expected = train_xr_linear(inputs.X_train, inputs.Y_train, own, label_features=Z)
        assert member.model.config.tree.seed == own.tree.seed
        assert_array_equal(member.model.tree.slot_labels, expected.tree.slot_labels)
        answers = member.model.predict(inputs.X_test)
        assert_array_equal(answers.scores, expected.predict(inputs.X_test).scores)
    assert len({member.model.tree.slot_labels.tobytes() for member in bundle.members}) == 3


def test_the_stage_predicts_what_the_bundle_answers(project):
    inputs = Inputs(project)
    own = inputs.member_predictions(3)
    expected = average_predictions(own, "rank")
    texts = inputs.dataset.test_texts
    for found in (
        inputs.predictions("rankers"),
        PipelineModel.load(project.out("rankers") / "bundle").predict(texts),
    ):
        assert_array_equal(found.labels, expected.labels)
        assert_array_equal(found.scores, expected.scores)
    facts = json.loads((project.out("rankers") / "facts.json").read_text())
    models = PipelineModel.load(project.out("rankers") / "bundle").members
    assert facts["members"] == 3
    assert facts["nnz"] == sum(member.model.nnz for member in models)
    assert facts["member_2_level_1_epochs"] >= 1


def test_the_report_shows_each_member_and_what_averaging_gains(project):
    metrics = json.loads((project.reports / "metrics.json").read_text())
    members = [f"member_{n}" for n in (1, 2, 3)]
    assert tuple(metrics) == (*MODELS, *members)
    # The first member is the single model, which without an encoder an earlier stage has trained.
    assert metrics["member_1"] == metrics["disentangled"]
    rows = load_rows(project.out("evaluation"))
    told = json.loads((project.out("evaluation") / "comparison.json").read_text())
    for member in members:
        expected = paired_bootstraps(rows[MODELS[-1]], rows[member])
        for name, result in expected.items():
            gain = told[member][name]["gain_of_the_ensemble"]
            assert gain["difference"] == round(result.difference, 4)
            assert gain["low"] == pytest.approx(result.low, abs=1e-4)
            assert gain["high"] == pytest.approx(result.high, abs=1e-4)
    report = (project.reports / "report.md").read_text(encoding="utf-8")
    assert "What the ensemble gains" in report
    assert "Ensemble of 3 models" in report
    assert "Member 3: none, seed 2" in report


def test_every_run_on_any_number_of_threads_writes_the_same_bytes(project):
    def written(n_threads):
        for stage in ("xr_transformer", "rankers", "evaluation"):
            run_stage(stage, project, CONFIG.replace(n_threads=n_threads), quiet=True)
        files = [f for s in ("xr_transformer", "rankers") for f in project.out(s).rglob("*.*")]
        files += project.out("evaluation").rglob("*.*")
        # The bundle keeps all settings, n_threads among them.
        ignored = project.out("rankers") / "bundle" / "manifest.json"
        return {str(f): f.read_bytes() for f in files if f != ignored}

    one, three = written(1), written(3)
    assert one.keys() == three.keys()
    assert [name for name in one if one[name] != three[name]] == []


def test_members_that_were_not_made_are_asked_for(project):
    more = CONFIG.replace(**{"ensemble.members": [{}, {"seed": 1}]})
    for config, wanted in ((more, 2), (SINGLE, 1)):
        with pytest.raises(DataError, match=f"holds 3 of the models .* not {wanted}; run the"):
            run_stage("rankers", project, config, quiet=True)
    assert Predictions.load(project.out("rankers") / "predictions").labels.shape == (30, 6)
