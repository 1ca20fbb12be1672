import numpy as np
import pytest

from xmc_core.encoder.batches import encoding_batches, training_batches


@pytest.fixture
def lengths():
    return np.random.default_rng(0).integers(1, 40, 300)


def test_encoding_covers_each_row_once(lengths):
    rows = np.concatenate(encoding_batches(lengths, 128))
    assert sorted(rows) == list(range(300))


def test_encoding_keeps_the_budget_padding_included(lengths):
    for batch in encoding_batches(lengths, 128):
        assert len(batch) * lengths[batch].max() <= 128


def test_a_text_longer_than_the_budget_goes_alone():
    assert [len(batch) for batch in encoding_batches(np.array([5, 200, 5]), 20)] == [1, 2]


def test_sorting_leaves_hardly_any_padding(lengths):
    padded = sum(len(batch) * lengths[batch].max() for batch in encoding_batches(lengths, 256))
    assert padded < 1.1 * lengths.sum()


def test_nothing_to_encode_is_no_batch():
    assert encoding_batches(np.array([], np.int64), 128) == []


def test_an_epoch_holds_each_row_once(lengths):
    batches = list(training_batches(lengths, 7, -(-300 // 7), seed=0))
    assert sorted(np.concatenate(batches)) == list(range(300))


def test_batches_are_equal_but_for_one_row(lengths):
    sizes = {len(batch) for batch in training_batches(lengths, 7, 43, seed=0)}
    assert sizes <= {6, 7}


@pytest.mark.parametrize("steps", [1, 42, 43, 44, 100])
def test_gives_as_many_batches_as_steps(lengths, steps):
    assert len(list(training_batches(lengths, 7, steps, seed=0))) == steps


def test_the_seed_decides(lengths):
    def order(seed):
        return np.concatenate(list(training_batches(lengths, 7, 60, seed))).tolist()

    assert order(1) == order(1) != order(2)


def test_a_batch_is_longest_first_and_not_all_batches_are_alike(lengths):
    batches = list(training_batches(lengths, 8, 37, seed=0))
    assert all((np.diff(lengths[batch]) <= 0).all() for batch in batches)
    random = [np.random.default_rng(1).permutation(300)[:8] for _ in batches]
    padding, usual = (sum(lengths[b].max() * len(b) for b in some) for some in (batches, random))
    assert padding < 0.75 * usual


def test_fewer_rows_than_a_batch():
    batches = list(training_batches(np.array([3, 1]), 32, 5, seed=0))
    assert [sorted(batch) for batch in batches] == [[0, 1]] * 5
