"""xmc tune: settings that suit a data set, chosen on a validation split."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from xmc_core.cli.options import DATA, PARAMS, QuietOption

if TYPE_CHECKING:
    from xmc_core.config import Config
    from xmc_core.models.tuning import Tuned


def tune(
    dataset: Annotated[str, typer.Argument(metavar="DATASET", help="A data set of params.yaml.")],
    metric: Annotated[
        list[str] | None,
        typer.Option(
            "--metric",
            metavar="NAME",
            help="Judge by this, as PSP@5; the mean of several.",
            show_default="P@1, P@3 and P@5",
        ),
    ] = None,
    rows: Annotated[
        int, typer.Option("--rows", min=10, help="Sample of the training documents to use.")
    ] = 100_000,
    write: Annotated[
        bool, typer.Option("--write", help="Put what was found into params.yaml.")
    ] = False,
    quiet: QuietOption = False,
) -> None:
    """Choose settings of the rankers and of the search that suit a data set.

    A seventh of the training documents is held out (on small sets three times, another one each);
    models are trained on the others, nine or so, and judged by what they say of those held out. The
    test split is not looked at. The stages up to the features must have run (`xmc run`).

    Example: `xmc tune cars --metric P@5 --write`, then `make demo DATASET=cars`
    """
    from xmc_core.cli.progress import CommandReporter
    from xmc_core.config import load_config
    from xmc_core.models.tuning import METRICS, tune
    from xmc_core.reporting import SILENT
    from xmc_core.stages.inputs import Inputs
    from xmc_core.stages.paths import ProjectPaths
    from xmc_core.stages.rankers import features_of_labels, joined_rows

    config = load_config(PARAMS, dataset=dataset)
    inputs = Inputs(ProjectPaths(DATA, dataset))
    X = joined_rows(inputs, config)
    Z = features_of_labels(inputs, X, config)  # of all rows, but the same names for every fold
    with CommandReporter() as report:
        tuned = tune(
            X,
            inputs.Y_train,
            config,
            metrics=tuple(metric or METRICS),
            max_rows=rows,
            label_features=Z,
            report=SILENT if quiet else report,
        )
    _show(tuned)
    if write and tuned.changes:
        _write(PARAMS, dataset, tuned.config, tuned.changes)


def _show(tuned: "Tuned") -> None:
    from rich.console import Console
    from rich.table import Table

    names = list(tuned.trials[0].metrics)
    table = Table("settings", title="percent, validation split", title_justify="left")
    for name in ("mean", *names):
        table.add_column(name, justify="right")
    for trial in sorted(tuned.trials, key=lambda trial: -trial.score):
        values = (trial.score, *(trial.metrics[name] for name in names))
        table.add_row(_settings(trial.changes), *(f"{value:.2f}" for value in values))
    console = Console()
    console.print(table)
    console.print(f"Best: {_settings(tuned.changes)}", highlight=False, soft_wrap=True)


def _settings(changes: dict[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in changes.items()) or "as they are"


def _write(file: Path, dataset: str, config: "Config", changes: dict[str, Any]) -> None:
    from xmc_core.cli.params_file import others_wait, read_text, set_parameters
    from xmc_core.persistence.atomic import write_text

    with others_wait(file):
        write_text(file, set_parameters(read_text(file), dataset, changes))
    typer.echo(
        f"{file}: settings.{dataset} changed; `dvc repro` or `make demo DATASET={dataset}` "
        "trains with it."
    )
