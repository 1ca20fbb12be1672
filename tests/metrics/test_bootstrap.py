import numpy as np
import pytest

from tests.reference import metrics as reference
from xmc_core.errors import ConfigError, ShapeError
from xmc_core.metrics import (
    RowScores,
    bootstrap,
    bootstrap_intervals,
    compare_models,
    not_worse,
    paired_bootstrap,
    paired_bootstraps,
    row_scores,
)
from xmc_core.metrics.bootstrap import compare_pairs, holm


@pytest.fixture(scope="module")
def champion() -> np.ndarray:
    return (np.random.default_rng(0).random(1500) < 0.6).astype(np.float64)


def worsened(rows: np.ndarray, share: float, seed: int = 1) -> np.ndarray:
    """Turn this share of all rows, chosen among those that were right, into wrong ones."""
    right = np.flatnonzero(rows)
    lost = np.random.default_rng(seed).choice(right, int(share * len(rows)), replace=False)
    worse = rows.copy()
    worse[lost] = 0.0
    return worse


def as_rows(rows: np.ndarray) -> dict[str, RowScores]:
    return {"P@1": RowScores(rows, np.ones_like(rows))}


def test_draws_agree_with_drawing_row_by_row():
    columns = np.random.default_rng(5).random((11, 3))
    rng = np.random.default_rng(9)
    expected = [columns[rng.integers(0, 11, 11)].sum(axis=0) for _ in range(20)]
    np.testing.assert_allclose(bootstrap.draw_sums(columns, 20, seed=9), expected, rtol=1e-12)


def test_an_interval_holds_its_metric_and_is_as_wide_as_theory_says(champion):
    interval = bootstrap_intervals(as_rows(champion))["P@1"]
    assert interval.low < interval.value < interval.high
    assert interval.value == pytest.approx(100 * champion.mean())
    standard_error = 100 * champion.std() / np.sqrt(len(champion))
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * standard_error, rel=0.1)


def test_a_ratio_of_sums_is_resampled_as_one(judged):
    rows = row_scores(
        judged.predictions, judged.Y, label_counts=judged.counts, n_train=judged.n_train
    )
    intervals = bootstrap_intervals(rows, samples=500)
    assert list(intervals) == list(rows)
    for name, interval in intervals.items():
        assert 0 <= interval.low <= interval.value <= interval.high <= 100, name
        assert interval.value == rows[name].value


def test_a_planted_difference_lies_in_the_interval(champion):
    result = paired_bootstrap(worsened(champion, 0.04), champion)
    assert result.difference == pytest.approx(-4.0)
    assert result.low < -4.0 < result.high < 0.0
    assert result.p_value < 0.01
    assert result.verdict == "worse"
    assert paired_bootstrap(champion, worsened(champion, 0.04)).verdict == "better"


def test_noise_that_cancels_out_is_even(champion):
    noisy = champion.copy()
    noisy[np.flatnonzero(champion == 1)[:30]] = 0
    noisy[np.flatnonzero(champion == 0)[:30]] = 1
    result = paired_bootstrap(noisy, champion)
    assert result.difference == pytest.approx(0.0)
    assert result.p_value > 0.5
    assert result.verdict == "even"


def test_pairing_sees_what_two_intervals_cannot(champion):
    worse = worsened(champion, 0.02)
    first, second = (bootstrap_intervals(as_rows(rows))["P@1"] for rows in (champion, worse))
    assert second.high > first.low  # they overlap
    assert paired_bootstrap(worse, champion).verdict == "worse"


def test_identical_models_have_p_one_and_pass_the_gate(champion):
    result = paired_bootstrap(champion, champion.copy())
    assert (result.difference, result.low, result.high, result.p_value) == (0.0, 0.0, 0.0, 1.0)
    gate = not_worse(as_rows(champion), as_rows(champion.copy()))
    assert gate.passed
    assert gate.reason.startswith("not worse than the champion: P@1 +0.00")


def test_a_planted_worse_model_fails_the_gate_and_is_named(champion):
    gate = not_worse(as_rows(worsened(champion, 0.04)), as_rows(champion))
    assert not gate.passed
    assert gate.reason.startswith("worse than the champion by more than its noise: P@1 -4.00 (-4.9")


def test_a_loss_within_the_noise_passes_the_gate(champion):
    slightly = worsened(champion, 1 / len(champion))  # one row of 1,500
    assert not_worse(as_rows(slightly), as_rows(champion)).passed


def test_the_gate_names_only_the_metrics_that_failed(champion):
    better = np.ones_like(champion)
    challenger = {**as_rows(worsened(champion, 0.04)), "P@5": RowScores(better, better)}
    old = {**as_rows(champion), "P@5": RowScores(champion, better)}
    gate = not_worse(challenger, old)
    assert not gate.passed
    assert "P@1" in gate.reason
    assert "P@5" not in gate.reason
    assert gate.results["P@5"].verdict == "better"
    assert not_worse(challenger, old, metrics=["P@5"]).passed


