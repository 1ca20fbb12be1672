"""The model to use: the challenger, if it has earned it."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import dagster as dg

from orchestration import gate
from orchestration.assets.stages import run_record
from orchestration.dvc_project import DvcProject
from orchestration.mlflow_model.registry import (
    CHALLENGER,
    CHAMPION,
    MD5,
    PASSED,
    PREVIOUS,
    REFUSED,
    REPLACED,
    STATUS,
    aliased,
    fetch,
    model_name,
)
from orchestration.partitions import datasets
from orchestration.resources import MlflowTracking
from orchestration.turns import turn
from xmc_core.data import Dataset, Predictions
from xmc_core.metrics.bootstrap import Gate

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

CHECK = "challenger_was_promoted"


@dg.asset(
    deps=["registered_model"],
    group_name="registry",
    kinds={"mlflow"},
    partitions_def=datasets,
    check_specs=[
        dg.AssetCheckSpec(
            CHECK,
            asset="champion",
            description="A warning says that the gate kept the old champion, and why.",
        )
    ],
)
def champion(
    context: dg.AssetExecutionContext, project: DvcProject, mlflow: MlflowTracking
) -> dg.MaterializeResult:
    """The version under the alias `champion`. The challenger takes its place unless it is worse on
    the test split by more than its noise (paired bootstrap of P@1, P@5 and PSP@5); the champion
    before it keeps the alias `previous`."""
    dataset = context.partition_key
    name = model_name(dataset)
    params, run_tags = run_record(project, dataset)
    client = mlflow.client()
    with (
        turn(project.folder, dataset, context.log.info),
        mlflow.required_run(context, dataset, params, run_tags) as tracked,
    ):
        challenger, present = aliased(client, name, CHALLENGER), aliased(client, name, CHAMPION)
        if challenger is None:
            raise dg.Failure(
                f"{name} has no version under the alias `{CHALLENGER}`; materialise "
                "`registered_model` first.",
                allow_retries=False,
            )
        promoted, reason, verdict = decide(project, dataset, challenger, present)
        now = aliased(client, name, CHAMPION)
        if (now and now.version) != (present and present.version):
            raise dg.Failure(
                f"the alias `{CHAMPION}` of {name} was moved while the challenger was compared; "
                "materialise `champion` again."
            )
        in_use = challenger if promoted or present is None else present
        if present is None or verdict is not None:
            if promoted and present is not None:
                client.set_registered_model_alias(name, PREVIOUS, present.version)
                client.set_model_version_tag(name, present.version, STATUS, REPLACED)
            client.set_registered_model_alias(name, CHAMPION, in_use.version)
            for tag, value in ((STATUS, PASSED if promoted else REFUSED), ("gate", reason)):
                client.set_model_version_tag(name, challenger.version, tag, value)

    say = context.log.info if promoted else context.log.warning
    say(f"champion of {name}: version {in_use.version}; {reason}")
    metadata = {
        "model": name,
        "champion_version": int(in_use.version),
        "challenger_version": int(challenger.version),
        "promoted": promoted,
        "reason": reason,
        "uri": f"models:/{name}@{CHAMPION}",
        "mlflow_model": dg.MetadataValue.url(
            f"{mlflow.ui}/#/models/{name}/versions/{in_use.version}"
        ),
        "mlflow_run": dg.MetadataValue.url(tracked.url),
    }
    if verdict is not None:
        metadata["comparison"] = dg.MetadataValue.md(comparison_table(verdict))
    return dg.MaterializeResult(
        metadata=metadata,
        data_version=dg.DataVersion(in_use.tags.get(f"{MD5}rankers", in_use.version)),
        check_results=[
            dg.AssetCheckResult(
                passed=promoted,
                check_name=CHECK,
                severity=dg.AssetCheckSeverity.WARN,
                metadata={"reason": reason},
            )
        ],
    )


def decide(
    project: DvcProject,
    dataset: str,
    challenger: "ModelVersion",
    present: "ModelVersion | None",
) -> tuple[bool, str, Gate | None]:
    """Whether the challenger is to be champion, why, and the comparison if there was one.

    A version is judged once. Otherwise the next run, though nothing has changed, would bring back
    a champion that somebody took back by setting the alias in MLflow.
    """
    if present is None:
        return True, "the first version, there was no champion to compare with", None
    if present.version == challenger.version:
        return True, "the challenger is the champion already", None
    status = challenger.tags.get(STATUS)
    if status == PASSED:
        reason = f"version {challenger.version} was champion and was taken back by hand"
        return False, f"{reason}; only a new version is judged", None
    if status == REFUSED:
        return False, challenger.tags.get("gate", f"version {challenger.version} was refused"), None
    verdict = compare(project, dataset, challenger, present)
    return verdict.passed, verdict.reason, verdict


def compare(
    project: DvcProject, dataset: str, challenger: "ModelVersion", present: "ModelVersion"
) -> Gate:
    """Judge both on the present test split.

    What a version predicted when it was registered is stored with it, and counts as long as the
    data set is the same, byte for byte. After a change of the data its bundle answers anew.
    """
    data = Dataset.load(project.out("dataset", dataset))
    md5 = project.md5("dataset", dataset)

    def answers(version: "ModelVersion", scratch: Path) -> Predictions:
        if version.tags.get(f"{MD5}dataset") == md5:
            return Predictions.load(fetch(version.name, version.version, "predictions", scratch))
        return gate.answer_again(fetch(version.name, version.version, "bundle", scratch), data)

    with TemporaryDirectory(prefix="xmc-champion-") as folder:
        both = (answers(version, Path(folder)) for version in (challenger, present))
        return gate.judge(*both, data, project.config(dataset))


def comparison_table(verdict: Gate) -> str:
    """Markdown: challenger minus champion, in percentage points, with its 95 % interval."""
    rows = [
        f"| {name} | {r.difference:+.2f} | {r.low:+.2f} to {r.high:+.2f} | {r.verdict} |"
        for name, r in verdict.results.items()
    ]
    return "\n".join(
        ["| | challenger minus champion | 95 % interval | |", "|---|---:|---:|---|", *rows]
    )
