"""Parameters: where they come from, and what is refused."""

import dataclasses
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from textwrap import dedent

import pytest
import yaml

from xmc_core.config import (
    Config,
    DatasetConfig,
    EncoderConfig,
    EnsembleConfig,
    RankersConfig,
    TfidfBlock,
    TfidfConfig,
    config_from_mapping,
    load_config,
    per_level,
    read_params,
    to_mapping,
)
from xmc_core.errors import ConfigError

PROJECT = Path(__file__).parents[1]

PARAMS = dedent(
    """\
    presets:
      small: &small
        tree: { branching: 4, max_leaf_size: 10 }
        rankers: { cost: [1.0, 2.0], threshold: 1e-3 }
    datasets: [own]
    settings:
      own:
        <<: *small
        dataset: { test_share: 0.5 }
    """
)


@pytest.fixture
def params(tmp_path: Path) -> Path:
    path = tmp_path / "params.yaml"
    path.write_text(PARAMS)
    return path


def refused(mapping: dict, match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        config_from_mapping(mapping, "here")


def test_every_preset_and_every_data_set_of_the_project_is_sound():
    params, _ = read_params(PROJECT / "params.yaml")
    for preset in params["presets"]:
        load_config(PROJECT / "params.yaml", preset=preset)
    for dataset in params["datasets"]:
        load_config(PROJECT / "params.yaml", dataset=dataset)
        assert {f.name for f in dataclasses.fields(Config)} >= params["settings"][dataset].keys()


def test_without_preset_and_data_set_the_defaults_are_used():
    assert load_config() == Config()


def test_a_config_is_the_same_after_yaml(params: Path):
    config = load_config(params, dataset="own")
    text = yaml.safe_dump(to_mapping(config))
    assert config_from_mapping(yaml.safe_load(text), "text") == config


def test_a_data_set_takes_its_preset_and_its_differences(params: Path):
    config = load_config(params, dataset="own")
    assert config.tree.branching == 4
    assert config.dataset.test_share == 0.5
    assert config.rankers.cost == (1.0, 2.0)
    assert config.rankers.threshold == (0.001,)  # YAML 1.1 reads 1e-3 as text
    assert config.inference == Config().inference


def test_a_preset_of_choice_keeps_the_data_sets_own_data(params: Path):
    config = load_config(params, preset="small", dataset="own")
    assert config.dataset.test_share == 0.5
    assert load_config(params, preset="small").dataset == DatasetConfig()


def test_overrides_come_last(params: Path):
    config = load_config(params, dataset="own", overrides={"tree.branching": 8, "seed": 3})
    assert (config.tree.branching, config.tree.max_leaf_size, config.seed) == (8, 10, 3)
    assert config.replace(**{"tree.branching": 2}).tree.branching == 2
    assert config.replace() == config


def test_the_working_directorys_file_is_read(params: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(params.parent)
    assert load_config(preset="small").tree.branching == 4


def test_the_presets_come_with_a_wheel(tmp_path: Path):
    pytest.importorskip("setuptools", "77")
    source, site, elsewhere = (tmp_path / name for name in ("source", "site", "elsewhere"))
    for name in ("xmc_core", "orchestration"):
        shutil.copytree(
            PROJECT / name,
            source / name,
            symlinks=True,
            ignore=shutil.ignore_patterns("__pycache__"),
        )
    for name in ("pyproject.toml", "README.md", "LICENSE", "params.yaml"):
        shutil.copy(PROJECT / name, source)
    elsewhere.mkdir()

    def run(code: str, folder: Path) -> str:
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(site)},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()[-1]

    wheel = run("from setuptools import build_meta; print(build_meta.build_wheel('.'))", source)
    with zipfile.ZipFile(source / wheel) as archive:
        archive.extractall(site)
    code = "import xmc_core; print(xmc_core.__file__, xmc_core.load_config(preset='linear'))"
    file, _, config = run(code, elsewhere).partition(" ")
    assert Path(file).is_relative_to(site)
    assert config == str(load_config(PROJECT / "params.yaml", preset="linear"))


def test_one_value_stands_for_a_list_of_one_and_kinds_for_every_level():
    config = config_from_mapping(
        {"rankers": {"cost": 2, "negatives": ["teacher_forcing", "matcher_aware"]}}, "here"
    )
    assert config.rankers.cost == (2.0,)
    assert config.rankers.negatives == (("teacher_forcing", "matcher_aware"),)


@pytest.mark.parametrize(
    ("values", "depth", "expected"),
    [((1,), 3, (1, 1, 1)), ((1, 2), 3, (1, 1, 2)), ((1, 2, 3), 1, (3,)), ((1, 2), 2, (1, 2))],
)
def test_lists_count_from_the_last_level(values, depth, expected):
    assert per_level(values, depth) == expected


def test_an_unknown_parameter_is_named_with_the_nearest_known():
    refused({"tree": {"brancing": 4}}, r"here: .* tree.brancing; did you mean tree.branching\?")
    refused({"xyz": {}}, "there is no parameter xyz; known: dataset, tfidf, tree")


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        ("tree.branching", 1, "tree.branching must be at least 2, got 1"),
        ("tree.branching", 2.5, "tree.branching must be of type int, got 2.5"),
        ("tree.branching", True, "tree.branching must be of type int, got True"),
        ("tree.branching", "many", "tree.branching must be of type int, got 'many'"),
        ("tree.branching", None, "tree.branching must be of type int, got None"),
        ("tree.seed", -1, "tree.seed must be 0 or more, got -1"),
        ("tree", 3, "tree must be a mapping, got 3"),
        ("tfidf.max_ngram", 0, "tfidf.max_ngram must be between tfidf.min_ngram and 8, got 0"),
        ("tfidf.max_df", 0, "tfidf.max_df must be above 0 and at most 1, got 0.0"),
        (
            "tfidf.analyzer",
            "bytes",
            "tfidf.analyzer must be one of word, char, char_wb, got 'bytes'",
        ),
        ("tfidf.weight", 0, "tfidf.weight must be above 0, got 0.0"),
        ("tfidf.blocks", [{"min_ngram": 0}], "tfidf.blocks[0].min_ngram must be at least 1, got 0"),
        ("tfidf.blocks", [{}, {"weight": -1}], "tfidf.blocks[1].weight must be above 0, got -1.0"),
        ("tfidf.blocks", [{"min_df": "2"}], "tfidf.blocks[0].min_df must be of type int, got '2'"),
        ("tfidf.blocks", ["char"], "tfidf.blocks[0] must be a mapping, got 'char'"),
        ("tfidf.blocks", [{"lowercase": True}], "there is no parameter tfidf.blocks[0].lowercase"),
        ("tfidf.blocks", [{"analyser": "char"}], "did you mean tfidf.blocks[0].analyzer?"),
        ("tfidf.lowercase", 1, "tfidf.lowercase must be of type bool, got 1"),
        (
            "disentangle.budget",
            -1,
            "disentangle.budget must be 0 (no limit) or more, got -1.0",
        ),
        ("rankers.loss", "l7", "rankers.loss must be one of squared_hinge, hinge, logistic"),
        ("rankers.cost", [], "rankers.cost must be a value, or a list with at least one, got []"),
        ("rankers.cost", [1, -2], "rankers.cost must be above 0, got -2.0"),
        ("rankers.cost", "much", "rankers.cost must be of type float, got 'much'"),
        ("rankers.cost", float("inf"), "rankers.cost must be a finite number, got inf"),
        ("rankers.tol", float("nan"), "rankers.tol must be a finite number, got nan"),
        ("rankers.max_weights", [5, -1], "rankers.max_weights must be 0 (all) or more, got -1"),
        ("rankers.max_iter", 0, "rankers.max_iter must be at least 1, got 0"),
        ("rankers.bias", [1, -1], "rankers.bias must be 0 (none) or more, got -1.0"),
        ("rankers.negatives", [], "rankers.negatives must be a list with at least one entry"),
        ("rankers.negatives", "all", "rankers.negatives must be one of teacher_forcing, matcher"),
        ("encoder.max_length", 4, "encoder.max_length must be between 8 and 8192, got 4"),
        ("encoder.batch_tokens", 64, "must be at least encoder.max_length (128), got 64"),
        ("encoder.steps", [], "encoder.steps must be a value, or a list with at least one"),
        ("encoder.warmup", 1, "encoder.warmup must be 0 or more and below 1, got 1.0"),
        ("inference.post_processor", "tanh", "must be one of none, sigmoid, l1-hinge"),
        ("ensemble.average", "mean", "ensemble.average must be one of softmax, sigmoid, rank"),
        ("ensemble.members", [{"seed": 1}], "ensemble.members must be empty (one model, as the"),
        ("ensemble.members", [{}, "bert"], "ensemble.members[1] must be a mapping, got 'bert'"),
        ("ensemble.members", [{}, {"seed": 0}], "[0] and ensemble.members[1] make the same model"),
        ("ensemble.members", [{}, {"seed": 1}, {}], "[0] and ensemble.members[2] make the same"),
        (
            "ensemble.members",
            [{}, {"sede": 1}],
            "ensemble.members[1]: there is no parameter sede; did you mean seed?",
        ),
        (
            "ensemble.members",
            [{"name": "a"}, {"name": "b", "max_length": 4}],
            "ensemble.members[1]: encoder.max_length must be between 8 and 8192, got 4",
        ),
        ("ensemble.members", [{"seed": "x"}, {}], "ensemble.members[0]: seed must be of type int"),
        ("dataset.source", "sql", "dataset.source must be one of files, python-api, got 'sql'"),
        ("dataset.source", "python-api", "dataset.packages must be a list of import names"),
        ("dataset.test_share", 1, "dataset.test_share must be between 0 and 1, got 1.0"),
        ("n_threads", 0, "n_threads must be -1 or at least 1, got 0"),
        ("seed", -5, "seed must be 0 or more, got -5"),
        ("seed", 10**20, "seed must be a number of at most 2^63 - 1, got 1000"),
        ("rankers.tol", 10**400, "rankers.tol must be a number of at most 2^63 - 1, got 1000"),
        (
            "inference",
            {"post_processor": "none", "path_weight": 0.05},
            "inference.path_weight must be 0 where inference.post_processor is none above the last",
        ),
        (
            "inference.post_processor",
            ["none", "log-sigmoid"],
            "inference.post_processor must be something else than none above a level of logarithms",
        ),
    ],
)
def test_a_value_that_cannot_work_is_refused(name: str, value: object, rule: str):
    with pytest.raises(ConfigError, match=re.escape(rule)):
        load_config(overrides={name: value})


