import numpy as np
import pytest
from numpy.testing import assert_array_equal
from scipy.sparse import csr_array

from xmc_core.config import Config, TfidfConfig, TreeConfig
from xmc_core.data import Dataset
from xmc_core.errors import DataError, XmcError
from xmc_core.models import Member, PipelineModel, train_xr_linear
from xmc_core.persistence import read_store
from xmc_core.stages.inputs import Inputs
from xmc_core.stages.paths import STAGES, ProjectPaths
from xmc_core.stages.runner import load_stage, run_stage

CONFIG = Config(tfidf=TfidfConfig(min_df=1), tree=TreeConfig(max_leaf_size=1, branching=2))
TRAIN = ["red wine", "white wine", "lazy dog", "sleeping dog", "..."]
TEST = ["a red dog", "unknown words"]


@pytest.fixture
def paths(tmp_path) -> ProjectPaths:
    paths = ProjectPaths(tmp_path, "toy")
    Y_train = np.array([[1, 0, 0], [1, 1, 0], [0, 0, 1], [0, 0, 1], [0, 1, 0]], np.float32)
    Y_test = np.array([[0, 0, 1], [1, 0, 0]], np.float32)
    names = ["wine", "white", "dog"]
    Dataset(TRAIN, TEST, names, csr_array(Y_train), csr_array(Y_test)).save(paths.out("dataset"))
    return paths


def test_tfidf_features_are_written_and_read_back(paths):
    facts = run_stage("tfidf_features", paths, CONFIG, quiet=True)
    assert facts == {
        "train_rows": 5,
        "test_rows": 2,
        "features": 10,
        "nnz": 14,
        "empty_train_rows": 1,
        "empty_test_rows": 1,
    }
    inputs = Inputs(paths)
    assert inputs.X_train.shape == (5, 10)
    again = inputs.vectorizer.transform(TEST)
    assert_array_equal(inputs.X_test.toarray(), again.toarray())


def test_blocks_of_terms_go_through_the_stage_and_a_saved_pipeline(paths, tmp_path):
    characters = {"analyzer": "char_wb", "min_ngram": 2, "max_ngram": 3, "min_df": 1}
    config = CONFIG.replace(**{"tfidf.blocks": [{**characters, "weight": 0.5}]})
    run_stage("tfidf_features", paths, config, quiet=True)
    inputs = Inputs(paths)
    assert_array_equal(inputs.X_test.toarray(), inputs.vectorizer.transform(TEST).toarray())
    assert inputs.X_train.shape[1] == len(inputs.vectorizer.terms()) > 10

    model = train_xr_linear(inputs.X_train, inputs.dataset.Y_train, config)
    pipeline = PipelineModel(inputs.vectorizer, (Member(model),), inputs.dataset.label_names)
    pipeline.save(tmp_path / "bundle")
    again = PipelineModel.load(tmp_path / "bundle")
    assert again.vectorizer.config == config.tfidf
    [expected], [found] = pipeline.features(TEST), again.features(TEST)
    assert_array_equal(found.toarray(), expected.toarray())
    assert_array_equal(again.predict(TEST).scores, pipeline.predict(TEST).scores)
    assert again.named(again.predict(["winery"]))[0][0][0] == "wine"  # no word of it is known


def test_the_initial_tree_holds_every_label(paths):
    run_stage("tfidf_features", paths, CONFIG, quiet=True)
    facts = run_stage("initial_tree", paths, CONFIG, quiet=True)
    assert facts == {"labels": 3, "leaves": 3, "depth": 3, "largest_leaf": 1, "smallest_leaf": 1}
    assert len(Inputs(paths).initial_tree.labels_without_leaf()) == 0


