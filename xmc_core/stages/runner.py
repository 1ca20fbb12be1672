"""Runs one stage: reads its inputs, writes its folder in one step, tells what it cost.

A stage is a module with `run(inputs, config, out, report)`. `out` is a fresh folder that takes the
place of the stage's folder when `run` returns, and vanishes if it raises or is killed. The facts
that a stage reports through `report.metrics` end up in `<out>/facts.json`; they must be the same
in every run on the same input, so clocks and memory go into the `finished` event only.
"""

import importlib
import json
import shutil
from pathlib import Path
from typing import Protocol

from xmc_core.config import Config
from xmc_core.errors import XmcError
from xmc_core.persistence.atomic import fresh_folder, write_text
from xmc_core.reporting import Reporter, StageReporter
from xmc_core.stages.inputs import Inputs
from xmc_core.stages.paths import MADE_OF, STAGES, ProjectPaths


class Stage(Protocol):
    """What a stage module offers."""

    def run(self, inputs: Inputs, config: Config, out: Path, report: Reporter) -> None: ...


def load_stage(name: str) -> Stage:
    """The module of a stage; imported only when it runs, as torch alone takes seconds."""
    module: Stage = importlib.import_module(f"xmc_core.stages.{name}")
    return module


def run_stage(
    name: str, paths: ProjectPaths, config: Config, *, quiet: bool = False
) -> dict[str, float]:
    """Run one stage and return its facts.

    Raises XmcError for what the user can mend; the stage's folder is then as it was before.
    """
    if name not in STAGES:
        raise XmcError(f"there is no stage {name!r}; the stages are {', '.join(STAGES)}.")
    report = StageReporter(name, paths.dataset, quiet=quiet)
    report.emit("started")
    made_of = paths.made_of()
    try:
        with fresh_folder(paths.out(name)) as out:
            load_stage(name).run(Inputs(paths), config, out, report)
            write_text(out / "facts.json", json.dumps(report.facts, indent=1) + "\n")
            if name != "dataset":
                write_text(out / MADE_OF, json.dumps(made_of) + "\n")
    except BaseException as error:
        report.emit("failed", error=str(error) or type(error).__name__)
        raise
    # Only now: killed before, the stage would have to go on from what lies there.
    shutil.rmtree(paths.scratch(name), ignore_errors=True)
    report.finished()
    return report.facts