def test_a_list_of_groups_is_read_and_written_and_one_stands_for_a_list():
    block = {"analyzer": "char_wb", "min_ngram": 3, "max_ngram": 5, "weight": 0.5}
    expected = (TfidfBlock(analyzer="char_wb", min_ngram=3, max_ngram=5, weight=0.5),)
    for blocks in (block, [block]):
        assert load_config(overrides={"tfidf.blocks": blocks}).tfidf.blocks == expected
    config = Config(tfidf=TfidfConfig(blocks=expected))
    assert config_from_mapping(yaml.safe_load(yaml.safe_dump(to_mapping(config))), "x") == config


def test_a_member_takes_the_section_encoder_and_changes_what_it_names():
    members = [{}, {"name": "b", "learning_rate": "2e-5", "seed": 7}, {"name": "none", "seed": 1}]
    changes = {"encoder.name": "a", "encoder.seed": 3, "tree.seed": 5, "ensemble.members": members}
    config = load_config(overrides=changes)
    first, second, third = config.members
    assert first == config.replace(**{"ensemble.members": []})
    assert second.encoder == dataclasses.replace(
        config.encoder, name="b", learning_rate=(2e-5,), seed=7
    )
    assert [own.tree.seed for own in config.members] == [5, 7, 1]
    assert third.encoder.name == "none"
    assert {own.ensemble.members for own in config.members} == {()}
    later = config.replace(**{"encoder.steps": [9]})  # members follow the section
    assert [own.encoder.steps for own in later.members] == [(9,)] * 3
    assert config_from_mapping(yaml.safe_load(yaml.safe_dump(to_mapping(config))), "x") == config
    assert config.member_titles == ["a", "b, learning_rate 2e-5, seed 7", "none, seed 1"]


