"""xmc run, xmc train: stages, one by one or in order."""

import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from xmc_core.cli.options import (
    DatasetOption,
    PresetOption,
    QuietOption,
    SetOption,
    load_settings,
)

if TYPE_CHECKING:
    from xmc_core.config import Config
    from xmc_core.stages.paths import ProjectPaths


def run(
    dataset: DatasetOption,
    stage: Annotated[
        str | None,
        typer.Argument(
            help="dataset, tfidf_features, initial_tree, matcher, disentangled_tree, "
            "xr_transformer, rankers or evaluation; without it, all of them in this order.",
            show_default=False,
        ),
    ] = None,
    preset: PresetOption = None,
    changes: SetOption = None,
    quiet: QuietOption = False,
) -> None:
    """Run one stage of the pipeline, or all of them.

    A stage's folder is replaced only when the stage is done. Every stage named runs, whether or not
    something has changed; `dvc repro` runs those that need it.
    """
    from xmc_core.errors import ConfigError
    from xmc_core.stages.paths import STAGES

    if stage is not None and stage not in STAGES:
        raise ConfigError(f"there is no stage {stage!r}; the stages are {', '.join(STAGES)}.")
    config, paths = load_settings(dataset, preset, changes)
    stages = STAGES if stage is None else (stage,)
    run_stages(stages, paths, config, quiet, lambda: load_settings(dataset, preset, changes)[0])
    if stages[-1] == "evaluation" and not quiet:
        _show_metrics(paths, config)


def train(
    dataset: DatasetOption,
    preset: PresetOption = None,
    changes: SetOption = None,
    quiet: QuietOption = False,
) -> None:
    """Train the final model of a data set: every stage up to the rankers.

    The model is a folder that `xmc predict` and `xmc_core.load_model` open, and that can be moved.
    """
    from xmc_core.stages.paths import STAGES

    config, paths = load_settings(dataset, preset, changes)
    stages = STAGES[: STAGES.index("rankers") + 1]
    run_stages(stages, paths, config, quiet, lambda: load_settings(dataset, preset, changes)[0])
    typer.echo(str(paths.out("rankers") / "bundle"))


def run_stages(
    stages: Sequence[str],
    paths: "ProjectPaths",
    config: "Config",
    quiet: bool,
    settings_now: "Callable[[], Config]",
) -> None:
    """One after the other, in this process."""
    from xmc_core.stages.runner import run_stage

    for stage in stages:
        run_stage(stage, paths, config, quiet=quiet, settings_now=settings_now)


def _show_metrics(paths: "ProjectPaths", config: "Config") -> None:
    from rich.console import Console
    from rich.table import Table

    from xmc_core.metrics.report import SUMMARY, summary_table

    metrics = json.loads((paths.reports / "metrics.json").read_text(encoding="utf-8"))
    table = Table("percent, test split", title=paths.dataset, title_justify="left")
    for name in SUMMARY:
        table.add_column(name, justify="right")
    for model, values in summary_table(metrics, config.encoder.name, config.member_titles):
        table.add_row(model, *(f"{value:.2f}" for value in values))
    console = Console(markup=False)
    console.print(table)
    console.print(f"Report: {paths.reports / 'report.html'}", highlight=False, soft_wrap=True)
