import copy
import json
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.sparse import csr_array

from tests.reference import linear as reference
from xmc_core.config import Config
from xmc_core.errors import ConfigError, DataError, ShapeError, StoreError
from xmc_core.inference.reach import recall_of_beam
from xmc_core.models.levels import train_levels
from xmc_core.models.xr_linear import XRLinear, train_xr_linear
from xmc_core.rankers.train import train_level
from xmc_core.reporting import Recorder
from xmc_core.tree import LabelTree

N, D, LABELS = 150, 200, 40
CONFIG = Config().replace(
    **{"tree.branching": 16, "tree.max_leaf_size": 5, "disentangle.max_clusters": 1, "n_threads": 2}
)
EXACT = {"rankers.tol": 1e-5, "rankers.max_iter": 20_000, "rankers.threshold": [0.0]}


@pytest.fixture(scope="module", name="data")
def topics():
    """Rows of words that their labels prefer."""
    rng = np.random.default_rng(21)
    Y = (rng.random((N, LABELS)) < 0.05).astype(np.float32)
    Y[np.arange(N), rng.integers(0, LABELS, N)] = 1
    words = (rng.random((LABELS, D)) < 0.04).astype(np.float32)
    X = (Y @ words) * (rng.random((N, D)) < 0.7) + (rng.random((N, D)) < 0.01)
    X /= np.maximum(np.linalg.norm(X, axis=1, keepdims=True), 1e-9)
    return csr_array(X.astype(np.float32)), csr_array(Y)


@pytest.fixture(scope="module", name="model")
def trained(data):
    return train_xr_linear(*data, CONFIG)


def assert_same(left, right):
    assert_array_equal(left.labels, right.labels)
    assert_array_equal(left.scores, right.scores)


def test_agrees_with_the_reference(data):
    X, Y = data
    config = CONFIG.replace(**EXACT)
    model = train_xr_linear(X, Y, config)
    tree = model.tree
    assert tree.depth == 2
    targets = [matrix.toarray() for matrix in tree.targets(Y)]
    dense_X = X.toarray().astype(float)
    levels = []
    for t, pointer in enumerate(tree.pointers):
        active = targets[t - 1] > 0 if t else None  # teacher forcing
        levels.append((pointer, *reference.train_level(dense_X, targets[t], pointer, active)))
    for (_, W, b), weights in zip(levels, model.levels, strict=True):
        assert_allclose(weights.to_dense()[0], W, atol=2e-3)
        assert_allclose(weights.to_dense()[1], b, atol=2e-3)

    found = model.predict(X, top_k=3)
    for row in range(N):
        wanted = reference.beam_search(
            dense_X[row], levels, beam_size=10, top_k=3, post_processor=["l3-hinge"] * 2,
            slot_labels=tree.slot_labels,
        )  # fmt: skip
        assert_allclose(found.scores[row], [score for _, score in wanted], atol=5e-3)


def test_learns_what_there_is_to_learn(data, model):
    X, Y = data
    best = model.predict(X, top_k=1).labels[:, 0]
    assert Y.toarray()[np.arange(N), best].mean() > 0.95


def test_is_identical_on_one_thread_and_on_many(data, model):
    alone = train_xr_linear(*data, CONFIG.replace(n_threads=1))
    for one, many in zip(alone.levels, model.levels, strict=True):
        for name, array in one.arrays().items():
            assert_array_equal(many.arrays()[name], array)
    assert_same(alone.predict(data[0]), model.predict(data[0]))


@pytest.mark.parametrize("clusters", [1, 2])
def test_a_loaded_model_answers_as_the_one_that_was_saved(data, tmp_path, clusters):
    X, Y = data
    model = train_xr_linear(X, Y, CONFIG.replace(**{"disentangle.max_clusters": clusters}))
    model.save(tmp_path / "model")
    loaded = XRLinear.load(tmp_path / "model")
    assert_same(loaded.predict(X), model.predict(X))
    assert_same(loaded.predict(X[:3]), model.predict(X[:3]))
    assert loaded.config == model.config.replace(n_threads=-1)  # a matter of the machine
    assert_array_equal(loaded.tree.slot_labels, model.tree.slot_labels)


