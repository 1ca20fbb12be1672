import numpy as np
import pytest
from scipy.sparse import csr_array, csr_matrix

from tests.metrics.conftest import Judged, predictions_of, truth_matrix
from tests.reference import metrics as reference
from xmc_core.data import Predictions
from xmc_core.errors import ConfigError, DataError, ShapeError
from xmc_core.metrics import NAMES, evaluate, plain_name, ranking, row_scores

KS = (1, 3, 5, 10)


def score(judged: Judged, **changes: object) -> dict[str, float]:
    arguments = {"label_counts": judged.counts, "n_train": judged.n_train, "ks": KS, **changes}
    return evaluate(judged.predictions, judged.Y, **arguments)


def test_agrees_with_the_reference(judged):
    expected = reference.evaluate(
        judged.ranked, judged.truth, judged.counts.tolist(), judged.n_train, KS
    )
    assert score(judged) == pytest.approx(expected, abs=1e-9)
    assert list(score(judged)) == list(expected) == list(NAMES)


def test_a_case_worked_out_by_hand():
    # Row 0: labels {0, 2}, told 0, 1, 2: right, wrong, right. Row 1: label {3}, told 1, 3.
    predictions = predictions_of([[0, 1, 2], [1, 3]], top_k=3)
    Y = truth_matrix([{0, 2}, {3}], 4)
    found = evaluate(predictions, Y, label_counts=np.array([9, 5, 1, 1]), n_train=20, ks=(1, 3))
    assert found["P@1"] == 50.0
    assert found["P@3"] == pytest.approx(100 * (2 / 3 + 1 / 3) / 2)
    assert found["R@1"] == pytest.approx(100 * (1 / 2 + 0) / 2)
    assert found["R@3"] == 100.0
    # DCG: 1 + 1 / log2(4) = 1.5 of 1 + 1 / log2(3) = 1.63093; and 1 / log2(3) = 0.63093 of 1.
    assert found["nDCG@3"] == pytest.approx(100 * (1.5 / 1.63093 + 0.63093) / 2, abs=1e-3)
    # 1 / propensity with C = (ln 20 - 1) * 2.5^0.55 = 3.303586:
    # 1 + C * 10.5^-0.55 = 1.906420 (label 0) and 1 + C * 2.5^-0.55 = 2.995732 (labels 2 and 3).
    assert found["PSP@1"] == pytest.approx(100 * 1.906420 / (2.995732 + 2.995732), abs=1e-3)
    assert found["PSP@3"] == pytest.approx(100.0)


def test_perfect_predictions_reach_100_wherever_that_can_be_reached(judged):
    truth = [true for true in judged.truth if true]
    counts = judged.counts.tolist()
    ranked = [sorted(true, key=lambda label: (counts[label], label)) for true in truth]
    found = evaluate(
        predictions_of(ranked, 12),
        truth_matrix(truth, judged.Y.shape[1]),
        label_counts=judged.counts,
        n_train=judged.n_train,
    )
    for name in ("P@1", "nDCG@1", "nDCG@10", "PSP@1", "PSP@5", "PSP@10", "PSnDCG@5"):
        assert found[name] == pytest.approx(100.0), name


def test_blocks_of_rows_add_up_to_the_whole(judged, monkeypatch):
    whole = score(judged)
    monkeypatch.setattr(ranking, "ROWS_AT_ONCE", 7)
    assert score(judged) == pytest.approx(whole, abs=1e-9)


def test_row_scores_average_to_the_metrics(judged):
    rows = row_scores(
        judged.predictions, judged.Y, label_counts=judged.counts, n_train=judged.n_train
    )
    assert {name: scores.value for name, scores in rows.items()} == pytest.approx(score(judged))
    assert rows["P@1"].gain.tolist() == [
        float(bool(labels) and labels[0] in true)
        for labels, true in zip(judged.ranked, judged.truth, strict=True)
    ]


def test_rows_without_labels_lower_precision_and_leave_recall_and_ndcg_alone():
    counts = np.array([3, 3])
    one, two = (
        evaluate(predictions_of(ranked, 1), truth_matrix(truth, 2), label_counts=counts, n_train=10)
        for ranked, truth in (([[0]], [{0}]), ([[0], [1]], [{0}, set()]))
    )
    assert (one["P@1"], two["P@1"]) == (100.0, 50.0)
    for name in ("R@1", "nDCG@1", "PSP@1", "PSnDCG@1"):
        assert one[name] == two[name] == 100.0


