import csv
import json

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from tests.encoder.projects import make_project
from xmc_core.config import Config
from xmc_core.encoder.model import TextEncoder
from xmc_core.errors import ConfigError
from xmc_core.stages.inputs import Inputs
from xmc_core.stages.paths import ProjectPaths
from xmc_core.stages.runner import run_stage


@pytest.fixture
def settings(tiny_folder):
    encoder = {
        "name": str(tiny_folder), "max_length": 16, "batch_size": 8, "batch_tokens": 64,
        "levels": 2, "steps": [3, 4], "learning_rate": 1e-3,
    }  # fmt: skip
    return Config().replace(encoder=encoder, tfidf={"min_df": 1})


@pytest.fixture
def paths(tmp_path, planted, tree, settings) -> ProjectPaths:
    return make_project(tmp_path, planted, tree, settings)


def test_writes_the_encoder_its_embeddings_and_the_curve(paths, settings):
    facts = run_stage("xr_transformer", paths, settings, quiet=True)
    assert facts == {"dimensions": 32, "levels": 2, "steps": 7}
    inputs = Inputs(paths)
    [encoded] = inputs.encoded(settings)
    assert encoded.train.shape == (90, 32)
    encoder = TextEncoder.load(encoded.encoder)
    again = encoder.embed(inputs.dataset.test_texts, settings.encoder)
    assert_array_equal(again, encoded.test)
    with (paths.out("xr_transformer") / "curves.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["step"], row["level"]) for row in rows] == [
        (str(step), "1" if step <= 3 else "2") for step in range(1, 8)
    ]
    assert all(float(row["loss"]) >= 0 and float(row["learning_rate"]) > 0 for row in rows)


def test_every_run_on_any_number_of_threads_writes_the_same_bytes(paths, settings):
    def written():
        run_stage("xr_transformer", paths, settings.replace(n_threads=n_threads), quiet=True)
        folder = paths.out("xr_transformer")
        return {
            str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()
        }

    n_threads = 1
    first = written()
    n_threads = 3
    again = written()
    assert first.keys() == again.keys() >= {"curves.csv", "encoder/model.safetensors", "train.npy"}
    assert [name for name in first if first[name] != again[name]] == []


def test_without_an_encoder_embeddings_have_no_columns(paths, settings):
    facts = run_stage(
        "xr_transformer", paths, settings.replace(**{"encoder.name": "none"}), quiet=True
    )
    assert facts == {"dimensions": 0, "levels": 0, "steps": 0}
    [encoded] = Inputs(paths).encoded(settings)
    assert (encoded.train.shape, encoded.test.shape) == ((90, 0), (30, 0))
    assert encoded.train.dtype == np.float16
    assert encoded.encoder is None
    curves = (paths.out("xr_transformer") / "curves.csv").read_text()
    assert curves == "step,level,loss,learning_rate,validation_precision_at_1\n"


def test_a_frozen_encoder_has_an_empty_curve(paths, settings):
    run_stage("xr_transformer", paths, settings.replace(**{"encoder.levels": 0}), quiet=True)
    facts = json.loads((paths.out("xr_transformer") / "facts.json").read_text())
    assert facts == {"dimensions": 32, "levels": 0, "steps": 0}


def test_settings_that_do_not_fit_the_tree_leave_nothing_behind(paths, settings):
    with pytest.raises(ConfigError, match=r"encoder\.levels is 5"):
        run_stage("xr_transformer", paths, settings.replace(**{"encoder.levels": 5}), quiet=True)
    assert not paths.out("xr_transformer").exists()
