"""xmc run, train, predict, evaluate on a small project."""

import io
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.cli.conftest import PARAMS, Command, small_documents, tree_of, write_documents
from xmc_core.stages.paths import STAGES


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose pipeline has run, made once."""
    from xmc_core.cli import main

    folder = tmp_path_factory.mktemp("finished")
    (folder / "params.yaml").write_text(PARAMS)
    raw = folder / "data" / "raw" / "here"
    write_documents(raw / "train.jsonl", small_documents())
    write_documents(raw / "test.jsonl", [*small_documents(20), ("new words only", ["unseen"])])
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        with pytest.raises(SystemExit) as ended:
            main(["run", "--dataset", "here", "--quiet"])
    assert not ended.value.code
    return folder


@pytest.fixture
def on_finished(finished: Path, xmc: Command, monkeypatch: pytest.MonkeyPatch) -> Command:
    monkeypatch.chdir(finished)
    monkeypatch.setenv("COLUMNS", "200")
    return xmc


def test_run_without_a_stage_runs_all(finished: Path):
    artifacts = finished / "data" / "artifacts" / "here"
    assert {path.name for path in artifacts.iterdir()} == set(STAGES)
    assert all((artifacts / stage / "facts.json").is_file() for stage in STAGES)
    assert (finished / "data" / "reports" / "here" / "metrics.json").is_file()


def test_a_stage_run_again_writes_the_same_bytes(finished: Path, on_finished: Command):
    stages = ("dataset", "tfidf_features", "initial_tree", "matcher", "disentangled_tree")
    for stage in stages:
        before = tree_of(finished / "data" / "artifacts" / "here" / stage)
        assert on_finished("run", stage, "-d", "here").code == 0
        assert tree_of(finished / "data" / "artifacts" / "here" / stage) == before


def test_a_stage_names_the_one_that_must_run_before(xmc: Command):
    result = xmc("run", "matcher", "-d", "here")
    assert result.code == 2
    assert "run the stages up to `initial_tree` first (xmc run --dataset here, or" in result.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "matchr", "-d", "here"], "there is no stage 'matchr'; the stages are dataset, "),
        (["run", "-d", "here", "--preset", "big"], "has no presets.big; it knows linear, other"),
        (["run", "-d", "here", "--set", "tree.branching=8"], "--set needs --preset: without one"),
        (
            ["run", "-d", "here", "-p", "linear", "-s", "tree.brnching=8"],
            "there is no parameter tree.brnching; did you mean tree.branching?",
        ),
        (
            ["run", "-d", "here", "-p", "linear", "-s", "tree.branching=1"],
            "tree.branching must be at least 2, got 1",
        ),
        (["run", "-d", "here", "-p", "linear", "-s", "tree.branching"], "PARAMETER=VALUE"),
        (["run", "-d", "here", "-p", "linear", "-s", "seed=[1"], "is no number, word or [list]"),
        (["train", "-d", "here", "-p", "linear", "-s", "tree=3"], "tree must be a mapping, got 3"),
    ],
)
def test_settings_are_checked_before_anything_runs(
    xmc: Command, project: Path, arguments: list[str], words: str
):
    write_documents(project / "data" / "raw" / "here" / "train.jsonl", small_documents())
    before = tree_of(project)
    result = xmc(*arguments)
    assert result.code == 2
    assert words in result.err
    assert len(result.err.splitlines()) == 1
    assert tree_of(project) == before


def test_a_preset_of_choice_leaves_everything_else_untouched(finished: Path, on_finished: Command):
    before = tree_of(finished / "data" / "artifacts")
    arguments = ("-d", "here", "-p", "other", "-s", "tree.max_leaf_size=3", "-q")
    for stage in ("dataset", "tfidf_features", "initial_tree"):
        assert on_finished("run", stage, *arguments).code == 0
    assert tree_of(finished / "data" / "artifacts") == before
    facts = finished / "data" / "presets" / "other" / "artifacts" / "here" / "initial_tree"
    assert json.loads((facts / "facts.json").read_text())["largest_leaf"] <= 3


@pytest.fixture(scope="module")
def calibrated(finished: Path) -> Path:
    """The bundle of that project with curves, in a folder of its own; see the threshold's table."""
    from xmc_core.config import load_config
    from xmc_core.stages.paths import ProjectPaths
    from xmc_core.stages.runner import run_stage

    config = load_config(finished / "params.yaml", dataset="here")
    config = config.replace(
        **{"calibration.method": "platt", "calibration.share": 0.5, "calibration.folds": 2}
    )
    paths = ProjectPaths(finished / "data", "here", "calibrated")
    shutil.copytree(finished / "data" / "artifacts" / "here", paths.out("rankers").parent)
    run_stage("rankers", paths, config, quiet=True)
    return paths.out("rankers") / "bundle"