def test_a_loaded_model_scores_pairs_as_the_one_that_was_saved(data, model, tmp_path):
    X, Y = data
    model.save(tmp_path / "model")
    loaded = XRLinear.load(tmp_path / "model")
    assert_array_equal(loaded.score(X, Y).data, model.score(X, Y).data)
    found = model.predict(X, top_k=LABELS, beam_size=50)
    by_label = np.argsort(found.labels, axis=1)
    scores = np.take_along_axis(found.scores, by_label, axis=1)
    assert_array_equal(model.score(X, Y).toarray(), scores * Y.toarray())


@pytest.mark.parametrize("changes", [{}, {"inference.paths": "mean"}])
def test_copies_of_a_model_answer_as_it_does(data, changes):
    X, Y = data
    config = CONFIG.replace(**changes, **{"disentangle.in_rankers": True}).replace(
        **{"disentangle.max_clusters": 2, "disentangle.min_gain": 1}
    )
    model = train_xr_linear(X, Y, config)
    wanted = model.predict(X)
    copied = copy.deepcopy(model)
    pickled = pickle.dumps(model.restricted([3, 4, 5]))
    del model
    np.zeros(10**6)  # where the first model's arrays were
    assert_same(copied.predict(X), wanted)
    assert_same(pickle.loads(pickled).predict(X), copied.restricted([3, 4, 5]).predict(X))


def test_a_pickled_model_answers_in_another_process(data, model, tmp_path):
    X, _ = data
    (tmp_path / "model.pkl").write_bytes(pickle.dumps((model, X)))
    code = """
import pickle, sys
model, X = pickle.load(open(sys.argv[1], "rb"))
print(model.predict(X, top_k=1).labels[:, 0].tolist())
"""
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "model.pkl"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert json.loads(done.stdout) == model.predict(X, top_k=1).labels[:, 0].tolist()


def test_a_model_saved_while_it_is_loaded_is_not_mixed_with_the_old_one(
    data, model, tmp_path, monkeypatch
):
    X, Y = data
    other = train_xr_linear(X, Y, CONFIG.replace(**{"tree.seed": 7}))
    model.save(tmp_path / "model")
    load_tree, saves = LabelTree.load, [other]

    def load_later(folder, **options):
        if saves:
            saves.pop().save(tmp_path / "model")
        return load_tree(folder, **options)

    monkeypatch.setattr(LabelTree, "load", load_later)
    loaded = XRLinear.load(tmp_path / "model")
    assert_same(loaded.predict(X), other.predict(X))


def test_half_weights_answer_nearly_as_single_ones_and_take_less(data, model, tmp_path):
    X, Y = data
    single = train_xr_linear(X, Y, CONFIG.replace(**{"inference.weights": "single"}))
    assert [level.precision for level in model.levels] == ["half", "half"]
    assert [level.precision for level in single.levels] == ["single", "single"]
    everything = csr_array(np.ones((N, LABELS), np.float32))
    expected = single.score(X, everything).data
    assert_allclose(model.score(X, everything).data, expected, atol=2e-3)
    for name, saved in (("half", model), ("single", single)):
        saved.save(tmp_path / name)
    sizes = [(tmp_path / n / "level2.values.npy").stat().st_size for n in ("half", "single")]
    assert sizes[0] < 0.6 * sizes[1]


