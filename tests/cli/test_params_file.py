"""Text edits of params.yaml."""

import difflib
from pathlib import Path

import pytest
import yaml

from tests.cli.conftest import PARAMS
from xmc_core.cli.params_file import (
    add_dataset,
    check_name,
    has_dataset,
    preset_of,
    set_parameters,
)
from xmc_core.errors import ConfigError

PROJECT = Path(__file__).parents[2]


def added_lines(before: str, after: str) -> list[str]:
    changes = [d for d in difflib.ndiff(before.splitlines(), after.splitlines()) if d[0] != " "]
    assert all(change.startswith("+ ") for change in changes)
    return [change[2:] for change in changes]


def test_only_the_new_lines_are_new():
    after = add_dataset(PARAMS, "cars-2", "linear")
    assert added_lines(PARAMS, after) == [
        "  - cars-2",
        "  cars-2:",
        "    <<: *linear",
        "    dataset: {source: files}",
    ]
    params = yaml.safe_load(after)
    assert params["datasets"] == ["here", "cars-2"]
    assert params["settings"]["cars-2"]["tree"] == {"branching": 3, "max_leaf_size": 8}


def test_what_has_settings_already_is_only_listed():
    before = PARAMS + "  cars: {dataset: {source: files}, tree: {branching: 5}}\n"
    after = add_dataset(before, "cars", "nowhere")
    assert added_lines(before, after) == ["  - cars"]
    assert add_dataset(after, "cars", "nowhere") == after


def test_the_projects_own_file_can_be_extended_again_and_again():
    text = (PROJECT / "params.yaml").read_text()
    for name in ("first", "second_one"):
        text = add_dataset(text, name, "demo")
    assert yaml.safe_load(text)["datasets"][-2:] == ["first", "second_one"]
    assert preset_of(text, "second_one") == "demo"


@pytest.mark.parametrize(
    "written",
    [
        "datasets: [here]",
        "datasets: [ here ]  # mine",
        "datasets:\n- here",
        "datasets:\n    - here\n\n# the end",
        "datasets:\n  - here\n  # - disabled",
    ],
)
def test_lists_may_be_written_in_any_way(written: str):
    text = PARAMS.replace("datasets:\n  - here", written)
    after = add_dataset(text, "cars", "linear")
    assert yaml.safe_load(after)["datasets"] == ["here", "cars"]
    assert after.count("#") == text.count("#")


@pytest.mark.parametrize(
    "rest",
    [
        "",
        "datasets:\nsettings:\n",
        "datasets: []\nsettings: {}\n",
        "datasets: [] # none yet\nsettings: {} # none\n",
    ],
)
def test_the_first_data_set_finds_an_empty_list_or_none(rest: str):
    text = "presets:\n  linear: &linear\n    seed: 1\n" + rest
    params = yaml.safe_load(add_dataset(text, "cars", "linear"))
    assert params["datasets"] == ["cars"]
    assert params["settings"] == {"cars": {"seed": 1, "dataset": {"source": "files"}}}


def test_the_anchor_may_have_another_name_than_the_preset():
    assert "    <<: *different\n" in add_dataset(PARAMS, "cars", "other")


def test_settings_in_the_middle_of_the_file_are_extended_there():
    text = PARAMS + "\nnotes:\n  here: too\n"
    after = add_dataset(text, "cars", "linear")
    assert yaml.safe_load(after)["notes"] == {"here": "too"}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("linear: &linear # no encoder", "linear: # no anchor"),
        ("settings:\n  here:", "settings: { there: {} }\nmore:\n  here:"),
        ("datasets:\n  - here", "datasets: [here,\n  there]"),
    ],
    ids=["no anchor", "settings in braces", "a list over two lines"],
)
def test_what_cannot_be_extended_safely_is_left_to_the_user(before: str, after: str):
    text = PARAMS.replace("    <<: *linear\n", "").replace(before, after)
    with pytest.raises(ConfigError, match=r"add these lines yourself: `- cars` under `datasets:`"):
        add_dataset(text, "cars", "linear")


def test_an_unknown_preset_is_named_with_the_known():
    with pytest.raises(ConfigError, match=r"no presets.big; it knows linear, other"):
        add_dataset(PARAMS, "cars", "big")


def test_a_data_set_is_known_by_list_or_settings():
    assert has_dataset(PARAMS, "here")
    assert has_dataset("datasets: [a]", "a")
    assert has_dataset("settings: {a: {}}", "a")
    assert not has_dataset("", "a")


def test_the_preset_of_a_data_set_is_the_one_it_refers_to():
    assert preset_of(PARAMS, "here") == "linear"
    assert preset_of(add_dataset(PARAMS, "cars", "other"), "cars") == "other"
    assert preset_of("presets: {}\nsettings: {a: {tree: {}}}", "a") is None


@pytest.mark.parametrize("name", ["cars", "Cars_2-x", "0a", "x" * 60])
def test_letters_digits_and_dashes_make_a_name(name: str):
    check_name(name)


@pytest.mark.parametrize(
    "name", ["", "-a", "_a", "a b", "a/b", "..", "ä", "a.b", "2024", "true", "null", "1e5", "a\n"]
)
def test_what_is_no_folder_partition_and_yaml_key_is_no_name(name: str):
    with pytest.raises(ConfigError, match="cannot be a data set's name: use letters, digits"):
        check_name(name)


def test_a_section_of_the_preset_is_written_out_with_the_change():
    after = set_parameters(PARAMS, "here", {"tree.branching": 5, "rankers.tail": 0.1})
    assert added_lines(PARAMS, after) == [
        "    tree: {branching: 5, max_leaf_size: 8}",
        "    rankers: {tail: 0.1}",
    ]
    assert yaml.safe_load(after)["settings"]["here"]["tree"] == {"branching": 5, "max_leaf_size": 8}
    assert yaml.safe_load(after)["presets"] == yaml.safe_load(PARAMS)["presets"]


def test_a_section_that_was_written_before_is_replaced():
    once = set_parameters(PARAMS, "here", {"tree.branching": 5})
    twice = set_parameters(once, "here", {"tree.max_leaf_size": 9})
    assert yaml.safe_load(twice)["settings"]["here"]["tree"] == {"branching": 5, "max_leaf_size": 9}
    assert twice.count("\n") == once.count("\n")


def test_the_projects_own_settings_can_be_changed():
    text = (PROJECT / "params.yaml").read_text()
    after = set_parameters(text, "python-api", {"rankers.cost_negative": 4.0})
    before = yaml.safe_load(text)["settings"]["python-api"]["rankers"]
    found = yaml.safe_load(after)["settings"]["python-api"]["rankers"]
    assert found == {**before, "cost_negative": 4.0}


@pytest.mark.parametrize(
    "settings",
    ["settings: { here: {} }", "settings:\n  here:\n    tree:\n      branching: 4", "settings: {}"],
    ids=["in braces", "a section over several lines", "no such data set"],
)
def test_what_cannot_be_changed_safely_is_left_to_the_user(settings: str):
    text = PARAMS[: PARAMS.index("settings:")] + settings + "\n"
    with pytest.raises(ConfigError, match=r"set these under settings.here yourself: tree.branch"):
        set_parameters(text, "here", {"tree.branching": 5})
