"""The whole pipeline on one data set, through Dagster, with one line a stage: `make demo`.

    python -m orchestration.demo --dataset python-api

It runs the job `train_and_register` in this process on a persistent Dagster instance, so the run
is there when the UI is opened. What the tools have to say goes to .xmc/demo.log.
"""

import argparse
import contextlib
import json
import logging
import os
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg
from rich.console import Console, Group
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from orchestration.assets.details import read_metrics
from orchestration.definitions import defs
from orchestration.dvc_project import DvcProject
from orchestration.home import DAGSTER_UI, environment
from orchestration.leftovers import at_work
from orchestration.partitions import project
from orchestration.resources.mlflow_tracking import LOCAL_UI
from xmc_core.metrics.report import SUMMARY, summary_table
from xmc_core.reporting import duration, number

COST = {"seconds", "peak_memory_mb", "bytes"}
SHOWN_FACTS = 3


class Lines:
    """Follows a run's events on the terminal: a moving line for what runs, a lasting one for what
    is done."""

    def __init__(self, console: Console, assets: Sequence[str]) -> None:
        self.console = console
        self.assets = assets
        self.width = max(map(len, assets))
        self.metadata: dict[str, dict[str, Any]] = {}
        """Of each asset of this run."""

        self.failure: str | None = None
        self._began: dict[str, float] = {}
        self._live = Live(
            console=console, refresh_per_second=8, transient=True, redirect_stderr=False
        )

    def __enter__(self) -> "Lines":
        self._live.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        self._live.update(Group())
        self._live.__exit__(None, None, None)

    def event(self, event: dg.DagsterEvent) -> None:
        """Take one of Dagster's own events."""
        step = event.step_key or ""
        if event.is_step_start and step in self.assets:
            self._began[step] = time.monotonic()
            self._show(step, "")
        elif event.event_type_value == "ASSET_MATERIALIZATION":
            materialization = event.materialization
            self.metadata[step] = {name: v.value for name, v in materialization.metadata.items()}
            self._done(step)
        elif event.event_type_value == "ASSET_CHECK_EVALUATION":
            self._check(event.asset_check_evaluation_data)
        elif event.is_step_failure and self.failure is None:
            self._failed(step, event.step_failure_data)

    def message(self, step: str, text: str) -> None:
        """Take a line that a stage has said."""
        if step in self._began and step not in self.metadata:
            self._show(step, text.splitlines()[0] if text else "")

    def _show(self, step: str, text: str) -> None:
        room = max(20, self.console.width - self.width - 6)
        told = text if len(text) <= room else text[: room - 1] + "…"
        line = Text.assemble((step.ljust(self.width), "bold"), "  ", (told, "dim"))
        self._live.update(Spinner("dots", text=line))

    def _done(self, step: str) -> None:
        metadata = self.metadata[step]
        seconds = time.monotonic() - self._began[step]
        facts = self._facts(step, metadata)
        took = "reused" if metadata.get("reused") else duration(seconds)
        self.console.print(
            Text.assemble(
                ("✓ ", "green"),
                (step.ljust(self.width), "bold"),
                f"  {took:>12}  ",
                (facts, "cyan"),
            ),
            soft_wrap=True,
        )

    def _facts(self, step: str, metadata: Mapping[str, Any]) -> str:
        if step == "registered_model":
            return f"{metadata['model']} version {metadata['version']}"
        if step == "champion":
            return f"version {metadata['champion_version']}; {metadata['reason']}"
        # What a stage came to before what its levels did.
        ordered = sorted(metadata.items(), key=lambda item: item[0].startswith("level_"))
        facts = [
            f"{name} {number(value)}"
            for name, value in ordered
            if isinstance(value, int | float) and not isinstance(value, bool) and name not in COST
        ]
        return ", ".join(facts[:SHOWN_FACTS])

    def _check(self, check: Any) -> None:
        if check.passed:
            return
        told = ", ".join(
            f"{name} {number(v.value)}"
            for name, v in check.metadata.items()
            if isinstance(v.value, int | float)
        )
        mark = ("! ", "yellow") if check.severity == dg.AssetCheckSeverity.WARN else ("✗ ", "red")
        self.console.print(
            Text.assemble(
                "  ", mark, f"{check.asset_key.path[-1]}: {check.check_name}  ", (told, "dim")
            )
        )

    def _failed(self, step: str, data: Any) -> None:
        said = data.user_failure_data
        error = data.error
        if error is not None and error.cause is not None:
            error = error.cause  # what the step raised; what that was raised from says less
        self.failure = (
            said.description if said and said.description else str(error and error.message)
        )
        self.console.print(Text.assemble(("✗ ", "red"), (step, "bold"), "  failed"))


