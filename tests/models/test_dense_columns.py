"""Words with an embedding behind them: trained and searched like any other features."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.sparse import csr_array, hstack, random_array

from tests.reference import linear as reference
from xmc_core.config import Config, TreeConfig
from xmc_core.data.rows import Rows, as_rows
from xmc_core.errors import ShapeError
from xmc_core.features.joined import join_features
from xmc_core.features.label_features import centroid_rows, label_centroids
from xmc_core.inference.beam import Searcher
from xmc_core.kernels.dense_rows import DenseRows
from xmc_core.kernels.sibling_rankers import DIRECT, GRAM, NOT_CONVERGED, OBJECTIVE
from xmc_core.models import XRLinear, train_xr_linear
from xmc_core.rankers.train import Level, gather_clusters
from xmc_core.rankers.weights import ChunkedWeights
from xmc_core.solvers.scratch import ScratchPool
from xmc_core.solvers.siblings import DenseWeights, Problem, plan_jobs, solve
from xmc_core.tree import LabelTree, build_label_tree

N, WORDS, LABELS = 70, 60, 40
EXACT = {"rankers.tol": 1e-5, "rankers.max_iter": 20_000, "rankers.threshold": 0.0}
TREE = LabelTree.from_leaves(np.arange(LABELS).reshape(4, 10).tolist(), branching=4)


def joined(n_dims, seed=0):
    """Rows of words and an embedding; some have no words, one no embedding either."""
    rng = np.random.default_rng(seed)
    X = csr_array(random_array((N, WORDS), density=0.1, rng=rng, dtype=np.float32))
    X = csr_array(X.multiply((np.arange(N) % 9 > 0)[:, None]))
    embeddings = rng.normal(size=(N, n_dims)) + 0.3
    embeddings[9] = 0
    X = join_features(as_rows(X), embeddings.astype(np.float32), 0.7).toarray()
    # As bytes are: the twin then has the very same numbers.
    scales = np.abs(X[:, WORDS:]).max(axis=1, keepdims=True, initial=0) / np.float32(127)
    X[:, WORDS:] = np.rint(X[:, WORDS:] / np.maximum(scales, 1e-9)) * scales
    return as_rows(csr_array(X))


def labels(seed=1):
    pattern = random_array((N, LABELS), density=0.1, rng=np.random.default_rng(seed)) != 0
    return csr_array(pattern.astype(np.float32))


def solved(rows, clusters, problem):
    """What the solvers report, and the weights."""
    scratch = ScratchPool(rows.n_features)
    dense = DenseWeights.empty(clusters.n_children, rows.dense.n_dims, rounded=False)
    jobs = plan_jobs(clusters, rows, 1)
    pieces = [solve(job, rows, clusters, problem, scratch, dense) for job in jobs]
    statistics = np.concatenate([piece.statistics for piece in pieces])
    return statistics, ChunkedWeights.from_tiles(
        pieces, dense, clusters.child_pointer, rows.n_features, n_threads=1, scratch=scratch
    )


@pytest.mark.parametrize("n_dims", [40, 64, 90])
@pytest.mark.parametrize("loss", ["squared_hinge", "hinge", "logistic"])
def test_every_way_to_train_agrees_with_the_reference(loss, n_dims):
    X, targets = joined(n_dims), labels()
    pointer = np.array([0, 3, 3, 22, LABELS], np.int64)
    active = csr_array((np.random.default_rng(2).random((N, 4)) < 0.5).astype(np.float32))
    expected, expected_b = reference.train_level(
        X.toarray(), targets.toarray(), pointer, active.toarray() > 0, loss=loss
    )
    rows = Rows.of(X)
    assert rows.dense.n_dims == n_dims
    clusters = gather_clusters(Level(targets, pointer, active, 2, 2), 1.0, "none")
    for method, vector in ((DIRECT, True), (DIRECT, False), (GRAM, True), (GRAM, False)):
        problem = Problem(
            loss=loss, cost_negative=1.0, bias=1.0, tol=1e-5, max_iter=20_000, threshold=0.0,
            max_weights=0, seed=1, method=method, vector=vector,
        )  # fmt: skip
        W, b = solved(rows, clusters, problem)[1].to_dense()
        assert_allclose(W, expected, atol=2e-3)
        assert_allclose(b, expected_b, atol=2e-3)


@pytest.mark.parametrize("vector", [True, False])
@pytest.mark.parametrize("loss", ["squared_hinge", "hinge", "logistic"])
def test_rounded_weights_end_as_near_the_optimum_as_the_tolerance_says(loss, vector):
    X, targets = joined(90), labels()
    pointer = np.array([0, 22, LABELS], np.int64)
    active = csr_array(np.ones((N, 2), np.float32))
    clusters = gather_clusters(Level(targets, pointer, active, 2, 2), 2.0, "none")
    ends = []
    for tol in (0.002, 0.1):  # two bytes a weight soon, one for long
        problem = Problem(
            loss=loss, cost_negative=1.0, bias=1.0, tol=tol, max_iter=500, threshold=0.0,
            max_weights=0, seed=1, method=DIRECT, vector=vector,
        )  # fmt: skip
        statistics, weights = solved(Rows.of(X), clusters, problem)
        assert not statistics[:, NOT_CONVERGED].any()
        ends.append((statistics[:, OBJECTIVE].sum(), *weights.to_dense()))
    (objective, W, b), (rounded_objective, rounded_W, rounded_b) = ends
    assert_allclose(rounded_objective, objective, rtol=5e-3)
    assert_allclose(rounded_W, W, atol=0.08)
    assert_allclose(rounded_b, b, atol=0.08)


@pytest.mark.parametrize("n_dims", [0, 40, 100])
@pytest.mark.parametrize("max_leaf_size", [10, 40])  # a mask or a byte a weight
def test_predictions_are_those_of_the_reference(n_dims, max_leaf_size):
    leaves = np.arange(LABELS).reshape(-1, max_leaf_size).tolist()
    tree = LabelTree.from_leaves(leaves, branching=4)
    config = Config().replace(**EXACT, **{"inference.weights": "single"})
    X = joined(n_dims)
    model = train_xr_linear(X, labels(), config, tree=tree)
    assert [int(level.dense_columns[1]) for level in model.levels] == [n_dims] * tree.depth
    found = model.predict(X, top_k=5, beam_size=2)
    levels = [(level.pointer, *level.to_dense()) for level in model.levels]
    dense = X.toarray()
    for row in range(N):
        expected = reference.beam_search(
            dense[row], levels, beam_size=2, top_k=5, post_processor=["l3-hinge"] * tree.depth,
            slot_labels=tree.slot_labels,
        )  # fmt: skip
        assert_allclose(found.scores[row], [score for _, score in expected], rtol=1e-4, atol=1e-6)
        score = model.score(X[[row]], csr_array(np.ones((1, LABELS), np.float32)))
        assert_allclose(
            score.toarray()[0, found.labels[row]], found.scores[row], rtol=1e-5, atol=1e-7
        )


@pytest.mark.parametrize("max_weights", [0, 30])
def test_rounded_models_answer_nearly_as_single_ones_and_are_as_many_bytes_each_time(
    max_weights, tmp_path
):
    X = joined(50)
    config = Config().replace(**EXACT, **{"rankers.max_weights": max_weights})
    half, again = (train_xr_linear(X, labels(), config, tree=TREE) for _ in range(2))
    single = train_xr_linear(
        X, labels(), config.replace(**{"inference.weights": "single"}), tree=TREE
    )
    for rounded, exact in zip(half.levels, single.levels, strict=True):
        assert rounded.dense.dtype == np.int16
        assert exact.dense.dtype == np.float32
        (W, _), (expected, _) = rounded.to_dense(), exact.to_dense()
        assert_allclose(W, expected, atol=2e-3 * np.abs(expected).max())
    assert_allclose(half.predict(X).scores, single.predict(X).scores, atol=2e-2)
    for model, name in ((half, "one"), (again, "two")):
        model.save(tmp_path / name)
    for file in sorted((tmp_path / "one").rglob("*.npy")):
        other = tmp_path / "two" / file.relative_to(tmp_path / "one")
        assert file.read_bytes() == other.read_bytes(), file.name
    assert_array_equal(XRLinear.load(tmp_path / "one").predict(X).scores, half.predict(X).scores)


def test_words_alone_have_no_units():
    model = train_xr_linear(joined(0), labels(), Config().replace(**EXACT), tree=TREE)
    assert {len(level.dense_units) for level in model.levels} == {0}


def test_one_row_and_many_and_dense_and_sparse_rows_are_answered_alike():
    X = joined(50)
    model = train_xr_linear(X, labels(), Config().replace(**EXACT), tree=TREE)
    many = csr_array(np.tile(X.toarray(), (3, 1)))  # more than are searched one by one
    found = model.predict(many)
    assert_array_equal(model.predict(many.toarray()).scores, found.scores)
    for row in range(N):
        alone = model.predict(X[[row]])
        assert_array_equal(alone.labels[0], found.labels[row])
        assert_array_equal(alone.scores[0], found.scores[row])


@pytest.mark.parametrize("negatives", [["teacher_forcing"], ["teacher_forcing", "matcher_aware"]])
def test_threads_do_not_change_a_bit(negatives, tmp_path):
    X, Y = joined(70), labels()
    config = Config().replace(
        **{"tree.max_leaf_size": 6, "tree.branching": 2, "rankers.negatives": [negatives]}
    )
    files = []
    for n_threads in (1, 3):
        model = train_xr_linear(X, Y, config.replace(n_threads=n_threads))
        model.save(tmp_path / str(n_threads))
        files.append({p.name: p.read_bytes() for p in (tmp_path / str(n_threads)).glob("*")
                      if p.is_file()})  # fmt: skip
    assert files[0] == files[1]


def test_a_saved_model_gives_the_same_answers(tmp_path):
    X = joined(33)
    model = train_xr_linear(X, labels(), Config(), tree=TREE)
    model.save(tmp_path / "model")
    loaded = XRLinear.load(tmp_path / "model")
    assert_array_equal(loaded.predict(X).scores, model.predict(X).scores)
    assert loaded.nnz == model.nnz


def test_weights_of_dimensions_are_not_pruned_but_counted_by_max_weights():
    X, Y = joined(40), labels()
    pruned = train_xr_linear(X, Y, Config().replace(**{"rankers.threshold": 10.0}), tree=TREE)
    W, _ = pruned.levels[1].to_dense()
    assert not W[:, :WORDS].any()
    assert np.count_nonzero(W[:, WORDS:]) > 30 * LABELS
    few = Config().replace(
        **EXACT, **{"rankers.max_weights": [0, 7], "inference.weights": "single"}
    )
    model = train_xr_linear(X, Y, few, tree=TREE)
    full = train_xr_linear(X, Y, few.replace(**{"rankers.max_weights": 0}), tree=TREE)
    expected = reference.keep_largest(full.levels[1].to_dense()[0], 7)
    assert_array_equal(model.levels[1].to_dense()[0], expected)
    assert_array_equal(model.levels[0].to_dense()[0], full.levels[0].to_dense()[0])


def test_an_embedding_takes_part_in_the_labels_features():
    X, Y = joined(40), labels()
    dense, targets = X.toarray().astype(np.float64), Y.toarray().astype(np.float64)
    targets /= np.maximum(np.linalg.norm(targets, axis=1, keepdims=True), 1e-9)
    expected = targets.T @ dense
    expected /= np.maximum(np.linalg.norm(expected, axis=1, keepdims=True), 1e-9)
    Z = label_centroids(Y, X)
    assert_allclose(Z.toarray(), expected, atol=1e-5)
    assert_array_equal(label_centroids(Y, Rows.of(X), n_threads=2).toarray(), Z.toarray())
    strongest = label_centroids(Y, X, max_features=12).toarray()
    for row, whole in zip(strongest, expected, strict=True):
        words, all_words = np.abs(row[:WORDS]), np.abs(whole[:WORDS])
        kept = np.flatnonzero(words)
        assert len(kept) == min(12, np.count_nonzero(all_words))
        if len(kept) == 12:
            assert all_words[kept].min() >= np.delete(all_words, kept).max() - 1e-6
        kept = np.concatenate([kept, np.arange(WORDS, len(row))])  # the embedding stays whole
        length = max(np.linalg.norm(whole[kept]), 1e-9)
        assert_allclose(row[kept], whole[kept] / length, atol=1e-5)


@pytest.mark.parametrize("max_features", [0, 12])
def test_labels_features_as_bytes_are_those_of_the_centroids_rounded(max_features):
    X = Rows.of(joined(40))
    Y = csr_array(labels().toarray() * (np.arange(LABELS) >= 8))  # eight labels have no rows
    Z = label_centroids(Y, X, max_features=max_features)
    assert not np.diff(Z.indptr)[:8].any()
    expected, found = Rows.of(Z), centroid_rows(Y, X, max_features=max_features, n_threads=2)
    assert found.shape == (LABELS, WORDS + 40)
    assert_array_equal(found.left.toarray(), expected.left.toarray())
    for name in DenseRows._fields:
        assert_array_equal(getattr(found.dense, name), getattr(expected.dense, name))
    for n_threads in (1, 3):
        tree = build_label_tree(found, TreeConfig(max_leaf_size=4), n_threads)
        assert_array_equal(
            tree.slot_labels, build_label_tree(Z, TreeConfig(max_leaf_size=4)).slot_labels
        )


def test_labels_features_that_bytes_cannot_hold_are_ordinary_columns():
    # Rows that say the opposite of each other in all dimensions but one: of their sum hardly
    # anything but that one is left, which hides the others.
    E = np.random.default_rng(0).normal(size=(N, 40))
    E[1::2] = -E[::2] * 1.001
    E[:, 7] = 6
    X = join_features(joined(0), E.astype(np.float32))
    pairs = csr_array((np.ones(N, np.float32), np.arange(N) // 2, np.arange(N + 1)))
    assert Rows.of(X).dense.n_dims == 40
    found, Z = centroid_rows(pairs, Rows.of(X)), label_centroids(pairs, Rows.of(X))
    assert found.dense.n_dims == 0
    assert_array_equal(found.left.toarray(), Z.toarray())


def test_a_row_that_lacks_dimensions_is_searched_with_zeros_there():
    X = joined(40)
    model = train_xr_linear(X, labels(), Config(), tree=TREE)
    holes = X.toarray()
    holes[:, WORDS + 5] = 0
    sparse = csr_array(holes)  # the zeros are not stored
    explicit = csr_array(hstack([csr_array(holes[:, :WORDS]), csr_array(np.ones((N, 40)))]))
    explicit.sort_indices()
    explicit.data = explicit.data.astype(np.float32)
    for row in range(N):
        part = slice(explicit.indptr[row + 1] - 40, explicit.indptr[row + 1])
        explicit.data[part] = holes[row, WORDS:]
    assert_array_equal(model.predict(sparse).scores, model.predict(explicit).scores)


@pytest.mark.parametrize("max_weights", [0, 30])
def test_a_label_in_several_leaves_has_the_same_weights_in_each(max_weights):
    X, Y = joined(40), labels()
    leaves = [[*range(0, 25)], [*range(20, 40)], [5], [*range(35, 40), 0]]
    tree = LabelTree.from_leaves(leaves, branching=16, n_labels=LABELS)
    config = Config().replace(**EXACT, **{"rankers.max_weights": max_weights})
    W, _ = train_xr_linear(X, Y, config, tree=tree).levels[1].to_dense()
    Y = Y.toarray()
    reached = np.column_stack([Y[:, leaf].any(axis=1) for leaf in leaves])
    for slot, label in enumerate(tree.slot_labels):
        own = np.flatnonzero([label in leaf for leaf in leaves])
        assert_array_equal(W[slot], W[tree.slot_labels == label][0])
        if max_weights == 0 and len(own) > 1:
            expected, _ = reference.train_level(
                X.toarray(), Y[:, [label]], [0, 1], reached[:, own].any(axis=1, keepdims=True)
            )
            assert_allclose(W[slot], expected[0], atol=3e-3)


def test_levels_of_unlike_weights_are_not_searched_together():
    X, Y = joined(40), labels()
    sparse = csr_array(X.toarray() * (np.arange(WORDS + 40) < WORDS))
    config = Config().replace(**{"inference.weights": "single"})
    levels = train_xr_linear(X, Y, Config(), tree=TREE).levels
    single = train_xr_linear(X, Y, config, tree=TREE).levels
    words = train_xr_linear(sparse, Y, Config(), tree=TREE).levels
    columns = "dense columns 60 .. 99 in {} precision"
    told = r"level 2 has {}, but level 1 " + columns.format("half")
    for last, what in ((single, columns.format("single")), (words, "no dense columns")):
        with pytest.raises(ShapeError, match=told.format(what)):
            Searcher(
                [levels[0], last[1]], post_processor=("l3-hinge",), slot_labels=None,
                n_labels=LABELS,
            )  # fmt: skip