def test_a_model_can_be_restricted_to_some_labels(data, model, tmp_path):
    X, _ = data
    labels = [3, 17, 18, 31]
    best = model.predict(X, top_k=LABELS, beam_size=50)
    chosen = np.isin(best.labels, labels)
    some = model.restricted(labels)
    found = some.predict(X, top_k=4, beam_size=4)
    assert_array_equal(found.labels, best.labels[chosen].reshape(N, 4))
    assert_array_equal(found.scores, best.scores[chosen].reshape(N, 4))
    assert_same(model.predict(X, top_k=4, beam_size=4, allow=np.array(labels)), found)
    assert some.levels[1] is model.levels[1]
    assert set(some.restricted([3, 5]).predict(X, top_k=2).labels.ravel()) == {3, -1}
    assert some.predict_leaves(X, 50).indices.max() < model.tree.n_leaves
    some.save(tmp_path / "model")
    assert_same(XRLinear.load(tmp_path / "model").predict(X, top_k=4, beam_size=4), found)


def test_a_label_that_does_not_exist_cannot_be_allowed(data, model):
    with pytest.raises(DataError, match=r"labels 3 \.\. 40 are to be allowed.* labels 0 \.\. 39"):
        model.restricted([3, 40])
    with pytest.raises(DataError, match=r"labels -1"):
        model.predict(data[0], allow=[-1])
    assert np.all(model.predict(data[0], allow=[]).labels == -1)


@pytest.mark.parametrize("labels", [np.arange(LABELS) < 5, [True, False], [1.5]])
def test_labels_to_allow_are_numbers(data, model, labels):
    with pytest.raises(DataError, match="labels to be allowed must be their numbers"):
        model.predict(data[0], allow=labels)


def test_dense_rows_are_answered_as_sparse_ones(data, model):
    X, Y = data
    assert_same(model.predict(X.toarray()), model.predict(X))
    assert_array_equal(model.score(X.toarray(), Y).data, model.score(X, Y).data)


def test_rows_one_by_one_get_the_bits_of_the_batch(data, model):
    X, _ = data
    together = model.predict(X)
    for i in range(N):
        alone = model.predict(X[i : i + 1])
        assert_array_equal(alone.labels[0], together.labels[i])
        assert_array_equal(alone.scores[0], together.scores[i])


def test_saving_twice_gives_the_same_bytes(model, tmp_path):
    model.save(tmp_path / "one")
    model.save(tmp_path / "two")
    model.save(tmp_path / "two")  # over itself
    for file in sorted((tmp_path / "one").rglob("*.*")):
        twin = tmp_path / "two" / file.relative_to(tmp_path / "one")
        assert twin.read_bytes() == file.read_bytes()


def test_a_damaged_or_foreign_folder_is_refused(model, tmp_path):
    with pytest.raises(StoreError, match=r"no manifest\.json"):
        XRLinear.load(tmp_path)
    model.save(tmp_path / "model")
    with pytest.raises(StoreError, match="holds a label-tree, not a xr-linear"):
        XRLinear.load(tmp_path / "model" / "tree")
    file = tmp_path / "model" / "level2.values.npy"
    content = file.read_bytes()
    file.write_bytes(content[:-10])
    with pytest.raises(StoreError, match=r"level2\.values\.npy is damaged"):
        XRLinear.load(tmp_path / "model")
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(StoreError, match=r"level2\.values\.npy does not match its checksum"):
        XRLinear.load(tmp_path / "model")
    (tmp_path / "model" / "level1.biases.npy").unlink()
    with pytest.raises(StoreError, match=r"level1\.biases\.npy is missing"):
        XRLinear.load(tmp_path / "model")


@pytest.mark.parametrize(
    ("group", "name", "value", "message"),
    [
        ("facts", "layout", None, r"manifest\.json has its weights in layout 1.*Train"),
        ("facts", "features", 999, r"manifest\.json does not describe level 1.* 999 features"),
        ("arrays", "level2.shifts", None, r"manifest\.json does not describe level 2.*shifts"),
        ("facts", "depth", None, r"manifest\.json does not describe a model \('depth'\)"),
        ("facts", "depth", 1, r"does not describe a model that fits its tree"),
    ],
)
def test_a_model_of_another_layout_is_refused(model, tmp_path, group, name, value, message):
    model.save(tmp_path / "model")
    manifest = tmp_path / "model" / "manifest.json"
    content = json.loads(manifest.read_text())
    if value is None:
        del content[group][name]
    else:
        content[group][name] = value
    manifest.write_text(json.dumps(content))
    with pytest.raises(StoreError, match=message):
        XRLinear.load(tmp_path / "model")


