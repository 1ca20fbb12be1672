"""What people want to see of a finished stage without opening a file."""

import base64
import csv
import json
from collections.abc import Callable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np

from orchestration.dvc_project import DvcProject
from orchestration.metadata import table
from xmc_core.data import Dataset
from xmc_core.metrics.report import MODELS, SUMMARY

CLUSTERS, NAMES = 8, 6
"""Clusters shown of a tree, and labels of each."""

AMBIGUOUS = 20
"""Lines shown of the most ambiguous labels: one a label and cluster."""

AMBIGUOUS_SHOWN = ("label", "documents", "ambiguity", "words", "reached", "alone")

PICTURE_BYTES = 200_000
"""Pictures are kept in Dagster's event log, which is a database: small ones only."""

Details = Mapping[str, dg.MetadataValue]


def details(project: DvcProject, stage: str, dataset: str) -> Details:
    """Metadata that a stage has besides its facts."""
    make = SPECIAL.get(stage)
    return make(project, dataset) if make else {}


def read_metrics(reports: Path) -> dict[str, dict[str, float]]:
    """metrics.json: values by model and metric."""
    content: dict[str, dict[str, float]] = json.loads(
        (reports / "metrics.json").read_text(encoding="utf-8")
    )
    return content


def evaluation_details(project: DvcProject, dataset: str) -> Details:
    """The three models side by side, the final model's figures under their own names, labels with
    several meanings, pictures."""
    reports = project.paths(dataset).reports
    metrics = read_metrics(reports)
    final = metrics[MODELS[-1]]
    return {
        "models": dg.MetadataValue.md(table(metrics, list(SUMMARY))),
        **{name: dg.MetadataValue.float(value) for name, value in final.items()},
        **{file.stem: picture(file) for file in sorted(reports.glob("*.png"))},
        "ambiguous_labels": dg.MetadataValue.md(ambiguous_table(reports)),
        "report": dg.MetadataValue.path(str(reports / "report.html")),
    }


def ambiguous_table(reports: Path) -> str:
    """The top of ambiguous_labels.csv."""
    lines = [f"| {' | '.join(AMBIGUOUS_SHOWN)} |", "|---|---:|---:|---|---:|---:|"]
    with (reports / "ambiguous_labels.csv").open(encoding="utf-8", newline="") as file:
        for row in islice(csv.DictReader(file), AMBIGUOUS):
            cells = (row[name] for name in AMBIGUOUS_SHOWN)
            lines.append(f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |")
    return "\n".join(lines)


def picture(file: Path) -> dg.MetadataValue:
    """A picture in the page itself; a large one as its path."""
    content = file.read_bytes()
    if len(content) > PICTURE_BYTES:
        return dg.MetadataValue.path(str(file))
    return dg.MetadataValue.md(
        f"![{file.stem}](data:image/png;base64,{base64.b64encode(content).decode()})"
    )


def tree_details(stage: str) -> Callable[[DvcProject, str], Details]:
    """The largest clusters with some of their labels: do neighbours belong together?"""

    def make(project: DvcProject, dataset: str) -> Details:
        from xmc_core.tree import LabelTree  # numba: not at definition time

        tree = LabelTree.load(project.out(stage, dataset) / "tree")
        names = Dataset.load(project.out("dataset", dataset)).label_names
        sizes = np.diff(tree.pointers[-1])
        rows = ["| leaf | labels | some of them |", "|---:|---:|---|"]
        for leaf in np.argsort(-sizes, kind="stable")[:CLUSTERS].tolist():
            some = ", ".join(names[label] for label in tree.leaf_labels(leaf)[:NAMES].tolist())
            rows.append(f"| {leaf} | {sizes[leaf]} | {some} |")
        return {"largest_clusters": dg.MetadataValue.md("\n".join(rows))}

    return make


SPECIAL: dict[str, Callable[[Any, str], Details]] = {
    "initial_tree": tree_details("initial_tree"),
    "disentangled_tree": tree_details("disentangled_tree"),
    "evaluation": evaluation_details,
}
