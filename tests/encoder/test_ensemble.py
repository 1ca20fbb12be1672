"""Ensembles of encoders: fine-tuned one after the other, and bundled."""

import csv
import json
import shutil

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from tests.encoder.test_stage import paths, settings  # noqa: F401
from xmc_core.encoder import finetune
from xmc_core.encoder import model as encoder_model
from xmc_core.errors import ConfigError, EncoderError, StoreError
from xmc_core.inference.ensemble import average_predictions
from xmc_core.models import PipelineModel
from xmc_core.stages.inputs import Inputs
from xmc_core.stages.runner import run_stage

MEMBERS = [{}, {"seed": 1, "steps": [2], "weight": 0.5}, {"name": "none", "seed": 2}]


@pytest.fixture(name="config")
def of_ensemble(settings):  # noqa: F811
    tree = {"branching": 2, "max_leaf_size": 3}
    return settings.replace(**{"ensemble.members": MEMBERS, "tree": tree, "n_threads": 1})


@pytest.fixture(name="trained")
def before_the_encoder(paths, config):  # noqa: F811
    """A project with all stages up to the encoder's."""
    shutil.rmtree(paths.out("disentangled_tree"))
    for stage in ("initial_tree", "matcher", "disentangled_tree"):
        run_stage(stage, paths, config, quiet=True)
    return paths


def files_of(folder):
    return {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()}


def test_each_member_has_the_files_of_a_single_model(trained, config):
    run_stage("xr_transformer", trained, config, quiet=True)
    out = trained.out("xr_transformer")
    together = {name: files_of(out / "members" / name) for name in "012"}
    facts = json.loads((out / "facts.json").read_text())
    assert facts["members"] == 3
    assert [facts[f"member_{n}_steps"] for n in (1, 2, 3)] == [7, 4, 0]
    assert [facts[f"member_{n}_dimensions"] for n in (1, 2, 3)] == [32, 32, 0]
    with (out / "curves.csv").open() as file:
        points = list(csv.DictReader(file))
    assert [int(point["step"]) for point in points] == list(range(1, 12))
    assert [point["member"] for point in points] == ["1"] * 7 + ["2"] * 4

    for own, files in zip(config.members, together.values(), strict=True):
        run_stage("xr_transformer", trained, own, quiet=True)
        alone = files_of(out)
        del alone["facts.json"], alone["made_of.json"]  # of the stage, not of a model
        assert alone == files


def test_rankers_do_not_take_an_encoder_that_was_put_there_later(trained, config):
    for stage in ("xr_transformer", "rankers"):
        run_stage(stage, trained, config, quiet=True)
    folder = trained.out("rankers") / "bundle"
    early = PipelineModel.load(folder)
    manifest = folder / "members" / "0" / "encoder" / "manifest.json"
    content = json.loads(manifest.read_text())
    content["facts"]["max_length"] += 1
    manifest.write_text(json.dumps(content))
    with pytest.raises(StoreError, match="was replaced since the model was loaded"):
        early.predict(["t0w0"])


def test_texts_go_through_every_encoder(trained, config):
    for stage in ("xr_transformer", "rankers", "evaluation"):
        run_stage(stage, trained, config, quiet=True)
    inputs = Inputs(trained)
    folder = trained.out("rankers") / "bundle"
    found = PipelineModel.load(folder).predict(inputs.dataset.test_texts)
    stored = inputs.predictions("rankers")
    assert_array_equal(found.labels, stored.labels)
    assert_array_equal(found.scores, stored.scores)
    own = inputs.member_predictions(3)
    expected = average_predictions(own, "softmax")
    assert_array_equal(stored.scores, expected.scores)
    assert not all((answer.scores[:, 0] == own[0].scores[:, 0]).all() for answer in own[1:])
    assert {(folder / "members" / n / "encoder").is_dir() for n in "01"} == {True}
    assert not (folder / "members" / "2" / "encoder").exists()
    report = (trained.reports / "report.md").read_text(encoding="utf-8")
    assert "seed 1, steps [2], weight 0.5" in report.replace("\\", "")
    assert "member" in (trained.reports / "curves.csv").read_text().splitlines()[0]