def test_labels_that_train_never_showed_count_as_missed():
    predictions = predictions_of([[0]], 1)
    seen = evaluate(predictions, truth_matrix([{0}], 1), label_counts=np.array([4]), n_train=9)
    more = evaluate(predictions, truth_matrix([{0, 1}], 2), label_counts=np.array([4]), n_train=9)
    padded = evaluate(
        predictions, truth_matrix([{0, 1}], 2), label_counts=np.array([4, 0]), n_train=9
    )
    assert seen["R@3"] == 100.0
    assert more["R@3"] == 50.0
    assert more["PSP@3"] < 50.0  # an unseen label weighs more than a seen one
    assert more == padded


def test_padding_is_never_right_even_where_it_reads_the_last_label():
    predictions = predictions_of([[], []], 3)
    found = evaluate(
        predictions, truth_matrix([{1}, {1}], 2), label_counts=np.array([1, 1]), n_train=5
    )
    assert set(found.values()) == {0.0}


def test_stored_zeros_and_unsorted_columns_do_not_matter(judged):
    Y = judged.Y
    order = np.concatenate(
        [np.arange(a, b)[::-1] for a, b in zip(Y.indptr[:-1], Y.indptr[1:], strict=True)]
    )
    messy = csr_array((Y.data[order], Y.indices[order], Y.indptr), shape=Y.shape)
    with_zeros = csr_array(np.where(Y.toarray() > 0, 2.0, 0.0))
    with_zeros.data[0] = 0.0
    before = with_zeros.data.copy()
    cleaned = csr_array(with_zeros.toarray())
    arguments = {"label_counts": judged.counts, "n_train": judged.n_train}
    assert evaluate(judged.predictions, messy, **arguments) == score(judged)
    assert evaluate(judged.predictions, with_zeros, **arguments) == evaluate(
        judged.predictions, cleaned, **arguments
    )
    assert with_zeros.data.tolist() == before.tolist()  # the caller's matrix is not touched


def test_names_both_sizes_when_rows_do_not_match(judged):
    short = Predictions(judged.predictions.labels[1:], judged.predictions.scores[1:])
    with pytest.raises(ShapeError, match=r"predictions have 79 rows but Y_test has 80"):
        evaluate(short, judged.Y, label_counts=judged.counts, n_train=judged.n_train)


def test_names_the_label_that_has_no_column():
    with pytest.raises(ShapeError, match=r"label 7 but Y_test has 2 columns"):
        evaluate(
            predictions_of([[7]], 1), truth_matrix([{1}], 2), label_counts=np.ones(2), n_train=5
        )


def test_names_both_sizes_when_label_counts_are_too_many(judged):
    with pytest.raises(ShapeError, match=r"label_counts has 35 labels but Y_test has 34 columns"):
        score(judged, label_counts=np.ones(35, np.int64))


def test_refuses_a_label_named_twice_in_a_row():
    with pytest.raises(DataError, match=r"twice in row 1: \[2, 0, 2\]"):
        evaluate(
            predictions_of([[0, 1], [2, 0, 2]], 3),
            truth_matrix([{0}, {2}], 3),
            label_counts=np.ones(3),
            n_train=5,
        )


def test_refuses_a_test_split_without_labels():
    with pytest.raises(DataError, match="2 rows and not one label"):
        evaluate(
            predictions_of([[0], [0]], 1),
            truth_matrix([set(), set()], 1),
            label_counts=np.ones(1),
            n_train=5,
        )


def test_refuses_ranks_below_one(judged):
    with pytest.raises(ConfigError, match=r"at least 1, got \(0, 5\)"):
        score(judged, ks=(0, 5))


@pytest.mark.parametrize(
    ("metric", "plain"),
    [
        ("P@1", "precision_at_1"),
        ("R@10", "recall_at_10"),
        ("nDCG@5", "ndcg_at_5"),
        ("PSP@3", "psp_at_3"),
        ("PSnDCG@3", "psndcg_at_3"),
        ("micro-F1@5", "micro_f1_at_5"),
        ("coverage@5", "coverage_at_5"),
    ],
)
def test_metric_names_become_plain_ones(metric, plain):
    assert plain_name(metric) == plain


def test_label_counts_may_be_the_sum_of_a_csr_matrix():
    Y = csr_matrix(np.array([[1, 0, 1], [0, 0, 1]], np.float32))
    predictions = Predictions(np.array([[2], [0]], np.int32), np.ones((2, 1), np.float32))
    wanted = evaluate(predictions, csr_array(Y), label_counts=np.array([1, 0, 2]), n_train=3)
    found = evaluate(predictions, csr_array(Y), label_counts=Y.sum(axis=0), n_train=3)
    assert found == wanted
