"""Documents become a `Dataset`: labels get numbers, the split is made, oddities are counted."""

import dataclasses
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from scipy.sparse import csr_array

from xmc_core.data.dataset import Dataset
from xmc_core.data.documents import Documents
from xmc_core.data.splits import held_out
from xmc_core.errors import DataError
from xmc_core.reporting import SILENT, Reporter
from xmc_core.types import Indices, Json, SparseRows


def build_dataset(
    train: Documents,
    test: Documents,
    *,
    test_given: bool = True,
    min_label_count: int = 1,
    label_names: Mapping[str, str] | None = None,
    report: Reporter = SILENT,
    facts: Json | None = None,
) -> Dataset:
    """Number the labels and state what is odd about the data.

    Labels are sorted by their id. Those that are learned come first; those that only test has, or
    train too rarely, follow. What is kept and only told: documents without labels or text, labels
    named twice in a document, test documents whose labels train does not teach.

    Parameters
    ----------
    test_given : whether the user chose the test documents
        Then none of them sharing a label with train is an error, not bad luck.
    min_label_count : documents of train
        Labels with fewer are not learned. Where test documents have them they count as missed, like
        labels that train never shows: what is measured does not depend on what is learned.
    label_names : id -> name
        Names to show; a label without one shows its id.

    Raises
    ------
    DataError
        If no label occurs in train, none in test, or (with `test_given`) none in both.
    """
    in_train, in_test = _counts(train), _counts(test)
    known = sorted(label for label, n in in_train.items() if n >= min_label_count)
    is_rule = bool(in_train) and min_label_count > 1
    rare = f" at least {min_label_count} times (dataset.min_label_count)" if is_rule else ""
    if not known:
        raise DataError(
            f"{train.source}: no label occurs{rare}, so there is nothing to learn; "
            'at least one document needs something in "labels".'
        )
    if not in_test:
        raise DataError(
            f"{test.source}: no document has a label, so nothing could be measured; give a test "
            "file with labels, or hold out a larger share (dataset.test_share)."
        )
    if test_given and in_test.keys().isdisjoint(known):
        raise DataError(
            f"{test.source}: none of its labels occurs in {train.source}{rare}, nothing can be "
            "measured. Check that both spell labels alike, or leave out the test file to hold out "
            "a share."
        )
    unseen = sorted(in_test.keys() - known)
    ids = known + unseen
    numbers = {label: number for number, label in enumerate(ids)}
    names, nameless = _names(ids, label_names)

    dataset = Dataset(
        train.texts,
        test.texts,
        names,
        _matrix(train, numbers, len(known)),
        _matrix(test, numbers, len(ids)),
    )
    counts = count(dataset)
    counts["rows_with_rare_labels_only"] = (
        int(np.count_nonzero(np.diff(dataset.Y_train.indptr) == 0)) - train.without_labels
    )
    counts["rows_without_labels"] -= counts["rows_with_rare_labels_only"]
    counts["duplicate_labels"] = train.duplicates + test.duplicates
    counts["labels_too_rare"] = len(in_train) - len(known)
    counts["labels_without_name"] = nameless
    for text in describe(counts):
        report.message(text)
    report.metrics(**counts)
    return dataclasses.replace(dataset, facts={**(facts or {}), **counts})


def split_documents(
    documents: Documents, keys: Sequence[str], share: float
) -> tuple[Documents, Documents]:
    """Hold out about `share` of the documents for testing; those with equal keys stay together."""
    test = held_out(keys, share, documents.source)
    where = f"{documents.source} ({{}} share)"
    return (
        dataclasses.replace(
            documents.take(np.flatnonzero(~test).tolist(), where.format("training")),
            duplicates=documents.duplicates,
        ),
        documents.take(np.flatnonzero(test).tolist(), where.format("held-out")),
    )