def test_a_calibrated_model_shows_probabilities(on_finished: Command, calibrated: Path):
    shown = on_finished("predict", calibrated, "about topic3 and detail8", "-k", "2").out
    assert "probability" in shown
    scores = json.loads(on_finished("predict", calibrated, "topic3", "--json").out)["scores"]
    assert 0 < min(scores) < max(scores) <= 1  # six digits are shown
    raw = on_finished("predict", calibrated, "topic3", "--raw", "--json").out
    assert json.loads(raw)["scores"] != scores
    assert "score " in on_finished("predict", calibrated, "topic3", "--raw").out


def test_a_text_without_any_label_above_the_threshold_is_told_so(
    on_finished: Command, calibrated: Path
):
    shown = on_finished("predict", calibrated, "about topic3", "--threshold", "1.5")
    assert shown.code == 0
    assert "none of these labels (no probability of 1.5000 or more)" in shown.out
    answer = json.loads(
        on_finished("predict", calibrated, "about topic3", "--threshold", "2", "--json").out
    )
    assert (answer["labels"], answer["scores"]) == ([], [])
    raw = on_finished("predict", calibrated, "about topic3", "--raw", "--threshold", "1e9").out
    assert "no score of 1000000000.0000 or more" in raw


def test_a_wanted_precision_becomes_a_threshold(on_finished: Command, calibrated: Path):
    (told,) = json.loads(on_finished("threshold", calibrated, "--precision", "60", "--json").out)
    assert told["wanted"] == 60.0
    assert told["precision"] >= 60.0
    for arguments in (("--precision", "60"), ("--threshold", str(told["score"]))):
        answer = json.loads(
            on_finished("predict", calibrated, "about topic3", *arguments, "--json").out
        )
        assert answer["labels"]
        assert min(answer["scores"]) >= round(told["score"], 6) - 1e-6
    shown = on_finished("threshold", calibrated)
    assert "60 %" in shown.out


def test_predict_shows_labels_best_first(on_finished: Command):
    result = on_finished("predict", "here", "about topic3 and detail8", "-k", "2")
    assert result.code == 0
    assert "about topic3 and detail8" in result.out
    assert "t3" in result.out
    assert "d8" in result.out


def test_predict_writes_lines_that_evaluate_takes_back(
    finished: Path, on_finished: Command, tmp_path: Path
):
    test = finished / "data" / "raw" / "here" / "test.jsonl"
    answers = tmp_path / "answers.jsonl"
    assert on_finished("predict", "here", "--input", test, "-o", answers, "-k", "10").code == 0
    assert len(answers.read_text().splitlines()) == 23
    bundle, folder = "data/artifacts/here/rankers/bundle", "data/artifacts/here/rankers/predictions"
    told = json.loads(
        on_finished(
            "evaluate", "here", "--json", "-i", answers, "-i", bundle, "-i", folder, "-n", "file",
            "-n", "model", "-n", "folder",
        ).out
    )  # fmt: skip
    assert list(told) == ["baseline", "disentangled", "final", "file", "model", "folder"]
    final = told["final"]
    for name in ("file", "model", "folder"):
        assert told[name]["metrics"] == final["metrics"]
        assert told[name]["intervals"] == final["intervals"]
        against = told[name].pop("against")
        assert against.pop("model") == "final"
        assert all(r["difference"] == 0.0 and r["p_corrected"] == 1.0 for r in against.values())
    metrics = json.loads((finished / "data" / "reports" / "here" / "metrics.json").read_text())
    assert final["metrics"] == metrics["xr_transformer"]
    assert told["baseline"]["metrics"] == metrics["xr_linear"]
    assert final["metrics"]["P@1"] > 80
    alone = json.loads(on_finished("evaluate", "here", "--json").out)
    assert alone == {"final": final}


