"""Where everything lies. The same picture as in data/README.md."""

import json
from dataclasses import dataclass
from hashlib import sha256
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

MADE_OF = "made_of.json"
"""In the folder of every later stage: which state of the data set it was made of."""


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

    def raw_state(self) -> list[tuple[str, int, int]]:
        """Name, size and time of each of them: changes with any, and nothing is read."""
        files = sorted(file for file in self.raw.rglob("*") if file.is_file())
        return [
            (str(file.relative_to(self.raw)), file.stat().st_size, file.stat().st_mtime_ns)
            for file in files
        ]

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
        """The same, for reading.

        Raises DataError if it is not there, or was made of the data set as it was before: matrices
        of the same shapes may fit, and say something else.
        """
        folder = self.out(stage)
        preset = f" --preset {self.preset}" if self.preset else ""
        if not (folder / "manifest.json").exists():
            raise DataError(
                f"{folder} is not there: run the stages up to `{stage}` first "
                f"(xmc run --dataset {self.dataset}{preset}, or one by one)."
            )
        made_of = folder / MADE_OF
        if made_of.exists() and json.loads(made_of.read_text()) != self.made_of():
            raise DataError(
                f"{folder} was made of {self.dataset} as it was before the stage `dataset` ran "
                f"again; bring everything up to date (xmc run --dataset {self.dataset}{preset}, "
                f"make demo DATASET={self.dataset}, or dvc repro)."
            )
        return folder

    def made_of(self) -> dict[str, str]:
        """What tells the present state of the data set from others."""
        manifest = self.out("dataset") / "manifest.json"
        content = manifest.read_bytes() if manifest.exists() else b""
        return {"dataset": sha256(content).hexdigest()}
