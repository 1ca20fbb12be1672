"""The pipeline as DVC knows it: the stages of dvc.yaml, the md5s of dvc.lock, and how to run one.

`dvc.yaml` is written by hand and is the only definition of the stages. Here it is read into
`StageSpec`s, of which Dagster assets are made. Running a stage is `dvc repro --single-item` in a
subprocess, so a run from Dagster and a `dvc repro` in a terminal write the same bytes and skip the
same work. DVC's files are plain YAML and its command line is stable; the package itself is never
imported.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from fcntl import LOCK_SH, flock
from pathlib import Path
from typing import Any

import dagster as dg
import yaml

from orchestration.stage_run import StageRun
from xmc_core.config import Config, load_config
from xmc_core.errors import ConfigError
from xmc_core.stages.paths import ProjectPaths

YAML_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""dvc.lock grows by 250 lines a data set; the loader in C reads it ten times faster."""

ITEM = "${item.dataset}"
"""What dvc.yaml writes where the data set's name belongs."""


@dataclass(frozen=True, slots=True)
class StageSpec:
    """One stage of dvc.yaml. Paths still hold `${item.dataset}`."""

    name: str
    description: str
    command: str
    upstream: tuple[str, ...]
    """Stages whose outputs it reads."""

    inputs: tuple[str, ...]
    """All its dependencies: folders of upstream stages, raw files, source code."""

    outs: tuple[str, ...]
    """The stage's own folder comes first; its md5 is the version of the asset."""

    params: tuple[str, ...]
    dagster: Mapping[str, Any]
    """`meta: dagster:`, what only Dagster wants to know: group, kinds, pool, retries."""


class DvcProject(dg.ConfigurableResource):
    """The folder that holds dvc.yaml, params.yaml and data/."""

    root: str

    @classmethod
    def here(cls) -> "DvcProject":
        """The project in the working directory, else the one that this source file belongs to."""
        folder = Path.cwd()
        if not (folder / "dvc.yaml").exists():
            folder = Path(__file__).resolve().parents[1]
        return cls(root=str(folder))

    @property
    def folder(self) -> Path:
        return Path(self.root)

    def stages(self) -> list[StageSpec]:
        """The stages in the order of dvc.yaml."""
        return parse_stages(self._yaml("dvc.yaml"))

    def datasets(self) -> list[str]:
        """`datasets:` of params.yaml: DVC's matrix and Dagster's partitions."""
        names = self._yaml("params.yaml").get("datasets") or []
        if not names:
            raise ConfigError(
                f"{self.folder / 'params.yaml'} names no data set under `datasets:`; "
                "add one with `xmc data add`."
            )
        return [str(name) for name in names]

    def paths(self, dataset: str) -> ProjectPaths:
        return ProjectPaths(self.folder / "data", dataset)

    def out(self, stage: str, dataset: str) -> Path:
        """The folder that a stage writes."""
        return self.paths(dataset).out(stage)

    def config(self, dataset: str) -> Config:
        """The settings of a data set, defaults filled in."""
        return load_config(self.folder / "params.yaml", dataset=dataset)

    def md5(self, stage: str, dataset: str) -> str | None:
        """Hash of the stage's folder as of its last run; None before the first."""
        return self.md5s(dataset).get(stage)

    def md5s(self, dataset: str) -> dict[str, str]:
        """The same for all stages that have run."""
        return {
            stage: str(entry["outs"][0]["md5"]).removesuffix(".dir")
            for stage, entry in self._locked(dataset).items()
            if entry.get("outs")
        }

    def size(self, stage: str, dataset: str) -> int:
        """Bytes that the stage has written."""
        outs = self._locked(dataset).get(stage, {}).get("outs", [])
        return sum(int(out.get("size", 0)) for out in outs)

    def git_commit(self) -> str:
        """Commit of the code; `-dirty` behind it where files were changed since, dvc.lock left
        aside: every run writes that."""
        try:
            commit = self._git("rev-parse", "HEAD")
            changed = self._git(
                "status", "--porcelain", "--untracked-files=no", "--", ".", ":!dvc.lock"
            )
        except (OSError, subprocess.CalledProcessError):
            return "unknown"  # not a clone: an unpacked archive or a container image
        return f"{commit}-dirty" if changed else commit

    def _git(self, *arguments: str) -> str:
        return subprocess.run(
            ["git", *arguments],
            cwd=self.root,
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},  # only look
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()

    def start(self, stage: str, dataset: str, *, force: bool = False) -> StageRun:
        """Bring one stage up to date; DVC decides whether there is anything to do.

        The stages before it must be there; `--single-item` leaves them alone, because in Dagster
        they are assets of their own. With `force` it runs although nothing has changed.
        """
        target = f"{stage}@{dataset}"
        # A global flag, hence in front: runs of other partitions may hold DVC's lock for a moment.
        command = [sys.executable, "-m", "dvc", "--wait-for-lock", "repro", "--single-item"]
        if force:
            command.append("--force")
        return StageRun(target, [*command, target], self.folder, tool_environment())

    def changed(self, stage: str, dataset: str) -> bool:
        """Whether the stage's folder is another than dvc.lock says, or was made of other inputs,
        code or settings than are there now. Takes DVC two seconds."""
        target = f"{stage}@{dataset}"
        status = subprocess.run(
            [sys.executable, "-m", "dvc", "--wait-for-lock", "status", "--json", target],
            cwd=self.root,
            env=tool_environment(),
            stdout=subprocess.PIPE,  # what goes wrong is told on standard error, Dagster's log
            text=True,
            check=True,
        )
        entries = json.loads(status.stdout).get(target, [])
        return any({"changed outs", "changed deps"} & entry.keys() for entry in entries)

    def _yaml(self, name: str) -> dict[str, Any]:
        file = self.folder / name
        try:
            content = yaml.load(file.read_text(encoding="utf-8"), Loader=YAML_LOADER)
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise ConfigError(f"cannot read {file}: {error}") from error
        return content or {}

    def _locked(self, dataset: str) -> dict[str, dict[str, Any]]:
        """What dvc.lock says of each stage of a data set."""
        if not (self.folder / "dvc.lock").exists():
            return {}
        with self._while_dvc_waits():
            stages = self._yaml("dvc.lock").get("stages") or {}
        names = (target.rpartition("@") for target in stages)
        return {stage: stages[f"{stage}@{of}"] for stage, _, of in names if of == dataset}

    @contextmanager
    def _while_dvc_waits(self) -> Iterator[None]:
        """Keep DVC from writing for the moment of reading.

        DVC rewrites dvc.lock in place, so beside a run of another partition a reader would see half
        of it. It does so under this lock of its own, and asks for it for seconds if it is taken.
        """
        file = self.folder / ".dvc" / "tmp" / "lock"
        if not file.exists():
            yield
            return
        with file.open() as lock:
            flock(lock, LOCK_SH)
            yield


