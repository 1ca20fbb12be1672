"""From documents to numbered labels."""

import random
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from tests.data.conftest import WriteLines, document
from tests.reference import data as reference
from xmc_core.config import DatasetConfig
from xmc_core.data import Dataset
from xmc_core.data.build import build_dataset, split_documents
from xmc_core.data.documents import Collector, Documents
from xmc_core.data.raw import RawFiles, find_raw, read_raw
from xmc_core.errors import DataError
from xmc_core.reporting import Recorder
from xmc_core.types import SparseRows


def documents_of(rows: list[reference.Row], source: str = "train.jsonl") -> Documents:
    collector = Collector(source)
    for text, labels in rows:
        collector.add(text, sorted(labels))
    return collector.finish()


def random_rows(n_rows: int, seed: int, alphabet: str) -> list[reference.Row]:
    chance = random.Random(seed)
    return [
        (f"{seed} {row}", set(chance.choices(alphabet, k=chance.randrange(4))))
        for row in range(n_rows)
    ]


def labels_of(Y: SparseRows, names: list[str]) -> list[set[str]]:
    assert Y.has_sorted_indices
    assert np.all(Y.data == 1)
    return [
        {names[label] for label in Y.indices[a:b]}
        for a, b in zip(Y.indptr[:-1], Y.indptr[1:], strict=True)
    ]


TRAIN = random_rows(60, 1, "zyxabcdefghijklm")
TEST = random_rows(30, 2, "efghijklmnopqrst")


@pytest.mark.parametrize("min_label_count", [1, 3, 8])
def test_agrees_with_the_reference(min_label_count: int):
    dataset = build_dataset(
        documents_of(TRAIN), documents_of(TEST), min_label_count=min_label_count
    )
    expected = reference.number_labels(TRAIN, TEST, min_label_count)
    assert dataset.label_names == expected.names
    assert dataset.n_labels == expected.n_labels
    assert labels_of(dataset.Y_train, expected.names) == expected.train
    assert labels_of(dataset.Y_test, expected.names) == expected.test
    assert dataset.train_texts == [text for text, _ in TRAIN]


def test_labels_of_train_come_first_each_with_at_least_one_row():
    dataset = build_dataset(documents_of(TRAIN), documents_of(TEST))
    assert np.all(dataset.label_counts[: dataset.n_labels] > 0)
    assert np.all(dataset.label_counts[dataset.n_labels :] == 0)
    assert dataset.Y_test.shape[1] == len(dataset.label_names) > dataset.n_labels


def test_the_order_of_the_documents_does_not_change_the_labels():
    dataset = build_dataset(documents_of(TRAIN), documents_of(TEST))
    turned = build_dataset(documents_of(TRAIN[::-1]), documents_of(TEST[::-1]))
    assert turned.label_names == dataset.label_names
    assert_array_equal(turned.Y_train.toarray()[::-1], dataset.Y_train.toarray())


def test_what_is_odd_is_kept_counted_and_told():
    train = documents_of([("a", {"x"}), ("b", set()), (" ", {"x", "y"})])
    test = documents_of([("c", {"new"}), ("d", {"x", "new"}), ("e", set())], "test.jsonl")
    report = Recorder()
    dataset = build_dataset(train, test, report=report)
    assert dataset.facts == {
        "train_rows": 3,
        "test_rows": 3,
        "labels": 2,
        "labels_per_row": 1.0,
        "test_only_labels": 1,
        "rows_without_labels": 2,
        "test_rows_with_only_unseen_labels": 1,
        "rows_without_text": 1,
        "test_texts_in_train": 0,
        "labels_nearly_alike": 0,
        "rows_with_rare_labels_only": 0,
        "duplicate_labels": 0,
        "labels_too_rare": 0,
        "labels_without_name": 0,
    }
    *messages, metrics = report.events
    assert metrics == {"event": "metrics", "values": dataset.facts}
    assert [message["text"] for message in messages] == [
        "documents without a label: 2 (kept)",
        "documents without text: 1 (kept)",
        "labels of test that train does not teach: 1 (kept; they count as missed)",
        "test documents none of whose labels train teaches: 1 (kept; no prediction can be right)",
    ]


def test_texts_in_both_parts_and_labels_nearly_alike_are_told():
    train = documents_of([("a", {"Ford", "Ford "}), ("b", {"Caf\u00e9"}), ("", {"Ford"})])
    test = documents_of([("a", {"Ford"}), ("c", {"Cafe\u0301"}), ("", {"Ford"})], "test.jsonl")
    report = Recorder()
    facts = build_dataset(train, test, report=report).facts
    assert (facts["test_texts_in_train"], facts["labels_nearly_alike"]) == (1, 2)
    told = [event["text"] for event in report.events if event["event"] == "message"]
    assert any(text.startswith("test documents whose text is a training doc") for text in told)
    assert any(text.startswith("labels that differ from another in white space") for text in told)


def test_no_label_in_train_is_an_error():
    train = documents_of([("a", set()), ("b", set())])
    with pytest.raises(DataError, match=r"train.jsonl: no label occurs, so there is nothing"):
        build_dataset(train, documents_of([("c", {"x"})]))
    with pytest.raises(DataError, match=r"no label occurs at least 5 times"):
        build_dataset(documents_of([("a", {"x"})]), documents_of([("c", {"x"})]), min_label_count=5)


