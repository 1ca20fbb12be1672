"""The user's own files of a data set, as they lie in data/raw/<dataset>/.

train.jsonl    documents; .jsonl.gz and .jsonl.xz as well
test.jsonl     the same; without it a stable share of train is held out
labels.txt     lines `id<TAB>name`; .gz, .xz; without it a label is its own name
"""

from dataclasses import dataclass
from pathlib import Path

from xmc_core.config import DatasetConfig
from xmc_core.data.build import build_dataset, split_documents
from xmc_core.data.dataset import Dataset
from xmc_core.data.readers import OnError, raise_error, read_documents, read_label_names
from xmc_core.errors import DataError
from xmc_core.reporting import SILENT, Reporter

PACKED = ("", ".gz", ".xz")


@dataclass(frozen=True, slots=True)
class RawFiles:
    """Where the files are."""

    train: Path
    test: Path | None = None
    labels: Path | None = None


def find_raw(folder: Path) -> RawFiles:
    """Look into data/raw/<dataset>/.

    Raises DataError if there is no train file, or one of them is there in two forms.
    """
    train = _one(folder, "train.jsonl")
    if train is None:
        raise DataError(
            f"{folder} has no train.jsonl (nor .gz, .xz); put it there, or let "
            f"`xmc data add {folder.name} --train FILE` do it."
        )
    return RawFiles(train, _one(folder, "test.jsonl"), _one(folder, "labels.txt"))


def read_raw(
    files: RawFiles,
    config: DatasetConfig,
    *,
    report: Reporter = SILENT,
    on_error: OnError = raise_error,
) -> Dataset:
    """Read, check and split a user's files.

    Raises DataError for the first rule that is broken; with `on_error`, only for what concerns the
    data as a whole, as no label in train.
    """
    train = read_documents(files.train, report=report, on_error=on_error)
    test = None
    if files.test is not None:
        test = read_documents(files.test, report=report, on_error=on_error)
    names = None
    if files.labels is not None:
        names = read_label_names(files.labels, on_error=on_error)
    facts = {
        "source": "files",
        "files": [f.name for f in (files.train, files.test, files.labels) if f is not None],
    }
    given = test is not None
    if test is None:
        train, test = split_documents(train, train.texts, config.test_share)
    return build_dataset(
        train,
        test,
        test_given=given,
        min_label_count=config.min_label_count,
        label_names=names,
        report=report,
        facts=facts,
    )


def _one(folder: Path, name: str) -> Path | None:
    found = [path for suffix in PACKED if (path := folder / f"{name}{suffix}").is_file()]
    if len(found) > 1:
        raise DataError(
            f"{folder} has both {found[0].name} and {found[1].name}; remove the one not meant."
        )
    return found[0] if found else None
