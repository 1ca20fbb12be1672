"""Predictions as files: what `xmc predict` writes, people read, and any other system can write.

JSON lines   {"labels": ["best", "second"], "scores": [0.91, 0.35]}, a line for each test document,
             in their order; other keys are ignored. Labels are names, or numbers without quotes.
CSV, TSV     a header `row,label,score` and a line for each pair; rows count from 0 in the order of
             the test documents, and one without a line has no answer.
npz          a scipy sparse matrix of scores, (test documents, labels), as `scipy.sparse.save_npz`
             writes it; or arrays `labels` (n, k) of numbers, -1 for none, and `scores` (n, k).

CSV and arrays may do without scores: labels then count in the order in which they stand. Label
numbers are the columns of `Dataset.Y_test`, the places in `Dataset.label_names`. Text files may end
in .gz or .xz.
"""

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from xmc_core.data.prediction_npz import LARGEST, MOST_LABELS, NUMBERS, read_npz
from xmc_core.data.predictions import Predictions
from xmc_core.data.readers import line_error, parse_object, raise_error, text_lines
from xmc_core.errors import ConfigError, DataError
from xmc_core.reporting import SILENT

Answer = list[tuple[str, float]]
"""(label, score) pairs, best first."""

LABELS = ("auto", "names", "numbers")
SEPARATORS = {".csv": ",", ".tsv": "\t"}


def write_answers(answers: Iterable[tuple[str, Answer]], file: IO[str]) -> None:
    """Write a line for each text with its answer."""
    for text, answer in answers:
        line = {
            "text": text,
            "labels": [name for name, _ in answer],
            "scores": [round(score, 6) for _, score in answer],
        }
        file.write(json.dumps(line, ensure_ascii=False) + "\n")


def read_predictions(
    path: Path | str, label_names: Sequence[str], n_rows: int, *, labels: str = "auto"
) -> Predictions:
    """Read a file of any of the forms above; its suffix says which, JSON lines if none does.

    Parameters
    ----------
    label_names
        Of label 0, 1, ...
    n_rows : test documents
    labels
        names or numbers: what the labels of a CSV file are. auto: names, if all of them are; else
        numbers.

    Raises
    ------
    DataError
        If the file cannot be read, or breaks a rule: an unknown label, a label twice in a row, a
        score that is no finite number, another number of rows. The message names file and line, or
        array and row.
    ConfigError
        If `labels` is none of the three.
    """
    path = Path(path)
    if labels not in LABELS:
        raise ConfigError(f"labels must be one of {', '.join(LABELS)}, got {labels!r}.")
    kinds = [suffix.lower() for suffix in path.suffixes if suffix.lower() not in (".gz", ".xz")]
    kind = kinds[-1] if kinds else ""
    if kind == ".npz":
        return read_npz(path, len(label_names), n_rows)
    if kind in SEPARATORS:
        return _read_table(path, SEPARATORS[kind], label_names, n_rows, labels)
    return _read_lines(path, label_names, n_rows)


def _read_lines(path: Path, label_names: Sequence[str], n_rows: int) -> Predictions:
    numbers = {name: number for number, name in enumerate(label_names)}
    rows: list[tuple[list[int], list[float]]] = []
    for line_number, line in text_lines(path, SILENT, raise_error):
        try:
            rows.append(_best(*_parse(line, numbers)))
        except DataError as error:
            raise line_error(path, line_number, str(error)) from None
    if len(rows) != n_rows:
        raise DataError(
            f"{path} has predictions for {len(rows):,} documents, the test split has {n_rows:,}; "
            "give one line for each test document, in the same order."
        )
    return _padded(rows)


def _parse(line: str, numbers: dict[str, int]) -> tuple[list[int], list[float]]:
    content = parse_object(line)
    labels, scores = content.get("labels"), content.get("scores")
    # Without scores it would be hard to tell from a file of documents with their true labels.
    if not (isinstance(labels, list) and isinstance(scores, list) and len(labels) == len(scores)):
        raise DataError('expected "labels" and "scores", two lists of the same length.')
    return [_label(label, numbers) for label in labels], [_score(score) for score in scores]


def _label(label: Any, numbers: dict[str, int]) -> int:
    if isinstance(label, int) and not isinstance(label, bool):
        if 0 <= label < len(numbers):
            return label
        raise DataError(
            f"label number {label} is not between 0 and {len(numbers) - 1}; it is {NUMBERS}."
        )
    if not isinstance(label, str) or label not in numbers:
        hint = " (a number goes without quotes)" if str(label).isdecimal() else ""
        raise DataError(f"the data set has no label {label!r}; labels go by their names{hint}.")
    return numbers[label]


def _score(score: Any) -> float:
    number = isinstance(score, int | float) and not isinstance(score, bool)
    if not (number and abs(score) < LARGEST):  # NaN is not, either
        raise DataError(f'"scores" must be finite numbers, got {score!r}.')
    return float(score)


