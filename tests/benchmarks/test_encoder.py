"""The encoder's benchmark at tiny sizes: its numbers mean nothing, its parts must fit together."""

import json
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import encoder
import numpy as np
import pytest
import report_encoder
from measure import Parts
from scipy.sparse import csr_array, save_npz
from transformers import BertConfig
from worker_gpu_encoder import clustered_labels, even_tree, flops_a_token, save_random_bert

from xmc_core.config import load_config
from xmc_core.data import Predictions

FOLDER = Path(encoder.__file__).parent
TINY = encoder.AMAZON_SMALL["bert"]
SMALL = {
    "n_threads": 1, "tree.branching": 2, "tree.max_leaf_size": 4, "encoder.levels": 2,
    "encoder.steps": [2, 3], "encoder.batch_size": 8, "encoder.max_length": 16,
    "encoder.batch_tokens": 256, "encoder.precision": "fp32",
}  # fmt: skip


def worker(file, task, work):
    done = subprocess.run(
        [sys.executable, FOLDER / file, task], input=json.dumps(work), capture_output=True,
        text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.strip().splitlines()[-1])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """80 training documents and 20 of test; a document's words are those of its label."""
    folder = tmp_path_factory.mktemp("set")
    words = save_random_bert(folder / "bert", BertConfig(**TINY), 16)
    rng = np.random.default_rng(0)
    for split, n in (("train", 80), ("test", 20)):
        labels = np.arange(n) % 16
        texts = [" ".join(words[5 * label + i] for i in rng.integers(0, 5, 8)) for label in labels]
        X = np.array([[text.split().count(word) for word in words] for text in texts], np.float32)
        save_npz(folder / f"X_{split}.npz", csr_array(X / np.linalg.norm(X, axis=1, keepdims=True)))
        Y = csr_array((np.ones(n, np.float32), (np.arange(n), labels)), shape=(n, 16))
        save_npz(folder / f"Y_{split}.npz", Y)
        (folder / f"{split}_texts.json").write_text(json.dumps(texts))
    return folder


def work(folder, rows=0, **changes):
    settings = {**SMALL, "encoder.name": str(folder / "bert"), **changes}
    return {
        "folder": str(folder), "preset": encoder.PRESET, "overrides": settings, "rows": rows,
        "test_rows": 0, "predictions": str(folder / "predictions"), "held_out": 0.2,
    }  # fmt: skip


@pytest.mark.slow
def test_a_pipeline_tells_its_parts_and_leaves_predictions(folder):
    result = worker("worker_ours_encoder.py", "pipeline", work(folder))
    assert {"encoding", "fine-tuning", "trees", "final ranker"} <= result["parts"].keys()
    assert sum(result["parts"].values()) == pytest.approx(result["cpu"])
    assert min(result["parts"].values()) >= 0
    assert result["predict_parts"]["encoding"] > 0
    labels = Predictions.load(folder / "predictions").labels
    assert (labels[:, 0] == np.arange(20) % 16).mean() > 0.9  # the words give the label away


@pytest.mark.slow
def test_a_curve_is_that_of_the_leaf_clusters(folder):
    changes = {"encoder.validation_rows": 20, "encoder.validate_every": 1}
    result = worker("worker_ours_encoder.py", "curve", work(folder, **changes))
    assert result["held_out"] == 16
    assert [point["step"] for point in result["points"]] == [3, 4, 5]  # of level 2
    clocks = [point["cpu"] for point in result["points"]]
    assert clocks == sorted(clocks)
    assert clocks[-1] <= result["cpu"]
    assert all(0 <= point["P@1"] <= 100 for point in result["points"])
    assert 0 < result["P@1"] <= 100


@pytest.mark.slow
def test_the_form_for_a_gpu_runs_on_a_processor(tmp_path):
    name = str(tmp_path / "bert")
    result = worker(
        "worker_gpu_encoder.py",
        "random",
        {
            **encoder.AMAZON_SMALL, "preset": encoder.PRESET, "folder": name, "peak_size": 256,
            "overrides": {**SMALL, "encoder.name": name, "encoder.levels": 3,
                          "encoder.steps": [3, 3, 3]},
        },
    )  # fmt: skip
    assert result["nodes"] == [4, 8, 16]
    assert result["tokens_a_text"] == 16
    assert list(result["step_s"]) == ["1", "2", "3"]
    assert min(result["step_s"].values()) > 0
    assert result["training_tokens_s"] == pytest.approx(
        8 * 16 / np.mean(list(result["step_s"].values()))
    )
    assert not Path(name).exists()