@pytest.mark.parametrize("kind", ["pifa", "text", "both"])
def test_the_initial_tree_is_grown_on_rows_or_names(paths, kind):
    config = CONFIG.replace(**{"tree.label_features": kind})
    run_stage("tfidf_features", paths, config, quiet=True)
    run_stage("initial_tree", paths, config, quiet=True)
    Z = read_store(paths.out("initial_tree"), "initial-tree").csr("label_features").toarray()
    names = Inputs(paths).vectorizer.transform(["wine", "white", "dog"]).toarray()
    likeness = (Z * names).sum(axis=1)
    assert np.all(likeness > 0.99) if kind == "text" else np.all(likeness < 0.99)
    assert len(Inputs(paths).initial_tree.labels_without_leaf()) == 0


@pytest.mark.parametrize(
    ("kind", "together"), [("pifa", {(0, 1), (2, 3)}), ("text", {(0, 2), (1, 3)})]
)
def test_both_trees_put_labels_together_by_rows_or_by_names(tmp_path, kind, together):
    """Rows speak of wine (0, 1) or dogs (2, 3), names of small (0, 2) or large (1, 3) things."""
    paths = ProjectPaths(tmp_path, "toy")
    words = ["wine grape", "grape wine", "dog bone", "bone dog", "small", "large"]
    Y = csr_array(np.eye(6, 4, dtype=np.float32))
    names = ["small", "large", "a small one", "a large one"]
    Dataset(words, words, names, Y, Y).save(paths.out("dataset"))
    config = CONFIG.replace(
        **{
            "tfidf.max_ngram": 1,
            "tree.label_features": kind,
            "tree.max_leaf_size": 2,
            "disentangle.max_clusters": 1,
        }
    )
    for stage in STAGES[1:-1]:
        run_stage(stage, paths, config, quiet=True)
    final = PipelineModel.load(paths.out("rankers") / "bundle").members[0].model.tree
    for tree in (Inputs(paths).initial_tree, final):
        assert {tuple(tree.leaf_labels(leaf).tolist()) for leaf in range(2)} == together


def test_the_tree_needs_features_first(paths):
    with pytest.raises(DataError, match=r"run the stages up to `tfidf_features` first"):
        run_stage("initial_tree", paths, CONFIG, quiet=True)


def test_what_was_made_of_another_state_of_the_data_set_is_refused(paths):
    run_stage("tfidf_features", paths, CONFIG, quiet=True)
    assert Inputs(paths).X_train.shape[0] == 5
    data = Inputs(paths).dataset
    # As many documents and labels, in another order: shapes would not tell.
    Dataset(
        data.train_texts[::-1], data.test_texts, data.label_names,
        csr_array(data.Y_train.toarray()[::-1]), data.Y_test,
    ).save(paths.out("dataset"))  # fmt: skip
    with pytest.raises(DataError, match=r"tfidf_features was made of toy as it was before"):
        _ = Inputs(paths).X_train
    run_stage("tfidf_features", paths, CONFIG, quiet=True)
    assert Inputs(paths).X_train.shape[0] == 5


def test_a_result_of_settings_that_changed_meanwhile_is_left_out(paths):
    other = CONFIG.replace(**{"rankers.cost": 5.0})
    with pytest.raises(XmcError, match="settings changed while the stage tfidf_features ran, so"):
        run_stage("tfidf_features", paths, CONFIG, quiet=True, settings_now=lambda: other)
    assert not paths.out("tfidf_features").exists()
    run_stage("tfidf_features", paths, CONFIG, quiet=True, settings_now=lambda: CONFIG)
    assert paths.out("tfidf_features").exists()


def test_a_result_of_raw_files_that_changed_meanwhile_is_left_out(paths, monkeypatch):
    paths.raw.mkdir(parents=True)
    file = paths.raw / "train.jsonl"
    file.write_text("".join(f'{{"text": "{t}", "labels": ["a"]}}\n' for t in TRAIN * 3))
    stage = load_stage("dataset")
    run = stage.run

    def edited(*arguments):
        run(*arguments)
        file.write_text(file.read_text() + '{"text": "late", "labels": ["b"]}\n')

    monkeypatch.setattr(stage, "run", edited)
    with pytest.raises(XmcError, match="raw files changed while the stage dataset ran"):
        run_stage("dataset", paths, CONFIG, quiet=True)
    assert Inputs(paths).dataset.train_texts == TRAIN  # as before