def test_without_an_ensemble_the_only_member_is_the_config_itself():
    config = load_config(overrides={"encoder.seed": 3})
    assert config.members == (config,)
    assert config.member_titles == []


def test_members_without_an_encoder_differ_by_seed_alone():
    members = [{"name": "none", "weight": 0.5}, {"name": "none", "seed": 0}]
    refused({"ensemble": {"members": members}}, "make the same model; give them different seeds")


def test_python_code_meets_the_same_rules():
    with pytest.raises(
        ConfigError, match=r"tfidf.blocks\[0\].max_df must be above 0 and at most 1"
    ):
        TfidfConfig(blocks=(TfidfBlock(max_df=2.0),))
    with pytest.raises(ConfigError, match=r"rankers.cost must be above 0"):
        RankersConfig(cost=(0.0,))
    with pytest.raises(ConfigError, match=r"encoder.pooling must be one of mean, first"):
        EncoderConfig(pooling="max")
    with pytest.raises(ConfigError, match=r"ensemble.members\[0\]: there is no parameter nam"):
        Config(ensemble=EnsembleConfig(members=({"nam": "a"}, {})))


def test_a_parameter_cannot_be_a_value_and_a_group():
    with pytest.raises(ConfigError, match="tree is given a value and parameters of its own"):
        load_config(overrides={"tree": 3, "tree.branching": 4})


