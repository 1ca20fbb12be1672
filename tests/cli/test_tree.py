"""xmc tree show, on a project in which one label has two meanings."""

import csv
from pathlib import Path

import numpy as np
import pytest

from tests.cli.conftest import PARAMS, Command, write_documents
from xmc_core.data import Dataset
from xmc_core.stages.inputs import Inputs
from xmc_core.stages.paths import ProjectPaths

THEMES = {
    "brand screen battery": ("phones", "laptops", "tablets", "watches"),
    "brand orchard juice": ("peel", "cider", "pie", "jam"),
    "moving paw fur": ("dogs", "cats", "hares", "foxes"),
    "moving signal timetable": ("rail", "ships", "buses", "trams"),
}
MEANINGS = ("brand screen battery", "brand orchard juice")
SETTINGS = "    disentangle: { beam_size: 1, min_gain: 3, capacity: 0 }\n"


def documents() -> list[tuple[str, list[str]]]:
    """Each says its theme and its label; half of those of two themes are about apples, too."""
    return [
        (f"{theme} {label} note{n}", [label, *(["apple"] if theme in MEANINGS and n % 2 else [])])
        for n in range(8)
        for theme, labels in THEMES.items()
        for label in labels
    ]


@pytest.fixture(scope="module")
def orchard(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project, all stages run."""
    from xmc_core.cli import main

    folder = tmp_path_factory.mktemp("orchard")
    params = PARAMS.replace("branching: 3, max_leaf_size: 8", "branching: 2, max_leaf_size: 5")
    (folder / "params.yaml").write_text(params + SETTINGS)
    raw = folder / "data" / "raw" / "here"
    write_documents(raw / "train.jsonl", documents())
    write_documents(raw / "test.jsonl", [*documents()[:16], ("unheard of", ["Novelty"])])
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        with pytest.raises(SystemExit) as ended:
            main(["run", "--dataset", "here", "--quiet"])
    assert not ended.value.code
    return folder


@pytest.fixture
def show(orchard: Path, xmc: Command, monkeypatch: pytest.MonkeyPatch) -> Command:
    monkeypatch.chdir(orchard)
    monkeypatch.setenv("COLUMNS", "200")
    return lambda *arguments: xmc("tree", "show", "here", *arguments)


@pytest.fixture(scope="module")
def counted(orchard: Path) -> dict[int, tuple[list[int], list[int]]]:
    """By leaf of "apple": its documents that reach the leaf, and those that reach no other."""
    inputs = Inputs(ProjectPaths(orchard / "data", "here"))
    apple = inputs.dataset.label_names.index("apple")
    tree, beams = inputs.disentangled_tree, inputs.beams.toarray()
    leaves = [leaf for leaf in range(tree.n_leaves) if apple in tree.leaf_labels(leaf)]
    rows = np.flatnonzero(inputs.Y_train.toarray()[:, apple]).tolist()
    met = {row: [leaf for leaf in leaves if beams[row, leaf] > 0] for row in rows}
    return {
        leaf: (
            [row for row in rows if leaf in met[row]],
            [row for row in rows if met[row] == [leaf]],
        )
        for leaf in leaves
    }


def names_in(project: Path, leaf: int) -> list[str]:
    """The labels of a leaf in the order of their names."""
    inputs = Inputs(ProjectPaths(project / "data", "here"))
    return sorted(
        inputs.dataset.label_names[label] for label in inputs.disentangled_tree.leaf_labels(leaf)
    )


def test_both_meanings_of_a_label_are_shown_with_their_documents(
    show: Command, orchard: Path, counted: dict[int, tuple[list[int], list[int]]]
):
    assert len(counted) == 2
    assert min(len(alone) for _, alone in counted.values()) >= 3
    result = show("apple", "--documents", "2")
    assert result.code == 0
    head, *parts = result.out.split("\n\n")
    *clusters, end = parts
    assert "32 training documents, 2 clusters of disentangled_tree" in head
    texts = Dataset.load(orchard / "data/artifacts/here/dataset").train_texts
    for part in clusters:
        leaf = int(part.split("leaf ")[1].split(":")[0])
        reached, alone = counted[leaf]
        assert f"of {len(reached)} of 32 training documents reach it, {len(alone)} of them" in part
        assert "level 1, node " in part
        shown = [line.split("only here  ")[1] for line in part.splitlines() if "only here" in line]
        assert len(shown) == 2
        assert set(shown) <= {texts[row] for row in alone}
        assert (len(reached), len(alone)) == (16, 16)
        theme = "screen" if "screen" in shown[0] else "orchard"
        assert theme in next(line for line in part.splitlines() if line.startswith("leaf "))
        others = [name for name in names_in(orchard, leaf) if name != "apple"]
        listed, rest = others[:6], len(others) - 6
        assert f"  with {'; '.join(listed)}{f'; {rest} more' if rest > 0 else ''}" in part
        assert {"screen": "laptops", "orchard": "cider"}[theme] in others
    assert len(clusters) == 2
    reached = {row for rows, _ in counted.values() for row in rows}
    assert f"{32 - len(reached)} of 32 training documents" in end
    gained = len(reached) - max(len(rows) for rows, _ in counted.values())
    assert f"Ambiguity {gained / 32:.1%}: {gained} would be missed" in end


def test_a_label_of_one_cluster_is_said_to_be_one(show: Command):
    out = show("dogs").out
    assert "dogs (#" in out
    assert "one cluster only of disentangled_tree" in out
    assert "It lives in one cluster only; " in out
    assert "held-out beams of " in out
    assert "one cluster only of initial_tree" in show("apple", "--stage", "initial_tree").out
    assert "2 clusters of rankers" in show("apple", "--stage", "rankers").out  # the same tree


def test_without_a_label_the_most_ambiguous_ones_are_listed_as_in_the_report(
    show: Command, orchard: Path, counted: dict[int, tuple[list[int], list[int]]]
):
    reports = orchard / "data" / "reports" / "here"
    rows = list(csv.DictReader((reports / "ambiguous_labels.csv").open(encoding="utf-8")))
    apple = {int(row["cluster"]): row for row in rows if row["label"] == "apple"}
    expected = {leaf: (len(reached), len(alone)) for leaf, (reached, alone) in counted.items()}
    found = {leaf: (int(row["reached"]), int(row["alone"])) for leaf, row in apple.items()}
    assert found == expected
    out = show().out
    assert f"{float(rows[0]['ambiguity']):.1f} %  {rows[0]['label']}  " in out
    for row in rows:
        assert f"leaf {row['cluster']}: {', '.join(row['words'].split('; '))}" in out
    assert out.count(" %  ") == len({row["label"] for row in rows})
    assert show("--most", "1").out.count(" %  ") == 1
    assert "labels of initial_tree live in one cluster each" in show("--stage", "initial_tree").out
    report = (reports / "report.md").read_text(encoding="utf-8")
    assert "## Labels with several meanings" in report
    assert "apple" in report.split("several meanings")[1].split("##")[0]


@pytest.mark.parametrize("name", ["APPLE", "appl", "#{}"])
def test_a_label_goes_by_name_part_or_number(show: Command, orchard: Path, name: str):
    names = Dataset.load(orchard / "data" / "artifacts" / "here" / "dataset").label_names
    assert show(name.format(names.index("apple"))).out == show("apple").out


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("pear", "no label has 'pear' in its name; try a part of a word."),
        ("ts", "'ts' fits 2 labels: cats (#"),
        ("e", "; and 5 more. Give the full name of one, or its number as #12."),
        ("#99", "there is no label #99; the labels are #0 .. #"),
        ("novelty", "'novelty' occurs in the test split only: no tree has it."),
    ],
)
def test_a_name_that_fits_no_label_or_several_is_said(show: Command, name: str, words: str):
    result = show(name)
    assert result.code == 2
    assert words in result.err
    assert len(result.err.splitlines()) == 1


def test_what_has_not_run_is_named(orchard: Path, xmc: Command):
    result = xmc("tree", "show", "here")  # in an empty project
    assert result.code == 2
    assert "run the stages up to `initial_tree` first" in result.err


def test_a_tree_of_other_leaves_is_shown_without_beams(
    orchard: Path, show: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The rankers' tree differs from the matcher's wherever an encoder has a say in it."""
    import shutil

    shutil.copytree(orchard, tmp_path / "copy")
    artifacts = tmp_path / "copy" / "data" / "artifacts" / "here"
    text = (tmp_path / "copy" / "params.yaml").read_text()
    (tmp_path / "copy" / "params.yaml").write_text(
        text.replace("max_leaf_size: 5", "max_leaf_size: 9")
    )
    monkeypatch.chdir(tmp_path / "copy")
    from xmc_core.config import load_config
    from xmc_core.stages.runner import run_stage

    config = load_config(Path("params.yaml"), dataset="here")
    paths = ProjectPaths(Path("data"), "here")
    for stage in ("initial_tree", "matcher", "disentangled_tree"):
        run_stage(stage, paths, config, quiet=True)  # the rankers keep the tree of before
    assert (artifacts / "rankers").is_dir()
    out = show("apple", "--stage", "rankers").out
    assert "32 training documents, 2 clusters of rankers" in out
    assert "no beams of held-out rows are kept of it" in out
    assert "held-out beams of" not in out
    result = show("--stage", "rankers")
    assert result.code == 2
    assert "take --stage disentangled_tree, or name a label" in result.err
