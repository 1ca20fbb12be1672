"""Options that several commands share, and what their values mean."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from xmc_core.errors import ConfigError

if TYPE_CHECKING:
    from xmc_core.config import Config
    from xmc_core.stages.paths import ProjectPaths

DATA = Path("data")
PARAMS = Path("params.yaml")
"""Commands work on the project in the working directory, as DVC does."""

DatasetOption = Annotated[
    str, typer.Option("--dataset", "-d", metavar="NAME", help="A data set of params.yaml.")
]
PresetOption = Annotated[
    str | None,
    typer.Option(
        "--preset",
        "-p",
        metavar="NAME",
        help="Settings of this preset instead of the data set's own; what such a run made is in "
        "data/presets/NAME/.",
        show_default="the data set's own settings",
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        "-s",
        metavar="PARAMETER=VALUE",
        help="Change one parameter of the preset, as `tree.branching=8`; may be repeated.",
        show_default=False,
    ),
]
QuietOption = Annotated[
    bool, typer.Option("--quiet", "-q", help="No progress: results and errors alone.")
]


def require_known(dataset: str) -> None:
    """Raises ConfigError if params.yaml is here and names other data sets only."""
    from xmc_core.config import read_params

    known = list(read_params(PARAMS)[0].get("settings") or {}) if PARAMS.exists() else [dataset]
    if dataset not in known:
        raise ConfigError(
            f"{PARAMS} has no settings.{dataset}; it knows {', '.join(sorted(known)) or 'none'}."
        )


def parse_changes(changes: Sequence[str]) -> dict[str, Any]:
    """
    >>> parse_changes(["tree.branching=8", "rankers.cost=[1, 2]"])
    {'tree.branching': 8, 'rankers.cost': [1, 2]}
    """
    import yaml

    parsed: dict[str, Any] = {}
    for change in changes:
        name, equals, value = change.partition("=")
        if not equals or not name:
            raise ConfigError(f"--set {change}: expected PARAMETER=VALUE, as tree.branching=8.")
        try:
            parsed[name.strip()] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise ConfigError(f"--set {change}: {value!r} is no number, word or [list].") from None
    return parsed


def load_settings(
    dataset: str, preset: str | None, changes: Sequence[str] | None
) -> tuple["Config", "ProjectPaths"]:
    """The config to run with, checked, and the folders that belong to it."""
    from xmc_core.config import load_config
    from xmc_core.stages.paths import ProjectPaths

    if changes and preset is None:
        raise ConfigError(
            "--set needs --preset: without one, results belong to DVC, which goes by params.yaml; "
            f"change settings.{dataset} there, or name a preset to try something out."
        )
    config = load_config(
        PARAMS, preset=preset, dataset=dataset, overrides=parse_changes(changes or ())
    )
    return config, ProjectPaths(DATA, dataset, preset)
