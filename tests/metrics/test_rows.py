import numpy as np

from tests.metrics.conftest import truth_matrix
from xmc_core.metrics import load_rows, not_worse, row_scores, save_rows, split_digest
from xmc_core.persistence import read_store


def test_rows_come_back_as_they_were(judged, tmp_path):
    rows = row_scores(
        judged.predictions, judged.Y, label_counts=judged.counts, n_train=judged.n_train
    )
    saved = {"old": rows, "new": rows}
    save_rows(tmp_path, saved, judged.Y)
    loaded = load_rows(tmp_path)
    assert list(loaded) == ["old", "new"]
    assert list(loaded["new"]) == list(rows)
    for name, scores in rows.items():
        np.testing.assert_array_equal(loaded["new"][name].gain, scores.gain)
        np.testing.assert_array_equal(loaded["new"][name].weight, scores.weight)
    assert not_worse(loaded["new"], loaded["old"], metrics=["P@1", "PSP@5"], samples=50).passed


def test_the_digest_names_the_split():
    first, second = truth_matrix([{0}, {1}], 3), truth_matrix([{1}, {0}], 3)
    assert split_digest(first) == split_digest(first.copy())
    assert split_digest(first) != split_digest(second)
    assert split_digest(first) != split_digest(truth_matrix([{0}, {1}], 4))


def test_the_manifest_carries_the_digest(judged, tmp_path):
    rows = row_scores(
        judged.predictions, judged.Y, label_counts=judged.counts, n_train=judged.n_train, ks=(1,)
    )
    save_rows(tmp_path, {"m": rows}, judged.Y)
    assert read_store(tmp_path, "evaluation").facts["test_split"] == split_digest(judged.Y)
