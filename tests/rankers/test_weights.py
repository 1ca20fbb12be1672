import numpy as np
import pytest
from numpy.testing import assert_array_equal
from scipy.sparse import csr_array, random_array

from xmc_core.config import RankersConfig
from xmc_core.errors import ShapeError
from xmc_core.rankers.train import train_level
from xmc_core.rankers.weights import ChunkedWeights, offset_type

N, D = 50, 200


def level(pointer, threshold, density=0.1):
    rng = np.random.default_rng(4)
    X = csr_array(random_array((N, D), density=density, rng=rng))
    targets = csr_array((rng.random((N, int(pointer[-1]))) < 0.2).astype(np.float32))
    config = RankersConfig(threshold=(threshold,))
    weights, _ = train_level(
        X, targets, np.array(pointer, np.int64), None, config=config, level=1, depth=1, n_threads=2
    )
    return weights


@pytest.mark.parametrize(
    ("pointer", "threshold", "as_block"),
    [
        ([0, 16, 30], 0.0, True),  # small and full
        ([0, 16, 30], 0.3, False),  # small and sparse
        ([0, 20, 90, 90, 100], 0.0, False),  # wide
        ([0, 290, 300], 0.1, False),  # wider than a byte can say
    ],
)
def test_both_layouts_know_their_weights(pointer, threshold, as_block):
    weights = level(pointer, threshold)
    assert (len(weights.block) > 0) == as_block
    W, b = weights.to_dense()
    assert W.shape == (weights.n_children, D)
    assert np.count_nonzero(W) == weights.nnz
    assert_array_equal(b, weights.biases)
    assert np.abs(W[W != 0]).min() >= threshold
    for c in range(weights.n_parents):
        rows = slice(weights.chunk_pointer[c], weights.chunk_pointer[c + 1])
        used = np.flatnonzero(W[pointer[c] : pointer[c + 1]].any(axis=0))
        assert_array_equal(weights.features[rows], used)


def test_both_layouts_hold_the_same_weights(monkeypatch):
    as_block = level([0, 16, 30], 0.1)
    monkeypatch.setattr("xmc_core.rankers.weights.BLOCK_FROM", 17.0)
    as_entries = level([0, 16, 30], 0.1)
    assert len(as_block.block) > 0
    assert len(as_entries.block) == 0
    assert_array_equal(as_block.to_dense()[0], as_entries.to_dense()[0])
    assert as_block.nnz == as_entries.nnz


def test_the_bitmap_knows_which_features_a_chunk_has():
    weights = level([0, 20, 90, 100], 0.2)
    words, ranks = weights.index
    for c in range(3):
        bits = (words[c][:, None] >> np.arange(64, dtype=np.uint64)) & np.uint64(1)
        rows = slice(weights.chunk_pointer[c], weights.chunk_pointer[c + 1])
        assert_array_equal(np.flatnonzero(bits.reshape(-1)), weights.features[rows])
        before = np.concatenate([[0], np.cumsum(bits.sum(axis=1))[:-1]])
        assert_array_equal(ranks[c], before)


def test_offsets_take_the_fewest_bytes_that_do():
    sizes = [np.dtype(offset_type(widest)).itemsize for widest in (256, 257, 65_536, 65_537)]
    assert sizes == [1, 2, 2, 4]


def test_no_weight_at_all_is_fine():
    weights = level([0, 5, 9], 100.0)
    assert weights.nnz == 0
    assert not weights.to_dense()[0].any()


def test_weights_cannot_be_written():
    weights = level([0, 5, 9], 0.1)
    with pytest.raises(ValueError, match="read-only"):
        weights.biases[0] = 1


def test_arrays_that_do_not_fit_together_are_refused():
    parts = level([0, 20, 30], 0.1).arrays()
    parts["values"] = parts["values"][:-1]
    with pytest.raises(ShapeError, match="do not fit together"):
        ChunkedWeights.from_arrays(parts, D)
    with pytest.raises(ShapeError, match="3 features do not fit together"):
        ChunkedWeights.from_arrays(level([0, 20, 30], 0.1).arrays(), 3)