def test_evaluate_shows_a_table_of_metrics(on_finished: Command):
    out = on_finished("evaluate", "here").out
    assert all(name in out for name in ("@1", "@10", "PSnDCG", "coverage", "at the threshold"))


def test_an_outside_system_stands_in_the_table(on_finished: Command, tmp_path: Path):
    theirs = tmp_path / "theirs.csv"
    theirs.write_text("row,label,score\n0,t0,0.9\n1,d1,0.8\n")
    result = on_finished("evaluate", "here", "-i", theirs, "--name", "their system")
    assert result.code == 0
    assert "their system" in result.out
    assert "disentangled" in result.out
    assert "p corrected for the 18 figures of the table (Holm)" in result.out
    # Nearly all rows are without an answer: far below the final model.
    assert "▼ -9" in result.out or "▼ -8" in result.out
    turned = json.loads(
        on_finished("evaluate", "here", "-i", theirs, "--against", "theirs", "--json").out
    )
    assert "against" not in turned["theirs"]
    assert turned["final"]["against"]["P@1"]["difference"] > 70
    assert turned["final"]["against"]["P@1"]["p_corrected"] < 0.05  # the draws can tell


def test_f1_goes_by_the_threshold(on_finished: Command):
    default = json.loads(on_finished("evaluate", "here", "--json").out)["final"]["metrics"]
    never = json.loads(on_finished("evaluate", "here", "--json", "--threshold", "1e9").out)
    assert default["micro-F1"] > 50
    assert never["final"]["metrics"]["micro-F1"] == 0.0
    assert never["final"]["metrics"]["micro-F1@5"] == default["micro-F1@5"]


def test_two_models_are_compared_figure_by_figure(on_finished: Command, tmp_path: Path):
    same = on_finished("compare", "here", "final", "data/artifacts/here/rankers/bundle")
    assert same.code == 0
    assert "nDCG@5 head" in same.out
    assert "▲" not in same.out.replace("▲ A is better", "")
    theirs = tmp_path / "theirs.jsonl"
    theirs.write_text('{"labels": [], "scores": []}\n' * 23)
    told = json.loads(on_finished("compare", "here", "final", theirs, "--json").out)
    assert told["P@1"]["A"] == told["P@1"]["difference"] > 80
    assert told["P@1"]["B"] == 0.0
    assert told["P@1"]["p_value"] < told["P@1"]["p_corrected"] < 0.05


def standard_input(content: bytes, encoding: str = "utf-8") -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(content), encoding=encoding)


