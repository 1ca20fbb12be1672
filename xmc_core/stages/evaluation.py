"""Judges the three models on the test split, side by side, and writes what people look at. The
members of an ensemble stand beside them.

Into the stage's own folder go the scores row by row, which the champion's gate resamples; into the
reports' folder the files of REPORT_FILES. Everything is the same in every run on the same input.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from xmc_core.config import Config
from xmc_core.data import Dataset, Predictions
from xmc_core.metrics import plots
from xmc_core.metrics.bootstrap import Interval, PairedResult, compare_models
from xmc_core.metrics.ranking import RowScores, evaluate, rounded, row_scores
from xmc_core.metrics.render import Answer, Picture, to_html, to_markdown
from xmc_core.metrics.report import (
    MODELS,
    SUMMARY,
    Evaluation,
    blocks,
    member_key,
    model_titles,
    shorten,
)
from xmc_core.metrics.rows import save_rows
from xmc_core.metrics.slices import (
    Slice,
    f1_scores,
    label_coverage,
    matcher_recall,
    slice_by_frequency,
)
from xmc_core.metrics.tables import (
    comparison_json,
    empty_curves,
    json_text,
    read_curves,
    recall_csv,
    slices_csv,
)
from xmc_core.persistence.atomic import write_text
from xmc_core.reporting import Reporter

if TYPE_CHECKING:
    from xmc_core.stages.inputs import Inputs

SOURCES = dict(zip(MODELS, ("matcher", "disentangled_tree", "rankers"), strict=True))
"""Which stage made a model's predictions."""

REPORT_FILES = (
    "metrics.json",
    "slices.csv",
    "recall.csv",
    "curves.csv",
    "metrics.png",
    "deciles.png",
    "recall.png",
    "curves.png",
    "report.md",
    "report.html",
)
"""All of them are written every time, so that DVC may rely on it."""

CUT = 5
"""Slices, coverage and F1 look at the five best labels."""

BEAM_SIZES = (1, 2, 5, 10)
EXAMPLES = 5


def run(inputs: "Inputs", config: Config, out: Path, report: Reporter) -> None:
    """Measure, compare, draw, tell."""
    dataset = inputs.dataset
    predictions = {model: inputs.predictions(stage) for model, stage in SOURCES.items()}
    members = _members(inputs, config)
    titles = model_titles(config.encoder.name, config.member_titles)

    every = {**predictions, **members}
    metrics = {model: _metrics(own, dataset, config) for model, own in every.items()}
    rows = {model: _rows(own, dataset, config) for model, own in every.items()}
    intervals, compared = compare_models(rows, seed=config.seed)
    over_members = _gains(rows, list(members), config)
    slices = {model: _slices(own, dataset, config) for model, own in predictions.items()}
    recalls = _recalls(inputs, config, report)
    answers = _answers(dataset, predictions[MODELS[-1]])
    curves = _curves(inputs.paths.existing("xr_transformer") / "curves.csv")

    pictures = _pictures(titles, intervals, slices, recalls, curves)
    told = blocks(
        Evaluation(
            dataset=inputs.paths.dataset,
            titles=titles,
            metrics=metrics,
            intervals=intervals,
            against_baseline=compared,
            over_members=over_members,
            facts=_facts(dataset, config),
            answers=answers,
            pictures=pictures,
        )
    )
    title = f"Evaluation of {inputs.paths.dataset}"
    texts = {
        "metrics.json": json_text(metrics),
        "slices.csv": slices_csv(slices),
        "recall.csv": recall_csv(recalls),
        "curves.csv": curves,
        "report.md": to_markdown(title, told),
        "report.html": to_html(title, told),
    }
    files = {name: text.encode("utf-8") for name, text in texts.items()}
    files |= {picture.file: picture.png for picture in pictures}

    save_rows(out, rows, dataset.Y_test)
    write_text(out / "examples.json", json_text([asdict(answer) for answer in answers]))
    write_text(out / "comparison.json", comparison_json(intervals, compared, over_members))
    for name in REPORT_FILES:  # last, when nothing can go wrong any more
        _replace(inputs.paths.reports / name, files[name])
    report.metrics(**{name: metrics[MODELS[-1]][name] for name in SUMMARY})


def _members(inputs: "Inputs", config: Config) -> dict[str, Predictions]:
    """Each member of an ensemble alone; empty without one."""
    if not config.ensemble.members:
        return {}
    own = inputs.member_predictions(len(config.members))
    return {member_key(number): answers for number, answers in enumerate(own, start=1)}


def _gains(
    rows: Mapping[str, Mapping[str, RowScores]], members: Sequence[str], config: Config
) -> dict[str, dict[str, PairedResult]]:
    """The ensemble minus each of its members, row by row on the same documents."""
    if not members:
        return {}
    final = MODELS[-1]
    _, below = compare_models({m: rows[m] for m in (final, *members)}, seed=config.seed)
    return {
        member: {name: result.reversed() for name, result in own.items()}
        for member, own in below.items()
    }


def _metrics(predictions: Predictions, dataset: Dataset, config: Config) -> dict[str, float]:
    """All figures of one model, as metrics.json keeps them."""
    macro, micro = f1_scores(predictions, dataset.Y_test, CUT)
    return rounded(
        {
            **evaluate(predictions, dataset.Y_test, **_frequencies(dataset, config)),
            f"coverage@{CUT}": label_coverage(predictions, dataset.Y_test, CUT),
            f"macro-F1@{CUT}": macro,
            f"micro-F1@{CUT}": micro,
        }
    )


