"""Ranked labels as one object."""

from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from xmc_core.data import Dataset, Predictions
from xmc_core.errors import ShapeError

PREDICTIONS = Predictions(
    np.array([[3, 0], [2, -1], [-1, -1]], np.int32),
    np.array([[0.9, 0.5], [0.7, -np.inf], [-np.inf, -np.inf]], np.float32),
)


def test_as_a_matrix_padding_is_left_out_and_columns_are_sorted():
    matrix = PREDICTIONS.to_csr(4)
    expected = np.array([[0.5, 0, 0, 0.9], [0, 0, 0.7, 0], [0, 0, 0, 0]], np.float32)
    assert_array_equal(matrix.toarray(), expected)
    assert matrix.nnz == 3
    assert_array_equal(matrix.indices, [0, 3, 2])


def test_they_are_the_same_after_saving_and_loading(tmp_path: Path):
    PREDICTIONS.save(tmp_path / "p")
    loaded = Predictions.load(tmp_path / "p")
    assert_array_equal(loaded.labels, PREDICTIONS.labels)
    assert_array_equal(loaded.scores, PREDICTIONS.scores)


def test_labels_and_scores_have_one_shape():
    with pytest.raises(ShapeError, match=r"labels are \(3, 2\) but scores are \(3, 1\)"):
        Predictions(PREDICTIONS.labels, PREDICTIONS.scores[:, :1])


def test_a_data_set_whose_parts_do_not_fit_is_refused():
    Y = PREDICTIONS.to_csr(4)
    names = ["a", "b", "c", "d"]
    with pytest.raises(ShapeError, match="train has 2 texts but 3 rows of labels"):
        Dataset(["x", "y"], ["x", "y", "z"], names, Y, Y)
    with pytest.raises(ShapeError, match="3 label names, 4 train columns and 4 test columns"):
        Dataset(["x", "y", "z"], ["x", "y", "z"], names[:3], Y, Y)