def test_levels_and_threads_that_do_not_exist_are_refused(data, model):
    X, _ = data
    for level in (-1, model.tree.depth + 1):
        with pytest.raises(ConfigError, match=f"level is {level}; the tree has the levels 0 to"):
            model.predict_nodes(X, level)
    for n_threads in (0, -2):
        with pytest.raises(ConfigError, match=f"at least 1, got {n_threads}"):
            model.predict(X[:1], n_threads=n_threads)


def test_a_tree_of_other_labels_is_refused(model, tmp_path):
    model.save(tmp_path / "model")
    LabelTree.from_leaves([[0, 1], [2, 3]], branching=2).save(tmp_path / "model" / "tree")
    with pytest.raises(StoreError, match="does not describe a model that fits its tree"):
        XRLinear.load(tmp_path / "model")


def test_damage_in_large_arrays_is_found_when_asked_for(model, tmp_path, monkeypatch):
    monkeypatch.setattr("xmc_core.persistence.store.CHECKED_BYTES", 0)
    model.save(tmp_path / "model")
    file = tmp_path / "model" / "level2.values.npy"
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    XRLinear.load(tmp_path / "model")
    with pytest.raises(StoreError, match=r"level2\.values\.npy does not match its checksum"):
        XRLinear.load(tmp_path / "model", verify=True)


@pytest.mark.parametrize("n_parts", [2, 3, 40])
def test_entries_that_stand_several_times_are_added_up(data, model, n_parts):
    X, Y = data
    parts = csr_array(
        (
            np.repeat(X.data / n_parts, n_parts),
            np.repeat(X.indices, n_parts),
            X.indptr * n_parts,
        ),
        X.shape,
    )
    expected = model.predict(X, n_threads=1)
    found = model.predict(parts)
    assert_array_equal(found.labels, expected.labels)
    assert_allclose(found.scores, expected.scores, rtol=1e-5)
    alone = model.predict(parts[:1])
    assert_array_equal(alone.labels, expected.labels[:1])
    assert_allclose(model.score(parts, Y).data, model.score(X, Y).data, rtol=1e-5)
    trained = train_xr_linear(parts, Y, model.config, tree=model.tree).predict(X)
    assert_allclose(trained.scores[:, 0], expected.scores[:, 0], atol=1e-3)


def test_callers_at_the_same_time_get_their_own_answers(data, model):
    X, _ = data
    expected = model.predict(X)
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda i: model.predict(X[i : i + 1]), range(N)))
    for i, answer in enumerate(answers):
        assert_array_equal(answer.labels[0], expected.labels[i])
        assert_array_equal(answer.scores[0], expected.scores[i])


def test_matcher_aware_negatives_come_from_the_beam(data):
    X, Y = data
    changes = {"rankers.negatives": [["teacher_forcing"], ["teacher_forcing", "matcher_aware"]]}
    config = CONFIG.replace(**EXACT, **changes, **{"inference.beam_size": 2})
    model = train_xr_linear(X, Y, config)
    tree = model.tree
    beam = model.predict_leaves(X, 2).toarray() > 0
    targets = [matrix.toarray() for matrix in tree.targets(Y)]
    active = beam | (targets[0] > 0)
    W, b = reference.train_level(X.toarray().astype(float), targets[1], tree.pointers[1], active)
    assert_allclose(model.levels[1].to_dense()[0], W, atol=2e-3)
    assert_allclose(model.levels[1].to_dense()[1], b, atol=2e-3)