def test_unknown_presets_and_data_sets_are_named_with_the_known(params: Path):
    with pytest.raises(ConfigError, match=r"params.yaml has no presets.big; it knows small"):
        load_config(params, preset="big")
    with pytest.raises(ConfigError, match=r"has no settings.other; it knows own"):
        load_config(params, dataset="other")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"presets: [", r"is not valid YAML: while parsing .* line 1, column"),
        (b"- a\n- b\n", "must hold a mapping with `presets`"),
        (b"presets: {small: [1]}", r"presets.small must be a mapping, got \[1\]"),
        (b"presets: [small]", r"presets must be a mapping, got \['small'\]"),
        (b"presets: {}", r"has no presets.small; it knows none"),
        (b"presets: {2024: {}}", r"presets has 2024, which YAML does not take for text"),
        (b"datasets: [here, 2024]", r"datasets has 2024, which YAML does not take for text"),
        (b"settings: {no: {}}", r"settings has False, which YAML does not take for text"),
        (b"datasets: here", r"datasets must be a list, got 'here'"),
        (b"settings: {here: [1]}", r"settings.here must be a mapping, got \[1\]"),
        (b"presets: {small: {seed: 1, seed: 2}}", r"is not valid YAML: seed stands twice in one"),
        (
            b"presets: {small: {}}\nsettings: {}\npresets: {}",
            r"presets stands twice in one mapping",
        ),
        (b"\xff\xfe", r"is not UTF-8 \(byte 1\)"),
    ],
)
def test_a_file_that_is_no_params_file_is_refused_in_one_line(
    params: Path, content: bytes, words: str
):
    params.write_bytes(content)
    with pytest.raises(ConfigError, match=words) as caught:
        load_config(params, preset="small")
    assert "\n" not in str(caught.value)


def test_a_missing_file_says_where_to_run_from(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"there is no .*none.yaml here; run from the project's"):
        load_config(tmp_path / "none.yaml", preset="linear")
