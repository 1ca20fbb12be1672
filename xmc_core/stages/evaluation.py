"""Judges the three models on the test split, side by side, and writes what people look at. The
members of an ensemble stand beside them.

Into the stage's own folder go the scores row by row, which the champion's gate resamples; into the
reports' folder the files of REPORT_FILES. Everything is the same in every run on the same input.
"""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import csr_array, eye_array

from xmc_core.config import Config
from xmc_core.data import Dataset, Predictions
from xmc_core.errors import DataError
from xmc_core.inference.calibration import Calibration
from xmc_core.metrics import plots
from xmc_core.metrics.ambiguity import Ambiguous
from xmc_core.metrics.bootstrap import Interval, PairedResult, compare_models, compare_pairs
from xmc_core.metrics.promises import POINT_COLUMNS, Promise, above
from xmc_core.metrics.ranking import KS, RowScores
from xmc_core.metrics.reliability import Reliability, are_probabilities, reliability
from xmc_core.metrics.render import Answer, Picture, to_html, to_markdown
from xmc_core.metrics.report import (
    GROUP_SUMMARY,
    MODELS,
    SUMMARY,
    Evaluation,
    Groups,
    Probabilities,
    blocks,
    member_key,
    model_titles,
    shorten,
)
from xmc_core.metrics.rows import save_rows
from xmc_core.metrics.slices import (
    GROUPS,
    Slice,
    count_by_label,
    frequency_groups,
    labels_of_group,
    matcher_recall,
    scores_by_group,
    slice_by_frequency,
)
from xmc_core.metrics.summary import CUT, all_metrics, frequencies, row_figures
from xmc_core.metrics.tables import (
    ambiguous_csv,
    comparison_json,
    empty_curves,
    groups_csv,
    json_text,
    pairs_csv,
    read_curves,
    recall_csv,
    slices_csv,
    thresholds_csv,
)
from xmc_core.persistence.atomic import fresh_file, write_text
from xmc_core.reporting import Reporter
from xmc_core.stages.ambiguity import ambiguous_labels
from xmc_core.tree.describe import TreeGuide

if TYPE_CHECKING:
    from xmc_core.stages.inputs import Inputs

SOURCES = dict(zip(MODELS, ("matcher", "disentangled_tree", "rankers"), strict=True))
"""Which stage made a model's predictions."""

PICTURES = ("metrics", "deciles", "recall", "reliability", "curves")

REPORT_FILES = (
    "metrics.json",
    "slices.csv",
    "groups.csv",
    "thresholds.csv",
    "recall.csv",
    "ambiguous_labels.csv",
    "curves.csv",
    *(f"{name}.{kind}" for name in PICTURES for kind in ("png", "svg")),
    "report.md",
    "report.html",
)
"""All of them are written every time, so that DVC may rely on it."""

BEAM_SIZES = (1, 2, 5, 10)
"""And the one in use."""

PRECISIONS = (50.0, 60.0, 70.0, 80.0, 90.0, 95.0)
"""Wanted precisions in the report, as far as held-out rows reached them."""

EXAMPLES = 5

AMBIGUOUS = 200
"""Labels in ambiguous_labels.csv at most."""


