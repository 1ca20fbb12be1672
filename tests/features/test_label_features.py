import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.sparse import csr_array, random_array

from tests.reference import features as reference
from xmc_core.config import TfidfConfig, TreeConfig
from xmc_core.errors import DataError, ShapeError
from xmc_core.features import label_features as module
from xmc_core.features.label_features import label_centroids, label_features, unit_rows
from xmc_core.features.tfidf import fit_tfidf

TEXTS = ["red wine", "white wine and red wine", "lazy dog", "sleeping dog", "red dog", "white dog"]
NAMES = ["wine", "Q42", "the dog's wine", "sleeping", "???"]
DOCUMENTS = np.array(  # the labels of the texts; "sleeping" has none, nor has "???"
    [
        [1, 0, 1, 0, 0],
        [1, 1, 0, 0, 0],
        [0, 0, 1, 0, 0],
        [0, 1, 1, 0, 0],
        [0, 1, 0, 0, 0],
        [0, 0, 0, 0, 0],
    ],
    np.float32,
)


@pytest.fixture(scope="module", name="X")
def samples():
    X = random_array((200, 90), density=0.1, rng=np.random.default_rng(1), dtype=np.float32)
    return csr_array(X)


@pytest.fixture(scope="module", name="Y")
def labels():
    pattern = random_array((200, 40), density=0.08, rng=np.random.default_rng(2)) != 0
    used = np.ones(40, np.float32)
    used[[3, 39]] = 0  # no positives
    Y = csr_array(pattern.multiply(used))
    Y.eliminate_zeros()
    Y.sort_indices()
    return Y


@pytest.mark.parametrize("max_features", [0, 1, 5, 30, 1000])
def test_agrees_with_the_reference(Y, X, max_features):
    expected = reference.label_centroids(Y.toarray(), X.toarray(), max_features)
    Z = label_centroids(Y, X, max_features=max_features)
    assert_allclose(Z.toarray(), expected, atol=1e-6)


def test_agrees_with_the_reference_where_weights_are_negative_and_cancel():
    X = csr_array(np.array([[1, -2, 0], [-1, 1, 0.5], [1, 1, 0]], np.float32))
    Y = csr_array(np.array([[1, 0], [1, 0], [0, 1]], np.float32))
    Z = label_centroids(Y, X)
    assert_allclose(Z.toarray(), reference.label_centroids(Y.toarray(), X.toarray()), atol=1e-6)
    assert Z.nnz == 4  # the sum that is exactly zero is not stored


def test_values_of_the_labels_weigh_the_samples(X):
    Y = np.abs(np.random.default_rng(3).normal(size=(200, 6))).astype(np.float32)
    expected = reference.label_centroids(Y.astype(float), X.toarray())
    assert_allclose(label_centroids(csr_array(Y), X).toarray(), expected, atol=1e-5)


def test_is_identical_on_one_thread_and_on_many(Y, X, monkeypatch):
    monkeypatch.setattr(module, "BLOCK_ENTRIES", 100)  # dozens of blocks
    for max_features in (0, 7):
        one = label_centroids(Y, X, max_features=max_features, n_threads=1)
        many = label_centroids(Y, X, max_features=max_features, n_threads=4)
        for name in ("indptr", "indices", "data"):
            assert_array_equal(getattr(one, name), getattr(many, name))


def test_equal_weights_are_kept_by_the_smaller_feature():
    X = csr_array(np.array([[0, 1, 1, 1, 1, 0.5]], np.float32))
    Z = label_centroids(csr_array(np.ones((1, 1), np.float32)), X, max_features=2)
    assert_array_equal(Z.indices, [1, 2])
    assert_allclose(Z.data, 0.5**0.5, rtol=1e-6)


def test_a_label_without_positives_gets_an_empty_row(Y, X):
    Z = label_centroids(Y, X, max_features=4)
    assert_array_equal(np.flatnonzero(np.diff(Z.indptr) == 0), [3, 39])
    assert Z.shape == (40, 90)