def _rows(predictions: Predictions, dataset: Dataset, config: Config) -> dict[str, RowScores]:
    scores = row_scores(predictions, dataset.Y_test, ks=(1, 3, 5), **_frequencies(dataset, config))
    return {name: scores[name] for name in SUMMARY}


def _slices(predictions: Predictions, dataset: Dataset, config: Config) -> list[Slice]:
    return slice_by_frequency(predictions, dataset.Y_test, k=CUT, **_frequencies(dataset, config))


def _frequencies(dataset: Dataset, config: Config) -> dict[str, Any]:
    """What the propensities are made of."""
    return {
        "label_counts": dataset.label_counts,
        "n_train": dataset.Y_train.shape[0],
        "a": config.dataset.propensity_a,
        "b": config.dataset.propensity_b,
    }


def _recalls(inputs: "Inputs", config: Config, report: Reporter) -> dict[str, dict[int, float]]:
    """Percent of the labels within reach of each beam size: initial and disentangled tree."""
    from xmc_core.models.xr_linear import XRLinear

    disentangled = inputs.paths.existing(SOURCES["disentangled"]) / "model"
    recalls: dict[str, dict[int, float]] = {}
    for model, ranker in (
        ("xr_linear", inputs.matcher),
        ("disentangled", XRLinear.load(disentangled)),
    ):
        homes = ranker.tree.label_leaves()
        recalls[model] = {
            size: matcher_recall(
                ranker.predict_leaves(inputs.X_test, size), homes, inputs.dataset.Y_test
            )
            for size in BEAM_SIZES
        }
        reached = recalls[model][BEAM_SIZES[-1]]
        report.message(f"{model}: a beam of {BEAM_SIZES[-1]} reaches {reached:.1f} % of the labels")
    return recalls


def _answers(dataset: Dataset, predictions: Predictions) -> list[Answer]:
    """A few test documents, picked by a hash of their text so that nobody picks the nice ones."""
    Y = dataset.Y_test
    labelled = np.flatnonzero(np.diff(Y.indptr) > 0).tolist()
    labelled.sort(key=lambda row: sha256(dataset.test_texts[row].encode("utf-8")).digest())
    answers = []
    for row in labelled[:EXAMPLES]:
        true = Y.indices[Y.indptr[row] : Y.indptr[row + 1]].tolist()
        given = [label for label in predictions.labels[row, :CUT].tolist() if label >= 0]
        scores = predictions.scores[row, : len(given)].tolist()
        answers.append(
            Answer(
                shorten(dataset.test_texts[row]),
                tuple(
                    (dataset.label_names[label], round(score, 6), label in true)
                    for label, score in zip(given, scores, strict=True)
                ),
                tuple(dataset.label_names[label] for label in true if label not in given),
            )
        )
    return answers


def _facts(dataset: Dataset, config: Config) -> list[tuple[str, str]]:
    n_true = np.diff(dataset.Y_test.indptr)
    counts = dataset.label_counts[: dataset.n_labels]
    a, b = config.dataset.propensity_a, config.dataset.propensity_b
    return [
        ("Training documents", f"{len(dataset.train_texts):,}"),
        ("Test documents", f"{len(dataset.test_texts):,}"),
        ("Test documents without labels", f"{int((n_true == 0).sum()):,}"),
        ("Labels in training", f"{dataset.n_labels:,}"),
        ("Labels in the test split only", f"{len(dataset.label_names) - dataset.n_labels:,}"),
        ("Labels per test document, mean", f"{float(n_true.mean()):.2f}"),
        ("Training documents per label, median", f"{float(np.median(counts)):.0f}"),
        ("Encoder", ", ".join(dict.fromkeys(own.encoder.name for own in config.members))),
        ("Propensity constants", f"A = {a:g}, B = {b:g}"),
    ]


def _pictures(
    titles: Mapping[str, str],
    intervals: Mapping[str, Mapping[str, Interval]],
    slices: Mapping[str, Sequence[Slice]],
    recalls: Mapping[str, Mapping[int, float]],
    curves: str,
) -> list[Picture]:
    points = read_curves(curves)
    return [
        Picture(
            "metrics.png",
            "The three models with their 95% intervals.",
            plots.metric_bars({titles[model]: intervals[model] for model in MODELS}),
        ),
        Picture(
            "deciles.png",
            "Recall by frequency of the label: how far into the tail each model reaches.",
            plots.recall_by_decile({titles[model]: own for model, own in slices.items()}, CUT),
        ),
        Picture(
            "recall.png",
            "Labels that lie in a cluster which the beam reaches: the bound of every recall.",
            plots.recall_by_beam({titles[model]: own for model, own in recalls.items()}),
        ),
        Picture(
            "curves.png", "Loss while the encoder was fine-tuned.", plots.learning_curve(points)
        ),
    ]


def _curves(file: Path) -> str:
    """The learning curve as the encoder's stage wrote it; without one, its header alone."""
    return file.read_text(encoding="utf-8") if file.exists() else empty_curves()


def _replace(file: Path, content: bytes) -> None:
    """Put a file in its place in one step."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f".{file.name}.partial")
    try:
        partial.write_bytes(content)
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)