def run(inputs: "Inputs", config: Config, out: Path, report: Reporter) -> None:
    """Measure, compare, draw, tell."""
    dataset = inputs.dataset
    predictions = {model: inputs.predictions(stage) for model, stage in SOURCES.items()}
    members = _members(inputs, config)
    titles = model_titles(config.encoder.name, config.member_titles)

    every = {**predictions, **members}
    metrics = {model: all_metrics(own, dataset, config) for model, own in every.items()}
    rows = {model: row_figures(own, dataset, config) for model, own in every.items()}
    intervals, compared = compare_models(rows, seed=config.seed)
    over_members = _gains(rows, list(members), config)
    slices = {model: _slices(own, dataset, config) for model, own in predictions.items()}
    figures, groups = _groups(predictions, dataset, config)
    recalls = _recalls(inputs, config, report)
    ambiguous = _ambiguous(inputs)
    promises = _promises(inputs, predictions[MODELS[-1]])
    answers = _answers(dataset, predictions[MODELS[-1]])
    curves = _curves(inputs.paths.existing("xr_transformer") / "curves.csv")

    pictures = {
        picture.file: picture
        for picture in (
            *_pictures(titles, intervals, slices, recalls, curves),
            _reliability(predictions[MODELS[-1]], dataset, config),
        )
    }
    shown = ("deciles", "recall", *(["curves"] if read_curves(curves) else []))
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
            groups=groups,
            pictures=[pictures["metrics.png"]],
            more_pictures=[pictures[f"{name}.png"] for name in shown],
            reliability=pictures["reliability.png"]
            if are_probabilities(predictions[MODELS[-1]])
            else None,
            probabilities=promises,
            ambiguous=ambiguous,
        )
    )
    title = f"Evaluation of {inputs.paths.dataset}"
    texts = {
        "metrics.json": json_text(metrics),
        "slices.csv": slices_csv(slices),
        "groups.csv": groups_csv(figures),
        "thresholds.csv": thresholds_csv(promises.promises if promises else ()),
        "recall.csv": recall_csv(recalls),
        "ambiguous_labels.csv": ambiguous_csv(ambiguous.labels),
        "curves.csv": curves,
        "report.md": to_markdown(title, told),
        "report.html": to_html(title, told),
    }
    files = {name: text.encode("utf-8") for name, text in texts.items()}
    for name, picture in pictures.items():
        files |= {name: picture.png, name.replace(".png", ".svg"): picture.svg}

    kept = {model: {name: own[name] for name in SUMMARY} for model, own in rows.items()}
    save_rows(out, kept, dataset.Y_test)
    write_text(out / "examples.json", json_text([asdict(answer) for answer in answers]))
    write_text(out / "comparison.json", comparison_json(intervals, compared, over_members))
    write_text(out / "pairs.csv", pairs_csv(compare_pairs(rows, seed=config.seed)))
    for name in REPORT_FILES:  # last, when nothing can go wrong any more
        with fresh_file(inputs.paths.reports / name) as fresh:
            fresh.write_bytes(files[name])
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


def _groups(
    predictions: Mapping[str, Predictions], dataset: Dataset, config: Config
) -> tuple[dict[str, dict[str, dict[str, float]]], Groups]:
    """Every measure of every group of labels, and those of the report with their noise."""
    groups = frequency_groups(dataset.label_counts)
    figures: dict[str, dict[str, dict[str, float]]] = {}
    rows: dict[str, dict[str, RowScores]] = {}
    for model, own in predictions.items():
        scores = scores_by_group(own, dataset.Y_test, groups, **frequencies(dataset, config))
        figures[model] = {
            group: {name: part.value for name, part in measures.items()}
            for group, measures in scores.items()
        }
        for k in KS:
            counts = count_by_label(own, dataset.Y_test, k)
            for group in scores:
                coverage, macro, micro = labels_of_group(counts, groups[group])
                figures[model][group] |= {
                    f"coverage@{k}": coverage, f"macro-F1@{k}": macro, f"micro-F1@{k}": micro
                }  # fmt: skip
        rows[model] = {
            f"{name} {group}": scores[group][name]
            for name in GROUP_SUMMARY
            for group in GROUPS
            if group in scores
        }
    if not any(rows.values()):  # the test split knows no label of training
        return figures, Groups({}, {})
    return figures, Groups(*compare_models(rows, seed=config.seed))


def _promises(inputs: "Inputs", predictions: Predictions) -> Probabilities | None:
    """Thresholds for wanted precisions; None where the final model is not calibrated."""
    folder = inputs.paths.existing("rankers") / "bundle" / "calibration"
    if not folder.is_dir():
        return None
    calibration = Calibration.load(folder)
    points = {}
    for wanted in PRECISIONS:
        with contextlib.suppress(DataError):  # never reached
            points[wanted] = calibration.point(wanted)
    seen = above(predictions, inputs.dataset.Y_test, [point.score for point in points.values()])
    promises = [
        Promise(
            wanted,
            point.score,
            (point.precision, point.recall, point.answered),
            (test[0], test[1], test[2]),
        )
        for (wanted, point), test in zip(points.items(), seen.tolist(), strict=True)
    ]
    return Probabilities(calibration.method, calibration.facts["rows"], promises)


