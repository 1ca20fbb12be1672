"""xmc data add, list, check."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from xmc_core.cli.options import DATA, PARAMS
from xmc_core.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.table import Table

    from xmc_core.reporting import Reporter
    from xmc_core.stages.paths import ProjectPaths

SHOWN_PROBLEMS = 20

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="Your own data: add, list and check data sets.",
)

FILE_HELP = 'JSON lines, {"text": "...", "labels": ["..."]}; also .gz or .xz.'
LABELS_HELP = "Lines `id<TAB>name`: what the labels are called; also .gz or .xz."


@app.command()
def add(
    name: Annotated[str, typer.Argument(help="Letters, digits, - and _.")],
    train: Annotated[Path, typer.Option("--train", metavar="FILE", help=FILE_HELP)],
    test: Annotated[
        Path | None,
        typer.Option(
            "--test",
            metavar="FILE",
            help="The same; without it a stable share of train is held out.",
            show_default=False,
        ),
    ] = None,
    label_names: Annotated[
        Path | None,
        typer.Option("--label-names", metavar="FILE", help=LABELS_HELP, show_default=False),
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            "--preset", metavar="NAME", help="Settings to start from.", show_default="linear"
        ),
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Put the files in place of the present ones.")
    ] = False,
) -> None:
    """Check files, put them under data/raw/NAME and list NAME in params.yaml.

    From then on it is a partition in Dagster and a matrix entry in DVC. If anything is wrong,
    nothing is changed; `xmc data check FILE` lists all that is wrong with a file.
    """
    from rich.console import Console

    from xmc_core.cli.intake import take_in
    from xmc_core.cli.progress import CommandReporter
    from xmc_core.data.build import count
    from xmc_core.data.raw import RawFiles

    with CommandReporter() as report:
        dataset = take_in(
            name,
            RawFiles(train, test, label_names),
            data=DATA,
            params=PARAMS,
            preset=preset,
            replace=replace,
            report=report,
        )
    Console().print(counts_table(count(dataset)))
    typer.echo(f"{name} is in params.yaml. Next: dvc repro, or xmc run --dataset {name}")


@app.command("list")
def list_() -> None:
    """Show the data sets of params.yaml; counts are there once the stage `dataset` has run."""
    from rich.console import Console
    from rich.table import Table

    from xmc_core.cli.params_file import preset_of
    from xmc_core.config import read_params
    from xmc_core.stages.paths import ProjectPaths

    params, _ = read_params(PARAMS)
    text = PARAMS.read_text(encoding="utf-8")
    settings = params.get("settings") or {}
    table = Table("name", "source", "preset")
    for column in ("train rows", "test rows", "labels"):
        table.add_column(column, justify="right")
    for name in params.get("datasets") or []:
        own = (settings.get(name) or {}).get("dataset")
        source = own.get("source", "files") if isinstance(own, dict) else "files"
        facts = read_facts(ProjectPaths(DATA, name))
        numbers = (facts.get(key) for key in ("train_rows", "test_rows", "labels"))
        cells = (f"{n:,}" if n is not None else "–" for n in numbers)
        table.add_row(name, source, preset_of(text, name) or "its own", *cells)
    Console().print(table)


@app.command()
def check(
    what: Annotated[str, typer.Argument(metavar="NAME|FILE", help="A data set, or one file.")],
) -> None:
    """Read everything, count, and list all that is wrong. Exit code 2 if anything is."""
    from rich.console import Console

    from xmc_core.cli.progress import CommandReporter

    problems: list[DataError] = []
    with CommandReporter() as report:
        if Path(what).is_file():
            counts = _check_file(Path(what), report, problems)
        else:
            counts = _check_dataset(what, report, problems)
    if counts:
        Console().print(counts_table(counts))
    for problem in problems[:SHOWN_PROBLEMS]:
        typer.secho(str(problem), fg=typer.colors.RED, err=True)
    if len(problems) > SHOWN_PROBLEMS:
        more = len(problems) - SHOWN_PROBLEMS
        typer.secho(f"... and {more:,} more.", fg=typer.colors.RED, err=True)
    if problems:
        raise typer.Exit(2)
    typer.echo("Nothing is wrong.")


def _check_file(file: Path, report: "Reporter", problems: list[DataError]) -> "Mapping[str, float]":
    from xmc_core.data.readers import read_documents

    documents = read_documents(file, report=report, on_error=problems.append)
    if not len(documents):
        return {}
    return {
        "rows": len(documents),
        "labels": len(documents.names),
        "labels_per_row": round(len(documents.labels) / len(documents), 4),
        "rows_without_labels": documents.without_labels,
        "rows_without_text": documents.empty_texts,
        "duplicate_labels": documents.duplicates,
    }


def _check_dataset(
    name: str, report: "Reporter", problems: list[DataError]
) -> "Mapping[str, float]":
    from xmc_core.config import load_config
    from xmc_core.data.build import count
    from xmc_core.data.raw import find_raw, read_raw
    from xmc_core.errors import ConfigError

    try:
        config = load_config(PARAMS, dataset=name)
    except ConfigError as error:
        raise ConfigError(f"{name} is no file, and no data set either: {error}") from None
    try:
        if config.dataset.source != "files":
            from xmc_core.data.python_api import read_python_api

            documents = read_python_api(config.dataset.packages, report=report).documents
            return {"rows": len(documents), "labels": len(documents.names)}
        files = find_raw(DATA / "raw" / name)
        dataset = read_raw(files, config.dataset, report=report, on_error=problems.append)
        return count(dataset)
    except DataError as error:
        if not problems:  # else it only follows from them
            problems.append(error)
        return {}


def read_facts(paths: "ProjectPaths") -> dict[str, float]:
    """What the stage `dataset` has counted; empty before its first run."""
    try:
        facts: dict[str, float] = json.loads((paths.out("dataset") / "facts.json").read_text())
    except FileNotFoundError:
        return {}
    return facts


def counts_table(counts: "Mapping[str, float]") -> "Table":
    """Names and numbers, one below the other."""
    from rich.table import Table

    from xmc_core.reporting import number

    table = Table(show_header=False)
    table.add_column(justify="left")
    table.add_column(justify="right")
    for name, value in counts.items():
        table.add_row(name.replace("_", " "), number(value))
    return table