def test_matcher_and_rankers_trained_apart_are_the_model_trained_at_once(data):
    X, Y = data
    kinds = [["teacher_forcing"], ["teacher_forcing", "matcher_aware", "given"]]
    plain = CONFIG.replace(**{"inference.weights": "single"})  # as train_level gives them
    config = plain.replace(**{"rankers.negatives": kinds, "inference.beam_size": 2})
    tree = train_xr_linear(X, Y, CONFIG).tree
    chosen = np.random.default_rng(3).random((N, tree.n_leaves)) < 0.2
    given = {2: csr_array(chosen.astype(np.float32))}
    model = train_xr_linear(X, Y, config, tree=tree, given=given)

    matcher = train_xr_linear(X, Y, plain, tree=tree)
    beam = matcher.predict_leaves(X, 2).toarray() > 0
    targets = tree.targets(Y)
    active = csr_array((chosen | beam | (targets[0].toarray() > 0)).astype(np.float32))
    rankers, _ = train_level(
        X, targets[1], tree.pointers[1], active, config=config.rankers, level=2, depth=2,
        n_threads=1,
    )  # fmt: skip
    for apart, at_once in zip((matcher.levels[0], rankers), model.levels, strict=True):
        for name, array in apart.arrays().items():
            assert_array_equal(at_once.arrays()[name], array)


@pytest.mark.parametrize("relevance", ["none", "l1"])
def test_a_label_in_several_leaves_is_trained_once_on_the_rows_of_all(data, relevance):
    X, Y = data
    leaves = [[*range(0, 25)], [*range(20, 40)], [5], [*range(35, 40), 0]]
    tree = LabelTree.from_leaves(leaves, branching=16, n_labels=LABELS)
    config = CONFIG.replace(**EXACT, **{"rankers.relevance": relevance})
    model = train_xr_linear(X, Y, config, tree=tree)
    W, b = model.levels[1].to_dense()
    for slot, label in enumerate(tree.slot_labels):
        first = np.flatnonzero(tree.slot_labels == label)[0]
        assert_array_equal(W[slot], W[first])
        assert b[slot] == b[first]

    # Alone below a parent that sees the rows of all its leaves.
    reached = np.column_stack([Y.toarray()[:, leaf].any(axis=1) for leaf in leaves])
    active = np.column_stack(
        [reached[:, [label in leaf for leaf in leaves]].any(axis=1) for label in range(LABELS)]
    )
    expected_W, expected_b = reference.train_level(
        X.toarray().astype(float), Y.toarray(), range(LABELS + 1), active, relevance=relevance
    )
    assert_allclose(W, expected_W[tree.slot_labels], atol=2e-3)
    assert_allclose(b, expected_b[tree.slot_labels], atol=2e-3)


def test_given_rows_are_seen(data):
    X, Y = data
    config = CONFIG.replace(**EXACT, **{"rankers.negatives": [["teacher_forcing"], ["given"]]})
    tree = train_xr_linear(X, Y, CONFIG).tree
    everything = csr_array(np.ones((N, tree.n_leaves), np.float32))
    model = train_xr_linear(X, Y, config, tree=tree, given={2: everything})
    targets = tree.targets(Y)[1].toarray()
    W, _ = reference.train_level(X.toarray().astype(float), targets, tree.pointers[1], None)
    assert_allclose(model.levels[1].to_dense()[0], W, atol=2e-3)
    with pytest.raises(ConfigError, match="pass `given=`"):
        train_xr_linear(X, Y, config, tree=tree)


def test_beams_hold_the_nodes_of_a_level(data, model):
    X, _ = data
    leaves = model.predict_leaves(X, 3)
    assert leaves.shape == (N, model.tree.n_leaves)
    assert np.all(np.diff(leaves.indptr) == 3)
    assert model.predict_nodes(X, 0).toarray().tolist() == [[1.0]] * N
    assert model.predict_nodes(X, 2, 7).shape == (N, model.tree.n_slots)


