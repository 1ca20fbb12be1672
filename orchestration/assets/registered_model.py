"""The bundle as a version in MLflow's registry."""

import dagster as dg

from orchestration.assets.stages import run_record
from orchestration.dvc_project import DvcProject
from orchestration.metadata import tags
from orchestration.mlflow_model.registry import (
    CHALLENGER,
    MD5,
    find_version,
    model_name,
    register,
)
from orchestration.partitions import datasets
from orchestration.resources import MlflowTracking
from orchestration.turns import turn
from xmc_core.data import Dataset

RETRY_POLICY = dg.RetryPolicy(max_retries=3, delay=30)
"""Of both assets of the registry: at the end of a long night, a server that is started anew for
some seconds shall not cost the model its place."""

EXAMPLES = 2
"""Texts in the model's input example."""


@dg.asset(
    deps=["rankers", "evaluation"],
    group_name="registry",
    kinds={"mlflow"},
    partitions_def=datasets,
    retry_policy=RETRY_POLICY,
)
def registered_model(
    context: dg.AssetExecutionContext, project: DvcProject, mlflow: MlflowTracking
) -> dg.MaterializeResult:
    """The final bundle as a version of `xmc-<dataset>` in MLflow's registry, under the alias
    `challenger`. A bundle that the registry already holds is not registered again."""
    dataset = context.partition_key
    name = model_name(dataset)
    params, run_tags = run_record(project, dataset)
    client = mlflow.client()
    with (
        turn(project.folder, dataset, context.log.info),
        mlflow.required_run(context, dataset, params, run_tags) as tracked,
    ):
        md5s = bundle_md5s(project, dataset)
        found = version = find_version(client, name, md5s["rankers"])
        if version is None:
            context.log.info(f"registering bundle {md5s['rankers'][:8]} as a new version of {name}")
            data = Dataset.load(project.out("dataset", dataset))
            rankers = project.out("rankers", dataset)
            version = register(
                client,
                tracked.id,
                dataset=dataset,
                config=project.config(dataset),
                bundle=rankers / "bundle",
                predictions=rankers / "predictions",
                example=[text for text in data.test_texts if text.strip()][:EXAMPLES],
                tags={
                    **{f"{MD5}{stage}": md5 for stage, md5 in md5s.items()},
                    **run_tags,
                    "dagster.run_id": context.run.run_id,
                    "dataset": dataset,
                },
            )
        else:
            context.log.info(f"version {version.version} of {name} holds this bundle, it is reused")
        client.set_registered_model_alias(name, CHALLENGER, version.version)
    return dg.MaterializeResult(
        metadata={
            "model": name,
            "version": int(version.version),
            "reused": found is not None,
            "md5": md5s["rankers"],
            "uri": f"models:/{name}/{version.version}",
            "mlflow_model": dg.MetadataValue.url(
                f"{mlflow.ui}/#/models/{name}/versions/{version.version}"
            ),
            "mlflow_run": dg.MetadataValue.url(tracked.url),
        },
        data_version=dg.DataVersion(md5s["rankers"]),
        tags=tags({"dvc/md5": md5s["rankers"], "mlflow/run_id": tracked.id}),
    )


def bundle_md5s(project: DvcProject, dataset: str) -> dict[str, str]:
    """The md5 of each stage, and with them the certainty that they are those of the bundle."""
    md5s = project.md5s(dataset)
    if "rankers" not in md5s:
        raise dg.Failure(
            f"there is no bundle of {dataset} yet; materialise `rankers` first.",
            allow_retries=False,
        )
    if project.changed("rankers", dataset):
        raise dg.Failure(
            f"{project.out('rankers', dataset)} is not what dvc.lock says, it was changed since "
            "(`xmc run` does that), or its data, settings or code were; materialise `rankers` and "
            "`evaluation`, or run `dvc repro`, first.",
            allow_retries=False,
        )
    return md5s
