import json
from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from scipy.sparse import csr_array

from xmc_core.config import CalibrationConfig, Config, TfidfConfig
from xmc_core.errors import DataError, ShapeError, StoreError
from xmc_core.features.tfidf import fit_tfidf
from xmc_core.inference.calibration import fit_calibration
from xmc_core.models import Member, PipelineModel, load_model, train_xr_linear

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


def test_texts_that_can_be_read_once_only_are_refused(pipeline):
    with pytest.raises(DataError, match="got a generator; pass list"):
        pipeline.predict(text for text in TEXTS)


def test_a_name_that_is_no_label_is_refused(pipeline):
    with pytest.raises(DataError, match="'steel' is not a label of this model"):
        pipeline.restricted(["iron", "steel"])
    with pytest.raises(DataError, match="takes a list of names"):
        pipeline.predict(["iron"], allow="iron")
    with pytest.raises(DataError, match="takes a list of texts"):
        pipeline.score("iron", csr_array((1, 4)))


@pytest.fixture(scope="module")
def calibrated(pipeline):
    """Curves of the training rows themselves: what they say is not the point here."""
    found = pipeline.predict(TEXTS, top_k=4)
    hits = np.array(
        [
            [NAMES[label] in text for label in row]
            for text, row in zip(TEXTS, found.labels, strict=True)
        ]
    )
    settings = CalibrationConfig(method="platt")
    positives = np.bincount(found.labels[hits], minlength=len(NAMES))
    return replace(pipeline, calibration=fit_calibration(found, hits, positives, settings))


def test_a_calibrated_model_gives_probabilities_unless_asked_for_its_scores(pipeline, calibrated):
    texts = ["iron and wood", "cheese"]
    raw = pipeline.predict(texts, top_k=3)
    expected = calibrated.calibration.calibrated(raw)
    for found in (
        calibrated.predict(texts, top_k=3),
        calibrated.predict(texts, top_k=3, calibrated=True),
    ):
        assert_array_equal(found.labels, expected.labels)
        assert_array_equal(found.scores, expected.scores)
        assert 0.0 < found.scores.min() < found.scores.max() < 1.0
    assert_array_equal(calibrated.predict(texts, top_k=3, calibrated=False).scores, raw.scores)
    with pytest.raises(DataError, match="this model is not calibrated"):
        pipeline.predict(texts, calibrated=True)
    with pytest.raises(DataError, match="this model is not calibrated"):
        pipeline.operating_point(80.0)


def test_labels_below_the_threshold_are_dropped_and_a_row_may_come_back_empty(calibrated):
    texts = ["iron and wood", "nothing known"]
    everything = calibrated.predict(texts, top_k=4)
    threshold = float(everything.scores[0, 1])
    found = calibrated.predict(texts, top_k=4, threshold=threshold)
    assert_array_equal(found.labels[0], [*everything.labels[0, :2], -1, -1])
    assert np.all(np.isneginf(found.scores[0, 2:]))
    assert [len(row) for row in calibrated.named(found)] == [2, 0]
    raw = calibrated.predict(texts, top_k=4, calibrated=False)
    strict = calibrated.predict(texts, calibrated=False, threshold=float(raw.scores.max()) + 1.0)
    assert np.all(strict.labels == -1)


def test_the_threshold_for_a_precision_comes_from_the_curves(calibrated):
    assert calibrated.operating_point(60.0) == calibrated.calibration.point(60.0)


def test_curves_are_saved_and_loaded_with_the_model(calibrated, pipeline, tmp_path):
    calibrated.save(tmp_path / "with")
    pipeline.save(tmp_path / "without")
    assert not (tmp_path / "without" / "calibration").exists()
    loaded = PipelineModel.load(tmp_path / "with")
    expected = calibrated.predict(TEXTS, top_k=3)
    assert_array_equal(loaded.predict(TEXTS, top_k=3).scores, expected.scores)
    assert_array_equal(
        loaded.restricted(["iron"]).predict(["iron"], top_k=1).scores,
        calibrated.predict(["iron"], top_k=1, allow=["iron"]).scores,
    )
    assert PipelineModel.load(tmp_path / "without").calibration is None


def test_curves_of_other_labels_are_refused(calibrated, pipeline, tmp_path):
    other = replace(calibrated.calibration, shifts=np.zeros(7))
    with pytest.raises(ShapeError, match="the calibration knows 7 labels, the model 4"):
        replace(pipeline, calibration=other)
    calibrated.save(tmp_path / "model")
    other.save(tmp_path / "model" / "calibration")
    with pytest.raises(StoreError, match="the calibration knows 7 labels"):
        PipelineModel.load(tmp_path / "model")


def test_a_model_saved_over_another_keeps_nothing_of_it(calibrated, pipeline, tmp_path):
    calibrated.save(tmp_path / "model")
    pipeline.save(tmp_path / "model")
    assert PipelineModel.load(tmp_path / "model").calibration is None


def test_a_loaded_model_can_be_saved_to_its_own_folder(calibrated, tmp_path):
    expected = calibrated.predict(TEXTS, top_k=3)
    calibrated.save(tmp_path / "model")
    PipelineModel.load(tmp_path / "model").save(tmp_path / "model")
    found = load_model(tmp_path / "model", verify=True).predict(TEXTS, top_k=3)
    assert_array_equal(found.labels, expected.labels)
    assert_array_equal(found.scores, expected.scores)


@pytest.mark.parametrize("part", ["vectorizer", "model/tree", "calibration", "."])
def test_verify_reads_every_part(calibrated, tmp_path, monkeypatch, part):
    calibrated.save(tmp_path / "model")
    monkeypatch.setattr("xmc_core.persistence.store.CHECKED_BYTES", 0)
    file = max((tmp_path / "model" / part).glob("*.npy"), key=lambda file: file.stat().st_size)
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(StoreError, match=f"{file.name} does not match its checksum"):
        PipelineModel.load(tmp_path / "model", verify=True)


@pytest.mark.parametrize(
    ("part", "fact"),
    [
        ("model", "depth"), ("model", "features"), ("model", "config"), ("model/tree", "labels"),
        ("model/tree", "depth"), ("vectorizer", "config"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("value", [None, [], {"no": "such"}])
def test_an_altered_manifest_is_refused(calibrated, tmp_path, part, fact, value):
    calibrated.save(tmp_path / "model")
    manifest = tmp_path / "model" / part / "manifest.json"
    content = json.loads(manifest.read_text())
    content["facts"][fact] = value
    manifest.write_text(json.dumps(content))
    with pytest.raises(StoreError, match=r"manifest.json does not describe"):
        PipelineModel.load(tmp_path / "model")
