import numpy as np
import pytest

from tests.reference import metrics as reference
from xmc_core.errors import DataError
from xmc_core.metrics import jain_propensity


def test_agrees_with_the_reference():
    counts = np.array([0, 1, 2, 17, 900])
    for a, b in ((0.55, 1.5), (0.6, 2.6), (0.5, 0.4)):
        expected = [reference.propensity(count, 1000, a, b) for count in counts.tolist()]
        np.testing.assert_allclose(jain_propensity(counts, 1000, a=a, b=b), expected, rtol=1e-12)


def test_rises_with_frequency_and_stays_a_probability():
    propensity = jain_propensity(np.arange(1000), 1000)
    assert np.all(np.diff(propensity) > 0)
    assert propensity[0] > 0
    assert propensity[-1] < 1


def test_needs_three_training_samples():
    with pytest.raises(DataError, match="at least 3 training samples, got 2"):
        jain_propensity(np.array([1]), 2)


def test_names_the_label_that_is_more_frequent_than_there_are_samples():
    with pytest.raises(DataError, match="label 1 occurs 12 times in 10 training samples"):
        jain_propensity(np.array([1, 12]), 10)
