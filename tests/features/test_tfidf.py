import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from tests.reference import features as reference
from tests.shared_data import shared_texts
from xmc_core.config import ANALYZERS, TfidfBlock, TfidfConfig
from xmc_core.errors import DataError, StoreError
from xmc_core.features import vocabulary
from xmc_core.features.tfidf import TfidfVectorizer, fit_tfidf
from xmc_core.features.tokens import (
    BATCH_CHARACTERS,
    CLASSES,
    PAGE,
    TEXTS_AT_ONCE,
    look_up_page,
)
from xmc_core.kernels.text import CAPITAL, KNOWN, SPACE, WORD
from xmc_core.types import SparseRows

CONFIG = TfidfConfig()
EVERYTHING = TfidfConfig(min_df=1)
BLOCKS = TfidfConfig(
    weight=2.0,
    blocks=(
        TfidfBlock(analyzer="char_wb", min_ngram=3, max_ngram=5, weight=0.5),
        TfidfBlock(analyzer="char", max_ngram=2, min_df=3, max_df=0.5, sublinear=False),
        TfidfBlock(min_ngram=2, max_features=2),
    ),
)

BLOCKS_OF_TWO = TfidfConfig(
    blocks=(TfidfBlock(analyzer="char_wb", min_ngram=3, max_ngram=5, weight=0.5),)
)

TEXTS = [
    "The quick brown fox, the quick red fox.",
    "A RED fox; the Lazy dog",
    "dog dog dog -- lazy dog",
    "",
    "Ελληνικά ΛΟΓΟΣ λόγος ΛΟΓΟΣ",
    "naïve café NAÏVE Café",
    "snake_case \uff12\uff10 ½ ² 漢字 \U0001d49c\U0001d4b7 漢字",
    "the fox_ the fox 漢字\tsnake_case\n½",
    "... !? --",
    "cafe naive the the the lazy λόγος",
]


def assert_same(a: SparseRows, b: SparseRows) -> None:
    """The same bits."""
    assert a.shape == b.shape
    for name in ("indptr", "indices", "data"):
        assert getattr(a, name).dtype == getattr(b, name).dtype
        assert_array_equal(getattr(a, name), getattr(b, name))