def test_a_single_level_is_one_against_all(data):
    X, Y = data
    model = train_xr_linear(X, Y, CONFIG.replace(**{"tree.max_leaf_size": 100}))
    assert model.tree.depth == 1
    assert model.predict_leaves(X, 5).toarray().tolist() == [[1.0]] * N
    assert len(set(model.predict(X[:1], top_k=LABELS).labels[0])) == LABELS


OVERLAPPING = {
    "disentangle.max_clusters": 2,
    "disentangle.min_gain": 1,
    "disentangle.beam_size": 2,
    "disentangle.capacity": 0.5,
}


def test_labels_can_live_in_several_clusters(data, model):
    X, Y = data
    config = CONFIG.replace(**OVERLAPPING)
    overlapping = train_xr_linear(X, Y, config)
    assert overlapping.tree.n_slots > LABELS
    found = overlapping.predict(X, top_k=LABELS, beam_size=50)
    for labels in found.labels:
        named = labels[labels >= 0]
        assert len(set(named)) == len(named)


def test_the_config_asks_for_disentangling(data):
    X, Y = data
    config = CONFIG.replace(**OVERLAPPING)
    assert train_xr_linear(X, Y, config).tree.n_slots > LABELS
    tree = train_xr_linear(X, Y, CONFIG).tree
    assert train_xr_linear(X, Y, config, tree=tree).tree is tree


def test_recall_of_the_beam_counts_reachable_labels():
    tree = LabelTree.from_leaves([[0, 1], [1, 2], [3]], branching=8)
    Y = csr_array(np.array([[1, 1, 0, 0], [0, 1, 0, 1], [0, 0, 0, 0]], np.float32))
    beams = csr_array(np.array([[0, 1, 0], [1, 1, 0], [0, 0, 1]], np.float32))
    assert recall_of_beam(tree, Y, beams) == 2 / 4  # row 0 reaches label 1; row 1 label 1
    assert recall_of_beam(tree, csr_array((3, 4), dtype=np.float32), beams) == 1


def test_stored_zeros_in_y_are_not_labels(data):
    X, Y = data
    columns = np.tile(np.arange(LABELS), N)
    full = csr_array((Y.toarray().reshape(-1), columns, np.arange(N + 1) * LABELS), Y.shape)
    assert full.nnz == N * LABELS
    from_full = train_xr_linear(X, full, CONFIG)
    assert_same(from_full.predict(X), train_xr_linear(X, Y, CONFIG).predict(X))


def test_the_sign_of_a_label_does_not_matter(data):
    X, Y = data
    signs = np.where(np.arange(Y.nnz) % 2, -1, 1).astype(np.float32)
    signed = csr_array((Y.data * signs, Y.indices, Y.indptr), Y.shape)
    wanted = train_xr_linear(X, Y, CONFIG).predict(X)
    assert_same(train_xr_linear(X, signed, CONFIG).predict(X), wanted)


def test_a_tree_with_pointers_of_32_bits_is_one(data, model):
    X, Y = data
    pointers = tuple(pointer.astype(np.int32) for pointer in model.tree.pointers)
    narrow = LabelTree(pointers, model.tree.slot_labels.astype(np.int64), LABELS)
    assert_same(train_xr_linear(X, Y, CONFIG, tree=narrow).predict(X), model.predict(X))


@pytest.mark.parametrize("shift", [-1, 100, 10**7])
def test_columns_outside_the_matrix_are_refused(data, model, shift):
    X, Y = data

    def moved(rows):
        shifted = csr_array(rows.shape, dtype=np.float32)
        shifted.data, shifted.indices, shifted.indptr = rows.data, rows.indices + shift, rows.indptr
        return shifted

    shifted = moved(X)
    with pytest.raises(DataError, match="a matrix of 200 columns names columns"):
        train_xr_linear(shifted, Y, CONFIG)
    # By itself a row that has the column which is moved out of the matrix.
    outside = next(i for i in range(N) if (0 if shift < 0 else D - 1) in X[i : i + 1].indices)
    for rows in (shifted, moved(X[outside : outside + 1])):
        with pytest.raises(DataError, match="a matrix of 200 columns names columns"):
            model.predict(rows)
    with pytest.raises(DataError, match="a matrix of 200 columns names columns"):
        model.score(shifted, Y)


