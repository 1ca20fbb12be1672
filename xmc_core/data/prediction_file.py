"""Predictions as JSON lines: what `xmc predict` writes, people read, and `xmc evaluate` takes back.

{"text": "...", "labels": ["best", "second", ...], "scores": [0.91, 0.35, ...]}
"""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO

import numpy as np

from xmc_core.data.predictions import Predictions
from xmc_core.data.readers import line_error, parse_object, raise_error, text_lines
from xmc_core.errors import DataError
from xmc_core.reporting import SILENT

Answer = list[tuple[str, float]]
"""(label, score) pairs, best first."""


def write_answers(answers: Iterable[tuple[str, Answer]], file: IO[str]) -> None:
    """Write a line for each text with its answer."""
    for text, answer in answers:
        line = {
            "text": text,
            "labels": [name for name, _ in answer],
            "scores": [round(score, 6) for _, score in answer],
        }
        file.write(json.dumps(line, ensure_ascii=False) + "\n")


def read_predictions(path: Path | str, label_names: Sequence[str], n_rows: int) -> Predictions:
    """Read `labels` and `scores` of the lines of a file; labels become numbers.

    Raises DataError if a line is broken, a label is none of `label_names`, or there are not
    `n_rows` lines, one for each test document.
    """
    path = Path(path)
    numbers = {name: number for number, name in enumerate(label_names)}
    rows: list[tuple[list[int], list[float]]] = []
    for line_number, line in text_lines(path, SILENT, raise_error):
        try:
            rows.append(_parse(line, numbers))
        except DataError as error:
            raise line_error(path, line_number, str(error)) from None
    if len(rows) != n_rows:
        raise DataError(
            f"{path} has predictions for {len(rows):,} documents, the test split has {n_rows:,}; "
            "give one line for each test document, in the same order."
        )

    width = max((len(labels) for labels, _ in rows), default=0)
    all_labels = np.full((n_rows, width), -1, np.int32)
    all_scores = np.full((n_rows, width), -np.inf, np.float32)
    for row, (labels, scores) in enumerate(rows):
        all_labels[row, : len(labels)] = labels
        all_scores[row, : len(scores)] = scores
    return Predictions(all_labels, all_scores)


def _parse(line: str, numbers: dict[str, int]) -> tuple[list[int], list[float]]:
    content = parse_object(line)
    names, scores = content.get("labels"), content.get("scores")
    if not (isinstance(names, list) and isinstance(scores, list) and len(names) == len(scores)):
        raise DataError('expected "labels" and "scores", two lists of the same length.')
    for name in names:
        if not isinstance(name, str) or name not in numbers:
            raise DataError(f"the data set has no label {name!r}; labels go by their names.")
    try:
        return [numbers[name] for name in names], [float(score) for score in scores]
    except (TypeError, ValueError):
        raise DataError('"scores" must be numbers.') from None
