"""xmc predict: using a trained model."""

import io
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated

import typer

from xmc_core.cli.options import DATA, PresetOption, require_known
from xmc_core.errors import ConfigError, DataError

if TYPE_CHECKING:
    from xmc_core.data import Predictions
    from xmc_core.data.prediction_file import Answer
    from xmc_core.models import PipelineModel

ROWS_AT_ONCE = 4096
"""Rows predicted together: their features and beams are all that is held in memory."""


def predict(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", help="A data set whose final model is meant, or a model's folder."
        ),
    ],
    texts: Annotated[
        list[str] | None, typer.Argument(metavar="TEXT", help="Texts.", show_default=False)
    ] = None,
    source: Annotated[
        Path | None,
        typer.Option(
            "--input",
            "-i",
            metavar="FILE",
            help='JSON lines with "text"; also .gz or .xz. `-`: plain lines from standard input.',
            show_default=False,
        ),
    ] = None,
    top_k: Annotated[
        int | None,
        typer.Option("--top-k", "-k", min=1, help="Labels per text.", show_default="the model's"),
    ] = None,
    beam_size: Annotated[
        int | None,
        typer.Option(
            "--beam-size", min=1, help="More is slower and finds more.", show_default="the model's"
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Write JSON lines, one a text: text, labels, scores.",
            show_default=False,
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The same to standard output.")] = False,
    threshold: Annotated[
        float | None,
        typer.Option(
            "--threshold", help="Leave out labels that score less.", show_default="all labels"
        ),
    ] = None,
    precision: Annotated[
        float | None,
        typer.Option(
            "--precision",
            min=0,
            max=100,
            help="Leave out labels so that this percentage of the others is right, as seen on "
            "held-out documents; needs a calibrated model.",
            show_default="all labels",
        ),
    ] = None,
    raw: Annotated[
        bool, typer.Option("--raw", help="Scores as the rankers give them, no probabilities.")
    ] = False,
    preset: PresetOption = None,
) -> None:
    """Rank labels for texts.

    Scores of a calibrated model are probabilities. A text none of whose labels reaches the
    threshold gets none.

    Example: `xmc predict python-api "solve a linear system"`
    """
    from xmc_core.data.prediction_file import write_answers

    if bool(texts) == (source is not None):
        raise ConfigError("give either texts or --input FILE.")
    if as_json and output is not None:
        raise ConfigError("--output writes the same JSON lines as --json: leave one of the two.")
    if output is not None and source is not None and output.resolve() == source.resolve():
        raise ConfigError(f"--output is the --input file, {source}; name another.")
    if threshold is not None and not math.isfinite(threshold):
        raise ConfigError(f"--threshold must be a number, got {threshold}.")
    if precision is not None and (raw or threshold is not None):
        raise ConfigError("--precision chooses the threshold itself: leave --threshold or --raw.")
    pipeline = open_model(model, preset)
    if precision is not None:
        threshold = pipeline.operating_point(precision).score
    probabilities = pipeline.calibration is not None and not raw

    def predicted(batch: list[str]) -> "Predictions":
        return pipeline.predict(
            batch,
            top_k=top_k,
            beam_size=beam_size,
            calibrated=False if raw else None,
            threshold=threshold,
        )

    answers = _answers(pipeline, _texts(texts or [], source), predicted)
    if output is not None:
        with _written(output) as file:
            write_answers(answers, file)
    elif as_json:
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(encoding="utf-8")  # as --output, whatever the locale
        write_answers(answers, sys.stdout)
    else:
        for text, answer in answers:
            _show(text, answer, "probability" if probabilities else "score", threshold)


def open_model(model: str, preset: str | None = None) -> "PipelineModel":
    """A model by its folder, or the final model of a data set."""
    from xmc_core.models import PipelineModel, load_model
    from xmc_core.stages.paths import ProjectPaths

    folder = Path(model)
    if not (folder / "manifest.json").is_file():
        folder = ProjectPaths(DATA, model, preset).out("rankers") / "bundle"
        if not (folder / "manifest.json").is_file():
            require_known(model)
            option = f" --preset {preset}" if preset else ""
            raise DataError(
                f"{model} is no model's folder, and {folder} is not there either; "
                f"train one first: xmc train --dataset {model}{option}."
            )
    opened = load_model(folder)
    if not isinstance(opened, PipelineModel):
        raise DataError(
            f"{folder} holds rankers alone, which take feature vectors; texts need a whole "
            "pipeline, as in data/artifacts/<dataset>/rankers/bundle."
        )
    return opened


def _texts(texts: Sequence[str], source: Path | None) -> Iterator[str]:
    from xmc_core.data.readers import read_lines, read_texts

    if source is None:
        yield from texts
    elif str(source) == "-":
        if sys.stdin is None:
            raise ConfigError("--input -: standard input is closed; give a file, or pipe texts in.")
        yield from read_lines(sys.stdin.buffer, Path("standard input"))
    else:
        yield from read_texts(source)


def _answers(
    pipeline: "PipelineModel",
    texts: Iterator[str],
    predicted: "Callable[[list[str]], Predictions]",
) -> "Iterator[tuple[str, Answer]]":
    from xmc_core.cli.progress import CommandReporter

    done = 0
    with CommandReporter() as report:
        while batch := list(islice(texts, ROWS_AT_ONCE)):
            if done:
                report.message(f"{done:,} texts")
            yield from zip(batch, pipeline.named(predicted(batch)), strict=True)
            done += len(batch)
    if not done:
        typer.echo("there are no texts to answer.", err=True)


@contextmanager
def _written(path: Path) -> Iterator[IO[str]]:
    """A file that appears when it is complete; a pipe or device is written to as it is."""
    from xmc_core.persistence.atomic import fresh_file

    if path.exists() and not path.is_file():
        with path.open("w", encoding="utf-8") as file:
            yield file
        return
    # A link stays, what it points to is replaced.
    with fresh_file(path.resolve()) as partial, partial.open("w", encoding="utf-8") as file:
        yield file


def _show(text: str, answer: "Answer", kind: str, threshold: float | None) -> None:
    from rich.console import Console
    from rich.table import Table

    if not answer:
        typer.secho(text, bold=True)
        least = "" if threshold is None else f" (no {kind} of {threshold:.4f} or more)"
        typer.echo(f"none of these labels{least}")
        return
    table = Table("label")
    table.add_column(kind, justify="right")
    for name, score in answer:
        table.add_row(name, f"{score:.4f}")
    typer.secho(text, bold=True)
    Console(markup=False).print(table)
