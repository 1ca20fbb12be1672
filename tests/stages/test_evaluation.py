"""The stage on a small project whose earlier stages are written by the real save functions."""

import csv
import io
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import csr_array

from tests.reference.features import label_case
from xmc_core.config import CalibrationConfig, Config, TfidfConfig
from xmc_core.data import Dataset, Predictions
from xmc_core.errors import DataError
from xmc_core.features.tfidf import fit_tfidf
from xmc_core.inference.calibration import fit_calibration
from xmc_core.metrics import evaluate, load_rows, not_worse, split_digest
from xmc_core.metrics.matching import find_hits
from xmc_core.metrics.report import MODELS, SUMMARY, summary_table
from xmc_core.models.xr_linear import train_xr_linear
from xmc_core.persistence import read_store, write_store
from xmc_core.stages.evaluation import REPORT_FILES
from xmc_core.stages.paths import ProjectPaths
from xmc_core.stages.runner import run_stage
from xmc_core.tree import LabelTree
from xmc_core.types import SparseRows

N_TRAIN, N_TEST, N_LABELS, N_UNSEEN = 120, 40, 24, 2
CONFIG = Config().replace(**{"inference.top_k": 10, "n_threads": 1})
CURVES = "step,level,loss,learning_rate\n1,1,0.9,1e-4\n2,1,0.5,5e-5\n1,2,0.8,1e-4\n"


def made_labels(n_rows: int, rng: np.random.Generator) -> SparseRows:
    rows = np.arange(n_rows)
    first, second = rng.integers(0, N_LABELS, (2, n_rows))
    dense = np.zeros((n_rows, N_LABELS), np.float32)
    dense[rows, first] = dense[rows, second] = 1.0
    return csr_array(dense)


def features(Y: SparseRows, rng: np.random.Generator) -> SparseRows:
    """A word for each label, and some noise."""
    noise = (rng.random((Y.shape[0], N_LABELS + 6)) < 0.1).astype(np.float32)
    noise[:, :N_LABELS] += Y.toarray()
    return csr_array(noise / np.linalg.norm(noise, axis=1, keepdims=True).clip(1e-6))


def made_beams(seed: int = 5) -> SparseRows:
    """Two of the six leaves for each row; some scores are 0."""
    rng = np.random.default_rng(seed)
    leaves = np.sort(rng.permuted(np.tile(np.arange(6), (N_TRAIN, 1)), axis=1)[:, :2], axis=1)
    scores = rng.integers(0, 9, leaves.size).astype(np.float32) / 8
    pointer = np.arange(0, leaves.size + 1, 2)
    return csr_array((scores, leaves.ravel(), pointer), shape=(N_TRAIN, 6))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> ProjectPaths:
    """All stages but the last."""
    paths = ProjectPaths(tmp_path_factory.mktemp("project") / "data", "made")
    rng = np.random.default_rng(11)
    Y_train, Y_test = made_labels(N_TRAIN, rng), made_labels(N_TEST, rng)
    X_train, X_test = features(Y_train, rng), features(Y_test, rng)
    seen = Y_test.toarray()
    seen[3] = 0.0  # a test document without labels
    unseen = np.zeros((N_TEST, N_UNSEEN), np.float32)
    unseen[5] = 1.0
    dataset = Dataset(
        [f"train {row}" for row in range(N_TRAIN)],
        [f"How do I <sort> number {row}?" for row in range(N_TEST)],
        [f"pkg.label_{label}" for label in range(N_LABELS + N_UNSEEN)],
        Y_train,
        csr_array(np.hstack([seen, unseen])),
    )
    dataset.save(paths.out("dataset"))
    write_store(
        paths.out("tfidf_features"),
        "tfidf-features",
        matrices={"X_train": X_train, "X_test": X_test},
    )
    words = [f"word{word}" for word in range(X_train.shape[1])]
    vectorizer, _ = fit_tfidf([" ".join(words)], TfidfConfig(min_df=1, max_ngram=1))
    vectorizer.save(paths.out("tfidf_features") / "vectorizer")
    write_store(
        paths.out("initial_tree"),
        "initial-tree",
        matrices={"label_features": csr_array(Y_train.T @ X_train)},
    )
    leaves = [list(range(start, start + 4)) for start in range(0, N_LABELS, 4)]
    trees = {"matcher": LabelTree.from_leaves(leaves, branching=3)}
    for leaf, label in ((0, 9), (4, 2), (5, 2), (1, 20)):  # labels that live in several clusters
        leaves[leaf].append(label)
    trees["disentangled_tree"] = LabelTree.from_leaves(leaves, branching=3)
    for seed, (stage, tree) in enumerate(trees.items(), start=4):
        model = train_xr_linear(X_train, Y_train, CONFIG, tree=tree)
        model.save(paths.out(stage) / "model")
        model.predict(X_test, top_k=10).save(paths.out(stage) / "predictions")
        write_store(paths.out(stage), stage.replace("_", "-"), matrices={"beams": made_beams(seed)})
        tree.save(paths.out(stage) / "tree")
    shutil.copytree(
        paths.out("disentangled_tree") / "predictions", paths.out("rankers") / "predictions"
    )
    write_store(paths.out("rankers"), "rankers")
    write_store(paths.out("xr_transformer"), "embeddings")
    (paths.out("xr_transformer") / "curves.csv").write_text(CURVES, encoding="utf-8")
    return paths


