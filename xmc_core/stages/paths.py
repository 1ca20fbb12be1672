"""Where everything lies. The same picture as in data/README.md."""

from dataclasses import dataclass
from pathlib import Path

from xmc_core.errors import DataError

STAGES = (
    "dataset",
    "tfidf_features",
    "initial_tree",
    "matcher",
    "disentangled_tree",
    "xr_transformer",
    "rankers",
    "evaluation",
)
"""In the order in which they run."""


@dataclass(frozen=True, slots=True)
class ProjectPaths:
    """Folders of one data set under the data folder."""

    data: Path
    dataset: str

    @property
    def raw(self) -> Path:
        """The user's own files."""
        return self.data / "raw" / self.dataset

    @property
    def reports(self) -> Path:
        """metrics.json, tables, plots and the report: what people look at."""
        return self.data / "reports" / self.dataset

    def out(self, stage: str) -> Path:
        """The folder that a stage writes, and DVC caches."""
        return self.data / "artifacts" / self.dataset / stage

    def existing(self, stage: str) -> Path:
        """The same, for reading."""
        folder = self.out(stage)
        if not (folder / "manifest.json").exists():
            raise DataError(
                f"{folder} is not there: run the stage `{stage}` first "
                f"(`dvc repro {stage}@{self.dataset}`, or `xmc run {stage} --dataset {self.dataset}`)."
            )
        return folder
