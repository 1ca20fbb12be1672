"""xmc predict, xmc evaluate: using a trained model."""

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated

import typer

from xmc_core.cli.options import DATA, DatasetOption, PresetOption
from xmc_core.errors import ConfigError, DataError

if TYPE_CHECKING:
    from xmc_core.config import Config
    from xmc_core.data import Dataset, Predictions
    from xmc_core.data.prediction_file import Answer
    from xmc_core.models import PipelineModel
    from xmc_core.stages.paths import ProjectPaths

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
    preset: PresetOption = None,
) -> None:
    """Rank labels for texts.

    Example: `xmc predict python-api "solve a linear system"`
    """
    from xmc_core.data.prediction_file import write_answers

    if bool(texts) == (source is not None):
        raise ConfigError("give either texts or --input FILE.")
    pipeline = open_model(model, preset)
    answers = _answers(pipeline, _texts(texts or [], source), top_k, beam_size)
    if output is not None:
        with _written(output) as file:
            write_answers(answers, file)
    elif as_json:
        write_answers(answers, sys.stdout)
    else:
        for text, answer in answers:
            _show(text, answer)


def evaluate(
    dataset: DatasetOption,
    what: Annotated[
        Path | None,
        typer.Argument(
            metavar="FOLDER|FILE",
            help="A model's folder, a stage's predictions/, or what `xmc predict --output` wrote "
            "for the test documents.",
            show_default="the predictions of the final model",
        ),
    ] = None,
    preset: PresetOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure predictions on the test documents of a data set."""
    from xmc_core.cli.options import load_settings
    from xmc_core.metrics import evaluate as measure
    from xmc_core.metrics import rounded
    from xmc_core.stages.inputs import Inputs

    config, paths = load_settings(dataset, preset, None)
    data = Inputs(paths).dataset
    predictions = _predictions(what, paths, data, config)
    metrics = measure(
        predictions,
        data.Y_test,
        label_counts=data.label_counts,
        n_train=len(data.train_texts),
        a=config.dataset.propensity_a,
        b=config.dataset.propensity_b,
    )
    if as_json:
        typer.echo(json.dumps(rounded(metrics), indent=1))
    else:
        _show_metrics(metrics)


def open_model(model: str, preset: str | None = None) -> "PipelineModel":
    """A model by its folder, or the final model of a data set."""
    from xmc_core.models import PipelineModel, load_model
    from xmc_core.stages.paths import ProjectPaths

    folder = Path(model)
    if not (folder / "manifest.json").is_file():
        folder = ProjectPaths(DATA, model, preset).out("rankers") / "bundle"
        if not (folder / "manifest.json").is_file():
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
    from xmc_core.data.readers import read_texts

    if source is None:
        yield from texts
    elif str(source) == "-":
        yield from (line.rstrip("\n") for line in sys.stdin)
    else:
        yield from read_texts(source)


def _answers(
    pipeline: "PipelineModel", texts: Iterator[str], top_k: int | None, beam_size: int | None
) -> "Iterator[tuple[str, Answer]]":
    from xmc_core.cli.progress import CommandReporter

    done = 0
    with CommandReporter() as report:
        while batch := list(islice(texts, ROWS_AT_ONCE)):
            if done:
                report.message(f"{done:,} texts")
            named = pipeline.named(pipeline.predict(batch, top_k=top_k, beam_size=beam_size))
            yield from zip(batch, named, strict=True)
            done += len(batch)


@contextmanager
def _written(path: Path) -> Iterator[IO[str]]:
    """A file that appears when it is complete."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open("w", encoding="utf-8") as file:
            yield file
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _show(text: str, answer: "Answer") -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("label")
    table.add_column("score", justify="right")
    for name, score in answer:
        table.add_row(name, f"{score:.4f}")
    typer.secho(text, bold=True)
    Console(markup=False).print(table)


def _predictions(
    what: Path | None, paths: "ProjectPaths", data: "Dataset", config: "Config"
) -> "Predictions":
    from xmc_core.data import Predictions
    from xmc_core.data.prediction_file import read_predictions
    from xmc_core.data.predictions import KIND
    from xmc_core.persistence.store import read_manifest

    if what is None:
        return Predictions.load(paths.existing("rankers") / "predictions")
    if what.is_file():
        return read_predictions(what, data.label_names, len(data.test_texts))
    if read_manifest(what)["kind"] == KIND:
        return Predictions.load(what)
    pipeline = open_model(str(what))
    if pipeline.label_names != data.label_names[: data.n_labels]:
        raise DataError(
            f"{what} was trained on other labels than {paths.dataset} has; "
            "a model can be measured on the data set it was trained on."
        )
    return pipeline.predict(data.test_texts, top_k=config.inference.top_k)


def _show_metrics(metrics: dict[str, float]) -> None:
    """Metrics down, k across."""
    from rich.console import Console
    from rich.table import Table

    ks = sorted({int(name.partition("@")[2]) for name in metrics})
    table = Table("percent", title_justify="left")
    for k in ks:
        table.add_column(f"@{k}", justify="right")
    for kind in dict.fromkeys(name.partition("@")[0] for name in metrics):
        table.add_row(kind, *(f"{metrics[f'{kind}@{k}']:.2f}" for k in ks))
    Console().print(table)