def test_test_labels_that_train_does_not_have_at_all_are_an_error():
    train, test = documents_of([("a", {"x"})]), documents_of([("b", {"X"})], "test.jsonl")
    with pytest.raises(DataError, match=r"none of its labels occurs in train.jsonl, nothing can"):
        build_dataset(train, test)


def test_a_share_held_out_by_chance_without_any_known_label_is_not():
    train, test = documents_of([("a", {"x"})]), documents_of([("b", {"y"})])
    assert build_dataset(train, test, test_given=False).n_labels == 1


def test_a_test_split_without_any_label_cannot_be_measured():
    train, test = documents_of([("a", {"x"})]), documents_of([("b", set())], "test part")
    with pytest.raises(DataError, match="test part: no document has a label"):
        build_dataset(train, test, test_given=False)


def test_what_test_documents_have_does_not_decide_what_is_learned():
    train = documents_of([("a", {"x", "y"}), ("b", {"x"})])
    test = documents_of([("c", {"y", "x"}), ("d", {"z"})], "test.jsonl")
    dataset = build_dataset(train, test, min_label_count=2)
    assert (dataset.label_names, dataset.n_labels) == (["x", "y", "z"], 1)
    assert labels_of(dataset.Y_train, dataset.label_names) == [{"x"}, {"x"}]
    assert labels_of(dataset.Y_test, dataset.label_names) == [{"x", "y"}, {"z"}]
    assert dataset.facts["labels_too_rare"] == 1
    more = documents_of([("a", {"x"}), ("b", {"x", "y"}), ("e", {"y2"}), ("f", set())])
    facts = build_dataset(more, test, min_label_count=2).facts
    assert (facts["rows_without_labels"], facts["rows_with_rare_labels_only"]) == (1, 1)
    with pytest.raises(DataError, match=r"occurs in train.jsonl at least 2 times \(dataset.min"):
        build_dataset(train, documents_of([("c", {"y"})], "test.jsonl"), min_label_count=2)


def test_a_name_made_unique_is_no_other_labels_name():
    names = {"a": "X", "b": "X", "c": "X (a)"}
    train = documents_of([("a", {"a", "b", "c"})])
    dataset = build_dataset(train, documents_of([("b", {"a"})]), label_names=names)
    assert dataset.label_names == ["X (a) (a)", "X (b)", "X (a) (c)"]


def test_names_are_shown_and_no_two_labels_share_one():
    names = {"1": "bank", "2": "bank", "3": "river"}
    train = documents_of([("a", {"1", "2", "3", "4"})])
    dataset = build_dataset(train, documents_of([("b", {"1"})]), label_names=names)
    assert dataset.label_names == ["bank (1)", "bank (2)", "river", "4"]
    assert dataset.facts["labels_without_name"] == 1


def test_a_split_takes_each_document_to_one_side_with_its_labels():
    documents = documents_of(TRAIN)
    train, test = split_documents(documents, documents.texts, 0.3)
    sides = dict(TRAIN)
    for part in (train, test):
        for row, text in enumerate(part.texts):
            labels = part.labels[part.pointer[row] : part.pointer[row + 1]]
            assert {part.names[label] for label in labels} == sides.pop(text)
    assert not sides
    assert len(test) > 5


def test_files_are_found_read_and_split(write_lines: WriteLines, tmp_path: Path):
    write_lines([document(f"text {n}", "x", f"y{n % 3}") for n in range(100)], "train.jsonl.xz")
    write_lines(["x\tevery one", "y0\tzero"], "labels.txt.gz")
    files = find_raw(tmp_path)
    assert files == RawFiles(tmp_path / "train.jsonl.xz", None, tmp_path / "labels.txt.gz")
    dataset = read_raw(files, DatasetConfig(test_share=0.3))
    assert dataset.label_names == ["every one", "zero", "y1", "y2"]
    assert len(dataset.train_texts) + len(dataset.test_texts) == 100
    assert 15 <= len(dataset.test_texts) <= 45
    assert dataset.facts["files"] == ["train.jsonl.xz", "labels.txt.gz"]


def test_a_folder_without_train_or_with_two_of_them_is_refused(
    write_lines: WriteLines, tmp_path: Path
):
    with pytest.raises(DataError, match=r"has no train.jsonl .*xmc data add .* --train FILE"):
        find_raw(tmp_path)
    write_lines([], "train.jsonl")
    write_lines([], "train.jsonl.gz")
    with pytest.raises(DataError, match=r"has both train.jsonl and train.jsonl.gz; remove"):
        find_raw(tmp_path)


def test_a_data_set_is_the_same_after_saving_and_loading(tmp_path: Path):
    dataset = build_dataset(documents_of(TRAIN), documents_of(TEST))
    dataset.save(tmp_path / "d")
    loaded = Dataset.load(tmp_path / "d")
    assert loaded.train_texts == dataset.train_texts
    assert loaded.test_texts == dataset.test_texts
    assert loaded.label_names == dataset.label_names
    assert_array_equal(loaded.Y_train.toarray(), dataset.Y_train.toarray())
    assert_array_equal(loaded.Y_test.toarray(), dataset.Y_test.toarray())
    assert loaded.facts.items() >= dataset.facts.items()
    assert loaded.Y_train.indices.dtype == np.int32