@pytest.fixture
def copy(finished: ProjectPaths, tmp_path: Path) -> Callable[[str], ProjectPaths]:
    def copied(name: str) -> ProjectPaths:
        shutil.copytree(finished.data, tmp_path / name)
        return ProjectPaths(tmp_path / name, finished.dataset)

    return copied


@pytest.fixture(scope="module")
def evaluated(finished: ProjectPaths, tmp_path_factory: pytest.TempPathFactory) -> ProjectPaths:
    """All stages, for tests that only read."""
    data = tmp_path_factory.mktemp("evaluated") / "data"
    shutil.copytree(finished.data, data)
    paths = ProjectPaths(data, finished.dataset)
    run_stage("evaluation", paths, CONFIG, quiet=True)
    return paths


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


def test_leaves_every_file_and_the_same_bytes_twice(copy, evaluated):
    first, second = evaluated, copy("second")
    facts = json.loads((evaluated.out("evaluation") / "facts.json").read_text(encoding="utf-8"))
    assert run_stage("evaluation", second, CONFIG, quiet=True) == facts
    assert set(contents(first.reports)) == set(REPORT_FILES)
    assert contents(first.reports) == contents(second.reports)
    assert contents(first.out("evaluation")) == contents(second.out("evaluation"))

    again = run_stage("evaluation", second, CONFIG, quiet=True)  # over what is there already
    assert again == facts
    assert contents(first.reports) == contents(second.reports)


def test_every_figure_comes_from_the_predictions(evaluated):
    facts = json.loads((evaluated.out("evaluation") / "facts.json").read_text(encoding="utf-8"))
    metrics = json.loads((evaluated.reports / "metrics.json").read_text(encoding="utf-8"))
    assert tuple(metrics) == MODELS
    dataset = Dataset.load(evaluated.out("dataset"))
    for model, stage in zip(MODELS, ("matcher", "disentangled_tree", "rankers"), strict=True):
        expected = evaluate(
            Predictions.load(evaluated.out(stage) / "predictions"),
            dataset.Y_test,
            label_counts=dataset.label_counts,
            n_train=N_TRAIN,
        )
        for name, value in expected.items():
            assert metrics[model][name] == round(value, 4)
        assert {"coverage@1", "coverage@10", "macro-F1@5", "micro-F1"} <= set(metrics[model])
    assert metrics["xr_transformer"]["P@1"] > 30  # by chance: 8
    assert facts == {name: metrics["xr_transformer"][name] for name in SUMMARY}
    assert [values[0] for _, values in summary_table(metrics)] == [
        metrics[model]["P@1"] for model in MODELS
    ]


def test_row_scores_are_kept_for_the_gate(evaluated):
    rows = load_rows(evaluated.out("evaluation"))
    metrics = json.loads((evaluated.reports / "metrics.json").read_text(encoding="utf-8"))
    for model in MODELS:
        for name in SUMMARY:
            assert round(rows[model][name].value, 4) == metrics[model][name]
    assert not_worse(rows["xr_transformer"], rows["disentangled"]).passed  # they are the same
    facts = read_store(evaluated.out("evaluation"), "evaluation").facts
    assert facts["test_split"] == split_digest(Dataset.load(evaluated.out("dataset")).Y_test)


