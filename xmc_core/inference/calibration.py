"""Scores as probabilities, and the score from which on answers are right often enough.

A curve from score to the share of hits is fitted on predictions for rows that the rankers were not
trained on, all labels pooled: isotonic (Zadrozny and Elkan, KDD 2002) or Platt's sigmoid (1999; the
targets and Newton steps are those of Lin, Lin and Weng, Machine Learning 68, 2007). A label with
enough positives among those rows gets a curve of its own: the pooled one, its log odds moved by a
shift that a normal prior pulls towards 0, so that little evidence moves it little. How wide that
prior is, and whether there are shifts at all, is decided by either half of the rows on the other.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from xmc_core.config import CalibrationConfig
from xmc_core.data.predictions import Predictions
from xmc_core.errors import ConfigError, DataError, ShapeError
from xmc_core.persistence import described, fresh_store, read_store, write_store
from xmc_core.types import Doubles, Flags, Indices, Json

KIND = "calibration"

BIN_PAIRS = 20
"""Scores of so many neighbouring pairs at least are averaged before the isotonic fit, and of a
thousandth of all pairs: a curve of single pairs ends in a 1 that one lucky hit has earned."""

MOST_BINS = 1000

DEVIATIONS = (0.25, 0.5, 1.0)
"""Of the prior of a label's shift, in log odds, besides 0: no shifts."""

MOST_POINTS = 1000
"""Operating points kept."""

LEAST_ANSWERS = 100
"""The precision above a score is told where so many predictions stand behind it (standard error at
80 %: 4 points), or a tenth of all where there are few."""

NEWTON_STEPS = 50

LOWEST = -1e30
"""Scores below it, such as the logarithm of a product that came to 0, teach nothing."""


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """What to expect when only labels that score at least `score` are given."""

    score: float
    precision: float
    """Percent of the given labels that are right."""

    recall: float
    """Percent of the true labels that are given, all rows pooled."""

    answered: float
    """Percent of rows that are given a label at all."""


@dataclass(frozen=True, slots=True, eq=False)
class Calibration:
    """A fitted curve from score to probability, and what was seen on the held-out rows."""

    method: str
    knots: Doubles
    """(n,) ascending scores. Platt: slope and intercept."""

    levels: Doubles
    """(n,) probability at each knot, ascending; straight lines between. Platt: empty."""

    shifts: Doubles
    """(n_labels,) added to a label's log odds; 0 for labels that go by the pooled curve."""

    points: Doubles
    """(n_points, 4) score, precision, recall, answered; by descending score. Seen on rows that
    neither the rankers nor the curve behind them knew."""

    facts: Json
    """Rows, pairs and own curves."""

    def probabilities(self, labels: Indices, scores: NDArray[np.floating]) -> Doubles:
        """Of (label, score) pairs, any shape; label -1 gets -inf."""
        given = labels >= 0
        exact = np.where(given, np.maximum(scores, LOWEST), 0.0).astype(np.float64)
        odds = _log_odds(self.method, self.knots, self.levels, exact)
        odds = odds + np.where(given, self.shifts[labels], 0.0)
        return np.where(given, _sigmoid(odds), -np.inf)

    def calibrated(self, predictions: Predictions) -> Predictions:
        """The same labels with probabilities, most probable first.

        Labels of one row may change places where one of them has a curve of its own. Equal
        probabilities keep the order of their scores.
        """
        found = self.probabilities(predictions.labels, predictions.scores).astype(np.float32)
        order = np.argsort(-found, axis=1, kind="stable")
        return Predictions(
            np.take_along_axis(predictions.labels, order, 1), np.take_along_axis(found, order, 1)
        )

    def point(self, precision: float) -> OperatingPoint:
        """The lowest score from which on labels were right in `precision` percent of all cases.

        Raises
        ------
        ConfigError
            If `precision` is not between 0 and 100.
        DataError
            If no score reached it on the held-out rows; the message says what was reached.
        """
        if not 0.0 < precision <= 100.0:
            raise ConfigError(f"precision must be above 0 and at most 100 percent, got {precision}")
        reached = np.flatnonzero(self.points[:, 1] >= precision)
        if len(reached) == 0:
            best = self._point(int(self.points[:, 1].argmax()))
            raise DataError(
                f"no score reached a precision of {precision:g} % on the held-out rows; the best "
                f"is {best.precision:.1f} %, from {best.score:.3f} on, with {best.recall:.1f} % of "
                "the true labels. Ask for less."
            )
        return self._point(int(reached[-1]))

    def _point(self, place: int) -> OperatingPoint:
        return OperatingPoint(*self.points[place].tolist())

    def save(self, folder: Path) -> None:
        arrays = {name: getattr(self, name) for name in ("knots", "levels", "shifts", "points")}
        facts = {"method": self.method, "fit": self.facts}
        with fresh_store(folder) as fresh:
            write_store(fresh, KIND, arrays=arrays, facts=facts)

    @classmethod
    def load(cls, folder: Path, *, verify: bool = False) -> "Calibration":
        """Raises StoreError if the folder is not a complete, unaltered calibration."""
        store = read_store(folder, KIND, verify=verify)
        a = store.arrays
        with described(folder, "a calibration"):
            return cls(
                store.facts["method"],
                a["knots"], a["levels"], a["shifts"], a["points"],
                store.facts["fit"],
            )  # fmt: skip


