import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from tests.reference import calibration as reference
from xmc_core.config import CalibrationConfig
from xmc_core.data import Predictions
from xmc_core.errors import ConfigError, DataError, ShapeError
from xmc_core.inference.calibration import (
    Calibration,
    fit_calibration,
    fit_isotonic,
    fit_platt,
    label_shifts,
    shuffled_runs,
)

ISOTONIC = CalibrationConfig(method="isotonic")
N_LABELS = 12


def drawn(n_rows: int, *, shift: float = 0.0, seed: int = 3) -> tuple[Predictions, np.ndarray]:
    """Lists of five labels; a label applies with the probability sigmoid(2 score - 1), and label 0
    with its log odds moved by `shift`."""
    rng = np.random.default_rng(seed)
    labels = np.argsort(rng.random((n_rows, N_LABELS)), axis=1)[:, :5].astype(np.int32)
    scores = -np.sort(-rng.normal(0.5, 1.0, (n_rows, 5)), axis=1).astype(np.float32)
    odds = 2.0 * scores - 1.0 + np.where(labels == 0, shift, 0.0)
    return Predictions(labels, scores), rng.random((n_rows, 5)) < 1.0 / (1.0 + np.exp(-odds))


def positives_of(predictions: Predictions, hits: np.ndarray) -> np.ndarray:
    return np.bincount(predictions.labels[hits & (predictions.labels >= 0)], minlength=N_LABELS)


def fitted(predictions: Predictions, hits: np.ndarray, config=ISOTONIC, **more) -> Calibration:
    return fit_calibration(predictions, hits, positives_of(predictions, hits), config, **more)


def test_the_isotonic_curve_is_that_of_pooling_adjacent_violators():
    rng = np.random.default_rng(1)
    scores = rng.permutation(60).astype(np.float64)
    hits = rng.random(60) < scores / 60
    knots, levels = fit_isotonic(scores, hits, bin_pairs=1)
    ordered = hits[np.argsort(scores)].astype(float)
    expected = np.array(reference.isotonic(ordered, np.ones(60)))
    inner = (expected > 0) & (expected < 1)
    assert 20 < inner.sum() < 60
    assert_allclose(np.interp(np.arange(60), knots, levels)[inner], expected[inner])
    n_missed, n_hit = (expected == 0).sum(), (expected == 1).sum()
    assert levels[0] == 0.5 / n_missed
    assert levels[-1] == 1.0 - 0.5 / n_hit


def test_bins_hold_enough_pairs_and_equal_scores_have_one_level():
    scores = np.repeat([1.0, 2.0, 3.0], [50, 7, 43])
    hits = np.concatenate([np.arange(50) < 10, np.arange(7) < 7, np.arange(43) < 40])
    knots, levels = fit_isotonic(scores, hits, bin_pairs=20)
    # Cuts fall at places 20, 40, 60 and 80: into the first fifty and the last forty-three, which
    # stay whole. The seven join the former, as they are too few for a bin.
    assert_allclose(levels, [17 / 57, 40 / 43])
    assert_allclose(knots, [64 / 57, 3.0])


@pytest.mark.parametrize("hit", [True, False])
def test_one_class_alone_gives_a_flat_curve_short_of_certainty(hit):
    scores, hits = np.arange(40.0), np.full(40, hit)
    _, levels = fit_isotonic(scores, hits)
    assert_allclose(levels, 1 - 0.5 / 40 if hit else 0.5 / 40)
    slope, intercept = fit_platt(scores, hits)
    p = 1 / (1 + np.exp(-(slope * scores + intercept)))
    assert_allclose(p, 41 / 42 if hit else 1 / 42, atol=1e-6)


def test_equal_scores_everywhere_give_the_share_of_hits():
    scores, hits = np.ones(50), np.arange(50) < 20
    assert_allclose(fit_isotonic(scores, hits)[1], 0.4)
    slope, intercept = fit_platt(scores, hits)
    assert 1 / (1 + np.exp(-(slope + intercept))) == pytest.approx(0.4, abs=0.01)


def test_platts_sigmoid_has_the_greatest_likelihood():
    predictions, hits = drawn(60)
    scores, hit = predictions.scores.ravel().astype(float), hits.ravel()
    slope, intercept = fit_platt(scores, hit)
    best = reference.platt_loss(slope, intercept, scores, hit)
    for near in ((1e-3, 0), (-1e-3, 0), (0, 1e-3), (0, -1e-3)):
        assert reference.platt_loss(slope + near[0], intercept + near[1], scores, hit) > best


