import json

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from scipy.sparse import csr_array

from xmc_core.config import Config
from xmc_core.data import Dataset
from xmc_core.inference.reach import recall_of_beam
from xmc_core.models import PipelineModel, train_xr_linear
from xmc_core.models.levels import held_out_beams
from xmc_core.stages.inputs import Inputs
from xmc_core.stages.paths import ProjectPaths
from xmc_core.stages.runner import run_stage

CONFIG = Config().replace(
    **{
        "tfidf.min_df": 1,
        "tree.max_leaf_size": 1,
        "tree.branching": 2,
        "rankers.negatives": [["teacher_forcing"], ["teacher_forcing", "held_out"]],
        "disentangle.beam_size": 2,
        "disentangle.min_gain": 1,
        "disentangle.rounds": 3,
    }
)
WORDS = ["wine", "dog", "tree", "car", "moon", "fish"]


@pytest.fixture
def paths(tmp_path) -> ProjectPaths:
    paths = ProjectPaths(tmp_path, "toy")
    rng = np.random.default_rng(0)
    Y = (rng.random((60, 6)) < 0.4).astype(np.float32)
    texts = [" ".join(np.array(WORDS)[row > 0]) or "nothing" for row in Y]
    half = csr_array(Y[:40]), csr_array(Y[40:])
    Dataset(texts[:40], texts[40:], WORDS, *half).save(paths.out("dataset"))
    for stage in ("tfidf_features", "initial_tree", "matcher"):
        run_stage(stage, paths, CONFIG, quiet=True)
    return paths


def test_the_matcher_is_written_and_read_back(paths):
    inputs = Inputs(paths)
    tree = inputs.initial_tree
    assert inputs.beams.shape == (40, tree.n_leaves)
    assert np.all(np.diff(inputs.beams.indptr) == 2)
    assert inputs.matcher.n_labels == 6
    found = inputs.predictions("matcher")
    assert_array_equal(found.labels, inputs.matcher.predict(inputs.X_test).labels)


def test_its_facts_say_how_many_labels_the_beam_reaches(paths):
    facts = json.loads((paths.out("matcher") / "facts.json").read_text())
    assert facts["leaves"] == Inputs(paths).initial_tree.n_leaves
    assert 0.5 < facts["recall_of_held_out_beam"] <= 1


def test_the_disentangled_tree_reaches_more(paths):
    facts = run_stage("disentangled_tree", paths, CONFIG, quiet=True)
    inputs = Inputs(paths)
    tree, before = inputs.disentangled_tree, inputs.initial_tree
    assert facts["slots"] == tree.n_slots > 6
    assert 1 <= facts["rounds"] <= 3
    assert len(tree.labels_without_leaf()) == 0
    assert inputs.predictions("disentangled_tree").labels.shape[0] == 20
    Y = inputs.Y_train
    reached = recall_of_beam(tree, Y, held_out_beams(inputs.X_train, Y, tree, CONFIG))
    assert reached > recall_of_beam(before, Y, inputs.beams)
    assert recall_of_beam(tree, Y, inputs.settled_beams) == reached  # not those of before

    run_stage("disentangled_tree", paths, CONFIG.replace(**{"disentangle.rounds": 1}), quiet=True)
    again = Inputs(paths)
    assert again.settled_beams is again.beams


def test_every_run_on_any_number_of_threads_writes_the_same_bytes(paths):
    def content(stage):
        files = sorted(paths.out(stage).rglob("*.*"))
        return {str(file): file.read_bytes() for file in files}

    before = content("matcher")
    run_stage("matcher", paths, CONFIG.replace(n_threads=1), quiet=True)
    after = content("matcher")
    assert [name for name in before if before[name] != after[name]] == []


@pytest.mark.parametrize("in_rankers", [False, True])
def test_without_an_encoder_the_final_model_is_the_one_that_training_would_give(paths, in_rankers):
    config = CONFIG.replace(**{"disentangle.in_rankers": in_rankers, "inference.beam_size": 2})
    for stage in ("matcher", "disentangled_tree", "xr_transformer", "rankers"):
        run_stage(stage, paths, config, quiet=True)
    inputs = Inputs(paths)
    final = PipelineModel.load(paths.out("rankers") / "bundle").members[0].model
    trained = train_xr_linear(inputs.X_train, inputs.Y_train, config)
    assert final.tree.n_slots == trained.tree.n_slots
    assert (final.tree.n_slots > 6) == in_rankers
    found, expected = final.predict(inputs.X_test), trained.predict(inputs.X_test)
    assert_array_equal(found.labels, expected.labels)
    assert_array_equal(found.scores, expected.scores)


def answers_of(paths, config):
    for stage in ("disentangled_tree", "xr_transformer", "rankers"):
        run_stage(stage, paths, config, quiet=True)
    final = PipelineModel.load(paths.out("rankers") / "bundle")
    return final, Inputs(paths).predictions("rankers")


@pytest.mark.parametrize("members", [[], [{}, {"seed": 1}]])
def test_a_calibrated_model_is_the_same_with_probabilities_for_scores(paths, members):
    config = CONFIG.replace(**{"ensemble.members": members})
    _, raw = answers_of(paths, config)
    settings = {"calibration.method": "isotonic", "calibration.share": 0.5}
    config = config.replace(**settings)
    final, found = answers_of(paths, config)
    assert final.calibration.facts["rows"] == 20
    assert_array_equal(found.labels, raw.labels)  # the pooled curve keeps every order
    given = found.labels >= 0
    assert np.all((found.scores[given] > 0.0) & (found.scores[given] < 1.0))
    again = final.predict(Inputs(paths).dataset.test_texts)
    assert_array_equal(again.labels, found.labels)
    assert_array_equal(again.scores, found.scores)
    facts = json.loads((paths.out("rankers") / "facts.json").read_text())
    assert facts["calibration_rows"] == 20

    files = sorted((paths.out("rankers") / "bundle" / "calibration").iterdir())
    before = [file.read_bytes() for file in files]
    run_stage("rankers", paths, config.replace(n_threads=1), quiet=True)
    assert [file.read_bytes() for file in files] == before