def test_every_schedule_is_a_valid_config():
    for schedule in [
        *encoder.SCHEDULES.values(),
        encoder.PAIR,
        encoder.MINILM_GPU,
        encoder.AMAZON_SCHEDULE,
    ]:
        for rung in encoder.RUNGS:
            values = encoder.overrides(schedule, rung, 3, 1)
            config = load_config(preset=encoder.PRESET, overrides=values)
            assert (config.encoder.name == "none") == (rung == "tf-idf")
            if rung != "tf-idf":
                assert config.encoder.levels == (len(schedule.steps) if rung == "fine-tuned" else 0)


def test_every_task_of_ours_is_a_valid_config():
    tasks = [*encoder.pair_tasks(1), *encoder.ladder_tasks(encoder.SCHEDULES, 1)]
    for task in [*tasks, *encoder.leaf_tasks()]:
        if task.side == "xmc":
            for small in (False, True):
                load_config(preset=encoder.PRESET, overrides=encoder.ours(task, small))


def test_a_pair_is_alternated_and_starts_with_the_peer():
    tuned = [t for t in encoder.pair_tasks(2) if t.settings.startswith("fine-tuned")]
    sides = [(task.pair, task.side) for task in tuned]
    assert sides == [(p, s) for p in (0, 1) for s in ("libpecos", "xmc", "xmc")]


def test_a_part_inside_a_part_counts_for_the_outer_one():
    class Model:
        @classmethod
        def train(cls):
            began = time.process_time()
            while time.process_time() - began < 0.02:
                pass
            return cls

    parts = Parts()
    parts.watch(Model, "train", "inner")
    with parts.part("outer"):
        assert Model.train() is Model
    assert Model.train() is Model
    taken = parts.take(1.0)
    assert list(taken) == ["outer", "inner", "other"]
    assert min(taken["outer"], taken["inner"]) >= 0.02
    assert sum(taken.values()) == pytest.approx(1.0)


def test_labels_of_a_document_lie_below_four_nodes():
    tree = even_tree([4, 8, 64], labels_per_leaf=4)
    assert tree.level_sizes == (4, 8, 64, 256)
    Y = clustered_labels(np.random.default_rng(0), 10, tree, 20)
    assert all(len(set(Y.indices[a:b] // 32)) <= 4 for a, b in pairwise(Y.indptr))
    assert set(Y.data) == {1.0}


def test_operations_of_a_token_are_those_of_the_layers_products():
    class Encoder:
        class model:  # noqa: N801
            config = BertConfig()  # base: 12 layers of 768 and 3,072

    products = 2 * 12 * (4 * 768**2 + 2 * 768 * 3072)  # a multiplication and an addition a weight
    attention = 2 * 12 * 2 * 768 * 128  # with every token of the text: scores, then means
    assert flops_a_token(Encoder, np.full(5, 128.0)) == products + attention


def row(**values):
    metrics = dict.fromkeys(report_encoder.METRICS, 50.0)
    return {"set": "s", "side": "xmc", "pair": 0, "cpu": 10.0, "predict_cpu": 1.0, **metrics,
            "parts": {"encoding": 6.0, "other": 4.0}, "predict_parts": {"encoding": 1.0},
            "peak_mb": 100.0, **values}  # fmt: skip


def test_the_pair_is_told_side_by_side():
    rows = [
        row(side="libpecos", settings="fine-tuned", cpu=40.0,
            parts={"encoding": 30.0, "other": 10.0}),
        row(settings="fine-tuned, fp32"),
        row(settings="fine-tuned, auto", cpu=5.0),
    ]  # fmt: skip
    lines = list(report_encoder.pair_section(rows))
    assert "| training, CPU s | 40.00 | 10.00 | 5.00 | 4.00 | 8.00 |" in lines
    assert "| of it encoding | 30.00 | 6.00 | 6.00 | 5.00 | 5.00 |" in lines
    assert "### frozen" not in lines


def test_the_ladder_has_mean_and_spread_over_seeds():
    rows = [row(settings="frozen", pair=seed, **{"P@1": 90.0 + seed}) for seed in range(3)]
    lines = list(report_encoder.ladder_section(rows))
    assert "### s, 3 seeds" in lines
    assert lines[-1].startswith("| frozen | 91.00 ± 1.00 / 50.00 ± 0.00 / 50.00 ± 0.00 |")


def test_time_to_the_same_precision_ends_where_it_is_first_reached():
    def points(*pairs):
        return [{"cpu": cpu, "step": i, "P@1": p} for i, (cpu, p) in enumerate(pairs)]

    rows = [
        row(settings="level by level", points=points((10, 80), (20, 90), (30, 92))),
        row(settings="leaves alone", points=points((10, 70), (60, 90), (90, 89))),
    ]
    assert list(report_encoder.leaf_section(rows))[-1] == (
        "P@1 90.00: leaves alone take 3.00 times the CPU seconds."
    )


def test_without_a_gpu_the_table_says_why_it_is_empty():
    assert list(report_encoder.gpu_section([]))[-1].startswith("Not measured yet")
