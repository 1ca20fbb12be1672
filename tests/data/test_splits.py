"""Held out by hash."""

import os
import subprocess
import sys

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from xmc_core.data.splits import held_out, position
from xmc_core.errors import DataError

KEYS = [f"document {n}" for n in range(5000)]


def test_about_the_share_is_held_out():
    assert abs(held_out(KEYS, 0.2, "f").mean() - 0.2) < 0.02


def test_positions_fill_the_unit_interval_evenly():
    counts, _ = np.histogram([position(key) for key in KEYS], bins=10, range=(0, 1))
    assert counts.min() > 400
    assert counts.max() < 600


def test_more_documents_and_another_order_move_none():
    test = held_out(KEYS, 0.2, "f")
    assert_array_equal(held_out(KEYS[:1000], 0.2, "f"), test[:1000])
    assert_array_equal(held_out(KEYS[::-1], 0.2, "f"), test[::-1])


def test_equal_keys_stay_together():
    test = held_out([key for key in KEYS for _ in range(2)], 0.3, "f")
    assert_array_equal(test[::2], test[1::2])


def test_a_larger_share_holds_out_the_same_and_more():
    small, large = held_out(KEYS, 0.1, "f"), held_out(KEYS, 0.3, "f")
    assert np.all(large[small])


def test_one_is_held_out_and_one_is_not_however_few_there_are():
    for share in (0.0001, 0.9999):
        assert held_out(["a", "b"], share, "f").sum() == 1


def test_a_single_text_cannot_be_split():
    with pytest.raises(DataError, match=r"train.jsonl cannot be split .* two different texts"):
        held_out(["a", "a", "a"], 0.2, "train.jsonl")


@pytest.mark.parametrize("seed", ["0", "1"])
def test_pythons_own_hash_has_no_say(seed: str):
    code = "from xmc_core.data.splits import position; print(position('a'))"
    environment = {**os.environ, "PYTHONHASHSEED": seed}
    printed = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert float(printed.stdout) == position("a")