def test_tables_hold_a_line_for_each_decile_and_beam(evaluated):
    tables = contents(evaluated.reports)
    slices = list(csv.DictReader(io.StringIO(tables["slices.csv"].decode())))
    assert [row["decile"] for row in slices] == [str(d) for d in range(1, 11)] * len(MODELS)
    assert sum(int(row["labels"]) for row in slices[:10]) == N_LABELS
    groups = list(csv.DictReader(io.StringIO(tables["groups.csv"].decode())))
    assert [row["k"] for row in groups[:4]] == ["1", "3", "5", "10"]
    assert list(dict.fromkeys(row["group"] for row in groups)) == [
        *map(str, range(1, 11)), "head", "torso", "tail"
    ]  # fmt: skip
    metrics = json.loads(tables["metrics.json"].decode())
    for model in MODELS:
        own = [r for r in groups if r["model"] == model and r["k"] == "5" and r["group"].isdigit()]
        total = sum(float(row["P"]) for row in own)
        assert total == pytest.approx(metrics[model]["P@5"], abs=1e-3)
    recalls = list(csv.DictReader(io.StringIO(tables["recall.csv"].decode())))
    assert [row["model"] for row in recalls] == ["xr_linear"] * 8 + ["disentangled"] * 8
    assert [row["level"] for row in recalls] == (["1"] * 4 + ["2"] * 4) * 2
    assert [row["beam_size"] for row in recalls] == ["1", "2", "5", "10"] * 4
    upper, lower = ([float(row["recall"]) for row in recalls[at : at + 4]] for at in (0, 4))
    assert lower == sorted(lower)
    assert all(a >= b for a, b in zip(upper, lower, strict=True))
    assert upper[0] > lower[0]
    # A beam over all six leaves reaches everything but the two labels that train never showed:
    # row 5 then misses two of its labels, row 3 has none.
    true = Dataset.load(evaluated.out("dataset")).Y_test[[5]].nnz
    assert lower[-1] == pytest.approx(100 * (38 + (true - 2) / true) / 39, abs=1e-4)
    assert upper[-1] == lower[-1]
    assert len(tables["thresholds.csv"].splitlines()) == 1  # nothing was calibrated
    assert tables["curves.csv"].decode() == CURVES


