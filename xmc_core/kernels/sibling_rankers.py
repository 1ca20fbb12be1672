"""All classifiers below a run of parents: gather the rows, solve tiles of sixteen, keep weights."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from xmc_core.kernels._compile import kernel
from xmc_core.kernels.bits import Words, lowest_bit, popcount
from xmc_core.kernels.coordinate_descent import (
    LOGISTIC,
    SQUARED_HINGE,
    descend,
    descend_gram,
    dual_objective,
)
from xmc_core.kernels.dense_lanes import weights_in_order, weights_of_rows
from xmc_core.kernels.dense_rows import DIMS_AT_ONCE, DenseRows
from xmc_core.kernels.gram import gram_matrix, prefers_gram
from xmc_core.kernels.lanes import BIAS, LANES, LIVE, N_STATE, Masks, empty_lines
from xmc_core.kernels.local_rows import ONE, by_feature, gather_rows
from xmc_core.kernels.selection import HIGH, LOW_BITS, largest_first
from xmc_core.kernels.simd import above, dot
from xmc_core.kernels.whole_numbers import largest_weight, round_row
from xmc_core.types import Doubles, Flags, Floats, Indices, Pointers, SignedShorts

OBJECTIVE, EPOCHS, ROW_VISITS, NOT_CONVERGED, NO_ROWS = range(5)
N_STATISTICS = 5
BIAS_WITHOUT_ROWS = -1.0
"""Margin of a label that no row was there to train: that of a negative that is just right."""

AUTO, DIRECT, GRAM = range(3)

SLIGHTLY_LESS = np.float32(0.99999)
"""So that a quotient that was rounded up loses no weight; the product decides."""

SMALLEST = np.float32(1e-30)
"""What is not 0."""

WITHOUT_SIGN = np.uint64(0x7FFFFFFF)


@kernel
def train_parents(
    indptr: Pointers,  # X but its dense part, (n_samples + 1,)
    indices: Indices,
    values: Floats,
    dense: DenseRows,
    row_pointer: Pointers,  # (parents + 1,) rows of each parent's cluster, ascending
    rows: Indices,
    is_member: Flags,  # row seen by all children; others are there for their own children only
    extra_pointer: Pointers,  # (children + 1,) rows that a child sees besides, ascending
    extra_rows: Indices,
    child_pointer: Pointers,  # (parents + 1,)
    positive_pointer: Pointers,  # (children + 1,) positives of each child, ascending
    positives: Indices,
    positive_costs: Floats,
    first_parent: int,
    last_parent: int,
    first_tile: int,  # tiles of each of these parents: first_tile <= tile < last_tile
    last_tile: int,
    loss: int,
    cost_negative: float,
    bias: np.float32,
    tol: float,
    max_iter: int,
    threshold: np.float32,
    max_weights: int,  # of a child; 0 keeps all
    seed: np.uint64,
    method: int,
    vector: bool,
    feature_map: Indices,  # scratch of this thread, see gather_rows
    seen: Words,
    dense_weights: Floats,  # (children of the tiles, n_dims or more) out, or none of them
    dense_numbers: SignedShorts,  # the same as whole numbers, if those are wanted
    dense_units: Floats,  # and what each child's are to be multiplied with
) -> tuple[Indices, Masks, Floats, Pointers, Pointers, Floats, Doubles]:
    # Returns, tile after tile,
    #   features, masks  (kept features,) the cluster's most frequent ones first within a tile; bit
    #                    l: lane l has a weight
    #   weights          (bits set,)
    #   tile_features, tile_weights   how many of each the tile has
    #   biases           (tiles, 16) added to the margin
    #   statistics       (tiles, 5)
    # Dense columns keep small weights too; with max_weights the largest.
    n_tiles = 0
    for parent in range(first_parent, last_parent):
        n_children = child_pointer[parent + 1] - child_pointer[parent]
        n_tiles += max(0, min(last_tile, (n_children + LANES - 1) // LANES) - first_tile)
    features = np.empty(1024, np.int32)
    masks = np.empty(1024, np.uint16)
    weights = np.empty(4096, np.float32)
    tile_features = np.zeros(n_tiles, np.int64)
    tile_weights = np.zeros(n_tiles, np.int64)
    biases = np.full((n_tiles, LANES), BIAS_WITHOUT_ROWS, np.float32)
    statistics = np.zeros((n_tiles, N_STATISTICS), np.float64)
    n_features = 0
    n_weights = 0
    out = 0
    child = 0
    for parent in range(first_parent, last_parent):
        first_child, last_child = child_pointer[parent], child_pointer[parent + 1]
        parent_tiles = min(last_tile, (last_child - first_child + LANES - 1) // LANES)
        if parent_tiles <= first_tile:
            continue
        span = slice(row_pointer[parent], row_pointer[parent + 1])
        end = out + parent_tiles - first_tile
        features, masks, weights = train_parent(
            indptr, indices, values, dense, rows[span], is_member[span], extra_pointer, extra_rows,
            first_child, last_child, positive_pointer, positives, positive_costs, first_tile,
            parent_tiles, loss, cost_negative, bias, tol, max_iter, threshold, max_weights, seed,
            method, vector, feature_map, seen, features, masks, weights, n_features, n_weights,
            tile_features[out:end], tile_weights[out:end], biases[out:end], statistics[out:end],
            dense_weights[child:], dense_numbers[child:], dense_units[child:],
        )  # fmt: skip
        child += min(last_child - first_child, parent_tiles * LANES) - first_tile * LANES
        n_features += tile_features[out:end].sum()
        n_weights += tile_weights[out:end].sum()
        out = end
    return (
        features[:n_features].copy(),
        masks[:n_features].copy(),
        weights[:n_weights].copy(),
        tile_features,
        tile_weights,
        biases,
        statistics,
    )


@kernel
def train_parent(
    indptr: Pointers,
    indices: Indices,
    values: Floats,
    dense: DenseRows,
    own_rows: Indices,
    members: Flags,
    extra_pointer: Pointers,
    extra_rows: Indices,
    first_child: int,
    last_child: int,
    positive_pointer: Pointers,
    positives: Indices,
    positive_costs: Floats,
    first_tile: int,
    last_tile: int,
    loss: int,
    cost_negative: float,
    bias: np.float32,
    tol: float,
    max_iter: int,
    threshold: np.float32,
    max_weights: int,
    seed: np.uint64,
    method: int,
    vector: bool,
    feature_map: Indices,
    seen: Words,
    features: Indices,  # out, from n_features on; grows
    masks: Masks,
    weights: Floats,  # out, from n_weights on; grows
    n_features: int,
    n_weights: int,
    tile_features: Pointers,  # (tiles,) out
    tile_weights: Pointers,
    biases: Floats,  # (tiles, 16) out
    statistics: Doubles,  # (tiles, 5) out
    dense_weights: Floats,
    dense_numbers: SignedShorts,
    dense_units: Floats,
) -> tuple[Indices, Masks, Floats]:
    # A function of its own so that a parent's rows are freed before the next one's are gathered.
    (
        pointer,
        ids,
        data,
        own,
        square,
        local_features,
        n_shared,
        single_row,
        single_value,
    ) = gather_rows(indptr, indices, values, dense, own_rows, feature_map, seen)
    n = len(own_rows)
    n_dims = dense.n_dims
    W = empty_lines(n_shared)
    dense_W = empty_lines(n_dims if max_weights > 0 else 0)
    width = dense.values.shape[1] if n_dims > 0 else 0
    # A line more than a row is long: rows of 4,096 bytes would all fall on the same cache sets.
    V = empty_lines(width + LANES).view(np.int32).reshape(LANES, width + LANES)
    n_blocks = width // DIMS_AT_ONCE
    B = empty_lines(width // 4).view(np.uint8).reshape(n_blocks, LANES, DIMS_AT_ONCE)
    C = empty_lines(width // 4).view(np.uint8).reshape(n_blocks, LANES, DIMS_AT_ONCE)
    dense_tile = np.zeros((LANES, n_dims), np.float32)
    coefficient = empty_lines(n)
    beta = empty_lines(n)
    state = empty_lines(N_STATE)
    use_gram = method == GRAM or (
        method == AUTO and prefers_gram(n, pointer[n], last_child - first_child, n_dims)
    )
    use_gram = use_gram and loss != LOGISTIC
    if use_gram:
        feature_pointer, feature_rows, feature_values = by_feature(pointer, ids, data, n_shared)
        gram = gram_matrix(
            vector,
            pointer,
            ids,
            data,
            feature_pointer,
            feature_rows,
            feature_values,
            dense,
            own_rows,
            own,
            bias,
            W,
        )
        margins = empty_lines(n)
    else:
        feature_pointer, feature_rows, feature_values = pointer[:0], ids[:0], data[:0]
        gram = np.empty((0, LANES), np.float32)
        margins = empty_lines(0)

    for tile in range(first_tile, last_tile):
        out = tile - first_tile
        child = first_child + tile * LANES
        n_lanes = min(LANES, last_child - child)
        set_coefficients(
            loss,
            cost_negative,
            own_rows,
            members,
            extra_pointer,
            extra_rows,
            positive_pointer,
            positives,
            positive_costs,
            child,
            n_lanes,
            coefficient,
        )
        tile_seed = mix(mix(seed) ^ np.uint64(child))
        if use_gram:
            epochs = descend_gram(
                loss,
                vector,
                gram,
                coefficient,
                beta,
                margins,
                state,
                tol,
                max_iter,
                n_lanes,
                tile_seed,
            )
            n_visits = epochs * n
            primal_from_dual(
                vector, feature_pointer, feature_rows, feature_values, beta, bias, W, state
            )  # fmt: skip
        else:
            epochs, n_visits = descend(
                loss,
                vector,
                pointer,
                ids,
                data,
                dense,
                own_rows,
                own,
                square,
                coefficient,
                beta,
                W,
                V,
                B,
                C,
                state,
                bias,
                tol,
                max_iter,
                n_lanes,
                tile_seed,
            )
        if use_gram:
            weights_of_rows(dense, own_rows, beta, dense_tile)
        else:
            weights_in_order(V, state, dense_tile)
        for d in range(len(dense_W)):
            for lane in range(LANES):
                dense_W[d, lane] = dense_tile[lane, d]

        for lane in range(n_lanes):
            trained = False
            for i in range(n):
                if coefficient[i, lane] != 0.0:
                    trained = True
                    break
            if trained:
                biases[out, lane] = state[BIAS, lane] * bias
            else:
                statistics[out, NO_ROWS] += 1
            statistics[out, NOT_CONVERGED] += state[LIVE, lane] > 0.0
        statistics[out, OBJECTIVE] = dual_objective(
            loss, vector, coefficient, beta, own, W, dense_tile.reshape(-1, LANES), state, n_lanes
        )
        statistics[out, EPOCHS] = epochs
        statistics[out, ROW_VISITS] = n_visits

        features = grown(features, n_features, len(local_features) + len(dense_W))
        masks = grown(masks, n_features, len(local_features) + len(dense_W))
        weights, found_features, found_weights = keep_weights(
            vector,
            local_features,
            n_shared,
            single_row,
            single_value,
            W,
            dense_W,
            dense.first,
            beta,
            threshold,
            features[n_features:],
            masks[n_features:],
            weights,
            n_weights,
        )
        if max_weights > 0:
            found_features, found_weights = keep_largest(
                max_weights,
                features[n_features : n_features + found_features],
                masks[n_features : n_features + found_features],
                weights[n_weights : n_weights + found_weights],
            )
            dense_tile[:] = 0.0
            found_features, found_weights = take_dense(
                dense.first,
                features[n_features : n_features + found_features],
                masks[n_features : n_features + found_features],
                weights[n_weights : n_weights + found_weights],
                dense_tile,
            )
        for lane in range(n_lanes if n_dims > 0 else 0):
            row = out * LANES + lane
            if len(dense_weights) > 0:
                dense_weights[row, :n_dims] = dense_tile[lane]
            else:
                dense_units[row] = round_row(
                    dense_tile, lane, largest_weight(width), dense_numbers, row
                )
        tile_features[out] = found_features
        tile_weights[out] = found_weights
        n_features += found_features
        n_weights += found_weights
    return features, masks, weights


@kernel
def parent_costs(
    indptr: Pointers,
    n_dims: int,
    row_pointer: Pointers,
    rows: Indices,
    child_pointer: Pointers,
    costs: Doubles,  # (parents,) out: about how many nanoseconds each takes
) -> None:
    for parent in range(len(costs)):
        n_nonzero = 0
        for r in range(row_pointer[parent], row_pointer[parent + 1]):
            n_nonzero += indptr[rows[r] + 1] - indptr[rows[r]]
        n = row_pointer[parent + 1] - row_pointer[parent]
        n_children = child_pointer[parent + 1] - child_pointer[parent]
        n_tiles = (n_children + LANES - 1) // LANES
        if prefers_gram(n, n_nonzero, n_children, n_dims):
            making = 0.02 * n_nonzero + 0.005 * n_dims * n
            costs[parent] = 9.0 * n_nonzero + n * (making + 2.1 * n * n_tiles)
        else:
            visits = 18.0 * n_nonzero + (250.0 + 3.0 * n_dims) * n
            costs[parent] = 5.0 * n_nonzero + n_tiles * visits


@kernel
def set_coefficients(
    loss: int,
    cost_negative: float,
    rows: Indices,
    members: Flags,
    extra_pointer: Pointers,
    extra_rows: Indices,
    positive_pointer: Pointers,
    positives: Indices,
    positive_costs: Floats,
    child: int,
    n_lanes: int,
    coefficient: Floats,  # (n, 16) out
) -> None:
    negative = np.float32(-0.5 / cost_negative if loss == SQUARED_HINGE else -cost_negative)
    for i in range(len(rows)):
        value = negative if members[i] else np.float32(0.0)
        for lane in range(n_lanes):
            coefficient[i, lane] = value
        for lane in range(n_lanes, LANES):
            coefficient[i, lane] = 0.0
    for lane in range(n_lanes):
        i = 0
        for p in range(extra_pointer[child + lane], extra_pointer[child + lane + 1]):
            i += np.searchsorted(rows[i:], extra_rows[p])
            coefficient[i, lane] = negative
        i = 0
        for p in range(positive_pointer[child + lane], positive_pointer[child + lane + 1]):
            i += np.searchsorted(rows[i:], positives[p])
            cost = positive_costs[p]
            coefficient[i, lane] = 0.5 / cost if loss == SQUARED_HINGE else cost


@kernel
def primal_from_dual(
    vector: bool,
    feature_pointer: Pointers,  # (n_shared + 1,) the cluster's entries by feature
    feature_rows: Indices,
    feature_values: Floats,
    beta: Floats,
    bias: np.float32,
    W: Floats,
    state: Floats,
) -> None:
    # By feature, as beta fits the nearest cache and W does not.
    for f in range(len(W)):
        begin, end = feature_pointer[f], feature_pointer[f + 1]
        dot(vector, beta, feature_rows, feature_values, begin, end, W, f)
    state[BIAS] = 0.0
    for i in range(len(beta)):
        for lane in range(LANES):
            state[BIAS, lane] += bias * beta[i, lane]


@kernel
def keep_weights(
    vector: bool,
    local_features: Indices,
    n_shared: int,
    single_row: Indices,
    single_value: Floats,
    W: Floats,
    dense_W: Floats,  # (n_dims, 16)
    first_dense: int,  # the feature that dimension 0 is; all others come before
    beta: Floats,
    threshold: np.float32,
    features: Indices,  # out, from the start; long enough
    masks: Masks,
    weights: Floats,  # out, from n_weights on; grows
    n_weights: int,
) -> tuple[Floats, int, int]:
    smallest = max(threshold, SMALLEST)  # a weight of 0 is never kept
    # Most weights of single features are too small for any lane: one comparison says so.
    largest = np.empty(len(beta), np.float32)
    for i in range(len(beta)):
        size = np.float32(0.0)
        for lane in range(LANES):
            size = max(size, abs(beta[i, lane]))
        largest[i] = size
    # First which weights stay, so that `weights` grows once a tile, then the weights.
    kept = np.empty(len(local_features) + len(dense_W), np.int32)
    n_features = 0
    n_kept = 0
    for local in range(len(local_features)):
        if local < n_shared:
            mask = above(vector, W, local, smallest)
        else:
            row, value = single_row[local - n_shared], single_value[local - n_shared]
            if largest[row] * abs(value) < smallest:
                continue
            mask = 0
            rest = np.uint64(above(vector, beta, row, SLIGHTLY_LESS * smallest / abs(value)))
            while rest != 0:
                lane = lowest_bit(rest)
                if abs(beta[row, lane] * value) >= smallest:
                    mask |= 1 << lane
                rest = rest & (rest - ONE)
        if mask != 0:
            features[n_features] = local_features[local]
            masks[n_features] = mask
            kept[n_features] = local
            n_features += 1
            n_kept += popcount(np.uint64(mask))
    for d in range(len(dense_W)):
        mask = above(vector, dense_W, d, smallest)
        if mask != 0:
            features[n_features] = first_dense + d
            masks[n_features] = mask
            kept[n_features] = -1 - d
            n_features += 1
            n_kept += popcount(np.uint64(mask))

    weights = grown(weights, n_weights, n_kept)
    end = n_weights
    for k in range(n_features):
        local = kept[k]
        rest = np.uint64(masks[k])
        while rest != 0:
            lane = lowest_bit(rest)
            if local < 0:
                weights[end] = dense_W[-1 - local, lane]
            elif local < n_shared:
                weights[end] = W[local, lane]
            else:
                weights[end] = (
                    beta[single_row[local - n_shared], lane] * single_value[local - n_shared]
                )
            end += 1
            rest = rest & (rest - ONE)
    return weights, n_features, n_kept


@kernel
def keep_largest(
    max_weights: int,
    features: Indices,  # in and out, as of one tile; what is kept moves to the front
    masks: Masks,
    weights: Floats,
) -> tuple[int, int]:
    # At most max_weights of each lane, the largest ones; of equal ones those that come first.
    dropped = np.zeros(len(masks), np.uint16)
    keys = np.empty(len(masks), np.uint64)
    patterns = weights.view(np.uint32)  # of non-negative floats: in the order of the floats
    for lane in range(LANES):
        n = 0
        w = 0
        for k in range(len(masks)):
            if masks[k] >> lane & 1:
                before = popcount(np.uint64(masks[k]) & ((ONE << np.uint64(lane)) - ONE))
                size = np.uint64(patterns[w + before]) & WITHOUT_SIGN
                keys[n] = size << HIGH | (LOW_BITS - np.uint64(k))
                n += 1
            w += popcount(np.uint64(masks[k]))
        if n > max_weights:
            largest_first(keys, n, max_weights)
            for j in range(max_weights, n):
                dropped[LOW_BITS - (keys[j] & LOW_BITS)] |= 1 << lane

    n_features = 0
    n_weights = 0
    w = 0
    for k in range(len(masks)):
        mask = masks[k] & ~dropped[k]
        rest = np.uint64(masks[k])
        while rest != 0:
            if mask >> lowest_bit(rest) & 1:
                weights[n_weights] = weights[w]
                n_weights += 1
            w += 1
            rest = rest & (rest - ONE)
        if mask != 0:
            features[n_features] = features[k]
            masks[n_features] = mask
            n_features += 1
    return n_features, n_weights


@kernel
def take_dense(
    first: int,
    features: Indices,  # of one tile, those from `first` on at its end
    masks: Masks,
    weights: Floats,
    dense_weights: Floats,  # (16, n_dims) zeros; out
) -> tuple[int, int]:
    # Moves the weights of features from `first` on; returns how many features and weights stay.
    n_features, n_weights = len(features), len(weights)
    while n_features > 0 and features[n_features - 1] >= first:
        n_features -= 1
        n_weights -= popcount(np.uint64(masks[n_features]))
        rest = np.uint64(masks[n_features])
        w = n_weights
        while rest != 0:
            dense_weights[lowest_bit(rest), features[n_features] - first] = weights[w]
            w += 1
            rest = rest & (rest - ONE)
    return n_features, n_weights


@kernel
def grown(array: NDArray[Any], used: int, more: int) -> NDArray[Any]:
    # `array` itself if `more` entries fit behind the `used` ones, else a longer copy.
    if used + more <= len(array):
        return array
    longer = np.empty(max(2 * len(array), used + more), array.dtype)
    longer[:used] = array[:used]
    return longer


@kernel
def mix(seed: np.uint64) -> np.uint64:
    # splitmix64: neighbouring seeds give unrelated streams. Never 0, which xorshift cannot leave.
    x = seed + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return (x ^ (x >> np.uint64(31))) | np.uint64(1)