def _reliability(predictions: Predictions, dataset: Dataset, config: Config) -> Picture:
    curves: dict[str, Reliability] = {}
    operating = {}
    if are_probabilities(predictions):
        for title, k in (("best label", 1), (f"{CUT} best labels", CUT)):
            curves[title] = reliability(predictions, dataset.Y_test, k, seed=config.seed)
        best = Predictions(predictions.labels[:, :CUT], predictions.scores[:, :CUT])
        thresholds = np.linspace(0.0, 1.0, 101)
        seen = above(best, dataset.Y_test, thresholds)
        operating = dict(zip(("score", *POINT_COLUMNS), (thresholds, *seen.T), strict=True))
    drawing = plots.reliability_diagram(curves, operating, CUT)
    return Picture(
        "reliability.png",
        "Left: labels by their probability, and how many of them are right, with 95% intervals. "
        "Right: what is left when labels below a threshold are dropped.",
        drawing.png,
        drawing.svg,
    )


def _slices(predictions: Predictions, dataset: Dataset, config: Config) -> list[Slice]:
    return slice_by_frequency(predictions, dataset.Y_test, k=CUT, **frequencies(dataset, config))


def _recalls(
    inputs: "Inputs", config: Config, report: Reporter
) -> dict[str, dict[int, dict[int, float]]]:
    """Percent of the labels within reach, by tree, level and beam size."""
    from xmc_core.models.xr_linear import XRLinear

    disentangled = inputs.paths.existing(SOURCES["disentangled"]) / "model"
    sizes = sorted({*BEAM_SIZES, config.inference.beam_size})
    recalls: dict[str, dict[int, dict[int, float]]] = {}
    for model, ranker in (
        ("xr_linear", inputs.matcher),
        ("disentangled", XRLinear.load(disentangled)),
    ):
        tree = ranker.tree
        one_each = csr_array(eye_array(tree.n_labels, dtype=np.float32))
        nodes = tree.targets(one_each)  # which nodes of each level have a label below them
        recalls[model] = {
            level: {
                size: matcher_recall(
                    ranker.predict_nodes(inputs.X_test, level, size),
                    nodes[level - 1] if level else tree.label_leaves(),
                    inputs.dataset.Y_test,
                )
                for size in sizes
            }
            for level in range(min(1, tree.depth - 1), tree.depth)
        }
        reached = recalls[model][tree.depth - 1][config.inference.beam_size]
        report.message(
            f"{model}: a beam of {config.inference.beam_size} reaches {reached:.1f} % of the labels"
        )
    return recalls


def _ambiguous(inputs: "Inputs") -> Ambiguous:
    guide = TreeGuide(
        inputs.disentangled_tree,
        inputs.label_features,
        inputs.vectorizer.terms(),
        inputs.dataset.label_names,
    )
    return ambiguous_labels(guide, inputs.Y_train, inputs.settled_beams, AMBIGUOUS)


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
    recalls: Mapping[str, Mapping[int, Mapping[int, float]]],
    curves: str,
) -> list[Picture]:
    bars = {titles[m]: {name: intervals[m][name] for name in SUMMARY} for m in MODELS}
    drawn = (
        (
            "metrics.png",
            "The three models with their 95% intervals.",
            plots.metric_bars(bars),
        ),
        (
            "deciles.png",
            "Recall by frequency of the label: how far into the tail each model reaches.",
            plots.recall_by_decile({titles[model]: own for model, own in slices.items()}, CUT),
        ),
        (
            "recall.png",
            "Labels below a node that the beam keeps, level by level; the clusters' level is the "
            "bound of every recall.",
            plots.recall_by_beam({titles[model]: own for model, own in recalls.items()}),
        ),
        (
            "curves.png",
            "Loss while the encoder was fine-tuned.",
            plots.learning_curve(read_curves(curves)),
        ),
    )
    return [Picture(file, caption, d.png, d.svg) for file, caption, d in drawn]


def _curves(file: Path) -> str:
    """The learning curve as the encoder's stage wrote it; without one, its header alone."""
    return file.read_text(encoding="utf-8") if file.exists() else empty_curves()
