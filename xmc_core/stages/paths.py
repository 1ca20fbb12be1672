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
    preset: str | None = None
    """With a preset of the user's choice everything goes to data/presets/<preset>/, so that what
    DVC keeps of the data set's own settings stays untouched."""

    @property
    def raw(self) -> Path:
        """The user's own files."""
        return self.data / "raw" / self.dataset

    @property
    def _root(self) -> Path:
        return self.data / "presets" / self.preset if self.preset else self.data

    @property
    def reports(self) -> Path:
        """metrics.json, tables, plots and the report: what people look at."""
        return self._root / "reports" / self.dataset

    def out(self, stage: str) -> Path:
        """The folder that a stage writes, and DVC caches."""
        return self._root / "artifacts" / self.dataset / stage

    def scratch(self, stage: str) -> Path:
        """What a stage keeps while it runs, outside of what DVC caches, and removes at the end."""
        return self._root / "scratch" / self.dataset / stage

    def existing(self, stage: str) -> Path:
        """The same, for reading."""
        folder = self.out(stage)
        if not (folder / "manifest.json").exists():
            preset = f" --preset {self.preset}" if self.preset else ""
            raise DataError(
                f"{folder} is not there: run the stage `{stage}` first "
                f"(xmc run {stage} --dataset {self.dataset}{preset})."
            )
        return folder
