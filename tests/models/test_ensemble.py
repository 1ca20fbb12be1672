"""A pipeline of several models: what it answers, and how it lies on disk."""

import json
import shutil

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from scipy.sparse import csr_array

from xmc_core.config import AVERAGES, Config, TfidfConfig
from xmc_core.errors import ConfigError, ShapeError, StoreError
from xmc_core.features.tfidf import fit_tfidf
from xmc_core.inference.ensemble import average_predictions
from xmc_core.models import Member, PipelineModel, load_model, train_xr_linear

CONFIG = Config().replace(
    **{
        "disentangle.max_clusters": 1,
        "n_threads": 1,
        "tree.branching": 2,
        "tree.max_leaf_size": 2,
        "inference.top_k": 6,
        "inference.beam_size": 2,
    }
)
WORDS = [f"word{n}" for n in range(12)]


@pytest.fixture(scope="module")
def trained():
    """Texts, and three models on trees of different seeds."""
    rng = np.random.default_rng(0)
    Y = (rng.random((80, 12)) < 0.25).astype(np.float32)
    texts = [" ".join(np.array(WORDS)[row > 0]) or "nothing" for row in Y]
    vectorizer, X = fit_tfidf(texts, TfidfConfig(min_df=1))
    models = [
        train_xr_linear(X, csr_array(Y), CONFIG.replace(**{"tree.seed": seed}))
        for seed in (0, 1, 2)
    ]
    assert len({model.tree.slot_labels.tobytes() for model in models}) == 3
    return texts, vectorizer, models


@pytest.fixture(params=AVERAGES)
def ensemble(request, trained):
    _, vectorizer, models = trained
    return PipelineModel(vectorizer, tuple(map(Member, models)), WORDS, request.param)


def same(one, other):
    assert_array_equal(one.labels, other.labels)
    assert_array_equal(one.scores, other.scores)


def test_it_answers_with_the_average_of_its_members(trained, ensemble):
    texts, vectorizer, models = trained
    X = vectorizer.transform(texts)
    answers = [model.predict(X) for model in models]
    found = ensemble.predict(texts)
    same(found, average_predictions(answers, ensemble.average))
    assert any((found.labels[:, 0] != answer.labels[:, 0]).any() for answer in answers)


def test_the_best_label_does_not_depend_on_how_many_are_wanted(trained, ensemble):
    texts = trained[0]
    six, one = ensemble.predict(texts), ensemble.predict(texts, top_k=1)
    assert_array_equal(one.labels, six.labels[:, :1])
    assert_array_equal(one.scores, six.scores[:, :1])
    assert ensemble.predict(texts, top_k=9).labels.shape == (80, 9)
    with pytest.raises(ConfigError, match="top_k must be at least 1, got 0"):
        ensemble.predict(texts, top_k=0)


def test_saved_and_loaded_it_answers_the_same(trained, ensemble, tmp_path):
    texts = trained[0]
    ensemble.save(tmp_path / "bundle")
    names = {str(p.relative_to(tmp_path / "bundle")) for p in tmp_path.glob("bundle/*/*")}
    assert {n for n in names if n.startswith("m")} == {f"members/{n}" for n in range(3)}
    (tmp_path / "bundle").rename(tmp_path / "moved")
    again = load_model(tmp_path / "moved")
    assert again.average == ensemble.average
    same(again.predict(texts, beam_size=1), ensemble.predict(texts, beam_size=1))
    assert again.named(again.predict(["word3"]))[0][0][0] == "word3"


def test_it_can_be_restricted_to_labels(trained, ensemble):
    texts, vectorizer, models = trained
    some = ["word9", "word2", "word5"]
    found = ensemble.predict(texts, allow=some)
    assert set(np.unique(found.labels)) == {-1, 2, 5, 9}
    same(found, ensemble.restricted(some).predict(texts))
    X = vectorizer.transform(texts)
    answers = [model.predict(X, allow=[2, 5, 9]) for model in models]
    same(found, average_predictions(answers, ensemble.average))


def test_pairs_are_scored_by_all_members(trained, ensemble):
    """All labels of a row, and a beam that reaches them all: score and predict agree."""
    texts = trained[0][:5]
    pairs = csr_array(np.ones((5, 12), np.float32))
    scores = ensemble.score(texts, pairs).toarray()
    found = ensemble.predict(texts, top_k=12, beam_size=8)
    for row in range(5):
        np.testing.assert_allclose(scores[row, found.labels[row]], found.scores[row], rtol=1e-6)


def test_a_single_model_lies_as_it_always_did(trained, tmp_path):
    texts, vectorizer, models = trained
    single = PipelineModel(vectorizer, (Member(models[0]),), WORDS, facts={"dataset": "d"})
    single.save(tmp_path / "bundle")
    assert {p.name for p in (tmp_path / "bundle").iterdir() if p.is_dir()} == {
        "vectorizer", "model"
    }  # fmt: skip
    manifest = json.loads((tmp_path / "bundle" / "manifest.json").read_text())
    assert manifest["facts"] == {"dataset": "d", "csr": {}}
    same(load_model(tmp_path / "bundle").predict(texts), models[0].predict(
        vectorizer.transform(texts)
    ))  # fmt: skip


def test_a_bundle_that_does_not_hold_together_is_refused(trained, tmp_path):
    _, vectorizer, models = trained
    folder = tmp_path / "bundle"
    PipelineModel(vectorizer, tuple(map(Member, models)), WORDS, "rank").save(folder)
    manifest = folder / "manifest.json"
    content = manifest.read_text()
    manifest.write_text(content.replace('"rank"', '"mean"'))
    with pytest.raises(StoreError, match=r"does not hold together: there is no average 'mean'"):
        load_model(folder)
    manifest.write_text(content)
    shutil.rmtree(folder / "members" / "2")
    with pytest.raises(StoreError, match=r"members/2/model is not a saved xmc folder"):
        load_model(folder)


def test_members_must_have_the_same_labels(trained):
    _, vectorizer, models = trained
    X = vectorizer.transform(["word1", "word2"])
    other = train_xr_linear(X, csr_array(np.eye(2, dtype=np.float32)), CONFIG)
    with pytest.raises(ShapeError, match="12 label names, but members of 2 and 12 labels"):
        PipelineModel(vectorizer, (Member(models[0]), Member(other)), WORDS)
    with pytest.raises(ShapeError, match="members of no labels"):
        PipelineModel(vectorizer, (), WORDS)
    with pytest.raises(ShapeError, match="there are 3 label names"):
        PipelineModel(vectorizer, (Member(models[0]),), WORDS[:3])