def test_labels_that_are_no_number_are_refused(data):
    X, Y = data
    broken = Y.copy()
    broken.data[3] = np.nan
    with pytest.raises(DataError, match="Y holds a NaN or an infinity; labels must be"):
        train_xr_linear(X, broken, CONFIG)


def test_says_what_it_does_level_by_level(data):
    X, Y = data
    recorder = Recorder()
    model = train_xr_linear(X, Y, CONFIG, report=recorder)
    texts = [event["text"] for event in recorder.events if event["event"] == "message"]
    facts = {}
    for event in recorder.events:
        if event["event"] == "metrics":
            facts |= event["values"]
    outcomes = [outcome for _, outcome in train_levels(X, Y, model.tree, CONFIG)]
    for number, outcome in enumerate(outcomes, start=1):
        assert facts[f"level_{number}_objective"] == outcome.objective > 0
        assert facts[f"level_{number}_epochs"] == outcome.epochs > 1
        assert facts[f"level_{number}_not_converged"] == 0
    wanted = f"level 2 of 2: 40 classifiers, {model.levels[1].nnz:,} weights, objective "
    (text,) = (text for text in texts if text.startswith(wanted))
    assert text.endswith(f"{outcomes[1].epochs} epochs, 0 not converged")


def test_counts_the_labels_that_did_not_converge(data):
    recorder = Recorder()
    train_xr_linear(*data, CONFIG.replace(**{"rankers.max_iter": 1}), report=recorder)
    values = [e["values"] for e in recorder.events if e["event"] == "metrics"]
    assert values[-1]["level_2_not_converged"] == LABELS


def test_outcomes_are_plain_facts(data):
    X, Y = data
    tree = train_xr_linear(X, Y, CONFIG).tree
    (_, first), (_, second) = train_levels(X, Y, tree, CONFIG)
    assert first.classifiers == tree.level_sizes[0]
    assert second.not_converged == 0
    assert json.dumps(second.nnz)


def test_names_both_sizes_when_samples_do_not_match(data):
    X, Y = data
    with pytest.raises(ShapeError, match=r"X has 150 rows but Y has 149"):
        train_xr_linear(X, Y[:149], CONFIG)


def test_matrices_have_no_label_names_to_grow_a_tree_on(data):
    config = CONFIG.replace(**{"tree.label_features": "text"})
    with pytest.raises(ConfigError, match=r"is text, but matrices have no label names"):
        train_xr_linear(*data, config)


def test_names_both_sizes_when_the_tree_or_its_features_do_not_match(data, model):
    X, Y = data
    with pytest.raises(ShapeError, match=r"Y has 39 labels but the tree has 40"):
        train_xr_linear(X, csr_array(Y[:, :39]), CONFIG, tree=model.tree)
    with pytest.raises(ShapeError, match=r"Y has 40 labels but label_features has 39 rows"):
        train_xr_linear(X, Y, CONFIG, label_features=csr_array((39, 5), dtype=np.float32))
    with pytest.raises(
        ShapeError, match=r"X is \(150, 199\) but the model was trained on 200 feat"
    ):
        model.predict(csr_array(X[:, :199]))


def test_refuses_what_cannot_work(data, model):
    X, Y = data
    for name in ("top_k", "beam_size"):
        with pytest.raises(ConfigError, match=rf"{name} must be at least 1, got 0"):
            model.predict(X, **{name: 0})
    broken = X.copy()
    broken.data[0] = np.inf
    with pytest.raises(DataError, match="infinity"):
        train_xr_linear(broken, Y, CONFIG)