def test_platt_survives_scores_that_part_hits_from_misses_and_large_ones():
    scores = np.array([-1e6, -9e5, 9e5, 1e6])
    slope, intercept = fit_platt(scores, scores > 0)
    p = 1 / (1 + np.exp(-(slope * scores + intercept)))
    assert p[1] < 0.5 < p[2]
    assert 0 < slope < 1


def test_a_score_that_misleads_gets_no_slope():
    scores = np.arange(100.0)
    assert fit_platt(scores, scores < 50)[0] == 0.0
    assert len(set(fit_isotonic(scores, scores < 50, bin_pairs=1)[1])) == 1


def test_a_shift_is_the_most_probable_one_and_others_have_none():
    rng = np.random.default_rng(5)
    labels = rng.integers(0, 3, 90).astype(np.int32)
    odds = rng.normal(size=90)
    hits = rng.random(90) < 0.7
    shifts = label_shifts(labels, odds, hits, np.array([True, False, True]), 0.5)
    assert shifts[1] == 0.0
    for label in (0, 2):
        own = labels == label
        best = reference.shift_loss(shifts[label], odds[own], hits[own], 0.5)
        for near in (-1e-4, 1e-4):
            assert reference.shift_loss(shifts[label] + near, odds[own], hits[own], 0.5) > best


def test_true_probabilities_are_found_again():
    predictions, hits = drawn(20_000)
    new, _ = drawn(500, seed=4)
    true = 1 / (1 + np.exp(1.0 - 2.0 * new.scores))
    for method in ("isotonic", "platt"):
        found = fitted(predictions, hits, CalibrationConfig(method=method))
        assert np.abs(found.probabilities(new.labels, new.scores) - true).max() < 0.05


def test_a_label_unlike_the_others_gets_its_own_curve_only_where_that_helps():
    settings = CalibrationConfig(method="isotonic", label_positives=10)
    strange = fitted(*drawn(4_000, shift=-3.0), settings)
    assert strange.facts["deviation"] > 0
    assert strange.facts["own_curves"] == N_LABELS
    assert strange.shifts[0] < -1.0
    assert np.abs(strange.shifts[1:]).max() < 0.6
    none = fitted(*drawn(4_000, shift=-3.0), ISOTONIC)
    assert not none.shifts.any()
    few = fitted(*drawn(40, shift=-3.0), CalibrationConfig(method="isotonic", label_positives=999))
    assert few.facts["own_curves"] == 0
    assert not few.shifts.any()


def test_calibrated_predictions_descend_and_keep_their_padding():
    predictions, hits = drawn(400, shift=-3.0)
    labels, scores = predictions.labels.copy(), predictions.scores.copy()
    labels[0, 2:], scores[0, 2:] = -1, -np.inf
    labels[1], scores[1] = -1, -np.inf
    own = CalibrationConfig(method="isotonic", label_positives=10)
    found = fitted(predictions, hits, own).calibrated(Predictions(labels, scores))
    assert (found.labels[2:] != labels[2:]).any()
    assert found.labels.dtype == np.int32
    assert found.scores.dtype == np.float32
    assert np.all(np.diff(found.scores[2:], axis=1) <= 0)
    assert set(found.labels[0, :2]) == set(labels[0, :2])
    assert_array_equal(found.labels[0, 2:], -1)
    assert np.all(np.isneginf(found.scores[0, 2:]))
    assert_array_equal(found.labels[1], -1)
    # A pooled curve never changes the order.
    pooled = fitted(predictions, hits).calibrated(predictions)
    assert_array_equal(pooled.labels, predictions.labels)


def test_operating_points_tell_precision_recall_and_rows_answered():
    predictions, hits = drawn(600)
    calibration = fitted(predictions, hits, CalibrationConfig(method="platt"))
    assert np.all(np.diff(calibration.points[:, 0]) < 0)
    assert np.all(np.diff(calibration.points[:, 2]) >= 0)
    # Scored on the other half, the curve hardly differs from that of all rows.
    found = calibration.probabilities(predictions.labels, predictions.scores)
    for wanted in (60.0, 75.0):
        point = calibration.point(wanted)
        assert point.precision >= wanted
        expected = reference.operating_point(point.score, found, hits, hits.sum())
        assert_allclose([point.precision, point.recall, point.answered], expected, atol=3.0)
    # No lower score keeps the promise.
    later = calibration.points[:, 0] < calibration.point(75.0).score
    assert np.all(calibration.points[later, 1] < 75.0)


