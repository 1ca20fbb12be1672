"""How much of a figure is noise: bootstrap over the test samples.

A test split is a sample of what could have been asked. Drawing its rows again and again, with
repetition, shows how far a metric would have moved with other rows (Efron and Tibshirani, "An
Introduction to the Bootstrap", 1993). Two models judged on the same rows are compared row by row:
their difference varies far less than either figure, because rows that are hard for one are hard for
the other.

All intervals are percentile intervals. Equal seeds give equal bytes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from xmc_core.errors import ConfigError, ShapeError
from xmc_core.metrics.ranking import RowScores
from xmc_core.types import Doubles

SAMPLES = 2000
CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Interval:
    """A metric and where it may as well have been, in percent."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class PairedResult:
    """First model minus second, in percentage points."""

    difference: float
    low: float
    high: float
    p_value: float
    """Two-sided: how often chance alone would show a difference this large. Identical models: 1."""

    @property
    def verdict(self) -> str:
        """`better`, `worse`, or `even` where the interval holds 0."""
        return "better" if self.low > 0.0 else "worse" if self.high < 0.0 else "even"

    def reversed(self) -> "PairedResult":
        """Second model minus first."""
        return PairedResult(-self.difference, -self.high, -self.low, self.p_value)


@dataclass(frozen=True, slots=True)
class Gate:
    """May the challenger take the champion's place?"""

    passed: bool
    reason: str
    results: dict[str, PairedResult]
    """Challenger minus champion, by metric."""


def bootstrap_intervals(
    rows: Mapping[str, RowScores],
    *,
    samples: int = SAMPLES,
    seed: int = 0,
    confidence: float = CONFIDENCE,
) -> dict[str, Interval]:
    """Confidence interval of each metric."""
    return _intervals(rows, _drawn_metrics([rows], samples, seed)[0], confidence)


def paired_bootstrap(
    a: RowScores | ArrayLike,
    b: RowScores | ArrayLike,
    *,
    samples: int = SAMPLES,
    seed: int = 0,
    confidence: float = CONFIDENCE,
) -> PairedResult:
    """Compare two models on the same rows, one metric.

    `a` and `b` are RowScores, or plain arrays (n_samples,) of fractions such as P@1 of each row.
    Raises ShapeError if they have different numbers of rows.
    """
    pair = paired_bootstraps(
        {"": _as_rows(a)}, {"": _as_rows(b)}, samples=samples, seed=seed, confidence=confidence
    )
    return pair[""]


def paired_bootstraps(
    a: Mapping[str, RowScores],
    b: Mapping[str, RowScores],
    *,
    samples: int = SAMPLES,
    seed: int = 0,
    confidence: float = CONFIDENCE,
) -> dict[str, PairedResult]:
    """The same for every metric that both models have, all from one set of draws."""
    names = [name for name in a if name in b]
    models = [{name: rows[name] for name in names} for rows in (a, b)]
    drawn_a, drawn_b = _drawn_metrics(models, samples, seed)
    return _differences(models[0], models[1], drawn_a, drawn_b, confidence)


def compare_models(
    models: Mapping[str, Mapping[str, RowScores]],
    *,
    samples: int = SAMPLES,
    seed: int = 0,
    confidence: float = CONFIDENCE,
) -> tuple[dict[str, dict[str, Interval]], dict[str, dict[str, PairedResult]]]:
    """Intervals of every model, and every model but the first minus the first.

    Equal to `bootstrap_intervals` of each and `paired_bootstraps` of each pair, from one set of
    draws: drawing is what costs.
    """
    drawn = dict(zip(models, _drawn_metrics(list(models.values()), samples, seed), strict=True))
    intervals = {
        model: _intervals(rows, drawn[model], confidence) for model, rows in models.items()
    }
    first, *others = models
    against_first = {
        model: _differences(models[model], models[first], drawn[model], drawn[first], confidence)
        for model in others
    }
    return intervals, against_first


def compare_pairs(
    models: Mapping[str, Mapping[str, RowScores]],
    *,
    samples: int = SAMPLES,
    seed: int = 0,
    confidence: float = CONFIDENCE,
) -> dict[tuple[str, str], dict[str, PairedResult]]:
    """Every model minus every one before it, over the metrics that all of them have.

    Keys are (model, the one that is subtracted); all results come from one set of draws.
    """
    names = [name for name in next(iter(models.values()), {}) if all(name in m for m in
             models.values())]  # fmt: skip
    rows = {model: {name: own[name] for name in names} for model, own in models.items()}
    drawn = dict(zip(rows, _drawn_metrics(list(rows.values()), samples, seed), strict=True))
    order = list(rows)
    return {
        (model, other): _differences(
            rows[model], rows[other], drawn[model], drawn[other], confidence
        )
        for place, model in enumerate(order)
        for other in order[:place]
    }


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p values for being several: the step-down method of Holm (Scand. J. Stat. 6, 1979).

    Whoever reads twenty figures finds one with p < .05 where there is nothing. Among corrected ones
    the chance that any falls below .05 by accident stays at .05, however the figures hang together.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    corrected, largest = [1.0] * len(p_values), 0.0
    order = sorted(range(len(p_values)), key=lambda place: p_values[place])
    for passed, place in enumerate(order):
        largest = max(largest, (len(p_values) - passed) * p_values[place])
        corrected[place] = min(1.0, largest)
    return corrected


