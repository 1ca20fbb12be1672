import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from xmc_core.kernels.selection import largest_first


@given(st.lists(st.integers(0, 12) | st.integers(0, 2**64 - 1), min_size=1), st.data())
@settings(max_examples=300, deadline=None)
def test_the_largest_stand_first_and_nothing_is_lost(numbers, data):
    m = data.draw(st.integers(1, len(numbers)))
    n = data.draw(st.integers(m, len(numbers)))
    keys = np.array(numbers, np.uint64)
    largest_first(keys, n, m)
    found = [int(key) for key in keys]
    assert sorted(found[:m]) == sorted(numbers[:n])[n - m :]
    assert sorted(found[:n]) == sorted(numbers[:n])
    assert found[n:] == numbers[n:]
