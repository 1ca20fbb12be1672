import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.sparse import csr_array

from xmc_core.config import Config
from xmc_core.errors import ConfigError
from xmc_core.models import train_xr_linear
from xmc_core.rankers.relevance import favour_rare_labels, normalise_rows
from xmc_core.tree import LabelTree


@pytest.fixture(scope="module", name="Y")
def labels():
    rng = np.random.default_rng(4)
    return csr_array((rng.random((80, 6)) < [0.8, 0.5, 0.3, 0.1, 0.05, 0.0]).astype(np.float32))


def test_shares_follow_the_power_of_a_label_s_rows(Y):
    shares = normalise_rows(favour_rare_labels(Y, 0.7), "l1").toarray()
    with np.errstate(divide="ignore"):
        weights = np.where(Y.toarray() > 0, Y.toarray().sum(axis=0) ** -0.7, 0)
    expected = weights / np.maximum(weights.sum(axis=1, keepdims=True), 1e-9)
    assert_allclose(shares, expected, rtol=1e-5)


def test_without_a_tail_nothing_changes(Y):
    assert favour_rare_labels(Y, 0.0) is Y


def test_a_tail_raises_the_margins_of_rare_labels_on_their_own_rows(Y):
    X = csr_array(np.random.default_rng(5).random((80, 30)).astype(np.float32))
    tree = LabelTree.from_leaves([list(range(6))], branching=2)
    settings = {
        "rankers.relevance": "l1",
        "rankers.threshold": 0.0,
        "rankers.tol": 1e-4,
        "inference.post_processor": "none",
    }
    margins = {}
    for tail in (0.0, 1.0):
        config = Config().replace(**{**settings, "rankers.tail": tail})
        model = train_xr_linear(X, Y, config, tree=tree)
        margins[tail] = model.predict(X, top_k=6).to_csr(6).toarray()
    change = (margins[1.0] - margins[0.0]) * Y.toarray()
    assert change[:, 4].sum() > 0 > change[:, 0].sum()


def test_a_tail_needs_shares():
    with pytest.raises(ConfigError, match=r"rankers\.tail must be 0 where rankers\.relevance is"):
        Config().replace(**{"rankers.tail": 0.1})