class EventHandler(logging.Handler):
    """Dagster hands every event and message to Python's logging; this hands them to `Lines`."""

    def __init__(self, lines: Lines) -> None:
        super().__init__()
        self.lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        meta: Mapping[str, Any] = getattr(record, "dagster_meta", {})
        event = getattr(record, "dagster_event", None) or meta.get("dagster_event")
        if event is not None:
            self.lines.event(event)
        elif meta.get("step_key"):
            self.lines.message(str(meta["step_key"]), str(meta.get("orig_message", "")))


def run(dataset: str, lines: Lines) -> bool:
    """Run the job; True if every step succeeded."""

    @dg.logger
    def terminal(_: dg.InitLoggerContext) -> logging.Logger:
        logger = logging.Logger("terminal", logging.DEBUG)  # events are debug messages
        logger.addHandler(EventHandler(lines))
        return logger

    watched = dg.Definitions.merge(defs, dg.Definitions(loggers={"terminal": terminal}))
    with dg.DagsterInstance.get() as instance:
        outcome = watched.resolve_job_def("train_and_register").execute_in_process(
            partition_key=dataset,
            instance=instance,
            run_config={"loggers": {"terminal": {}}},
            raise_on_error=False,
        )
    return outcome.success


def show_results(console: Console, project: DvcProject, dataset: str, lines: Lines) -> None:
    """The table of the three models, five answers, the model in the registry, where to look."""
    metrics = read_metrics(project.paths(dataset).reports)
    table = Table(
        title=f"{dataset}, test split, percent", title_justify="left", header_style="bold"
    )
    table.add_column("")
    for name in SUMMARY:
        table.add_column(name, justify="right")
    config = project.config(dataset)
    for title, values in summary_table(metrics, config.encoder.name, config.member_titles):
        table.add_row(title, *(f"{value:.2f}" for value in values))
    console.print()
    console.print(table)

    examples = json.loads(
        (project.out("evaluation", dataset) / "examples.json").read_text(encoding="utf-8")
    )
    console.print(
        "\n[bold]Five questions, and the five best labels of the final model[/bold] (✓ right)"
    )
    for example in examples:
        text = Text("  " + " ".join(example["text"].split()), style="italic")
        console.print()
        console.print(text, no_wrap=True, overflow="ellipsis")
        for label, score, right in example["labels"]:
            mark = ("✓", "green") if right else (" ", "")
            console.print(Text.assemble("    ", mark, f" {score:6.3f}  {label}"))

    champion = lines.metadata["champion"]
    name, version = champion["model"], champion["champion_version"]
    report = (project.paths(dataset).reports / "report.html").relative_to(project.folder)
    console.print()
    for title, told in (
        ("Model", f"{name}, version {version}, alias champion"),
        ("", f"mlflow.pyfunc.load_model({champion['uri']!r}).predict(['some text'])"),
        ("Report", str(report)),
        ("UIs", f"make ui (Dagster on {DAGSTER_UI}, MLflow on {LOCAL_UI})"),
    ):
        console.print(Text.assemble((f"{title:<8}", "bold"), told), soft_wrap=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0 if everything succeeded, 1 if a stage failed, 2 for a wrong argument."""
    parser = argparse.ArgumentParser(
        prog="python -m orchestration.demo", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--dataset", choices=project.datasets(), default=project.datasets()[0])
    dataset = parser.parse_args(arguments).dataset

    began = time.monotonic()
    os.environ.update(environment(project.folder))
    log = project.folder / ".xmc" / "demo.log"
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
    console.print(
        f"[bold]train_and_register[/bold] on {dataset}; log: {log.relative_to(project.folder)}"
    )
    assets = [*(spec.name for spec in project.stages()), "registered_model", "champion"]
    with (
        log.open("a", encoding="utf-8") as noise,
        contextlib.redirect_stderr(noise),
        Lines(console, assets) as lines,
        at_work(project.folder),
    ):
        succeeded = run(dataset, lines)
    if not succeeded:
        console.print(Text(f"\n{lines.failure or 'The run failed; see the log.'}"))
        return 1
    show_results(console, project, dataset, lines)
    console.print(f"\nAll in {duration(time.monotonic() - began)}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