def long_corpus(blocks: float, n_words: int = 3000) -> list[str]:
    """Zipf words, enough of them for so many blocks."""
    random = np.random.default_rng(5)
    size = int(blocks * BATCH_CHARACTERS / 6)
    drawn = np.minimum(random.zipf(1.3, size), n_words)
    cuts = np.sort(random.choice(size, size // 40, replace=False))
    return [" ".join(f"w{word}é" for word in part) for part in np.split(drawn, cuts)]


@pytest.mark.parametrize(
    "config",
    [
        CONFIG,
        EVERYTHING,
        TfidfConfig(min_df=1, max_ngram=1),
        TfidfConfig(min_df=1, min_ngram=2, max_ngram=4),
        TfidfConfig(min_df=1, max_df=0.25),
        TfidfConfig(max_features=3),
        TfidfConfig(sublinear=False),
        TfidfConfig(lowercase=False),
        TfidfConfig(fold_accents=True),
        TfidfConfig(analyzer="char", max_ngram=3),
        TfidfConfig(analyzer="char", min_df=1, min_ngram=4, max_ngram=8),
        TfidfConfig(analyzer="char_wb", max_ngram=3, sublinear=False),
        TfidfConfig(analyzer="char_wb", min_df=1, min_ngram=5, max_ngram=6, fold_accents=True),
        BLOCKS,
    ],
    ids=str,
)
def test_agrees_with_the_reference(config):
    terms, expected = reference.tfidf(TEXTS, **asdict(config))
    vectorizer, X = fit_tfidf(TEXTS, config)
    assert vectorizer.terms() == terms
    assert_allclose(X.toarray(), expected, atol=1e-6)


ALPHABET = "ab _-.\0\n\t\u2003Aé\u0301ÉİßΣς\u212a²漢\ud800\U0001d49c\U0001f600"


@settings(max_examples=150, deadline=None)
@given(
    texts=st.lists(
        st.one_of(
            st.text(ALPHABET, max_size=30),
            st.text(max_size=20),
            st.builds(lambda word, n: word * n, st.text("aé漢 ", max_size=9), st.integers(1, 40)),
        ),
        min_size=1,
        max_size=6,
    ),
    analyzer=st.sampled_from(ANALYZERS),
    lengths=st.tuples(st.integers(1, 8), st.integers(1, 8)).map(sorted),
    lowercase=st.booleans(),
    fold_accents=st.booleans(),
)
def test_agrees_with_the_reference_on_any_text(texts, analyzer, lengths, lowercase, fold_accents):
    config = TfidfConfig(
        analyzer=analyzer, min_ngram=lengths[0], max_ngram=lengths[1], min_df=1,
        lowercase=lowercase, fold_accents=fold_accents,
    )  # fmt: skip
    terms, expected = reference.tfidf(texts, **asdict(config))
    if terms:
        vectorizer, X = fit_tfidf(texts, config, 1)
        assert vectorizer.terms() == terms
        assert_allclose(X.toarray(), expected, atol=1e-6)
        assert_same(vectorizer.transform(iter(texts), 2), X)
    else:
        with pytest.raises(DataError, match=r"neighbouring (words|characters)"):
            fit_tfidf(texts, config)


@pytest.mark.parametrize("length", [*range(1, 20), 55, 56, 63, 64, 65, 127, 128, 129, 5000])
def test_words_of_any_length_are_told_apart_by_each_of_their_bytes(length):
    changed = ["a" * i + "b" + "a" * (length - i - 1) for i in range(length)]
    words = ["a" * length, *changed[:64]]
    texts = ["x " * i + word for i, word in enumerate(words)]  # at any distance from a group
    vectorizer, _ = fit_tfidf(texts, TfidfConfig(min_df=1, max_ngram=1))
    assert set(vectorizer.terms()) == {*words, "x"}


SKLEARN = {
    "word": {"ngram_range": (1, 2), "token_pattern": r"(?u)\w+"},
    "char": {"ngram_range": (1, 3)},
    "char_wb": {"ngram_range": (3, 5)},
}


def agrees_with_scikit_learn(texts: list[str], analyzer: str, **options: Any) -> None:
    text = pytest.importorskip("sklearn.feature_extraction.text", reason="scikit-learn is absent")
    settings = {"analyzer": analyzer, **SKLEARN[analyzer], **options}
    twin = text.TfidfVectorizer(sublinear_tf=True, min_df=2, **settings)
    expected = twin.fit_transform(texts)
    smallest, largest = settings["ngram_range"]
    config = TfidfConfig(analyzer=analyzer, min_ngram=smallest, max_ngram=largest)
    vectorizer, X = fit_tfidf(texts, config)
    assert sorted(vectorizer.terms()) == sorted(twin.vocabulary_)
    columns = [twin.vocabulary_[term] for term in vectorizer.terms()]
    assert abs(expected[:, columns] - X).max() < 1e-6


@pytest.mark.parametrize("analyzer", ANALYZERS)
@pytest.mark.parametrize("name", ["eurlex-titles", "gutenberg-lcsh"])
def test_agrees_with_scikit_learn(name, analyzer):
    agrees_with_scikit_learn(shared_texts(name)[:3000], analyzer)


@settings(max_examples=60, deadline=None)
@given(
    texts=st.lists(
        st.text("ab _-.\n\t\u2003AéÉİßΣ漢\U0001f600", max_size=20), min_size=1, max_size=5
    ),
    analyzer=st.sampled_from(ANALYZERS),
    lengths=st.tuples(st.integers(1, 5), st.integers(1, 5)).map(sorted),
)
def test_agrees_with_scikit_learn_on_any_text(texts, analyzer, lengths):
    always = "common " * 8  # so that there is a term
    agrees_with_scikit_learn([*texts, *texts, always, always], analyzer, ngram_range=tuple(lengths))


@pytest.mark.parametrize("lowercase", [True, False])
def test_lower_case_is_that_of_python(lowercase):
    """Each character of Unicode in its own word, both alone and among other letters."""
    points = [p for p in range(1, 0x110000) if chr(p).isalnum() and not 0x3400 < p < 0xD800]
    texts = [f"{chr(p)} x{chr(p)} {chr(p)}Y" for p in points]
    vectorizer, _ = fit_tfidf(texts, TfidfConfig(min_df=1, max_ngram=1, lowercase=lowercase))
    expected = dict.fromkeys(
        word for text in texts for word in reference.grams(text, 1, 1, lowercase=lowercase)
    )
    assert set(vectorizer.terms()) == set(expected)


def test_classes_of_characters_are_those_of_the_re_module_and_of_lower():
    for page in range(0x110000 // PAGE):
        look_up_page(page)
    points = [p for p in range(0x110000) if not 0xD800 <= p < 0xE000]
    text = "".join(map(chr, points))
    for pattern, kind in ((r"\w", WORD), (r"\s", SPACE)):
        expected = [ord(c) for c in re.findall(pattern, text)]
        assert_array_equal(np.flatnonzero(CLASSES & kind), expected)
    changed = [p for p in points if chr(p).lower() != chr(p)]
    assert_array_equal(np.flatnonzero(CLASSES & CAPITAL), changed)
    assert (CLASSES & KNOWN).all()


def test_a_page_is_looked_up_when_a_text_first_needs_it():
    CLASSES[:] = 0
    look_up_page(0)
    fit_tfidf(["λόγος \U0001d49c"] * 2, CONFIG)
    assert {*np.flatnonzero(CLASSES) // PAGE} == {0, 0x1D}


def test_capitals_beyond_ascii_may_come_in_any_batch():
    small = ["naïve café"] * 2000
    texts = [*small, *["ÉTÉ Λόγος ΛΟΓΟΣ İz"] * 2000, *small, *["été λόγος i̇z"] * 2000]
    vectorizer, _ = fit_tfidf(texts, TfidfConfig(max_ngram=1))
    assert set(vectorizer.terms()) == {"naïve", "café", "été", "λόγος", "λογος", "i", "z"}


def test_letters_beyond_the_first_plane_are_letters_whatever_came_before():
    texts = ["naïve café", "𝒳 and 𐐨𐐀 \U00031340", "plain"]
    vectorizer, _ = fit_tfidf(texts, TfidfConfig(min_df=1, max_ngram=1))
    expected = {word for text in texts for word in re.findall(r"\w+", text.lower())}
    assert set(vectorizer.terms()) == expected


@pytest.mark.parametrize("where", [0, TEXTS_AT_ONCE, 3 * TEXTS_AT_ONCE - 1])
def test_what_is_no_text_is_named_by_its_place(where):
    texts: list = ["some words"] * (3 * TEXTS_AT_ONCE)
    texts[where] = 7
    with pytest.raises(DataError, match=rf"text {where} is of type int; every text must be"):
        fit_tfidf(iter(texts), CONFIG)


def test_a_kind_of_string_is_a_string():
    texts = [np.str_("red wine"), "white wine"]
    assert fit_tfidf(texts, TfidfConfig(min_df=1))[0].n_documents == 2


def test_rows_have_unit_length_and_ascending_features():
    _, X = fit_tfidf(long_corpus(0.3), CONFIG)
    assert_allclose(X.multiply(X).sum(axis=1)[np.diff(X.indptr) > 0], 1, atol=1e-5)
    X.has_sorted_indices = False
    before = X.indices.copy()
    X.sort_indices()
    assert_array_equal(X.indices, before)
    assert (X.data.dtype, X.indices.dtype) == (np.float32, np.int32)


@pytest.mark.parametrize("config", [CONFIG, BLOCKS], ids=["words", "blocks"])
def test_transform_repeats_what_fit_returned(config):
    texts = long_corpus(2.5)
    vectorizer, X = fit_tfidf(texts, config)
    assert_same(vectorizer.transform(texts), X)


@pytest.mark.parametrize("config", [CONFIG, BLOCKS], ids=["words", "blocks"])
def test_is_identical_on_one_thread_and_on_many(config):
    texts = long_corpus(5.5)
    one, X_one = fit_tfidf(texts, config, 1)
    many, X_many = fit_tfidf(iter(texts), config, 3)
    assert one.terms() == many.terms()
    for a, b in zip(one.blocks, many.blocks, strict=True):
        assert_array_equal(a.idf, b.idf)
        assert_array_equal(a.hashes, b.hashes)
    assert_same(X_one, X_many)
    assert_same(one.transform(texts, 1), one.transform(iter(texts), 3))


def test_blocks_are_as_long_as_their_weights_say():
    vectorizer, X = fit_tfidf(["red wine", "red wine", "- -", "- -"], BLOCKS_OF_TWO)
    words = vectorizer.blocks[0].n_features
    lengths = np.sqrt((X.toarray() ** 2)[:, :words].sum(axis=1))
    assert_allclose(lengths, [np.sqrt(0.8), np.sqrt(0.8), 0, 0], atol=1e-6)
    assert_allclose((X.toarray() ** 2).sum(axis=1), 1, atol=1e-6)  # where one block is empty too


def test_the_iterator_is_read_once_whatever_the_blocks():
    asked = []

    def texts() -> Iterator[str]:
        for text in TEXTS:
            asked.append(text)
            yield text

    assert_same(fit_tfidf(texts(), BLOCKS)[1], fit_tfidf(TEXTS, BLOCKS)[1])
    assert asked == TEXTS


def test_a_vocabulary_grows_without_losing_a_term(monkeypatch):
    texts = long_corpus(1.5)
    expected, X = fit_tfidf(texts, BLOCKS)
    monkeypatch.setattr(vocabulary, "FIRST_ROOM", 2)
    small, Z = fit_tfidf(texts, BLOCKS)
    assert small.terms() == expected.terms()
    assert_same(X, Z)


def test_blocks_do_not_show_in_the_result():
    texts = long_corpus(2.5, n_words=300)
    terms, expected = reference.tfidf(texts[:400], min_df=3)
    vectorizer, X = fit_tfidf(texts[:400], replace(CONFIG, min_df=3))
    assert vectorizer.terms() == terms
    assert_allclose(X.toarray(), expected, atol=1e-6)
    whole, _ = fit_tfidf(texts, CONFIG)
    counts = reference.Counter(g for t in texts for g in set(reference.grams(t, 1, 2)))
    assert {term for term, count in counts.items() if count >= 2} == set(whole.terms())


def test_terms_come_by_falling_document_frequency_then_by_first_appearance():
    vectorizer, _ = fit_tfidf(["b a", "a c", "c d d d"], TfidfConfig(min_df=1, max_ngram=1))
    assert vectorizer.terms() == ["a", "c", "b", "d"]


def test_a_term_is_its_words_with_one_space_between():
    vectorizer, _ = fit_tfidf(["one -- TWO,\n three", "one two"], EVERYTHING)
    assert vectorizer.terms() == ["one", "two", "one two", "three", "two three"]


def test_words_that_training_did_not_see_are_ignored_and_may_leave_an_empty_row():
    vectorizer, _ = fit_tfidf(["red wine", "red wine", "white wine"], CONFIG)
    X = vectorizer.transform(["unknown", "", "red unknown wine", "red wine"])
    assert_array_equal(np.diff(X.indptr), [0, 0, 2, 3])
    assert X.shape == (4, 3)


def test_no_texts_give_no_rows():
    vectorizer, _ = fit_tfidf(TEXTS, CONFIG)
    assert vectorizer.transform([]).shape == (0, vectorizer.n_features)


def test_a_document_longer_than_a_block_is_one_row():
    long = "word " * BATCH_CHARACTERS
    vectorizer, X = fit_tfidf([long, "word word", "other words"], CONFIG)
    assert vectorizer.terms() == ["word", "word word"]
    assert_array_equal(np.diff(X.indptr), [2, 2, 0])


def test_zero_characters_and_lone_surrogates_separate_words():
    vectorizer, X = fit_tfidf(["a\0b", "a\ud800b", "a b"], CONFIG)
    assert vectorizer.terms() == ["a", "b", "a b"]
    assert_array_equal(np.diff(X.indptr), [3, 3, 3])


def test_folding_makes_accented_words_equal():
    vectorizer, _ = fit_tfidf(["Café", "cafe", "CAFE\u0301"], TfidfConfig(fold_accents=True))
    assert vectorizer.terms() == ["cafe"]


def test_max_features_keeps_the_most_frequent():
    all_terms = fit_tfidf(TEXTS, CONFIG)[0].terms()
    assert fit_tfidf(TEXTS, TfidfConfig(max_features=4))[0].terms() == all_terms[:4]


@pytest.mark.parametrize("config", [CONFIG, BLOCKS], ids=["words", "blocks"])
def test_a_saved_vectorizer_gives_the_same_bytes_in_another_process(tmp_path, config):
    vectorizer, X = fit_tfidf(TEXTS, config)
    vectorizer.save(tmp_path / "one")
    code = (
        "import sys; from pathlib import Path; import numpy as np\n"
        "from xmc_core.features.tfidf import TfidfVectorizer\n"
        "from tests.features.test_tfidf import TEXTS\n"
        "vectorizer = TfidfVectorizer.load(Path(sys.argv[1]) / 'one')\n"
        "vectorizer.save(Path(sys.argv[1]) / 'two')\n"
        "X = vectorizer.transform(TEXTS, 1)\n"
        "np.savez(Path(sys.argv[1]) / 'X.npz', X.indptr, X.indices, X.data)\n"
        "print('|'.join(vectorizer.terms()).encode('utf-8').hex())\n"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], cwd=root, capture_output=True, check=True
    )
    assert bytes.fromhex(done.stdout.decode()).decode("utf-8").split("|") == vectorizer.terms()
    with np.load(tmp_path / "X.npz") as other:
        for array, expected in zip(other.values(), (X.indptr, X.indices, X.data), strict=True):
            assert_array_equal(array, expected)
    files = sorted(p.name for p in (tmp_path / "one").iterdir())
    assert files == sorted(p.name for p in (tmp_path / "two").iterdir())
    for name in files:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_refuses_a_folder_that_holds_something_else(tmp_path):
    with pytest.raises(StoreError, match=r"not a saved xmc folder"):
        TfidfVectorizer.load(tmp_path)


def test_says_which_rule_left_no_term():
    with pytest.raises(DataError, match=r"of 4 in 2 texts: 4 occur in fewer than tfidf.min_df = 2"):
        fit_tfidf(["red wine", "dog"], CONFIG)
    with pytest.raises(DataError, match=r"1 in more than tfidf.max_df = 0.5 of them \(1\)"):
        fit_tfidf(["wine", "wine"], TfidfConfig(max_df=0.5))


def test_names_the_block_that_has_no_term():
    with pytest.raises(DataError, match=r"tfidf.blocks\[1\].min_df = 3 texts"):
        fit_tfidf(["red wine", "red wine"], BLOCKS)


def test_says_when_there_is_no_word_at_all():
    with pytest.raises(DataError, match=r"none of the 2 texts has 1 neighbouring words"):
        fit_tfidf(["...", ""], CONFIG)
    with pytest.raises(DataError, match=r"there are no texts"):
        fit_tfidf([], CONFIG)


def test_names_the_text_that_is_not_a_string():
    with pytest.raises(DataError, match=r"text 1 is of type float"):
        fit_tfidf(["red", float("nan")], CONFIG)  # type: ignore[list-item]
    with pytest.raises(DataError, match=r"put it in a list"):
        fit_tfidf("red wine", CONFIG)