def parse_stages(pipeline: Mapping[str, Any]) -> list[StageSpec]:
    """Read the content of dvc.yaml.

    A stage is upstream of another if the other depends on one of its outputs, or on something
    inside one.
    """
    stages = pipeline.get("stages") or {}
    produced = {out: name for name, stage in stages.items() for out in _outputs(stage)}
    specs = []
    for name, stage in stages.items():
        inputs = tuple(_path(entry) for entry in stage.get("deps") or [])
        upstream = {
            producer
            for path in inputs
            for out, producer in produced.items()
            if path == out or path.startswith(f"{out}/")
        }
        specs.append(
            StageSpec(
                name=name,
                description=" ".join(str(stage.get("desc", "")).split()),
                command=" ".join(str(stage["cmd"]).split()),
                upstream=tuple(other for other in stages if other in upstream),
                inputs=inputs,
                outs=_outputs(stage),
                params=tuple(str(entry) for entry in stage.get("params") or []),
                dagster=(stage.get("meta") or {}).get("dagster") or {},
            )
        )
    return specs


def tool_environment() -> dict[str, str]:
    """The environment in which `xmc`, `dvc` and `mlflow` find each other, and phone nobody.

    DVC passes a stage's command to the shell, and MLflow starts uvicorn through it; both look in
    PATH, where this interpreter's folder need not be if its environment was not activated.
    """
    own = str(Path(sys.executable).parent)
    return {
        **os.environ,
        "PATH": os.pathsep.join([own, os.environ.get("PATH", os.defpath)]),
        "DVC_NO_ANALYTICS": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DAGSTER_DISABLE_TELEMETRY": "1",
    }


def _outputs(stage: Mapping[str, Any]) -> tuple[str, ...]:
    entries = [
        *(stage.get("outs") or []),
        *(stage.get("metrics") or []),
        *(stage.get("plots") or []),
    ]
    return tuple(_path(entry) for entry in entries)


def _path(entry: str | Mapping[str, Any]) -> str:
    """DVC writes a path either plain or as the only key of a mapping with options."""
    return entry if isinstance(entry, str) else str(next(iter(entry)))