def test_ambiguous_labels_agree_with_counting_by_hand(evaluated):
    """The slow way: document by document, leaf by leaf."""
    dataset = Dataset.load(evaluated.out("dataset"))
    tree = LabelTree.load(evaluated.out("disentangled_tree") / "tree")
    leaves = [tree.leaf_labels(leaf).tolist() for leaf in range(tree.n_leaves)]
    beams = made_beams()
    beams.data[:] = 1.0  # whatever is stored is reached
    cases = []
    for label in range(N_LABELS):
        if sum(label in leaf for leaf in leaves) > 1:
            case = label_case(leaves, dataset.Y_train.toarray(), beams.toarray(), label)
            cases.append((-case[2] / case[0], -case[2], label, case))
    assert len(cases) == 3
    expected = []
    for share, _, label, (documents, missed, _, clusters) in sorted(cases):
        for leaf in sorted(clusters, key=lambda own: (*(-n for n in clusters[own]), own)):
            expected.append(
                (
                    dataset.label_names[label], str(documents), str(missed),
                    f"{100 * abs(share):.4f}", str(leaf), *map(str, clusters[leaf]),
                )
            )  # fmt: skip
    with (evaluated.reports / "ambiguous_labels.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    names = ("label", "documents", "missed", "ambiguity", "cluster", "reached", "alone")
    assert [tuple(row[name] for name in names) for row in rows] == expected
    assert all(row["words"].startswith("word") for row in rows)
    assert len({row["ambiguity"] for row in rows}) > 1

    report = (evaluated.reports / "report.md").read_text(encoding="utf-8")
    section = report.split("## Labels with several meanings")[1].split("\n## ")[0]
    assert f"3 of {N_LABELS} labels live in several clusters" in section
    for row in rows:
        assert f"({row['reached']} documents, {row['alone']} only here)" in section
    assert rows[0]["words"].replace("; ", " · ") in section
    assert f"{float(rows[0]['ambiguity']):.1f} |" in section
    html = (evaluated.reports / "report.html").read_text(encoding="utf-8")
    assert "<h2>Labels with several meanings</h2>" in html


def test_a_tree_of_one_cluster_a_label_has_no_ambiguous_labels(copy):
    paths = copy("project")
    shutil.rmtree(paths.out("disentangled_tree") / "tree")
    shutil.copytree(paths.out("matcher") / "tree", paths.out("disentangled_tree") / "tree")
    run_stage("evaluation", paths, CONFIG, quiet=True)
    assert len((paths.reports / "ambiguous_labels.csv").read_text().splitlines()) == 1
    assert "several meanings" not in (paths.reports / "report.md").read_text(encoding="utf-8")


def test_examples_are_five_labelled_rows_with_their_answers_marked(evaluated):
    examples = json.loads(
        (evaluated.out("evaluation") / "examples.json").read_text(encoding="utf-8")
    )
    dataset = Dataset.load(evaluated.out("dataset"))
    assert len({example["text"] for example in examples}) == 5
    for example in examples:
        row = dataset.test_texts.index(example["text"])
        true = {dataset.label_names[label] for label in dataset.Y_test[[row]].indices}
        assert true
        assert len(example["labels"]) == 5
        for name, _, right in example["labels"]:
            assert right == (name in true)
        assert set(example["missed"]) == true - {name for name, _, _ in example["labels"]}
    html = (evaluated.reports / "report.html").read_text(encoding="utf-8")
    assert "How do I &lt;sort&gt; number" in html
    assert html.count("data:image/png;base64,") == 5


def test_pairs_of_all_models_are_tested(evaluated):
    rows = list(csv.DictReader((evaluated.out("evaluation") / "pairs.csv").open()))
    assert list(dict.fromkeys((row["model"], row["minus"]) for row in rows)) == [
        (MODELS[1], MODELS[0]),
        (MODELS[2], MODELS[0]),
        (MODELS[2], MODELS[1]),
    ]
    assert len(rows) == 3 * 20
    for row in rows:
        assert float(row["low"]) <= float(row["difference"]) <= float(row["high"])
        assert float(row["p_corrected"]) >= float(row["p_value"])
    same = [row for row in rows if row["minus"] == MODELS[1]]  # the rankers' are copies of these
    assert {float(row["p_value"]) for row in same} == {1.0}


def test_probabilities_and_thresholds_are_told_of_a_calibrated_model(copy):
    paths = copy("project")
    final = paths.out("rankers")
    predictions, dataset = (
        Predictions.load(final / "predictions"),
        Dataset.load(paths.out("dataset")),
    )
    hits = find_hits(predictions.labels, dataset.Y_test)
    positives = np.bincount(dataset.Y_test.indices, minlength=N_LABELS)[:N_LABELS]
    settings = CalibrationConfig(method="platt")
    calibration = fit_calibration(predictions, hits, positives, settings)
    calibration.save(final / "bundle" / "calibration")
    calibration.calibrated(predictions).save(final / "predictions")
    run_stage("evaluation", paths, CONFIG, quiet=True)

    metrics = json.loads((paths.reports / "metrics.json").read_text(encoding="utf-8"))
    assert 0 < metrics[MODELS[2]]["ECE@5"] < 20  # fitted on the same rows
    for row in csv.DictReader((paths.reports / "thresholds.csv").open()):
        point = calibration.point(float(row["wanted_precision"]))
        assert float(row["threshold"]) == pytest.approx(point.score, abs=1e-4)
        assert float(row["held_out_precision"]) == pytest.approx(point.precision, abs=1e-4)
        assert float(row["test_precision"]) == pytest.approx(point.precision, abs=25)
    report = (paths.reports / "report.md").read_text(encoding="utf-8")
    assert "## Probabilities" in report
    assert "(platt, fitted on 40 training documents" in report
    assert "![Left: labels by their probability" in report


def test_a_test_split_without_any_label_of_training_is_reported_on(copy):
    paths = copy("project")
    dataset = Dataset.load(paths.out("dataset"))
    unseen = np.zeros(dataset.Y_test.shape, np.float32)
    unseen[5, N_LABELS] = 1.0
    shutil.rmtree(paths.out("dataset"))  # its arrays are mapped: not to be written over
    replace(dataset, Y_test=csr_array(unseen)).save(paths.out("dataset"))
    run_stage("evaluation", paths, CONFIG, quiet=True)
    report = (paths.reports / "report.md").read_text(encoding="utf-8")
    assert "Frequent and rare labels" not in report
    assert len((paths.reports / "groups.csv").read_text().splitlines()) == 1


def test_without_an_encoder_the_report_says_so(copy):
    paths = copy("project")
    (paths.out("xr_transformer") / "curves.csv").unlink()
    run_stage("evaluation", paths, CONFIG, quiet=True)
    assert set(contents(paths.reports)) == set(REPORT_FILES)
    assert (paths.reports / "curves.csv").read_text() == "step,level,loss,learning_rate\n"
    report = (paths.reports / "report.md").read_text(encoding="utf-8")
    assert "Final rankers (no encoder)" in report
    assert "curves.png" not in report
    run_stage("evaluation", paths, CONFIG.replace(**{"encoder.name": "some-model"}), quiet=True)
    report = (paths.reports / "report.md").read_text(encoding="utf-8")
    assert "XR-Transformer, final rankers" in report


def test_a_missing_stage_is_named_and_nothing_is_written(copy):
    paths = copy("project")
    shutil.rmtree(paths.out("disentangled_tree"))
    with pytest.raises(DataError, match="run the stages up to `disentangled_tree` first"):
        run_stage("evaluation", paths, CONFIG, quiet=True)
    assert not paths.out("evaluation").exists()
    assert not paths.reports.exists()