def test_predict_reads_plain_lines_from_standard_input(
    on_finished: Command, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("sys.stdin", standard_input(b"about topic1\n\nabout topic2\n"))
    lines = on_finished("predict", "here", "-i", "-", "--json", "-k", "1").out.splitlines()
    assert [json.loads(line)["text"] for line in lines] == ["about topic1", "", "about topic2"]
    assert json.loads(lines[0])["labels"] == ["t1"]


def test_standard_input_is_utf8_whatever_the_locale(
    on_finished: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    text = "über topic1"
    monkeypatch.setattr("sys.stdin", standard_input(f"{text}\r\n".encode(), "ascii"))
    out = tmp_path / "out.jsonl"
    assert on_finished("predict", "here", "-i", "-", "-o", out).code == 0
    assert json.loads(out.read_text(encoding="utf-8"))["text"] == text

    monkeypatch.setattr("sys.stdin", standard_input(b"topic1\n\xfcber topic1\n"))
    result = on_finished("predict", "here", "-i", "-", "-o", tmp_path / "none.jsonl")
    assert result.code == 2
    assert "standard input, line 2: byte 1 is not UTF-8; convert the text" in result.err
    assert not (tmp_path / "none.jsonl").exists()


def test_a_pipe_is_written_to_and_a_link_stays(on_finished: Command, tmp_path: Path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with subprocess.Popen(["cat", str(pipe)], stdout=subprocess.PIPE, text=True) as reader:
        assert on_finished("predict", "here", "topic1", "-o", pipe).code == 0
        told, _ = reader.communicate(timeout=60)
    assert json.loads(told)["text"] == "topic1"
    assert pipe.is_fifo()

    target, link = tmp_path / "folder" / "answers.jsonl", tmp_path / "link"
    target.parent.mkdir()
    link.symlink_to(target)
    for text in ("topic1", "topic2"):  # the target is made, then replaced
        assert on_finished("predict", "here", text, "-o", link).code == 0
        assert link.is_symlink()
        assert json.loads(target.read_text())["text"] == text

    refused = on_finished("predict", "here", "topic1", "-o", tmp_path / "folder")
    assert refused.code == 2
    assert "Is a directory" in refused.err


def test_a_bad_input_leaves_no_output(on_finished: Command, tmp_path: Path):
    source = write_documents(tmp_path / "in.jsonl", small_documents(3))
    source.write_text(source.read_text() + "broken\n")
    result = on_finished("predict", "here", "-i", source, "-o", tmp_path / "out.jsonl")
    assert result.code == 2
    assert "in.jsonl, line 6: not JSON" in result.err
    assert {path.name for path in tmp_path.iterdir()} == {"in.jsonl", "project"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["predict", "here"], "give either texts or --input FILE"),
        (["predict", "here", "text", "-i", "file"], "give either texts or --input FILE"),
        (["predict", "here", "x", "--json", "-o", "f"], "--output writes the same JSON lines as"),
        (["predict", "here", "-i", "no.jsonl"], "cannot read no.jsonl: No such file"),
        (["predict", "nobody", "text"], "params.yaml has no settings.nobody; it knows here."),
        (["predict", "here", "-i", "f.jsonl", "-o", "./f.jsonl"], "--output is the --input file"),
        (["predict", "here", "x", "--threshold", "nan"], "--threshold must be a number, got nan"),
        (["predict", "here", "x", "-p", "linear"], "xmc train --dataset here --preset linear."),
        (["predict", "data/artifacts/here/matcher/model", "x"], "holds rankers alone"),
        (["predict", "data/artifacts/here/dataset", "x"], "holds a dataset, not a model"),
        (["evaluate", "here", "-i", "nowhere"], "cannot read nowhere: No such file"),
        (["evaluate", "here", "-i", "data/artifacts"], "is not a saved xmc folder"),
        (["evaluate", "here", "-i", "data/artifacts/here/dataset"], "a dataset, not a model"),
        (["evaluate", "here", "-i", "data/raw/here/test.jsonl"], 'line 1: expected "labels"'),
        (["evaluate", "here", "-n", "mine"], "there are 1 --name for 0 --predictions"),
        (
            ["evaluate", "here", "-i", "final", "-n", "mine", "--against", "mine"],
            "--name mine: final is in the table anyway, under its own name; leave out "
            "--predictions final.",
        ),
        (["evaluate", "here", "-i", "x.csv", "-n", "final"], "two models called final; give each"),
        (["evaluate", "here", "--against", "mine"], "--against mine: the table has final."),
        (["evaluate", "nobody"], "has no settings.nobody"),
        (["compare", "here", "final", "nowhere"], "cannot read nowhere: No such file"),
        (["threshold", "here"], "this model is not calibrated"),
        (["predict", "here", "x", "--precision", "80"], "this model is not calibrated"),
        (["predict", "here", "x", "--precision", "80", "--raw"], "leave --threshold or --raw"),
    ],
)
def test_what_cannot_be_predicted_or_measured_is_said(
    on_finished: Command, arguments: list[str], words: str
):
    result = on_finished(*arguments)
    assert result.code == 2
    assert words in result.err


def test_more_labels_than_there_are_cost_nothing(on_finished: Command):
    asked = on_finished("predict", "here", "apple", "-k", "3000000000", "--json")
    assert asked.code == 0
    labels = json.loads(asked.out)["labels"]
    assert len(labels) == len(set(labels)) > 5


def test_predictions_of_another_data_set_are_not_measured(
    on_finished: Command, finished: Path, tmp_path: Path
):
    theirs = tmp_path / "rankers"
    shutil.copytree(finished / "data" / "artifacts" / "here" / "rankers", theirs)
    asked = ("compare", "here", str(theirs / "predictions"), "final")
    assert on_finished(*asked).code == 0
    (theirs / "made_of.json").write_text('{"dataset": "another"}')
    told = on_finished(*asked)
    assert told.code == 2
    assert "predictions belongs to another data set than here, or to here as it was" in told.err


def test_names_are_shown_as_they_are(on_finished: Command, finished: Path, tmp_path: Path):
    theirs = tmp_path / "theirs[v2]"
    shutil.copytree(finished / "data" / "artifacts" / "here" / "rankers" / "predictions", theirs)
    told = on_finished("evaluate", "here", "-i", str(theirs), "-n", "[/b]")
    assert told.code == 0
    assert "[/b]" in told.out
    assert "theirs[v2]" in on_finished("compare", "here", str(theirs), "final").out


def test_no_texts_are_said_to_be_none(on_finished: Command, tmp_path: Path):
    (tmp_path / "none.jsonl").touch()
    told = on_finished("predict", "here", "-i", str(tmp_path / "none.jsonl"), "--json")
    assert (told.code, told.out) == (0, "")
    assert "there are no texts to answer." in told.err


def test_outside_of_a_project_nothing_runs(xmc: Command, project: Path):
    (project / "params.yaml").unlink()
    for command in (("run", "-d", "here"), ("tune", "here"), ("evaluate", "here")):
        told = xmc(*command)
        assert told.code == 2
        assert "there is no params.yaml here; run from the project's folder." in told.err
    assert not (project / "data" / "artifacts").exists()


def test_an_ensemble_answers_like_any_model(xmc: Command, project: Path):
    raw = project / "data" / "raw" / "here"
    write_documents(raw / "train.jsonl", small_documents())
    write_documents(raw / "test.jsonl", small_documents(20))
    params = project / "params.yaml"
    members = "    ensemble: { members: [{}, { seed: 1 }, { seed: 2 }], average: rank }\n"
    params.write_text(PARAMS + members)
    shown = xmc("run", "-d", "here").out
    assert "Ensemble of 3 models" in shown
    assert "Member 3: none, seed 2" in shown
    lines = xmc("predict", "here", "about topic3 and detail8", "-k", "2", "--json").out
    answer = json.loads(lines)
    assert set(answer["labels"]) == {"t3", "d8"}
    assert 9 <= answer["scores"][0] <= 10  # of ten places the first, or nearly
    bundle = "data/artifacts/here/rankers/bundle"
    told = json.loads(xmc("evaluate", "here", "-i", bundle, "--json").out)
    assert told["bundle"]["metrics"] == told["final"]["metrics"]
    assert "17 labels" in xmc("tree", "view", "here", "--stage", "rankers").out

    params.write_text(params.read_text().replace("seed: 2 }]", "sede: 2 }]"))
    result = xmc("run", "-d", "here")
    assert result.code == 2
    assert "ensemble.members[2]: there is no parameter sede; did you mean seed?" in result.err


def test_tree_shows_sizes_and_clusters(on_finished: Command):
    result = on_finished("tree", "view", "here")
    assert result.code == 0
    assert "here, initial_tree: 17 labels in 4 leaves of 4 to 5" in result.out
    assert result.out.count(" leaf ") + result.out.count(" node ") == 6  # 2 above the 4 leaves
    top = on_finished("tree", "view", "here", "--depth", "1", "--labels", "0").out
    assert top.count(" node ") == 2
    assert " leaf " not in top


@pytest.mark.parametrize("stage", ["disentangled_tree", "rankers"])
def test_tree_shows_the_trees_of_later_stages(on_finished: Command, stage: str):
    result = on_finished("tree", "view", "here", "--stage", stage)
    assert result.code == 0
    assert f"here, {stage}: 17 labels in 4 leaves" in result.out
    assert "labels live in several" in result.out


def test_tree_finds_a_label_and_shows_its_leaf(on_finished: Command):
    found = on_finished("tree", "view", "here", "--search", "D11").out
    assert "1 labels in 1 leaves" in found
    row = next(line for line in found.splitlines() if "d11" in line)
    leaf = row.split()[1]
    shown = on_finished("tree", "view", "here", "--leaf", leaf).out
    assert f"leaf {leaf}: " in shown
    assert any(line.split()[1:4] == ["d11", "│", "5"] for line in shown.splitlines())  # documents


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nobody"], "params.yaml has no settings.nobody; it knows here."),
        (["here", "-p", "linear"], "(xmc run --dataset here --preset linear, or one by one)"),
        (["here", "--leaf", "4"], "there is no leaf 4; the leaves are 0 .. 3."),
        (["here", "--search", "xyz"], "no label has 'xyz' in its name"),
        (["here", "--depth", "3"], "--depth 3: the leaves are at level 2;"),
        (["here", "--leaf", "1", "--search", "d1"], "give --leaf or --search, not both"),
    ],
)
def test_a_tree_that_cannot_be_shown_is_said(
    on_finished: Command, arguments: list[str], words: str
):
    result = on_finished("tree", "view", *arguments)
    assert result.code == 2
    assert words in result.err


