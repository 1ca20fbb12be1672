"""Runs one stage: reads its inputs, writes its folder in one step, tells what it cost.

A stage is a module with `run(inputs, config, out, report)`. `out` is a fresh folder that takes the
place of the stage's folder when `run` returns, and vanishes if it raises or is killed. The facts
that a stage reports through `report.metrics` end up in `<out>/facts.json`; they must be the same
in every run on the same input, so clocks and memory go into the `finished` event only.
"""

import importlib
import json
import shutil
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Protocol

import xmc_core
from xmc_core.config import Config, to_mapping
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
    name: str,
    paths: ProjectPaths,
    config: Config,
    *,
    quiet: bool = False,
    settings_now: Callable[[], Config] | None = None,
) -> dict[str, float]:
    """Run one stage and return its facts.

    `settings_now` reads the settings again at the end. DVC notes what the stage depends on when it
    has ended, so a result must not pass for that of settings, raw files or code which were changed
    in the meantime.

    Raises XmcError for what the user can mend; the stage's folder is then as it was before.
    """
    if name not in STAGES:
        raise XmcError(f"there is no stage {name!r}; the stages are {', '.join(STAGES)}.")
    report = StageReporter(name, paths.dataset, quiet=quiet)
    report.emit("started")
    made_of, before = paths.made_of(), _surroundings(name, paths, config)
    try:
        with fresh_folder(paths.out(name)) as out:
            load_stage(name).run(Inputs(paths), config, out, report)
            write_text(out / "facts.json", json.dumps(report.facts, indent=1) + "\n")
            if name != "dataset":
                write_text(out / MADE_OF, json.dumps(made_of) + "\n")
            after = _surroundings(name, paths, settings_now() if settings_now else config)
            if changed := [what for what in before if before[what] != after[what]]:
                raise XmcError(
                    f"{' and '.join(changed)} changed while the stage {name} ran, so its result is "
                    "of neither state and is left out; run it again."
                )
    except BaseException as error:
        report.emit("failed", error=str(error) or type(error).__name__)
        raise
    # Only now: killed before, the stage would have to go on from what lies there.
    shutil.rmtree(paths.scratch(name), ignore_errors=True)
    report.finished()
    return report.facts


def _surroundings(name: str, paths: ProjectPaths, config: Config) -> dict[str, object]:
    """What a stage's result depends on, besides the folders of stages before it."""
    package = Path(xmc_core.__path__[0])
    code = sha256()
    for file in sorted(package.rglob("*.py")):
        code.update(str(file.relative_to(package)).encode() + file.read_bytes())
    found: dict[str, object] = {"settings": to_mapping(config), "code": code.hexdigest()}
    if name == "dataset":
        found["raw files"] = paths.raw_state()
    return found