def _read_table(
    path: Path, separator: str, label_names: Sequence[str], n_rows: int, labels: str
) -> Predictions:
    """What the labels are is decided by all of them, so they are looked up at the end."""
    lines = text_lines(path, SILENT, raise_error)
    found = _table_lines(path, lines, separator, n_rows)
    places, rows, names, scores = found
    number_of = _lookup(path, places, names, label_names, labels)
    answers: list[tuple[list[int], list[float]]] = [([], []) for _ in range(n_rows)]
    seen: set[tuple[int, int]] = set()
    for place, row, name, score in zip(places, rows, names, scores, strict=True):
        label = number_of(place, name)
        if (row, label) in seen:
            raise line_error(path, place, f"row {row} names label {name!r} a second time.")
        seen.add((row, label))
        answers[row][0].append(label)
        # Without scores: below 0, so that nobody takes them for probabilities.
        answers[row][1].append(-1.0 - len(answers[row][1]) if score is None else score)
    return _padded([_best(*answer) for answer in answers])


def _table_lines(
    path: Path, lines: Iterator[tuple[int, str]], separator: str, n_rows: int
) -> tuple[list[int], list[int], list[str], list[float | None]]:
    """Line number, row, label and score of each line."""
    place, header = next(lines, (1, ""))
    columns = [cell.strip().lower() for cell in _cells(path, place, header, separator)]
    if not {"row", "label"} <= set(columns):
        expected = separator.join(("row", "label", "score"))
        raise line_error(path, place, f"expected the header {expected!r}, got {header!r}.")
    at = {name: columns.index(name) for name in ("row", "label", "score") if name in columns}
    places: list[int] = []
    rows: list[int] = []
    names: list[str] = []
    scores: list[float | None] = []
    for place, line in lines:
        cells = _cells(path, place, line, separator)
        if len(cells) != len(columns):
            raise line_error(
                path, place, f"expected {len(columns)} cells as in the header, got {len(cells)}."
            )
        row = cells[at["row"]].strip()
        if not _is_below(row, n_rows):
            raise line_error(
                path,
                place,
                f"row must be a whole number from 0 to {n_rows - 1}, the place of a test document, "
                f"got {row!r}.",
            )
        score = None
        if "score" in at:
            try:
                score = _score(float(cells[at["score"]]))
            except (ValueError, DataError):
                raise line_error(
                    path, place, f"score must be a finite number, got {cells[at['score']]!r}."
                ) from None
        places.append(place)
        rows.append(int(row))
        names.append(cells[at["label"]])
        scores.append(score)
    return places, rows, names, scores


def _cells(path: Path, place: int, line: str, separator: str) -> list[str]:
    try:
        return next(csv.reader([line], delimiter=separator), [])
    except csv.Error as error:  # ends of lines by \r alone, or a cell of 131,072 characters
        raise line_error(
            path, place, f"this is no line of a table ({error}); lines must end in \\n."
        ) from None


def _is_below(digits: str, bound: int) -> bool:
    """Whether a text is a whole number below a bound; Python refuses to read 5,000 digits."""
    return digits.isdecimal() and len(digits) <= len(str(bound)) + 20 and int(digits) < bound


def _lookup(
    path: Path, places: Sequence[int], names: Sequence[str], label_names: Sequence[str], labels: str
) -> Callable[[int, str], int]:
    """What finds a label's number, by the line it stands on and what stands there."""
    known = {name: number for number, name in enumerate(label_names)}
    different = dict.fromkeys(names)

    def is_number(name: str) -> bool:
        return _is_below(name.strip(), len(label_names))

    if labels == "auto":
        as_names, as_numbers = all(n in known for n in different), all(map(is_number, different))
        if as_names and as_numbers and any(known[name] != int(name) for name in different):
            raise DataError(
                f"the labels of {path} could be names as well as numbers; say which: "
                "--labels names, or --labels numbers."
            )
        labels = "numbers" if as_numbers and not as_names else "names"

    def number_of(place: int, name: str) -> int:
        if labels == "names" and name in known:
            return known[name]
        if labels == "numbers" and is_number(name):
            return int(name)
        rule = (
            "labels go by their names"
            if labels == "names"
            else f"numbers go from 0 to {len(label_names) - 1}: {NUMBERS}"
        )
        raise line_error(path, place, f"the data set has no label {name!r}; {rule}.")

    return number_of


def _best(labels: list[int], scores: list[float]) -> tuple[list[int], list[float]]:
    """Highest score first; equal ones in the order of the file."""
    if len(set(labels)) != len(labels):
        twice = next(label for place, label in enumerate(labels) if label in labels[:place])
        raise DataError(f"label number {twice} stands twice; each label may stand in a row once.")
    order = sorted(range(len(labels)), key=lambda place: -scores[place])[:MOST_LABELS]
    return [labels[place] for place in order], [scores[place] for place in order]


def _padded(rows: Sequence[tuple[list[int], list[float]]]) -> Predictions:
    width = max((len(labels) for labels, _ in rows), default=0)
    all_labels = np.full((len(rows), width), -1, np.int32)
    all_scores = np.full((len(rows), width), -np.inf, np.float32)
    for row, (labels, scores) in enumerate(rows):
        all_labels[row, : len(labels)] = labels
        all_scores[row, : len(scores)] = scores
    return Predictions(all_labels, all_scores)
