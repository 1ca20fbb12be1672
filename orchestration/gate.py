"""May the challenger take the champion's place? Decided on the present test split, row by row."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from xmc_core.config import Config
from xmc_core.data import Dataset, Predictions
from xmc_core.errors import StoreError
from xmc_core.metrics.bootstrap import Gate, not_worse
from xmc_core.metrics.ranking import RowScores, row_scores

ANSWER = Path(__file__).parent / "mlflow_model" / "answer.py"

METRICS = ("P@1", "P@5", "PSP@5")
"""The best label, the first five, and the rare ones among them."""


def judge(challenger: Predictions, champion: Predictions, data: Dataset, config: Config) -> Gate:
    """Paired bootstrap over the test rows. Both predictions name labels of `data`."""
    return not_worse(
        _row_scores(challenger, data, config),
        _row_scores(champion, data, config),
        metrics=METRICS,
        seed=config.seed,
    )


def answer_again(bundle: Path, data: Dataset) -> Predictions:
    """Let an older bundle answer the present test split, its labels renumbered by name.

    Raises StoreError if the folder is not the bundle of a pipeline.
    """
    from xmc_core.models import PipelineModel

    model = PipelineModel.load(bundle)
    return renumber(model.predict(data.test_texts), model.label_names, data.label_names)


def answer_as_registered(bundle: Path, code: Path, data: Dataset) -> Predictions:
    """The same by the library that was registered with the bundle, in a process of its own: for
    what the present release cannot read any more.

    Raises StoreError if that does not work either, with the last words of the process.
    """
    with TemporaryDirectory(prefix="xmc-answer-") as folder:
        texts, out = Path(folder) / "texts.json", Path(folder) / "answers.npz"
        texts.write_text(json.dumps(list(data.test_texts)), encoding="utf-8")
        done = subprocess.run(
            [sys.executable, "-P", str(ANSWER), str(bundle), str(texts), str(out)],
            # Machine code is kept by the folder of its source, which is another one each time.
            env={**os.environ, "PYTHONPATH": str(code), "NUMBA_CACHE_DIR": f"{folder}/numba"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        if done.returncode != 0:
            last = (done.stderr.strip() or f"exit status {done.returncode}").splitlines()[-1]
            raise StoreError(f"the library that was registered with it does not answer: {last}")
        names = json.loads(out.with_suffix(".json").read_text(encoding="utf-8"))
        with np.load(out) as found:
            told = Predictions(found["labels"], found["scores"])
        return renumber(told, names, data.label_names)


def renumber(
    predictions: Predictions, old_names: Sequence[str], new_names: Sequence[str]
) -> Predictions:
    """The same predictions in another numbering of the labels.

    Labels that are not among the new names are dropped, and those behind them move up.

    >>> scores = np.array([[0.9, 0.5, 0.1]], np.float32)
    >>> told = Predictions(np.array([[2, 0, 1]], np.int32), scores)
    >>> renumber(told, ["a", "gone", "c"], ["c", "a"]).labels.tolist()
    [[0, 1, -1]]
    """
    number = {name: label for label, name in enumerate(new_names)}
    # The extra last entry is what the padding label -1 reads.
    table = np.array([*(number.get(name, -1) for name in old_names), -1], np.int32)
    labels = table[predictions.labels]
    scores = np.where(labels >= 0, predictions.scores, -np.inf).astype(np.float32)
    order = np.argsort(labels < 0, axis=1, kind="stable")
    return Predictions(np.take_along_axis(labels, order, 1), np.take_along_axis(scores, order, 1))


def _row_scores(predictions: Predictions, data: Dataset, config: Config) -> dict[str, RowScores]:
    scores = row_scores(
        predictions,
        data.Y_test,
        label_counts=data.label_counts,
        n_train=len(data.train_texts),
        ks=(1, 5),
        a=config.dataset.propensity_a,
        b=config.dataset.propensity_b,
    )
    return {name: scores[name] for name in METRICS}
