"""The benchmark of dense columns at a tiny size: its numbers mean nothing, its parts must fit."""

import dense
import numpy as np
import pytest
from report_dense import ALONE, STEPS, dense_section
from scipy.sparse import csr_array, save_npz
from worker_dense import work


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A document's one word and the direction of its vector are those of its label."""
    folder = tmp_path_factory.mktemp("set")
    rng = np.random.default_rng(0)
    directions = rng.standard_normal((16, 24)).astype(np.float32)
    for split, n in (("train", 80), ("test", 20)):
        labels = np.arange(n) % 16
        rows = csr_array((np.ones(n, np.float32), (np.arange(n), labels)), shape=(n, 16))
        save_npz(folder / f"X_{split}.npz", rows)
        save_npz(folder / f"Y_{split}.npz", rows)
        vectors = directions[labels] + 0.1 * rng.standard_normal((n, 24)).astype(np.float32)
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        np.save(folder / f"minilm-{split}.npy", (vectors / lengths).astype(np.float16))
    return folder


@pytest.mark.parametrize("variant", [ALONE, "weight 0.5, all dimensions", "weight 1.0, components"])
def test_a_worker_times_each_step(folder, variant):
    weight, components = dense.VARIANTS.get(variant, (1.0, 8))
    task = {"folder": str(folder), "weight": weight, "components": components, "overrides": {}}
    result = work(task)
    assert [step for step in STEPS if step in result] == list(STEPS)[variant == ALONE :]
    assert result["train"]["cpu"] > 0
    assert result["P@1"] == 100  # the word gives the label away


def test_a_joined_run_is_divided_by_that_on_words_of_its_round():
    def row(pair, settings, cpu):
        steps = {step: {"cpu": cpu / len(STEPS)} for step in STEPS}
        figures = {"P@1": 90.0, "P@3": 80.0, "P@5": 70.0, "PSP@5": 50.0}
        return {"set": "a-set", "pair": pair, "settings": settings, **steps, **figures,
                "us_per_row": 10.0, "model_mb": 5.0}  # fmt: skip

    rows = [
        row(pair, settings, cpu)
        for pair, words, joined in ((0, 2.0, 2.8), (1, 4.0, 6.4), (2, 3.0, 4.2))
        for settings, cpu in ((ALONE, words), ("joined", joined))
    ]
    *_, alone, joined = dense_section(rows)
    assert alone.startswith("| tf-idf alone | 3.00 (2.00 – 4.00) |  |")
    assert "| 4.20 (2.80 – 6.40) | 1.40 (1.40 – 1.60), 1.5: reached |" in joined