def not_worse(
    challenger: Mapping[str, RowScores],
    champion: Mapping[str, RowScores],
    *,
    metrics: Sequence[str] | None = None,
    samples: int = SAMPLES,
    seed: int = 0,
    confidence: float = CONFIDENCE,
) -> Gate:
    """Decide by the rows of the test split whether the challenger may replace the champion.

    It fails only if it is worse by more than its noise: if, for one of `metrics` (all that both
    have, when None), the interval of the difference lies wholly below 0. A tie passes, since the
    challenger has seen newer data.

    Raises
    ------
    ShapeError
        If the two were judged on different numbers of rows: they must share one test split.
    ConfigError
        If one of `metrics` is missing in either: passing unseen would be no gate.
    """
    names = [name for name in (metrics or challenger) if name in challenger and name in champion]
    if not names or (metrics is not None and len(names) < len(metrics)):
        raise ConfigError(
            f"the gate needs {', '.join(metrics or ['a metric'])} of both models; "
            f"the challenger has {', '.join(challenger) or 'none'}, "
            f"the champion {', '.join(champion) or 'none'}."
        )
    results = paired_bootstraps(
        {name: challenger[name] for name in names},
        champion,
        samples=samples,
        seed=seed,
        confidence=confidence,
    )
    worse = [name for name, result in results.items() if result.verdict == "worse"]
    told = ", ".join(f"{name} {_told(results[name])}" for name in worse or names)
    if worse:
        return Gate(False, f"worse than the champion by more than its noise: {told}", results)
    return Gate(True, f"not worse than the champion: {told}", results)


def draw_sums(columns: Doubles, samples: int, seed: int) -> Doubles:
    """(samples, n_columns) sums of `columns` (n_rows, n_columns) over rows drawn with repetition.

    Counting how often each row was drawn turns a draw into one pass over the columns. Sums go
    through einsum, not through `@`: BLAS would cut them by its number of threads.
    """
    if samples < 1:
        raise ConfigError(f"the bootstrap needs at least 1 draw, got {samples}.")
    n_rows = len(columns)
    rng = np.random.default_rng(seed)
    by_column = np.ascontiguousarray(columns.T)
    sums = np.empty((samples, columns.shape[1]))
    for draw in range(samples):
        times = np.bincount(rng.integers(0, n_rows, n_rows), minlength=n_rows).astype(np.float64)
        np.einsum("ji,i->j", by_column, times, out=sums[draw])
    return sums


def _drawn_metrics(
    models: Sequence[Mapping[str, RowScores]], samples: int, seed: int
) -> list[dict[str, Doubles]]:
    """For each model and metric: (samples,) percent, all models on the same draws."""
    every = [scores for model in models for scores in model.values()]
    sizes = {len(scores.gain) for scores in every}
    if len(sizes) != 1 or 0 in sizes:
        found = " and ".join(f"{size:,}" for size in sorted(sizes)) or "no"
        raise ShapeError(
            f"the bootstrap got scores of {found} rows; "
            "all must be of the same test samples, at least one."
        )
    # Metrics share arrays, such as the ones under P@1, P@3 and P@5: each is summed once.
    columns: dict[int, Doubles] = {}
    for scores in every:
        columns.setdefault(id(scores.gain), scores.gain)
        columns.setdefault(id(scores.weight), scores.weight)
    place = {key: index for index, key in enumerate(columns)}
    sums = draw_sums(np.stack(list(columns.values()), axis=1), samples, seed)

    def metric(scores: RowScores) -> Doubles:
        gain, weight = sums[:, place[id(scores.gain)]], sums[:, place[id(scores.weight)]]
        share: Doubles = np.divide(gain, weight, out=np.zeros_like(gain), where=weight > 0.0)
        return 100.0 * share

    return [{name: metric(scores) for name, scores in model.items()} for model in models]


def _intervals(
    rows: Mapping[str, RowScores], drawn: Mapping[str, Doubles], confidence: float
) -> dict[str, Interval]:
    return {
        name: Interval(scores.value, *_interval(drawn[name], confidence))
        for name, scores in rows.items()
    }


def _differences(
    a: Mapping[str, RowScores],
    b: Mapping[str, RowScores],
    drawn_a: Mapping[str, Doubles],
    drawn_b: Mapping[str, Doubles],
    confidence: float,
) -> dict[str, PairedResult]:
    results = {}
    for name in a:
        differences = drawn_a[name] - drawn_b[name]
        low, high = _interval(differences, confidence)
        against = min(int((differences <= 0).sum()), int((differences >= 0).sum()))
        # One is added on both sides: with 2,000 draws nothing is rarer than 1 in 2,001.
        p_value = min(1.0, 2.0 * (1 + against) / (len(differences) + 1))
        results[name] = PairedResult(a[name].value - b[name].value, low, high, p_value)
    return results


def _interval(drawn: Doubles, confidence: float) -> tuple[float, float]:
    tail = (1.0 - confidence) / 2.0
    low, high = np.quantile(drawn, [tail, 1.0 - tail])
    return float(low), float(high)


def _told(result: PairedResult) -> str:
    return f"{result.difference:+.2f} ({result.low:+.2f} to {result.high:+.2f})"


def _as_rows(scores: RowScores | ArrayLike) -> RowScores:
    if isinstance(scores, RowScores):
        return scores
    gain = np.asarray(scores, np.float64)
    return RowScores(gain, np.ones_like(gain))
