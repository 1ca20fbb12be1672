import numpy as np
import pytest
from numpy.testing import assert_array_equal
from scipy.sparse import csr_array

from xmc_core.errors import ConfigError, ShapeError
from xmc_core.rankers.negatives import active_rows, pattern, union

TARGETS = csr_array(np.array([[2, 0, 0], [0, 1, 0], [0, 0, 1]], np.float32))
BEAM = csr_array(
    (np.array([0.0, 0.5], np.float32), np.array([1, 1]), np.array([0, 1, 1, 2])), shape=(3, 3)
)  # a score may have been rounded to 0, the node was reached all the same
HELD_OUT = csr_array(np.array([[0, 0, 0], [0, 0, 0], [0.25, 0, 0]], np.float32))
GIVEN = csr_array(np.array([[0, 0, 7], [0, 0, 0], [0, 0, 0]], np.float32))


def test_the_first_level_sees_all_rows():
    assert active_rows(("teacher_forcing",), None) is None


def test_each_kind_and_their_union():
    def rows(*kinds):
        return active_rows(kinds, TARGETS, BEAM, HELD_OUT, GIVEN).toarray().tolist()

    assert rows("teacher_forcing") == [[1, 0, 0], [0, 1, 0], [0, 0, 1]]
    assert rows("matcher_aware") == [[0, 1, 0], [0, 0, 0], [0, 1, 0]]
    assert rows("held_out") == [[0, 0, 0], [0, 0, 0], [1, 0, 0]]
    assert rows("given") == [[0, 0, 1], [0, 0, 0], [0, 0, 0]]
    assert rows("given", "teacher_forcing", "matcher_aware") == [[1, 1, 1], [0, 1, 0], [0, 1, 1]]


def test_a_stored_zero_belongs_to_the_pattern():
    assert_array_equal(pattern(BEAM).data, [1, 1])


def test_says_what_is_missing():
    with pytest.raises(ConfigError, match=r"asks for given but .* pass `given=`"):
        active_rows(("given",), TARGETS, BEAM)


def test_names_both_shapes_when_they_differ():
    with pytest.raises(ShapeError, match=r"\(3, 3\) and \(3, 2\)"):
        union([TARGETS, csr_array((3, 2), dtype=np.float32)])
