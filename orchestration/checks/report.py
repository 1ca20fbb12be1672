"""The report: is what it shows worth having?"""

import dagster as dg

from orchestration.assets.details import read_metrics
from orchestration.checks.stage_check import stage_check
from orchestration.dvc_project import DvcProject
from xmc_core.metrics.bootstrap import paired_bootstraps
from xmc_core.metrics.report import MODELS
from xmc_core.metrics.rows import load_rows


@stage_check("evaluation")
def final_model_is_not_below_the_baseline(project: DvcProject, dataset: str) -> dg.AssetCheckResult:
    """All figures are percentages, and the final model is worse than XR-Linear in none of them by
    more than its noise (paired bootstrap). Otherwise a warning: what takes longer should pay."""
    figures = [
        v for model in read_metrics(project.paths(dataset).reports).values() for v in model.values()
    ]
    rows = load_rows(project.out("evaluation", dataset))
    compared = paired_bootstraps(rows[MODELS[-1]], rows[MODELS[0]])
    worse = [name for name, result in compared.items() if result.verdict == "worse"]
    return dg.AssetCheckResult(
        passed=all(0.0 <= value <= 100.0 for value in figures) and not worse,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={
            "worse": worse,
            **{name: round(result.difference, 3) for name, result in compared.items()},
        },
    )
