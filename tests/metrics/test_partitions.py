import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.reference import metrics as reference
from xmc_core.errors import DataError, ShapeError
from xmc_core.metrics import variation_of_information

groups = st.integers(-1, 5)


def partitions(count):
    """So many of the same 1 to 30 items."""
    return st.lists(st.tuples(*[groups] * count), min_size=1, max_size=30).map(
        lambda rows: [np.array(column) for column in zip(*rows, strict=True)]
    )


@given(partitions(2))
def test_agrees_with_the_reference(both):
    one, other = both
    expected = reference.variation_of_information(one.tolist(), other.tolist())
    assert variation_of_information(one, other) == pytest.approx(expected, abs=1e-12)


@given(partitions(1), st.permutations(range(7)))
def test_is_exactly_nothing_whatever_the_groups_are_called(one, names):
    renamed = np.array(names)[one[0] + 1]
    assert variation_of_information(one[0], renamed) == 0.0


@given(partitions(2))
def test_is_above_nothing_for_different_partitions(both):
    one, other = both
    same = np.array_equal(one[:, None] == one, other[:, None] == other)
    assert (variation_of_information(one, other) == 0.0) == same


@given(partitions(3))
def test_is_a_bounded_metric(three):
    a, b, c = three
    apart = variation_of_information
    assert apart(a, b) == pytest.approx(apart(b, a), abs=1e-12)
    assert apart(a, c) <= apart(a, b) + apart(b, c) + 1e-12
    assert 0.0 <= apart(a, b) <= math.log2(len(a)) + 1e-12


def test_two_equal_halves_in_one_group_are_a_bit_apart():
    assert variation_of_information([0, 0, 1, 1], [7, 7, 7, 7]) == 1.0
    assert variation_of_information([0, 0, 1, 1], [3, 4, 3, 4]) == 2.0


def test_names_both_shapes_when_the_items_differ():
    with pytest.raises(ShapeError, match=r"shapes \(2,\) and \(3,\)"):
        variation_of_information([0, 1], [0, 1, 2])


def test_needs_an_item():
    with pytest.raises(DataError, match="at least one item"):
        variation_of_information([], [])
