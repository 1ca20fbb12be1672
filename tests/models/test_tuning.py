from itertools import pairwise

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.sparse import csr_array

from xmc_core.config import Config
from xmc_core.errors import ConfigError, DataError, ShapeError
from xmc_core.models import train_xr_linear, tuning
from xmc_core.models.tuning import SEARCH, tune

CONFIG = Config().replace(
    **{
        "tree.max_leaf_size": 4,
        "tree.branching": 4,
        "rankers.relevance": "l1",
        "rankers.negatives": [["teacher_forcing"], ["teacher_forcing", "matcher_aware"]],
        "inference.post_processor": ["l3-hinge", "none"],
    }
)


@pytest.fixture(scope="module", name="data")
def rows():
    """Every row shows the features of its labels, and noise."""
    rng = np.random.default_rng(2)
    Y = (rng.random((240, 24)) < 0.1).astype(np.float32)
    shown = Y @ (rng.random((24, 60)) < 0.12)
    X = shown + (rng.random((240, 60)) < 0.15)
    return csr_array(X.astype(np.float32)), csr_array(Y)


def test_the_best_of_all_trials_is_chosen(data):
    tuned = tune(*data, CONFIG)
    scores = [trial.score for trial in tuned.trials]
    assert tuned.trials[0].changes == {}
    best = tuned.trials[int(np.argmax(scores))]
    assert best.changes == tuned.changes
    assert tuned.config == CONFIG.replace(**tuned.changes)
    assert len({str(trial.changes) for trial in tuned.trials}) == len(tuned.trials)


def test_a_setting_that_learns_nothing_is_left(data, monkeypatch):
    monkeypatch.setattr(tuning, "SEARCH", (("rankers.cost", (1e-7, 5.0)),))
    start = CONFIG.replace(**{"rankers.cost": 1e-7})
    tuned = tune(*data, start)
    assert tuned.changes == {"rankers.cost": (5.0,)} or tuned.changes == {"rankers.cost": [5.0]}
    assert tuned.trials[1].score > tuned.trials[0].score + 10


def test_a_score_is_that_of_a_model_trained_on_the_other_rows(data, monkeypatch):
    monkeypatch.setattr(tuning, "SEARCH", ())
    X, Y = data
    trial = tune(X, Y, CONFIG, metrics=("P@1",)).trials[0]
    parts = np.array_split(np.random.default_rng(CONFIG.seed).permutation(X.shape[0]), 7)
    shares = []
    for held_out in parts[:3]:  # few rows: three folds
        valid = np.sort(held_out)
        train = np.setdiff1d(np.arange(X.shape[0]), valid)
        best = train_xr_linear(X[train], Y[train], CONFIG).predict(X[valid], top_k=1).labels[:, 0]
        shares.append(Y[valid].toarray()[np.arange(len(valid)), best].mean())
    assert_allclose(trial.score, 100 * np.mean(shares), rtol=1e-6)


def test_settings_of_the_search_alone_take_no_training(data, monkeypatch):
    trained = []

    def counting(*arguments, **keywords):
        trained.append(arguments)
        return train_xr_linear(*arguments, **keywords)

    monkeypatch.setattr(tuning, "train_xr_linear", counting)
    monkeypatch.setattr(tuning, "SEARCH", SEARCH[:1])
    tuned = tune(*data, CONFIG)
    assert len(tuned.trials) == 4
    assert len(trained) == 3  # once a fold


def test_the_same_seed_gives_the_same_trials(data):
    alone = tune(*data, CONFIG.replace(n_threads=1))
    together = tune(*data, CONFIG.replace(n_threads=2))
    assert alone.trials == together.trials
    assert alone.changes == together.changes


def test_rows_above_the_limit_are_not_looked_at(data, monkeypatch):
    monkeypatch.setattr(tuning, "SEARCH", ())
    X, Y = data
    some = tune(X, Y, CONFIG, max_rows=100).trials
    order = np.random.default_rng(CONFIG.seed).permutation(X.shape[0])
    others = order[100:]
    changed = Y.tolil()
    changed[others] = 0
    assert tune(X, csr_array(changed), CONFIG, max_rows=100).trials == some


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"metrics": ("P@7",)}, ConfigError, r"no metric 'P@7'; known: P@1, "),
        ({"max_rows": 6}, DataError, r"6 rows are too few to hold a seventh of them out"),
    ],
)
def test_what_cannot_be_tuned_is_said(data, change, error, words):
    with pytest.raises(error, match=words):
        tune(*data, CONFIG, **change)


def test_rows_must_be_the_same(data):
    with pytest.raises(ShapeError, match=r"X has 240 rows but Y has 239"):
        tune(data[0], data[1][:-1], CONFIG)


def test_neighbours_are_held_out_together_where_calibration_does_so(data):
    X, Y = data
    [split, *_] = tuning._splits(X, Y, max_rows=240, run=20, seed=1)
    assert split.X_valid.shape[0] in (34, 35)
    rows = X.toarray()
    places = [np.flatnonzero((rows == row).all(axis=1)) for row in split.X_valid.toarray()]
    first = sorted(int(place[0]) for place in places)
    assert sum(b - a == 1 for a, b in pairwise(first)) >= 30


def test_psp_is_weighed_as_everywhere_else(data):
    def score(a, b):
        config = CONFIG.replace(**{"dataset.propensity_a": a, "dataset.propensity_b": b})
        return tune(*data, config, metrics=("PSP@5",)).trials[0].score

    assert score(0.5, 0.4) != pytest.approx(score(0.6, 2.6), abs=1e-3)


def test_a_search_without_factors_can_be_tuned(data, monkeypatch):
    monkeypatch.setattr(
        tuning, "SEARCH", (("inference.path_weight", (0.0, 0.05)), ("inference.beam_size", (5,)))
    )
    config = CONFIG.replace(**{"inference.post_processor": ["none"]})
    tried = [trial.changes for trial in tune(*data, config).trials]
    assert {"inference.beam_size": 5} in tried
    assert not any("inference.path_weight" in changes for changes in tried)
