"""A project of one's own in an empty folder, and the command line on it."""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent

import pytest

from xmc_core.cli import main

PARAMS = dedent(
    """\
    # The user's own comment.
    presets:
      linear: &linear # no encoder
        tfidf: { min_df: 1 }
        tree: { branching: 3, max_leaf_size: 8 }
        disentangle: { beam_size: 1, min_gain: 1 }
        encoder: { name: none }
      other: &different
        <<: *linear
        tree: { branching: 4, max_leaf_size: 8 }

    datasets:
      - here

    settings:
      here:
        <<: *linear
        dataset: { source: files } # stays
    """
)


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str


Command = Callable[..., Result]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project; it is the working directory."""
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "params.yaml").write_text(PARAMS)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("COLUMNS", "200")
    return folder


@pytest.fixture
def xmc(project: Path, capsys: pytest.CaptureFixture[str]) -> Command:
    """Run a command in this process."""

    def run(*arguments: str | Path) -> Result:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return Result(int(ended.value.code or 0), out, err)

    return run


def write_documents(path: Path, documents: Iterable[tuple[str, list[str]]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps({"text": text, "labels": labels}) for text, labels in documents]
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def small_documents(n_rows: int = 60) -> list[tuple[str, list[str]]]:
    """Every document says its labels; one has no labels, one no text."""
    rows = [
        (f"about topic{n % 5} and detail{n % 12}", [f"t{n % 5}", f"d{n % 12}"])
        for n in range(n_rows)
    ]
    return [*rows, ("nothing to say", []), ("", ["t0"])]


@pytest.fixture
def train_file(tmp_path: Path) -> Path:
    return write_documents(tmp_path / "mine.jsonl", small_documents())


def tree_of(folder: Path) -> dict[str, bytes]:
    """Every file below, with its content."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b""
        for path in sorted(folder.rglob("*"))
    }
