from itertools import pairwise

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.sparse import csr_array, random_array

from xmc_core.config import RankersConfig
from xmc_core.errors import ShapeError
from xmc_core.kernels.chunks import BITMAP
from xmc_core.rankers.train import train_level
from xmc_core.rankers.weights import (
    HALF,
    ChunkedWeights,
    hashing,
    place_type,
    plan_buckets,
    power_of_halves,
    round_to_halves,
    to_halves,
)
from xmc_core.solvers.scratch import ScratchPool
from xmc_core.solvers.siblings import DenseWeights, Tiles

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


def chunked(W, biases, pointer, precision="single", n_threads=1):
    """Weights as they are given, (children, features), brought into chunks."""
    features, masks, weights, n_features, n_weights, tile_biases = [], [], [], [], [], []
    for first, last in pairwise(pointer):
        for begin in range(first, last, 16):
            tile = W[begin : min(begin + 16, last)].T
            used = np.flatnonzero(tile.any(axis=1))
            features.append(used)
            masks.append((tile[used] != 0) @ (1 << np.arange(tile.shape[1])))
            weights.append(tile[used][tile[used] != 0])
            n_features.append(len(used))
            n_weights.append(len(weights[-1]))
            tile_biases.append(
                np.pad(biases[begin : min(begin + 16, last)], (0, 16 - tile.shape[1]))
            )
    tiles = Tiles(
        np.concatenate(features).astype(np.int32), np.concatenate(masks).astype(np.uint16),
        np.concatenate(weights).astype(np.float32), np.array(n_features), np.array(n_weights),
        np.array(tile_biases, np.float32), np.zeros((len(masks), 5)),
    )  # fmt: skip
    pieces = [tiles]
    exponent = round_to_halves(pieces) if precision == HALF else None
    return ChunkedWeights.from_tiles(
        pieces, DenseWeights.empty(len(W), 0, rounded=precision == HALF),
        np.asarray(pointer, np.int64), W.shape[1], n_threads=n_threads,
        scratch=ScratchPool(W.shape[1]), exponent=exponent,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("pointer", "threshold", "places"),
    [
        ([0, 16, 30], 0.0, np.uint16),  # masks
        ([0, 16, 30], 0.3, np.uint16),
        ([0, 20, 20, 52], 0.0, np.uint16),  # masks, two chunks a parent
        ([0, 20, 90, 90, 100], 0.0, np.uint8),  # numbers of children
        ([0, 290, 300], 0.1, np.uint16),  # wider than a byte can say
    ],
)
def test_every_layout_knows_its_weights(pointer, threshold, places):
    weights = level(pointer, threshold)
    assert weights.places.dtype == places
    W, b = weights.to_dense()
    assert W.shape == (weights.n_children, D)
    assert np.count_nonzero(W) == weights.nnz
    assert_array_equal(b, weights.biases)
    assert np.abs(W[W != 0]).min() >= threshold
    features = weights.features()
    width = 16 if places == np.uint16 and weights.widest < 256 else weights.widest
    cuts = [
        (first, min(first + width, end))
        for begin, end in pairwise(pointer)
        for first in range(begin, max(end, begin + (width > 16)), width)
    ]
    assert weights.n_chunks == len(cuts)
    for c, (begin, end) in enumerate(cuts):
        rows = slice(weights.chunk_pointer[c], weights.chunk_pointer[c + 1])
        assert_array_equal(np.sort(features[rows]), np.flatnonzero(W[begin:end].any(axis=0)))


@pytest.mark.parametrize("n_features", [1, 2, 300, 70_000])
@pytest.mark.parametrize("widest", [3, 16, 40, 70, 300])
def test_weights_come_back_as_they_were_put_in(n_features, widest):
    rng = np.random.default_rng(7)
    pointer = np.array([0, widest, widest, widest + 2])
    W = np.zeros((pointer[-1], n_features), np.float32)
    places = rng.integers(0, W.size, min(W.size, 3_000))
    W.reshape(-1)[places] = rng.normal(size=len(places))
    biases = rng.normal(size=pointer[-1]).astype(np.float32)
    weights = chunked(W, biases, pointer, n_threads=2)
    assert_array_equal(weights.to_dense()[0], W)
    assert_array_equal(weights.to_dense()[1], biases)


def test_more_rows_than_sixteen_bits_can_count():
    rng = np.random.default_rng(8)
    W = rng.choice([0, 1, 2], (16, 9_000)).astype(np.float32)
    weights = chunked(W, np.zeros(16, np.float32), [0, 16])
    assert weights.nnz > 2**16
    assert len(weights.row_base) > 1
    assert_array_equal(weights.to_dense()[0], W)