def count(dataset: Dataset) -> dict[str, float]:
    """The numbers that describe a data set, by the names under which every UI shows them."""
    per_row = np.diff(dataset.Y_train.indptr)
    unseen = dataset.Y_test.indices >= dataset.n_labels
    row_of = np.repeat(np.arange(len(dataset.test_texts)), np.diff(dataset.Y_test.indptr))
    seen_per_row = np.bincount(row_of[~unseen], minlength=len(dataset.test_texts))
    test_per_row = np.diff(dataset.Y_test.indptr)
    texts = (*dataset.train_texts, *dataset.test_texts)
    known = set(dataset.train_texts)
    plain = {_plain(name) for name in dataset.label_names}
    return {
        "train_rows": len(dataset.train_texts),
        "test_rows": len(dataset.test_texts),
        "labels": dataset.n_labels,
        "labels_per_row": round(float(per_row.mean()), 4),
        "test_only_labels": len(dataset.label_names) - dataset.n_labels,
        "rows_without_labels": int(
            np.count_nonzero(per_row == 0) + np.count_nonzero(test_per_row == 0)
        ),
        "test_rows_with_only_unseen_labels": int(
            np.count_nonzero((test_per_row > 0) & (seen_per_row == 0))
        ),
        "rows_without_text": sum(not text.strip() for text in texts),
        "test_texts_in_train": sum(text in known for text in dataset.test_texts if text.strip()),
        "labels_nearly_alike": len(dataset.label_names) - len(plain),
    }


def _plain(name: str) -> str:
    """A label's name without what the eye does not see: white space, Unicode's two ways to write an
    accent."""
    return " ".join(unicodedata.normalize("NFC", name).split())


def describe(counts: Mapping[str, float]) -> list[str]:
    """A line for each oddity: what, how often, and what becomes of it."""
    lines = {
        "rows_without_labels": "documents without a label: {:,} (kept)",
        "rows_without_text": "documents without text: {:,} (kept)",
        "test_texts_in_train": (
            "test documents whose text is a training document's, too: {:,} (kept; they make "
            "figures better than they are)"
        ),
        "labels_nearly_alike": (
            "labels that differ from another in white space or Unicode form alone: {:,} (kept "
            "apart)"
        ),
        "duplicate_labels": "labels named twice in one document: {:,} (counted once)",
        "test_only_labels": (
            "labels of test that train does not teach: {:,} (kept; they count as missed)"
        ),
        "test_rows_with_only_unseen_labels": (
            "test documents none of whose labels train teaches: {:,} (kept; no prediction can be "
            "right)"
        ),
        "rows_with_rare_labels_only": (
            "training documents all of whose labels are too rare: {:,} (kept, as documents of none)"
        ),
        "labels_too_rare": "labels rarer than dataset.min_label_count: {:,} (not learned)",
        "labels_without_name": "labels that the file of names does not name: {:,} (shown by id)",
    }
    return [line.format(counts[name]) for name, line in lines.items() if counts.get(name)]


def _counts(documents: Documents) -> Counter[str]:
    """Occurrences of each label that some document has."""
    frequencies = np.bincount(documents.labels, minlength=len(documents.names)).tolist()
    return Counter({name: n for name, n in zip(documents.names, frequencies, strict=True) if n})


def _matrix(documents: Documents, numbers: Mapping[str, int], n_labels: int) -> SparseRows:
    """(n_documents, n_labels) ones; labels without a number, or numbered beyond, are left out."""
    renumbered: Indices = np.array(
        [numbers.get(name, n_labels) for name in documents.names], np.int32
    )
    columns = renumbered[documents.labels]
    kept = columns < n_labels
    pointer = np.concatenate([[0], np.cumsum(kept)])[documents.pointer]
    columns = columns[kept]
    if len(columns) <= np.iinfo(np.int32).max:
        pointer = pointer.astype(np.int32)  # else scipy widens the columns too
    matrix = csr_array(
        (np.ones(len(columns), np.float32), columns, pointer), shape=(len(documents), n_labels)
    )
    matrix.sort_indices()
    return matrix


def _names(ids: Sequence[str], names: Mapping[str, str] | None) -> tuple[list[str], int]:
    """Names to show, no two alike, and how many labels have none."""
    shown = [(names or {}).get(label, label) for label in ids]
    taken = Counter(shown)
    while len(taken) < len(shown):  # again if "name (id)" is another label's name
        shown = [n if taken[n] == 1 else f"{n} ({i})" for n, i in zip(shown, ids, strict=True)]
        taken = Counter(shown)
    return shown, sum(label not in names for label in ids) if names is not None else 0
