"""xmc tune: settings that suit a data set, chosen on a validation split."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from xmc_core.cli.options import DATA, PARAMS, QuietOption
from xmc_core.errors import ConfigError

if TYPE_CHECKING:
    from xmc_core.config import Config
    from xmc_core.models.tuning import Tuned
    from xmc_core.stages.inputs import Inputs
    from xmc_core.types import SparseRows


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

    config = load_config(dataset=dataset)
    inputs = Inputs(ProjectPaths(DATA, dataset))
    X, Z = _features(inputs, config)
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


def _features(inputs: "Inputs", config: "Config") -> "tuple[SparseRows, SparseRows | None]":
    """What the final rankers are trained on, and their trees grown on."""
    from xmc_core.features.joined import join_features
    from xmc_core.features.label_features import label_features

    X = inputs.X_train
    if config.encoder.name != "none":
        X = join_features(X, inputs.embeddings_train, config.encoder.weight)
    if config.tree.label_features == "pifa":
        return X, None
    Z = label_features(
        inputs.Y_train,
        X,
        config.tree,
        label_names=inputs.dataset.label_names,
        vectorizer=inputs.vectorizer,
        n_threads=config.n_threads,
    )
    return X, Z


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
    from xmc_core.cli.params_file import set_parameters
    from xmc_core.persistence.atomic import write_text

    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot read {file}: {error.strerror}.") from error
    write_text(file, set_parameters(text, dataset, changes))
    typer.echo(f"{file}: settings.{dataset} changed; `dvc repro` or `make demo` trains with it.")
