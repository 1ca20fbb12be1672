"""Canonical texts, labels and the split into train and test."""

from pathlib import Path
from typing import TYPE_CHECKING

from xmc_core.config import Config
from xmc_core.data.build import build_dataset, split_documents
from xmc_core.data.dataset import Dataset
from xmc_core.data.python_api import read_python_api
from xmc_core.data.raw import find_raw, read_raw
from xmc_core.reporting import Reporter

if TYPE_CHECKING:
    from xmc_core.stages.inputs import Inputs


def run(inputs: "Inputs", config: Config, out: Path, report: Reporter) -> None:
    """Read the user's files, or the source code of installed packages; check; number the labels."""
    if config.dataset.source == "files":
        dataset = read_raw(find_raw(inputs.paths.raw), config.dataset, report=report)
    else:
        dataset = _python_api(config, report)
    dataset.save(out)


def _python_api(config: Config, report: Reporter) -> Dataset:
    """Split by file: what is written side by side shares its words and the functions it calls."""
    read = read_python_api(config.dataset.packages, n_threads=config.n_threads, report=report)
    train, test = split_documents(read.documents, read.files, config.dataset.test_share)
    return build_dataset(
        train,
        test,
        test_given=False,
        min_label_count=config.dataset.min_label_count,
        report=report,
        facts={"source": "python-api", **read.facts},
    )
