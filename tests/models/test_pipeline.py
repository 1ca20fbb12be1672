import numpy as np
import pytest
from numpy.testing import assert_array_equal
from scipy.sparse import csr_array

from xmc_core.config import Config, TfidfConfig
from xmc_core.errors import DataError
from xmc_core.features.tfidf import fit_tfidf
from xmc_core.models import Member, PipelineModel, train_xr_linear

NAMES = ["bread", "cheese", "iron", "wood"]
TEXTS = [f"{name} and {other}" for name in NAMES for other in NAMES]


@pytest.fixture(scope="module", name="pipeline")
def trained():
    vectorizer, X = fit_tfidf(TEXTS, TfidfConfig(min_df=1))
    Y = csr_array([[float(name in text) for name in NAMES] for text in TEXTS])
    config = Config().replace(**{"disentangle.max_clusters": 1, "n_threads": 1})
    return PipelineModel(vectorizer, (Member(train_xr_linear(X, Y, config)),), NAMES)


def test_texts_can_be_asked_about_given_labels(pipeline):
    pairs = csr_array(np.ones((2, 4), np.float32))
    texts = ["iron", "wood and bread"]
    scores = pipeline.score(texts, pairs).toarray()
    found = pipeline.predict(texts, top_k=4)
    for row in range(2):
        assert_array_equal(scores[row, found.labels[row]], found.scores[row])
    assert scores[0].argmax() == NAMES.index("iron")


def test_the_choice_can_be_restricted_by_name(pipeline):
    some = pipeline.restricted(["cheese", "wood"])
    assert set(some.predict(["iron"], top_k=2).labels[0]) == {1, 3}
    allowed = pipeline.predict(["iron"], top_k=2, allow=["cheese", "wood"])
    assert_array_equal(allowed.labels, some.predict(["iron"], top_k=2).labels)
    assert pipeline.named(pipeline.predict(["iron"], top_k=1))[0][0][0] == "iron"


def test_a_name_that_is_no_label_is_refused(pipeline):
    with pytest.raises(DataError, match="'steel' is not a label of this model"):
        pipeline.restricted(["iron", "steel"])
    with pytest.raises(DataError, match="takes a list of names"):
        pipeline.predict(["iron"], allow="iron")
    with pytest.raises(DataError, match="takes a list of texts"):
        pipeline.score("iron", csr_array((1, 4)))
