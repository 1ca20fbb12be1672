"""Texts to tf-idf rows."""

from pathlib import Path

import numpy as np

from xmc_core.config import Config
from xmc_core.features.tfidf import fit_tfidf
from xmc_core.persistence import write_store
from xmc_core.reporting import Reporter
from xmc_core.stages.inputs import Inputs


def run(inputs: Inputs, config: Config, out: Path, report: Reporter) -> None:
    """Learn terms and their weights on the training texts, and weigh both splits."""
    dataset = inputs.dataset
    train = report.track(dataset.train_texts, len(dataset.train_texts), "training texts")
    vectorizer, X_train = fit_tfidf(train, config.tfidf, config.n_threads)
    X_test = vectorizer.transform(dataset.test_texts, config.n_threads)
    vectorizer.save(out / "vectorizer")
    write_store(out, "tfidf-features", matrices={"X_train": X_train, "X_test": X_test})
    report.metrics(
        train_rows=X_train.shape[0],
        test_rows=X_test.shape[0],
        features=vectorizer.n_features,
        nnz=int(X_train.nnz + X_test.nnz),
        empty_train_rows=int(np.sum(np.diff(X_train.indptr) == 0)),
        empty_test_rows=int(np.sum(np.diff(X_test.indptr) == 0)),
    )
