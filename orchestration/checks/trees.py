"""Label trees: what is lost here is lost for good."""

import dagster as dg

from orchestration.checks.stage_check import stage_check
from orchestration.dvc_project import DvcProject
from xmc_core.data import Dataset

SHOWN = 20


def leaf_check(stage: str) -> dg.AssetChecksDefinition:
    """The check on one tree."""

    @stage_check(stage, blocking=True)
    def every_label_has_a_leaf(project: DvcProject, dataset: str) -> dg.AssetCheckResult:
        """A label in no leaf can never be predicted, however good the rankers are."""
        from xmc_core.tree import LabelTree  # numba: not at definition time

        tree = LabelTree.load(project.out(stage, dataset) / "tree")
        data = Dataset.load(project.out("dataset", dataset))
        lost = tree.labels_without_leaf()
        return dg.AssetCheckResult(
            passed=len(lost) == 0 and tree.n_labels == data.n_labels,
            metadata={
                "lost": len(lost),
                "lost_names": [data.label_names[label] for label in lost[:SHOWN].tolist()],
                "labels_of_the_tree": tree.n_labels,
                "labels_of_the_data": data.n_labels,
            },
        )

    return every_label_has_a_leaf


every_label_has_a_leaf = [leaf_check("initial_tree"), leaf_check("disentangled_tree")]
