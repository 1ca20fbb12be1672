"""The model to use: the challenger, if it has earned it."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, NamedTuple

import dagster as dg

from orchestration import gate
from orchestration.assets.registered_model import RETRY_POLICY
from orchestration.assets.stages import run_record
from orchestration.dvc_project import DvcProject
from orchestration.mlflow_model.registry import (
    BEST,
    CHALLENGER,
    CHAMPION,
    MD5,
    PASSED,
    PENDING,
    PREVIOUS,
    REFUSED,
    REPLACED,
    STATUS,
    aliased,
    all_versions,
    fetch,
    fetch_code,
    model_name,
)
from orchestration.partitions import datasets
from orchestration.resources import MlflowTracking
from orchestration.turns import turn
from xmc_core.data import Dataset, Predictions
from xmc_core.errors import StoreError
from xmc_core.metrics.bootstrap import Gate

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

CHECK = "challenger_was_promoted"


@dg.asset(
    deps=["registered_model"],
    group_name="registry",
    kinds={"mlflow"},
    partitions_def=datasets,
    retry_policy=RETRY_POLICY,
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
    the test split by more than its noise (paired bootstrap of P@1, P@5 and PSP@5) than the present
    champion or the version under the alias `best`; the champion before it keeps the alias
    `previous`."""
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
        if present is None and (former := former_champions(client, name)):
            raise dg.Failure(
                f"{name} has no version under the alias `{CHAMPION}`, but had one: version "
                f"{', '.join(former)}. Nothing is put in its place without a comparison; set the "
                f"alias in MLflow (`{PREVIOUS}` is the way back), then materialise `champion`.",
                allow_retries=False,
            )
        best = aliased(client, name, BEST)
        if best is not None and was_taken_back(best, present):
            best = None
        try:
            promoted, reason, verdict, is_best = decide(project, dataset, challenger, present, best)
        except StoreError as error:
            raise dg.Failure(
                f"{name}: the champion or version {challenger.version} cannot be asked about the "
                f"present test documents ({error}). Nothing is put in the champion's place without "
                f"a comparison; to do so all the same, set the alias `{CHAMPION}` in MLflow.",
                allow_retries=False,
            ) from error
        now = aliased(client, name, CHAMPION)
        if (now and now.version) != (present and present.version):
            raise dg.Failure(
                f"the alias `{CHAMPION}` of {name} was moved while the challenger was compared; "
                "materialise `champion` again.",
                allow_retries=False,
            )
        in_use = challenger if promoted or present is None else present
        begun = present is not None and present.version == challenger.version
        # A promotion that broke off behind the alias is ended now.
        if present is None or verdict is not None or (begun and is_pending(challenger)):
            if promoted and present is not None and not begun:
                client.set_registered_model_alias(name, PREVIOUS, present.version)
                client.set_model_version_tag(name, present.version, STATUS, REPLACED)
            client.set_registered_model_alias(name, CHAMPION, in_use.version)
            for tag, value in ((STATUS, PASSED if promoted else REFUSED), ("gate", reason)):
                client.set_model_version_tag(name, challenger.version, tag, value)
            if is_best or best is None:
                holder = challenger if is_best or present is None else present
                client.set_registered_model_alias(name, BEST, holder.version)

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


def is_pending(version: "ModelVersion") -> bool:
    """Whether the gate has not judged it yet."""
    return version.tags.get(STATUS, PENDING) == PENDING


def was_taken_back(version: "ModelVersion", present: "ModelVersion | None") -> bool:
    """Whether it was champion until somebody set the alias in MLflow: what the gate replaces, it
    tags. Its figures are no measure for others then."""
    is_champion = present is not None and present.version == version.version
    return version.tags.get(STATUS) == PASSED and not is_champion


class Decision(NamedTuple):
    """What becomes of a challenger."""

    promoted: bool
    reason: str
    verdict: Gate | None = None
    """The comparison, if there was one."""

    is_best: bool = False
    """So far, by more than its noise."""


def decide(
    project: DvcProject,
    dataset: str,
    challenger: "ModelVersion",
    present: "ModelVersion | None",
    best: "ModelVersion | None",
) -> Decision:
    """Whether the challenger is to be champion, and why.

    A version is judged once. Otherwise the next run, though nothing has changed, would bring back
    a champion that somebody took back by setting the alias in MLflow.
    """
    if present is None:
        reason = "the first version, there was no champion to compare with"
        return Decision(True, reason, is_best=True)
    if present.version == challenger.version:
        return Decision(True, "the challenger is the champion already")
    status = challenger.tags.get(STATUS)
    if was_taken_back(challenger, present):
        reason = f"version {challenger.version} was champion and was taken back by hand"
        return Decision(False, f"{reason}; only a new version is judged")
    if status == REFUSED:
        reason = challenger.tags.get("gate", f"version {challenger.version} was refused")
        return Decision(False, reason)
    verdict = compare(project, dataset, challenger, present)
    if not verdict.passed or best is None or best.version in (present.version, challenger.version):
        is_best = verdict.passed and is_better(verdict)
        return Decision(verdict.passed, verdict.reason, verdict, is_best)
    try:
        against_best = compare(project, dataset, challenger, best)
    except StoreError as error:  # of an old release, perhaps: it holds up nothing
        reason = (
            f"{verdict.reason}; version {best.version}, the best so far, cannot answer: {error}"
        )
        return Decision(True, reason, verdict, is_best=True)
    if against_best.passed:
        return Decision(True, verdict.reason, verdict, is_better(against_best))
    told = against_best.reason.replace("the champion", f"version {best.version}, the best so far,")
    return Decision(False, f"not worse than the champion, but {told}", against_best)


def is_better(verdict: Gate) -> bool:
    """Whether a figure is better by more than its noise."""
    return any(result.verdict == "better" for result in verdict.results.values())


def former_champions(client: "MlflowClient", name: str) -> list[str]:
    """Versions that were champion once."""
    versions = all_versions(client, name)
    return [str(v.version) for v in versions if v.tags.get(STATUS) in (PASSED, REPLACED)]


def compare(
    project: DvcProject, dataset: str, challenger: "ModelVersion", present: "ModelVersion"
) -> Gate:
    """Judge both on the present test split.

    What a version predicted when it was registered is stored with it, and counts as long as the
    data set is the same, byte for byte. After a change of the data its bundle answers anew; one of
    an older release, by the library registered with it.

    Raises StoreError if a version does not answer either way.
    """
    data = Dataset.load(project.out("dataset", dataset))
    md5 = project.md5("dataset", dataset)

    def answers(version: "ModelVersion", scratch: Path) -> Predictions:
        if version.tags.get(f"{MD5}dataset") == md5:
            return Predictions.load(fetch(version.name, version.version, "predictions", scratch))
        bundle = fetch(version.name, version.version, "bundle", scratch)
        try:
            return gate.answer_again(bundle, data)
        except StoreError:
            code = fetch_code(version.name, version.version, scratch)
            return gate.answer_as_registered(bundle, code, data)

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
