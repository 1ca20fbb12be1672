"""Settings chosen on a validation split of the training rows.

No single setting wins on every set: EUR-Lex titles (6.5 labels a row, 27 rows a label) want heavy
negatives and rank labels by their own margin, library catalogues (2.3 and 4) want the opposite
(docs/log.md). A handful of settings, tried one after the other, tells which kind a set is of.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.sparse import csr_array

from xmc_core.config import Config, to_mapping
from xmc_core.errors import ConfigError, DataError, ShapeError
from xmc_core.inference.calibration import shuffled_runs
from xmc_core.metrics import NAMES, evaluate
from xmc_core.models.xr_linear import XRLinear, train_xr_linear
from xmc_core.reporting import SILENT, Reporter
from xmc_core.types import SparseRows

METRICS = ("P@1", "P@3", "P@5")

SEARCH: tuple[tuple[str, tuple[Any, ...]], ...] = (
    ("inference.path_weight", (0.0, 0.02, 0.05, 0.1)),
    ("rankers.cost_negative", (1.0, 2.0, 4.0)),
    ("rankers.tail", (0.0, 0.1)),
    ("rankers.cost", (2.0, 3.0, 4.0, 6.0)),
    ("disentangle.in_rankers", (False, True)),
    ("inference.beam_size", (50, 100)),
    ("inference.path_weight", (0.0, 0.02, 0.05, 0.1)),
)
"""Parameters in the order in which they are decided, with the values that are tried of each."""

NO_TRAINING = frozenset({"inference.path_weight", "inference.paths"})
"""Parameters that a trained model can be asked again with."""

MAX_ROWS = 100_000
"""Larger sets are tuned on a sample of so many rows."""

FOLDS = 7
"""Parts that the rows are cut into; a fold is one of them held out."""

ENOUGH_ROWS = 7_000
"""Folds are added until so many rows are held out in all: 2,400 rows of EUR-Lex titles, one fold,
tell settings apart that lie 0.3 points from each other; 7,000, where neighbours lie 0.1 to 0.2."""

MOST_FOLDS = 3


@dataclass(frozen=True, slots=True)
class Trial:
    """One setting and what it came to on the validation rows."""

    changes: dict[str, Any]
    """Parameters that differ from the config that tuning started from."""

    score: float
    """Mean of the metrics, percent."""

    metrics: dict[str, float]


@dataclass(frozen=True, slots=True)
class Tuned:
    """The best config, and every trial in order."""

    config: Config
    changes: dict[str, Any]
    trials: tuple[Trial, ...]


def tune(
    X: SparseRows,
    Y: SparseRows,
    config: Config,
    *,
    metrics: Sequence[str] = METRICS,
    max_rows: int = MAX_ROWS,
    label_features: SparseRows | None = None,
    report: Reporter = SILENT,
) -> Tuned:
    """Choose settings of XR-Linear, one parameter after the other (`SEARCH`).

    Each value of a parameter is tried with the best values so far of all others; a parameter
    that takes training costs one for each of its values but the present one, ten or so in all, on
    each fold.

    Parameters
    ----------
    X : (n_samples, n_features)
    Y : (n_samples, n_labels)
        Training rows; test rows must play no part in a choice of settings.
    config
        Where to start, and everything that is not searched. `seed` draws the split.
    metrics
        Names that `evaluate` knows; settings are judged by their mean.
    max_rows
        Sample of the rows to use. A seventh is held out, two or three times where that is little.
    label_features : (n_labels, any)
        What to grow trees on; see `train_xr_linear`.

    Raises
    ------
    ShapeError
        If X and Y have different numbers of rows.
    DataError
        If there are too few rows to hold some out.
    ConfigError
        If a metric does not exist.
    """
    if unknown := [name for name in metrics if name not in NAMES]:
        raise ConfigError(f"there is no metric {unknown[0]!r}; known: {', '.join(NAMES)}.")
    splits = _splits(X, Y, max_rows, config.calibration.run, config.seed)
    trials: list[Trial] = []
    trained: list[tuple[Any, list[XRLinear]]] = []  # the last ones
    start = to_mapping(config)

    def score(candidate: Config) -> float:
        settings = _training_settings(candidate)
        if not trained or trained[0][0] != settings:
            models = [
                train_xr_linear(s.X_train, s.Y_train, candidate, label_features=label_features)
                for s in splits
            ]
            trained[:] = [(settings, models)]
        models = [replace(model, config=candidate) for model in trained[0][1]]
        values = _judge(models, splits, metrics)
        changes = _changes(start, to_mapping(candidate))
        trial = Trial(changes, float(np.mean(list(values.values()))), values)
        trials.append(trial)
        report.message(f"{_named(trial.changes)}: {trial.score:.2f} ({_named(trial.metrics)})")
        return trial.score

    best, best_score = config, score(config)
    tried = {str(to_mapping(config))}
    for number, (name, values) in enumerate(SEARCH, start=1):
        report.message(f"{number} of {len(SEARCH)}: {name}")
        for candidate in _candidates(best, name, values):
            if str(to_mapping(candidate)) in tried:
                continue
            tried.add(str(to_mapping(candidate)))
            candidate_score = score(candidate)
            if candidate_score > best_score:
                best, best_score = candidate, candidate_score
    return Tuned(best, _changes(start, to_mapping(best)), tuple(trials))


@dataclass(frozen=True, slots=True, eq=False)
class _Split:
    X_train: SparseRows
    Y_train: SparseRows
    X_valid: SparseRows
    Y_valid: SparseRows


def _splits(X: SparseRows, Y: SparseRows, max_rows: int, run: int, seed: int) -> list[_Split]:
    """Rows held out and all others; `run` neighbours stay together, see `calibration.run`."""
    n_samples = X.shape[0]
    if Y.shape[0] != n_samples:
        raise ShapeError(
            f"X has {n_samples:,} rows but Y has {Y.shape[0]:,}; "
            "both must hold the same samples in the same order."
        )
    rows = shuffled_runs(n_samples, run, seed)[:max_rows]
    if len(rows) < FOLDS:
        raise DataError(f"{len(rows):,} rows are too few to hold a seventh of them out.")
    parts = np.array_split(rows, FOLDS)
    n_folds = min(MOST_FOLDS, -(-ENOUGH_ROWS // len(parts[0])))
    X, Y = csr_array(X), csr_array(Y)
    splits = []
    for fold in range(n_folds):
        valid = np.sort(parts[fold])
        train = np.sort(np.concatenate(parts[:fold] + parts[fold + 1 :]))
        splits.append(_Split(X[train], Y[train], X[valid], Y[valid]))
    return splits


def _judge(
    models: Sequence[XRLinear], splits: Sequence[_Split], metrics: Sequence[str]
) -> dict[str, float]:
    """Each metric's mean over the folds, percent."""
    found = []
    for model, split in zip(models, splits, strict=True):
        counts = np.bincount(split.Y_train.indices, minlength=split.Y_train.shape[1])
        values = evaluate(
            model.predict(split.X_valid),
            split.Y_valid,
            label_counts=counts,
            n_train=split.Y_train.shape[0],
            a=model.config.dataset.propensity_a,
            b=model.config.dataset.propensity_b,
        )
        found.append(values)
    return {name: float(np.mean([values[name] for values in found])) for name in metrics}


def _candidates(best: Config, name: str, values: Sequence[Any]) -> Iterator[Config]:
    """`best` with each value of a parameter, where the config allows it."""
    for value in values:
        try:
            yield best.replace(**{name: value})
        except ConfigError:
            continue  # as a tail without relevance


def _training_settings(config: Config) -> Any:
    """What a trained model depends on."""
    settings = to_mapping(config)
    for name in NO_TRAINING:
        section, _, parameter = name.partition(".")
        del settings[section][parameter]
    return settings


def _changes(start: Any, end: Any) -> dict[str, Any]:
    names = dict.fromkeys(name for name, _ in SEARCH)
    pairs = ((name, *name.split(".")) for name in names)
    return {
        name: end[section][parameter]
        for name, section, parameter in pairs
        if end[section][parameter] != start[section][parameter]
    }


def _named(values: dict[str, Any]) -> str:
    if not values:
        return "as it is"
    texts = ((n, f"{v:.2f}" if isinstance(v, float) and "@" in n else v) for n, v in values.items())
    return ", ".join(f"{name} {text}" for name, text in texts)