def test_an_encoder_is_opened_once_whatever_labels_are_allowed(trained, config, monkeypatch):
    for stage in ("xr_transformer", "rankers"):
        run_stage(stage, trained, config, quiet=True)
    opened = []
    load = encoder_model.TextEncoder.load

    def counted(folder):
        opened.append(folder)
        return load(folder)

    monkeypatch.setattr(encoder_model.TextEncoder, "load", counted)
    bundle = PipelineModel.load(trained.out("rankers") / "bundle")
    assert opened == []
    bundle.predict(["t1w1"])
    bundle.restricted(["label 3"]).predict(["t1w1"])
    bundle.predict(["t1w1"], allow=["label 4"])
    assert len(opened) == 2


@pytest.mark.parametrize(
    ("member", "error", "words"),
    [
        ({"name": "no/such-encoder"}, EncoderError, "encoder 'no/such-encoder' is neither"),
        ({"levels": 9}, ConfigError, "encoder.levels is 9 but the tree has"),
        ({"max_length": 65, "batch_tokens": 65}, ConfigError, "has 64 positions"),
    ],
)
def test_a_member_that_cannot_be_trained_stops_the_first_one(
    trained, config, member, error, words, monkeypatch
):
    def never(*arguments, **options):
        raise AssertionError("a member was trained")

    monkeypatch.setattr("xmc_core.models.xr_transformer.fine_tune", never)
    members = [{"seed": 1}, {"name": "none"}, {"seed": 2, **member}]
    with pytest.raises(error, match=words) as caught:
        run_stage(
            "xr_transformer", trained, config.replace(**{"ensemble.members": members}), quiet=True
        )
    assert str(caught.value).startswith("ensemble.members[2]: ")
    assert not trained.out("xr_transformer").exists()


def test_different_seeds_make_different_embeddings(trained, config):
    same_but_seed = [{"seed": 1, "head_init": "none"}, {"seed": 2, "head_init": "none"}]
    config = config.replace(**{"ensemble.members": same_but_seed})
    run_stage("xr_transformer", trained, config, quiet=True)
    one, two = Inputs(trained).encoded(config)
    assert not np.array_equal(one.train, two.train)


def test_a_stage_that_was_stopped_does_not_train_its_first_member_again(
    trained, config, monkeypatch
):
    run_stage("xr_transformer", trained, config, quiet=True)
    whole = files_of(trained.out("xr_transformer"))
    shutil.rmtree(trained.out("xr_transformer"))
    step, taken = finetune._Training._step, []

    def counted(self, *arguments, **options):
        if len(taken) == 8:
            raise KeyboardInterrupt  # in the second member: the first takes 7
        taken.append(self.first_step + self.done)
        step(self, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(finetune._Training, "_step", counted)
        with pytest.raises(KeyboardInterrupt):
            run_stage("xr_transformer", trained, config, quiet=True)
    assert not trained.out("xr_transformer").exists()

    again = []

    def watched(self, *arguments, **options):
        again.append(self.first_step + self.done)
        step(self, *arguments, **options)

    monkeypatch.setattr(finetune._Training, "_step", watched)
    run_stage("xr_transformer", trained, config, quiet=True)
    found = files_of(trained.out("xr_transformer"))
    assert [name for name in whole if whole[name] != found.get(name)] == []
    assert len(again) <= 4, "the second member's steps alone"
    assert not trained.scratch("xr_transformer").exists()


@pytest.mark.slow
def test_members_are_trained_by_several_processes(trained, config):
    members = [{"devices": 2}, {"name": "none", "seed": 1}]
    config = config.replace(**{"ensemble.members": members})
    run_stage("xr_transformer", trained, config, quiet=True)
    one, two = Inputs(trained).encoded(config)
    assert (one.train.shape, two.train.shape) == ((90, 32), (90, 0))
    facts = json.loads((trained.out("xr_transformer") / "facts.json").read_text())
    assert facts["member_1_steps"] == 7
