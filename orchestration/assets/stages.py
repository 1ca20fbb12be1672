"""A Dagster asset of each DVC stage: same name, same edges, and nothing computed here."""

import json
from collections.abc import Mapping
from contextlib import closing
from functools import cache
from typing import Any

import dagster as dg

from orchestration.assets.details import details, read_metrics
from orchestration.dvc_project import DvcProject, StageSpec
from orchestration.metadata import numbers, tags
from orchestration.partitions import datasets
from orchestration.resources import MlflowTracking, TrackedRun
from orchestration.stage_run import StageError, StageRun
from orchestration.turns import turn
from xmc_core.config import to_mapping
from xmc_core.reporting import describe

RETRY_SECONDS = 30


class StageOptions(dg.Config):
    """What may be asked of a stage in the launchpad; parameters are in params.yaml."""

    force: bool = False
    """Run although nothing has changed."""


def stage_asset(spec: StageSpec) -> dg.AssetsDefinition:
    """Make the asset of one stage. Materialising it brings the stage up to date through DVC."""
    about = spec.dagster
    retries = int(about.get("retries", 0))

    @dg.asset(
        name=spec.name,
        deps=list(spec.upstream),
        description=spec.description,
        group_name=about.get("group", "pipeline"),
        kinds=set(about.get("kinds", [])),
        pool=about.get("pool"),
        owners=about.get("owners"),
        partitions_def=datasets,
        retry_policy=dg.RetryPolicy(max_retries=retries, delay=RETRY_SECONDS) if retries else None,
        metadata={
            "command": spec.command,
            "parameters": list(spec.params),
            "reads": list(spec.inputs),
        },
    )
    def stage(
        context: dg.AssetExecutionContext,
        config: StageOptions,
        project: DvcProject,
        mlflow: MlflowTracking,
    ) -> dg.MaterializeResult:
        dataset = context.partition_key
        with turn(project.folder, dataset, context.log.info):
            run = project.start(spec.name, dataset, force=config.force)
            with follow(context, run, project, mlflow) as tracked:
                return result(spec, dataset, run, project, tracked)

    return stage


def follow(
    context: dg.AssetExecutionContext, run: StageRun, project: DvcProject, mlflow: MlflowTracking
) -> TrackedRun:
    """Wait for the stage, and pass on what it says, while it says it, to Dagster and MLflow."""
    dataset = context.partition_key

    @cache
    def tracked() -> TrackedRun:  # when first needed: by then the stage is running beside us
        return mlflow.run(context, dataset, *run_record(project, dataset))

    try:
        with closing(run.events()) as events:  # stops the stage, should this loop be interrupted
            for event in events:
                if line := describe(event):
                    context.log.info(line)
                if event["event"] == "curve":
                    tracked().metrics(event["values"], prefix=event["stage"], step=event["step"])
                elif event["event"] == "started":
                    tracked()
        if run.reused:
            context.log.info(f"{run.name}: nothing has changed, its result is reused")
        if md5 := project.md5("dataset", dataset):
            facts = json.dumps(stage_facts(project, "dataset", dataset))
            tracked().dataset(dataset, md5, str(project.out("dataset", dataset)), facts)
        return tracked()
    except BaseException as problem:  # an interrupt too, or MLflow would show a run without end
        tracked().finish(failed=True)
        if isinstance(problem, StageError):
            # What the stage itself explains will not be mended by trying again.
            raise dg.Failure(str(problem), allow_retries=not problem.explained) from None
        raise


def run_record(project: DvcProject, dataset: str) -> tuple[Mapping[str, Any], dict[str, str]]:
    """Parameters and tags of an MLflow run: the data set's settings, and the code's commit."""
    return to_mapping(project.config(dataset)), {"git.commit": project.git_commit()}


def result(
    spec: StageSpec, dataset: str, run: StageRun, project: DvcProject, tracked: TrackedRun
) -> dg.MaterializeResult:
    """What Dagster keeps of a finished stage; the numbers go to MLflow as well."""
    facts = stage_facts(project, spec.name, dataset)
    cost = {"seconds": round(run.seconds, 2)}
    if run.peak_memory_mb is not None:
        cost["peak_memory_mb"] = round(run.peak_memory_mb, 1)
    tracked.metrics({**facts, **cost}, prefix=spec.name)
    if spec.name == "evaluation":
        record_evaluation(project, dataset, tracked)

    md5 = project.md5(spec.name, dataset)
    links = {"mlflow_run": dg.MetadataValue.url(tracked.url)} if tracked.url else {}
    return dg.MaterializeResult(
        metadata={
            **numbers({**facts, **cost, "bytes": project.size(spec.name, dataset)}),
            "reused": run.reused,
            "md5": md5 or "",
            "folder": dg.MetadataValue.path(str(project.out(spec.name, dataset))),
            **links,
            **details(project, spec.name, dataset),
        },
        data_version=dg.DataVersion(md5) if md5 else None,
        tags=tags({"dvc/stage": run.name, "dvc/md5": md5, "mlflow/run_id": tracked.id or None}),
    )


def record_evaluation(project: DvcProject, dataset: str, tracked: TrackedRun) -> None:
    """Hand the figures and the report to MLflow, from the files that DVC shows as well."""
    reports = project.paths(dataset).reports
    for model, values in read_metrics(reports).items():
        tracked.metrics(values, prefix=model)
    tracked.files(reports, "report")
    tracked.files(project.folder / "params.yaml")


def stage_facts(project: DvcProject, stage: str, dataset: str) -> Mapping[str, float]:
    """What the stage said about its result; empty before its first run."""
    file = project.out(stage, dataset) / "facts.json"
    facts: dict[str, float] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    return facts