def test_features_ascend_within_a_label_and_rows_have_unit_length(Y, X):
    for max_features in (0, 5):
        Z = label_centroids(Y, X, max_features=max_features)
        for start, end in zip(Z.indptr[:-1], Z.indptr[1:], strict=True):
            assert np.all(np.diff(Z.indices[start:end]) > 0)
        lengths = np.sqrt(Z.multiply(Z).sum(axis=1))
        assert_allclose(lengths[np.diff(Z.indptr) > 0], 1, rtol=1e-6)
        assert (Z.data.dtype, Z.indices.dtype) == (np.float32, np.int32)


def test_no_labels_give_no_rows(X):
    assert label_centroids(csr_array((200, 0), dtype=np.float32), X).shape == (0, 90)


def test_names_both_sizes_when_samples_do_not_match(Y, X):
    with pytest.raises(ShapeError, match=r"200 samples but X has 199 rows"):
        label_centroids(Y, X[1:])


@pytest.fixture(scope="module", name="tfidf")
def vectorizer_and_rows():
    return fit_tfidf(TEXTS, TfidfConfig(min_df=1, max_ngram=1))


def features_of(kind, tfidf, *, extra_columns=0, names=NAMES, weight=0.3):
    vectorizer, X = tfidf
    wide = np.pad(X.toarray(), ((0, 0), (0, extra_columns)), constant_values=0.2)
    return label_features(
        csr_array(DOCUMENTS),
        csr_array(wide),
        TreeConfig(label_features=kind, text_weight=weight),
        label_names=names,
        vectorizer=vectorizer,
    )


@pytest.mark.parametrize("extra_columns", [0, 3])
@pytest.mark.parametrize(("kind", "share"), [("text", 1.0), ("both", 0.3), ("pifa", 0.0)])
def test_rows_and_names_agree_with_the_reference(tfidf, kind, share, extra_columns):
    vectorizer, X = tfidf
    wide = np.pad(X.toarray(), ((0, 0), (0, extra_columns)), constant_values=0.2)
    text = vectorizer.transform(NAMES).toarray()
    expected = reference.label_features(DOCUMENTS.astype(float), wide, text, share)
    Z = features_of(kind, tfidf, extra_columns=extra_columns)
    assert_allclose(Z.toarray(), expected, atol=1e-6)
    assert (Z.data.dtype, Z.indices.dtype) == (np.float32, np.int32)
    assert Z.has_sorted_indices


def test_a_label_without_a_known_word_in_its_name_goes_by_its_rows(tfidf):
    rows = features_of("pifa", tfidf).toarray()
    for kind in ("text", "both"):
        assert_allclose(features_of(kind, tfidf).toarray()[1], rows[1], atol=1e-6)


def test_a_label_without_rows_goes_by_its_name(tfidf):
    vectorizer, _ = tfidf
    name = vectorizer.transform(["sleeping"]).toarray()[0]
    for kind in ("text", "both"):
        Z = features_of(kind, tfidf).toarray()
        assert_allclose(Z[3], name, atol=1e-6)
        assert not Z[4].any()  # neither


def test_names_that_say_nothing_are_refused(tfidf):
    with pytest.raises(DataError, match=r"is both, but no label's name \(the first is 'Q1'\)"):
        features_of("both", tfidf, names=["Q1", "Q2", "Q3", "Q4", "Q5"])
    assert features_of("pifa", tfidf, names=["Q1"] * 5).nnz > 0


def test_names_must_fit_the_labels(tfidf):
    with pytest.raises(ShapeError, match=r"Y has 5 labels but there are 4 names"):
        features_of("text", tfidf, names=NAMES[:4])


def test_rows_that_are_not_empty_get_unit_length():
    Z = csr_array(np.array([[0, 0, 0], [3, 0, 4], [0, 0, 0], [0, 2, 0], [0, 0, 0]], np.float32))
    expected = [[0, 0, 0], [0.6, 0, 0.8], [0, 0, 0], [0, 1, 0], [0, 0, 0]]
    assert_allclose(unit_rows(Z).toarray(), expected, rtol=1e-6)