def fit_calibration(
    predictions: Predictions,
    hits: Flags,
    positives: NDArray[np.integer],
    config: CalibrationConfig,
    *,
    top_k: int | None = None,
    seed: int = 0,
) -> Calibration:
    """Fit the curves on predictions for held-out rows.

    Parameters
    ----------
    predictions : (n_rows, top_k)
        Of rows that the rankers were not trained on. The deeper the lists, the lower the scores
        that the curve knows.
    hits : (n_rows, top_k)
        Which of the labels apply; anything goes where the label is -1.
    positives : (n_labels,)
        Held-out rows of each label, whether predicted or not.
    top_k
        Labels that an answer names: what thresholds promise is of these. None: of whole lists.
    seed
        Cuts the rows in two halves, `config.run` neighbours together; each is judged by the curve
        of the other.

    Raises
    ------
    DataError
        If no row has a prediction, or no label applies to any row: there is nothing to learn from.
    ShapeError
        If hits do not fit the predictions.
    """
    if hits.shape != predictions.labels.shape:
        raise ShapeError(
            f"hits are {hits.shape} but predictions are {predictions.labels.shape}; "
            "both must hold the same pairs."
        )
    given = (predictions.labels >= 0) & (predictions.scores > LOWEST)
    if not given.any() or positives.sum() == 0:
        raise DataError(
            f"calibration got {len(hits):,} held-out rows with {int(given.sum()):,} predictions "
            f"and {int(positives.sum()):,} true labels; it needs some of both. Hold out more rows "
            "(calibration.share), or set calibration.method to none."
        )
    own = (positives >= config.label_positives) & (config.label_positives > 0)
    first = np.zeros(len(hits), bool)
    first[shuffled_runs(len(hits), config.run, seed)[: len(hits) // 2]] = True
    judged = {
        deviation: _crosswise(predictions, hits, first, own, config.method, deviation)
        for deviation in (0.0, *(DEVIATIONS if own.any() else ()))
    }
    deviation = _best_deviation(judged, hits)
    curves = _fit(predictions, hits, own, config.method, deviation)
    answers = judged[deviation][:, :top_k]
    points = _operating_points(answers, hits[:, :top_k], int(positives.sum()))
    facts = {
        "rows": len(hits),
        "pairs": int(given.sum()),
        "own_curves": int(own.sum()) if deviation else 0,
        "deviation": deviation,
    }
    return Calibration(config.method, *curves, points, facts)


def shuffled_runs(n_rows: int, run: int, seed: int) -> NDArray[np.int64]:
    """All row numbers; runs of `run` neighbours stay together, in random order.

    >>> shuffled_runs(5, 2, seed=3).tolist()
    [4, 2, 3, 0, 1]
    """
    runs = np.random.default_rng(seed).permutation(-(-n_rows // run))
    rows = (runs[:, None] * run + np.arange(run)).ravel()
    return rows[rows < n_rows]


def fit_isotonic(
    scores: Doubles, hits: Flags, *, bin_pairs: int = BIN_PAIRS
) -> tuple[Doubles, Doubles]:
    """Knots and levels of the ascending curve nearest to the hits (pool adjacent violators).

    A level between 0 and 1 is the share of hits in its block. The outermost blocks keep half a pair
    away from 0 and 1: no finite number of hits proves certainty.
    """
    order = np.argsort(scores, kind="stable")
    ascending, hit = scores[order], hits[order].astype(np.float64)
    n_bins = max(1, min(MOST_BINS, len(hit) // bin_pairs))
    # Equal scores stay in one bin, as a curve can only give them one level.
    cuts = ascending[np.arange(1, n_bins) * len(hit) // n_bins]
    starts = np.unique(np.concatenate([[0], np.searchsorted(ascending, cuts)]))
    sizes = np.diff(np.concatenate([starts, [len(hit)]])).astype(np.float64)
    centres = np.add.reduceat(ascending, starts) / sizes
    # At its first use: it brings in all of scipy.optimize, 26 MB in every process that answers.
    from scipy.optimize import isotonic_regression

    fit = isotonic_regression(np.add.reduceat(hit, starts) / sizes, weights=sizes)
    first, last = fit.blocks[:-1], fit.blocks[1:] - 1
    levels, pairs = fit.x[first], np.add.reduceat(sizes, first)
    levels[0] = max(levels[0], min(0.5 / pairs[0], levels[1] if len(levels) > 1 else 1.0))
    levels[-1] = min(levels[-1], max(1.0 - 0.5 / pairs[-1], levels[-2] if len(levels) > 1 else 0.0))
    # Flat over a block, straight lines from its last bin to the first of the next.
    ends = np.stack([centres[first], centres[last]], axis=1).ravel()
    knots, kept = np.unique(ends, return_index=True)
    return knots, np.repeat(levels, 2)[kept]


def fit_platt(scores: Doubles, hits: Flags) -> tuple[float, float]:
    """Slope and intercept of the sigmoid of greatest likelihood; the slope is never negative.

    Hits count as (n + 1) / (n + 2) and misses as 1 / (m + 2) of n hits and m misses, so that scores
    which part them perfectly still get a finite slope.
    """
    n_hits = float(hits.sum())
    n_misses = len(hits) - n_hits
    target = np.where(hits, (n_hits + 1.0) / (n_hits + 2.0), 1.0 / (n_misses + 2.0))
    middle, spread = float(scores.mean()), float(scores.std()) or 1.0
    x = (scores - middle) / spread
    slope, intercept = 0.0, float(_logit(target.mean()))

    def loss(slope: float, intercept: float) -> float:
        z = slope * x + intercept
        return float(np.sum(np.logaddexp(0.0, z) - target * z))

    present = loss(slope, intercept)
    for _ in range(NEWTON_STEPS):
        p = _sigmoid(slope * x + intercept)
        gap, weight = p - target, p * (1.0 - p)
        gradient = np.array([(gap * x).sum(), gap.sum()])
        cross = (weight * x).sum()
        hessian = np.array([[(weight * x * x).sum(), cross], [cross, weight.sum()]])
        step = np.linalg.solve(hessian + 1e-10 * np.eye(2), gradient)
        size = 1.0
        while size > 1e-10 and loss(slope - size * step[0], intercept - size * step[1]) > present:
            size /= 2.0
        slope, intercept = slope - size * step[0], intercept - size * step[1]
        before, present = present, loss(slope, intercept)
        if before - present < 1e-10 * max(1.0, present):
            break
    if slope < 0.0:  # the score says nothing: every pair gets the same probability
        slope, intercept = 0.0, float(_logit(target.mean()))
    return slope / spread, intercept - slope * middle / spread


def label_shifts(
    labels: Indices,
    log_odds: Doubles,
    hits: Flags,
    own: Flags,
    deviation: float,
) -> Doubles:
    """(n_labels,) shifts of the labels in `own`, each the most probable one given its pairs.

    Maximises, label by label, the likelihood of its hits under log_odds + shift and a normal prior
    with mean 0 and this standard deviation. The function is concave, and Newton's steps for all
    labels are made at once.
    """
    n_labels = len(own)
    shifts = np.zeros(n_labels)
    precision = 1.0 / deviation**2
    for _ in range(NEWTON_STEPS):
        p = _sigmoid(log_odds + shifts[labels])
        slope = np.bincount(labels, hits - p, n_labels) - precision * shifts
        bend = np.bincount(labels, p * (1.0 - p), n_labels) + precision
        step = np.where(own, np.clip(slope / bend, -1.0, 1.0), 0.0)
        shifts += step
        if np.abs(step).max(initial=0.0) < 1e-9:
            break
    return shifts


def _fit(
    predictions: Predictions, hits: Flags, own: Flags, method: str, deviation: float
) -> tuple[Doubles, Doubles, Doubles]:
    """Knots, levels and shifts."""
    given = (predictions.labels >= 0) & (predictions.scores > LOWEST)
    labels, hits = predictions.labels[given], hits[given]
    scores = predictions.scores[given].astype(np.float64)
    if method == "platt":
        knots, levels = np.array(fit_platt(scores, hits)), np.zeros(0)
    else:
        knots, levels = fit_isotonic(scores, hits)
    if deviation == 0.0:
        return knots, levels, np.zeros(len(own))
    odds = _log_odds(method, knots, levels, scores)
    return knots, levels, label_shifts(labels, odds, hits, own, deviation)


def _crosswise(
    predictions: Predictions, hits: Flags, first: Flags, own: Flags, method: str, deviation: float
) -> Doubles:
    """(n_rows, top_k) probabilities, each half of the rows by the curves of the other one."""
    found = np.full(hits.shape, -np.inf)
    for judged in (first, ~first):
        learnt = ~judged
        if not (predictions.scores[learnt] > LOWEST).any():
            learnt = np.ones(len(hits), bool)  # too few rows to cut in two
        part = Predictions(predictions.labels[learnt], predictions.scores[learnt])
        curves = _fit(part, hits[learnt], own, method, deviation)
        half = Calibration(method, *curves, np.zeros((0, 4)), {})
        found[judged] = half.probabilities(predictions.labels[judged], predictions.scores[judged])
    # As predictions will hold them.
    return found.astype(np.float32).astype(np.float64)


def _best_deviation(judged: Mapping[float, Doubles], hits: Flags) -> float:
    """The one of greatest likelihood, if it beats having no shifts by more than noise: two standard
    errors of the difference, row by row. Shifts also change the order of labels."""
    by_row = {deviation: _log_likelihood(p, hits) for deviation, p in judged.items()}
    best = max(by_row, key=lambda deviation: float(by_row[deviation].sum()))
    gain = by_row[best] - by_row[0.0]
    return best if gain.sum() > 2.0 * gain.std() * np.sqrt(len(gain)) else 0.0


def _log_likelihood(p: Doubles, hits: Flags) -> Doubles:
    """(n_rows,) of the hits and misses of each row; pairs without a probability count nothing."""
    chance = np.clip(np.where(hits, p, 1.0 - p), 1e-6, None)
    total: Doubles = np.where(np.isfinite(p), np.log(chance), 0.0).sum(axis=1)
    return total


def _operating_points(found: Doubles, hits: Flags, n_true: int) -> Doubles:
    """(n_points, 4) from probabilities (n_rows, top_k); see `Calibration.points`."""
    n_rows = len(hits)
    given = np.isfinite(found)
    scores, right = found[given], hits[given]
    order = np.argsort(-scores, kind="stable")
    scores, right = scores[order], right[order]
    last = np.flatnonzero(np.diff(scores, append=-np.inf))  # the last pair of each score
    last = last[last + 1 >= min(LEAST_ANSWERS, -(-len(scores) // 10))]
    if len(last) > MOST_POINTS:
        last = last[np.linspace(0, len(last) - 1, MOST_POINTS).round().astype(np.int64)]
    hit_sums = np.cumsum(right)[last]
    best = np.sort(found.max(axis=1, initial=-np.inf))
    answered = n_rows - np.searchsorted(best, scores[last])
    return np.stack(
        [
            scores[last],
            100.0 * hit_sums / (last + 1),
            100.0 * hit_sums / n_true,
            100.0 * answered / n_rows,
        ],
        axis=1,
    )


def _log_odds(method: str, knots: Doubles, levels: Doubles, scores: Doubles) -> Doubles:
    """Of the pooled curve."""
    if method == "platt":
        line: Doubles = knots[0] * scores + knots[1]
        return line
    return _logit(np.interp(scores, knots, levels))


def _logit(p: NDArray[np.float64] | float) -> Doubles:
    odds: Doubles = np.log(p) - np.log1p(-np.asarray(p, np.float64))
    return odds


def _sigmoid(z: NDArray[np.float64]) -> Doubles:
    # exp of the negative size never overflows.
    small = np.exp(-np.abs(z))
    p: Doubles = np.where(z >= 0.0, 1.0, small) / (1.0 + small)
    return p