def test_tune_chooses_settings_and_writes_them_down(
    finished: Path, on_finished: Command, monkeypatch: pytest.MonkeyPatch
):
    params = finished / "params.yaml"
    before = params.read_text()
    result = on_finished("tune", "here", "--metric", "P@1", "--metric", "PSP@3")
    assert result.code == 0
    assert "as they are" in result.out
    assert "PSP@3" in result.out
    assert params.read_text() == before

    search = (("rankers.cost", (1e-9, 1.0)),)
    monkeypatch.setattr("xmc_core.models.tuning.SEARCH", search)
    params.write_text(before.replace("    tree: { b", "    rankers: { cost: 1e-9 }\n    tree: { b"))
    result = on_finished("tune", "here", "--write", "--quiet")
    assert "Best: rankers.cost=[1.0]" in result.out
    assert "settings.here changed" in result.out
    assert "    rankers: {cost: [1.0]}\n" in params.read_text()
    params.write_text(before)


def test_tune_needs_the_features(xmc: Command):
    result = xmc("tune", "here")
    assert result.code == 2
    assert "run the stages up to `tfidf_features` first" in result.err


def test_train_ends_with_the_models_folder(xmc: Command, project: Path):
    write_documents(project / "data" / "raw" / "here" / "train.jsonl", small_documents())
    result = xmc("train", "-d", "here", "-q")
    assert result.code == 0
    folder = result.out.strip()
    assert xmc("predict", folder, "about topic2", "-k", "1", "--json").code == 0


def test_warmup_trains_and_leaves_nothing(xmc: Command, project: Path):
    before = tree_of(project)
    result = xmc("warmup")
    assert result.code == 0
    assert "kernels are ready" in result.out
    assert tree_of(project) == before
