"""Figures as the text files that DVC and spreadsheets read; four decimals everywhere."""

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from io import StringIO
from typing import Any

import numpy as np

from xmc_core.metrics.ambiguity import AmbiguousLabel
from xmc_core.metrics.bootstrap import Interval, PairedResult, holm
from xmc_core.metrics.promises import POINT_COLUMNS, Promise
from xmc_core.metrics.ranking import rounded
from xmc_core.metrics.slices import Slice

CURVE_COLUMNS = ("step", "level", "loss", "learning_rate")


def slices_csv(slices: Mapping[str, Sequence[Slice]]) -> str:
    """A line a model and decile; a figure that does not exist is empty."""
    counted = ("labels", "train_positives", "test_positives")
    measured = ("recall", "precision", "psp")
    rows: list[Sequence[object]] = [("model", "decile", "group", *counted, *measured)]
    for model, own in slices.items():
        for part in own:
            counts = (getattr(part, name) for name in counted)
            figures = (_cell(getattr(part, name)) for name in measured)
            rows.append((model, part.decile, part.group, *counts, *figures))
    return _csv(rows)


def recall_csv(recalls: Mapping[str, Mapping[int, Mapping[int, float]]]) -> str:
    """What the matcher reaches, a line a model, level of the tree and beam size."""
    rows: list[Sequence[object]] = [("model", "level", "beam_size", "recall")]
    for model, levels in recalls.items():
        for level, points in levels.items():
            rows += [(model, level, size, _cell(value)) for size, value in points.items()]
    return _csv(rows)


def groups_csv(figures: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    """Every measure by model and group of labels: deciles 1 to 10, head, torso, tail; a line a
    model, group and k. `figures` are by model, group and metric ("P@1")."""
    metrics = [name for own in figures.values() for group in own.values() for name in group]
    kinds = list(dict.fromkeys(name.partition("@")[0] for name in metrics))
    ks = list(dict.fromkeys(name.partition("@")[2] for name in metrics))
    rows: list[Sequence[object]] = [("model", "group", "k", *kinds)]
    for model, own in figures.items():
        for group, values in own.items():
            for k in ks:
                cells = (values.get(f"{kind}@{k}", float("nan")) for kind in kinds)
                rows.append((model, group, k, *map(_cell, cells)))
    return _csv(rows)


THRESHOLD_COLUMNS = (
    "wanted_precision",
    "threshold",
    *(f"{split}_{name}" for split in ("held_out", "test") for name in POINT_COLUMNS),
)


def thresholds_csv(promises: Sequence[Promise]) -> str:
    """For each wanted precision, the threshold and what it gives; the header alone without."""
    rows: list[Sequence[object]] = [THRESHOLD_COLUMNS]
    for promise in promises:
        cells = (promise.wanted, promise.threshold, *promise.held_out, *promise.test)
        rows.append(tuple(map(_cell, cells)))
    return _csv(rows)


AMBIGUOUS_COLUMNS = (
    "label", "documents", "missed", "ambiguity", "cluster", "words", "reached", "alone"
)  # fmt: skip


def ambiguous_csv(labels: Sequence[AmbiguousLabel]) -> str:
    """A line a label and cluster, the most ambiguous label first; ambiguity in percent. Words are
    separated by semicolons."""
    rows: list[Sequence[object]] = [AMBIGUOUS_COLUMNS]
    for label in labels:
        own = (label.name, label.documents, label.missed, _cell(label.ambiguity))
        for cluster in label.clusters:
            words = "; ".join(cluster.words)
            rows.append((*own, cluster.leaf, words, cluster.reached, cluster.alone))
    return _csv(rows)


def empty_curves() -> str:
    """The learning curve of a run that fine-tuned nothing."""
    return _csv([CURVE_COLUMNS])


def read_curves(text: str) -> list[dict[str, float]]:
    """Points of a learning curve, of an ensemble each with its `member`; further columns are left
    alone."""
    return [
        {name: float(point[name]) for name in (*CURVE_COLUMNS, "member") if name in point}
        for point in csv.DictReader(StringIO(text))
    ]


def comparison_json(
    intervals: Mapping[str, Mapping[str, Interval]],
    against_baseline: Mapping[str, Mapping[str, PairedResult]],
    over_members: Mapping[str, Mapping[str, PairedResult]] | None = None,
) -> str:
    """Intervals of every model, of every model but the baseline its differences to it, and what an
    ensemble gains over each of its members. P values are those of each figure alone."""
    told: dict[str, Any] = {}
    for model, own in intervals.items():
        told[model] = {name: rounded(asdict(interval)) for name, interval in own.items()}
        for name, result in against_baseline.get(model, {}).items():
            told[model][name]["against_baseline"] = rounded(asdict(result))
        for name, result in (over_members or {}).get(model, {}).items():
            told[model][name]["gain_of_the_ensemble"] = rounded(asdict(result))
    return json_text(told)


def pairs_csv(pairs: Mapping[tuple[str, str], Mapping[str, PairedResult]]) -> str:
    """Paired tests between all models, a line a pair and metric, p values as they are and corrected
    for all metrics of the pair (Holm)."""
    rows: list[Sequence[object]] = [
        ("model", "minus", "metric", "difference", "low", "high", "p_value", "p_corrected")
    ]
    for (model, other), results in pairs.items():
        corrected = holm([result.p_value for result in results.values()])
        for (name, r), p in zip(results.items(), corrected, strict=True):
            rows.append((model, other, name, *map(_cell, (r.difference, r.low, r.high,
                                                          r.p_value, p))))  # fmt: skip
    return _csv(rows)


def json_text(content: object) -> str:
    """JSON for people and version control."""
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def _cell(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.4f}"


def _csv(rows: Iterable[Sequence[object]]) -> str:
    text = StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