def test_a_gate_without_its_metrics_is_an_error_not_a_pass(champion):
    with pytest.raises(ConfigError, match=r"needs PSP@5 of both models; the challenger has P@1"):
        not_worse(as_rows(champion), as_rows(champion), metrics=["PSP@5"])
    with pytest.raises(ConfigError, match="the champion none"):
        not_worse(as_rows(champion), {})


def test_equal_seeds_give_equal_results_and_others_do_not():
    a, b = np.random.default_rng(0).random((2, 300))
    once, again, other = (paired_bootstrap(a, b, samples=99, seed=seed) for seed in (3, 3, 4))
    assert once == again
    assert once != other


def test_many_metrics_at_once_are_the_same_as_one_by_one(champion):
    worse = worsened(champion, 0.01)
    a = {"x": RowScores(worse, np.ones(1500)), "y": RowScores(champion / 2, champion + 1)}
    b = {"x": RowScores(champion, np.ones(1500)), "y": RowScores(worse / 2, champion + 1)}
    together = paired_bootstraps(a, b, samples=200)
    assert together == {name: paired_bootstrap(a[name], b[name], samples=200) for name in a}


def test_comparing_models_is_the_same_as_each_interval_and_each_pair(champion):
    models = {
        name: as_rows(rows)
        for name, rows in (("a", champion), ("b", worsened(champion, 0.01)), ("c", champion / 2))
    }
    intervals, against_first = compare_models(models, samples=200, seed=5)
    for name, rows in models.items():
        assert intervals[name] == bootstrap_intervals(rows, samples=200, seed=5)
    assert list(against_first) == ["b", "c"]
    for name, results in against_first.items():
        assert results == paired_bootstraps(models[name], models["a"], samples=200, seed=5)


def test_names_both_sizes_when_the_models_saw_different_rows(champion):
    with pytest.raises(ShapeError, match=r"1,400 and 1,500 rows"):
        paired_bootstrap(champion, champion[:1400])
    with pytest.raises(ShapeError, match="scores of 0 rows"):
        paired_bootstrap(np.zeros(0), np.zeros(0))


def test_a_draw_that_misses_every_labelled_row_counts_zero():
    rows = RowScores(np.array([1.0, 0.0, 0.0]), np.array([1.0, 0.0, 0.0]))
    assert bootstrap_intervals({"R@1": rows})["R@1"].low == 0.0


def test_the_other_way_round_is_the_pair_swapped():
    rng = np.random.default_rng(4)
    a, b = rng.random(200) < 0.6, rng.random(200) < 0.4
    there, back = paired_bootstrap(a, b), paired_bootstrap(b, a).reversed()
    assert there.verdict == back.verdict == "better"
    assert back.difference == pytest.approx(there.difference)
    assert (back.low, back.high) == pytest.approx((there.low, there.high))
    assert back.p_value == there.p_value


def test_any_two_models_are_compared_as_if_alone(champion):
    models = {
        "good": as_rows(champion),
        "worse": as_rows(worsened(champion, 0.05)),
        "same": {**as_rows(champion), "only here": as_rows(champion)["P@1"]},
    }
    pairs = compare_pairs(models, samples=300, seed=4)
    assert list(pairs) == [("worse", "good"), ("same", "good"), ("same", "worse")]
    for (model, other), results in pairs.items():
        alone = paired_bootstraps({"P@1": models[model]["P@1"]}, models[other], samples=300, seed=4)
        assert results == alone
    assert pairs["same", "good"]["P@1"].p_value == 1.0
    assert pairs["worse", "good"]["P@1"].verdict == "worse"
    assert pairs["same", "worse"]["P@1"].difference == -pairs["worse", "good"]["P@1"].difference


def test_corrected_p_values_agree_with_the_reference():
    rng = np.random.default_rng(2)
    for n in (0, 1, 2, 7, 30):
        p_values = (rng.random(n) ** 3).round(2).tolist()  # rounded, so that some are equal
        assert holm(p_values) == pytest.approx(reference.holm(p_values))
    assert holm([0.001] * 4) == pytest.approx([0.004] * 4)
    assert holm([0.9, 0.8]) == [1.0, 1.0]


def test_among_many_figures_of_noise_hardly_any_is_called_a_difference():
    # Twenty figures without any difference, a hundred times: uncorrected, one of twenty is found.
    found = corrected = 0
    for p_values in np.random.default_rng(8).random((100, 20)):
        found += bool((p_values < 0.05).any())
        corrected += min(holm(p_values.tolist())) < 0.05
    assert found > 50
    assert corrected <= 12
