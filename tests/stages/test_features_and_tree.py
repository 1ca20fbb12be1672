import numpy as np
import pytest
from numpy.testing import assert_array_equal
from scipy.sparse import csr_array

from xmc_core.config import Config, TfidfConfig, TreeConfig
from xmc_core.data import Dataset
from xmc_core.errors import DataError
from xmc_core.stages.inputs import Inputs
from xmc_core.stages.paths import ProjectPaths
from xmc_core.stages.runner import run_stage

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


def test_the_initial_tree_holds_every_label(paths):
    run_stage("tfidf_features", paths, CONFIG, quiet=True)
    facts = run_stage("initial_tree", paths, CONFIG, quiet=True)
    assert facts == {"labels": 3, "leaves": 3, "depth": 3, "largest_leaf": 1, "smallest_leaf": 1}
    assert len(Inputs(paths).initial_tree.labels_without_leaf()) == 0


def test_the_tree_needs_features_first(paths):
    with pytest.raises(DataError, match=r"run the stage `tfidf_features` first"):
        run_stage("initial_tree", paths, CONFIG, quiet=True)