def test_halves_are_the_nearest_and_never_overflow():
    rng = np.random.default_rng(9)
    for size in (1.0, 1e6, 1e-7):
        values = (size * rng.normal(size=1000)).astype(np.float32)
        exponent = power_of_halves(values)
        halves = to_halves(values, exponent)
        back = np.ldexp(halves.view(np.float16).astype(np.float32), exponent)
        assert_allclose(back, values, rtol=2**-11, atol=size * 1e-8)
    assert power_of_halves(np.zeros(3, np.float32)) == 0


def test_half_takes_half_the_bytes_and_is_close():
    W = level([0, 16, 30], 0.1).to_dense()[0]
    biases = np.ones(30, np.float32)
    half, single = (chunked(W, biases, [0, 16, 30], p) for p in ("half", "single"))
    assert (half.precision, single.precision) == ("half", "single")
    assert half.values.nbytes * 2 == single.values.nbytes
    assert_allclose(half.to_dense()[0], single.to_dense()[0], rtol=2**-11)


def test_hashing_can_be_undone():
    for n_features in (1, 2, 3, 1000, 2**17):
        multiplier, bits = hashing(n_features)
        hashed = np.arange(n_features) * multiplier % 2**bits
        assert len(np.unique(hashed)) == n_features


def test_remainders_take_a_byte_where_that_is_smaller():
    few, many = np.array([10] * 1000), np.array([30_000] * 10)
    assert plan_buckets(few, 20)[1] == np.uint16
    assert plan_buckets(many, 20)[1] == np.uint8
    for rows in (few, many):
        shifts, kind = plan_buckets(rows, 20)
        assert np.all(shifts <= 8 * np.dtype(kind).itemsize)


def test_chunks_with_a_row_for_one_hashed_feature_in_five_have_a_bitmap():
    shifts, _ = plan_buckets(np.array([10, 80, 110, 512]), 9)
    assert_array_equal(shifts == BITMAP, [False, False, True, True])


def test_a_chunk_with_more_rows_than_16_bits_count_has_a_bitmap():
    shifts, _ = plan_buckets(np.array([65_535, 65_536]), 22)
    assert_array_equal(shifts == BITMAP, [False, True])


@pytest.mark.parametrize("widest", [16, 300])
@pytest.mark.parametrize("n_features", [1, 20, 32, 33, 5_000])
def test_full_and_sparse_chunks_lie_side_by_side(n_features, widest):
    rng = np.random.default_rng(10)
    pointer = np.array([0, widest, widest + 2, 2 * widest + 2])
    W = rng.normal(size=(pointer[-1], n_features)).astype(np.float32)
    W[pointer[1] : pointer[2], n_features // 50 :] = 0
    W[:, rng.random(n_features) < 0.1] = 0
    weights = chunked(W, np.zeros(pointer[-1], np.float32), pointer, n_threads=2)
    if n_features == 5_000:
        assert len(set(weights.shifts == BITMAP)) == 2
    assert_array_equal(weights.to_dense()[0], W)
    again = ChunkedWeights.from_arrays(weights.arrays(), n_features)
    assert_array_equal(again.features(), weights.features())


def test_places_take_the_fewest_bytes_that_do():
    sizes = [np.dtype(place_type(widest)).itemsize for widest in (17, 256, 257, 65_536, 65_537)]
    assert sizes == [1, 1, 2, 2, 4]


def test_no_weight_at_all_is_fine():
    weights = level([0, 5, 9], 100.0)
    assert weights.nnz == 0
    assert not weights.to_dense()[0].any()


def test_weights_cannot_be_written():
    weights = level([0, 5, 9], 0.1)
    with pytest.raises(ValueError, match="read-only"):
        weights.biases[0] = 1


def test_arrays_that_do_not_fit_together_are_refused():
    for name in ("values", "places", "remainders", "row_pointer", "index", "biases"):
        parts = level([0, 60, 90], 0.1).arrays()
        parts[name] = parts[name][:-1]
        with pytest.raises(ShapeError, match="do not fit together"):
            ChunkedWeights.from_arrays(parts, D)
    parts = chunked(np.eye(2, 90, dtype=np.float32), np.zeros(2, np.float32), [0, 2]).arrays()
    assert parts["shifts"].tolist() == [7]
    parts["shifts"] = np.array([8], np.uint8)  # more bits than a hashed feature has
    with pytest.raises(ShapeError, match="do not fit together"):
        ChunkedWeights.from_arrays(parts, 90)
    with pytest.raises(ShapeError, match="3 features do not fit together"):
        ChunkedWeights.from_arrays(level([0, 20, 30], 0.1).arrays(), 3)