def test_a_precision_that_was_never_reached_is_said():
    predictions, hits = drawn(600)
    calibration = fitted(predictions, hits & (np.arange(600) % 2 == 0)[:, None])
    with pytest.raises(
        DataError, match=r"no score reached a precision of 99 % .* best is \d\d\.\d %"
    ):
        calibration.point(99.0)
    for wrong in (0.0, 101.0, float("nan")):
        with pytest.raises(ConfigError, match="above 0 and at most 100"):
            calibration.point(wrong)


def test_nothing_to_learn_from_is_refused():
    predictions, hits = drawn(5)
    empty = Predictions(np.full((5, 3), -1, np.int32), np.full((5, 3), -np.inf, np.float32))
    with pytest.raises(DataError, match="5 held-out rows with 0 predictions and 7 true labels"):
        fit_calibration(empty, np.zeros((5, 3), bool), np.array([7]), ISOTONIC)
    with pytest.raises(DataError, match="and 0 true labels"):
        fit_calibration(predictions, ~hits, np.zeros(N_LABELS, np.int64), ISOTONIC)
    with pytest.raises(ShapeError, match=r"hits are \(5, 4\) but predictions are \(5, 5\)"):
        fit_calibration(predictions, hits[:, :4], np.ones(N_LABELS, np.int64), ISOTONIC)


def test_a_single_row_with_an_answer_is_enough():
    labels = np.array([[0, 1], [-1, -1]], np.int32)
    scores = np.array([[2.0, 1.0], [-np.inf, -np.inf]], np.float32)
    hits = np.array([[True, False], [False, False]])
    calibration = fit_calibration(Predictions(labels, scores), hits, np.array([1, 0]), ISOTONIC)
    assert_allclose(calibration.calibrated(Predictions(labels, scores)).scores[0], 0.5)


@pytest.mark.parametrize("method", ["isotonic", "platt"])
def test_a_label_that_scores_minus_infinity_is_improbable_and_teaches_nothing(method):
    predictions, hits = drawn(300)
    settings = CalibrationConfig(method=method)
    labels = np.hstack([predictions.labels, np.full((300, 1), 11, np.int32)])
    scores = np.hstack([predictions.scores, np.full((300, 1), -np.inf, np.float32)])
    longer = Predictions(labels, scores)
    positives = positives_of(predictions, hits)
    more = fit_calibration(longer, np.hstack([hits, hits[:, :1]]), positives, settings)
    less = fit_calibration(predictions, hits, positives, settings)
    assert_array_equal(more.knots, less.knots)
    found = more.calibrated(longer)
    assert np.all(found.labels >= 0)
    assert np.all(found.scores[:, -1] <= found.scores[:, :-1].min())
    assert np.all(np.isfinite(found.scores))


def test_equal_seeds_give_equal_bytes_and_saving_changes_nothing(tmp_path):
    predictions, hits = drawn(500, shift=-2.0)
    settings = CalibrationConfig(method="isotonic", run=7, label_positives=10)
    for name in ("a", "b"):
        fitted(predictions, hits, settings, seed=5).save(tmp_path / name)
    files = {path.name for path in (tmp_path / "a").iterdir()}
    assert files == {path.name for path in (tmp_path / "b").iterdir()}
    for name in files:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    loaded = Calibration.load(tmp_path / "a")
    kept = fitted(predictions, hits, settings, seed=5)
    assert_array_equal(loaded.calibrated(predictions).scores, kept.calibrated(predictions).scores)
    assert loaded.facts == kept.facts
    assert loaded.point(60.0) == kept.point(60.0)


def test_runs_stay_together():
    rows = shuffled_runs(1003, 10, seed=1)
    assert sorted(rows.tolist()) == list(range(1003))
    assert (np.diff(rows) == 1).sum() >= 1003 - 101
    assert (np.diff(rows) != 1).sum() > 50


def test_thresholds_promise_what_answers_of_that_length_give():
    predictions, hits = drawn(4_000)
    deep = fitted(predictions, hits)
    cut = fitted(predictions, hits, top_k=2)
    assert_array_equal(cut.knots, deep.knots)  # the curve learns from whole lists
    short = Predictions(predictions.labels[:, :2], predictions.scores[:, :2])
    n_true = positives_of(predictions, hits).sum()
    point = cut.points[len(cut.points) // 2]
    kept = cut.calibrated(short).scores >= point[0]
    assert 100 * hits[:, :2][kept].mean() == pytest.approx(point[1], abs=2.0)
    assert 100 * hits[:, :2][kept].sum() / n_true == pytest.approx(point[2], abs=2.0)
    assert cut.points[:, 2].max() < deep.points[:, 2].max() - 10
