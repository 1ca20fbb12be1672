"""A check on a stage's files."""

import inspect
from collections.abc import Callable

import dagster as dg

from orchestration.dvc_project import DvcProject
from orchestration.partitions import datasets
from orchestration.turns import turn

Check = Callable[[DvcProject, str], dg.AssetCheckResult]
"""From the project and the name of a data set to what was found."""


def stage_check(
    stage: str, *, blocking: bool = False
) -> Callable[[Check], dg.AssetChecksDefinition]:
    """Make an asset check of a function that reads what `stage` has written.

    It reads when no other run is at work on the data set: DVC deletes a stage's files before the
    stage writes new ones.
    """

    def decorate(check: Check) -> dg.AssetChecksDefinition:
        @dg.asset_check(
            name=check.__name__,
            asset=stage,
            partitions_def=datasets,
            blocking=blocking,
            description=inspect.getdoc(check),
        )
        def in_turn(
            context: dg.AssetCheckExecutionContext, project: DvcProject
        ) -> dg.AssetCheckResult:
            dataset = context.partition_key
            with turn(project.folder, dataset, context.log.info):
                return check(project, dataset)

        return in_turn

    return decorate
