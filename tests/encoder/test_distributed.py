"""Several processes give what one gives, but for the order of sums."""

import csv
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from tests.encoder.projects import make_project
from xmc_core.config import Config
from xmc_core.encoder.distributed import World
from xmc_core.encoder.gradients import BatchGradient, trainable_weights
from xmc_core.encoder.head import Head, LevelTargets
from xmc_core.encoder.model import TextEncoder
from xmc_core.errors import ConfigError, EncoderError
from xmc_core.persistence.locks import locked
from xmc_core.reporting import Recorder
from xmc_core.stages import xr_transformer
from xmc_core.stages.inputs import Inputs
from xmc_core.stages.runner import run_stage


@pytest.fixture(scope="module")
def config(tiny_folder):
    encoder = {
        "name": str(tiny_folder), "max_length": 16, "batch_size": 9, "batch_tokens": 64,
        "train_tokens": 32, "levels": 2, "steps": [6, 8], "learning_rate": 1e-3,
        "precision": "fp32", "validation_rows": 20, "checkpoint_every": 5,
    }  # fmt: skip
    return Config().replace(encoder=encoder, tfidf={"min_df": 1}, n_threads=1)


@pytest.fixture(scope="module", params=[0.0, 1.0], ids=["heads alone", "contrastive"])
def alone(tmp_path_factory, planted, tree, config, request):
    # A temperature of 0.05 would make 20 times as much of the order of sums.
    config = config.replace(encoder={"contrastive": request.param, "temperature": 1.0})
    return finished(tmp_path_factory.mktemp("alone"), planted, tree, config), config


def finished(folder, planted, tree, config):
    paths = make_project(folder, planted, tree, config)
    run_stage("xr_transformer", paths, config, quiet=True)
    return paths


def losses(paths):
    with (paths.out("xr_transformer") / "curves.csv").open() as file:
        return np.array([float(row["loss"]) for row in csv.DictReader(file)])


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{}, {"sharded": True}])
def test_two_processes_have_the_loss_curve_of_one(tmp_path, planted, tree, alone, changes):
    alone, config = alone
    # Several threads each: those of a sharded encoder must still take their passes in order.
    two = config.replace(encoder={"devices": 2, **changes}, n_threads=2)
    paths = finished(tmp_path, planted, tree, two)
    assert_allclose(losses(paths), losses(alone), rtol=2e-4)
    (encoded,), (expected,) = Inputs(paths).encoded(two), Inputs(alone).encoded(config)
    assert_allclose(encoded.train, expected.train, atol=2e-3)
    assert_allclose(encoded.test, expected.test, atol=2e-3)
    encoder = TextEncoder.load(encoded.encoder)
    again = encoder.embed(Inputs(paths).dataset.test_texts, two.encoder)
    assert_array_equal(again, encoded.test)
    assert not paths.scratch("xr_transformer").exists()


@pytest.mark.slow
def test_what_one_of_the_processes_refuses_is_the_stages_error(tmp_path, planted, tree, config):
    two = config.replace(encoder={"devices": 2, "levels": 5})
    paths = make_project(tmp_path, planted, tree, two)
    with pytest.raises(EncoderError, match=r"encoder\.levels is 5 but the tree has 3 levels"):
        run_stage("xr_transformer", paths, two, quiet=True)
    assert not paths.out("xr_transformer").exists()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells children of a death")
def test_processes_end_with_the_stage_that_is_killed(tmp_path):
    (tmp_path / "sleeper.py").write_text(
        "import os, sys, time; from pathlib import Path\n"
        "Path(sys.argv[1], os.environ['RANK']).write_text(str(os.getpid()))\n"
        "time.sleep(600)\n"
    )
    code = (
        "import sys; from xmc_core.encoder.distributed import torchrun\n"
        "torchrun('sleeper', [sys.argv[1]], 2)"
    )
    stage = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{Path.cwd()}"},
    )
    files = [tmp_path / "0", tmp_path / "1"]
    within(60, lambda: all(file.exists() and file.read_text() for file in files))
    stage.kill()
    stage.wait()
    pids = [int(file.read_text()) for file in files]
    within(60, lambda: not any(map(is_running, pids)))


def within(seconds, condition):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.1)


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_fewer_gpus_than_devices_are_known_at_once(tmp_path, planted, tree, config, monkeypatch):
    two = config.replace(encoder={"devices": 2})
    paths = make_project(tmp_path, planted, tree, two)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ConfigError, match=r"encoder.devices is 2 but there are 1 GPUs here"):
        run_stage("xr_transformer", paths, two, quiet=True)


def test_a_second_run_waits_for_the_first(tmp_path, planted, tree, config):
    paths = make_project(tmp_path, planted, tree, config)
    told = Recorder()
    folder = tmp_path / "out"
    folder.mkdir()
    with ThreadPoolExecutor() as pool:
        with locked(paths.scratch("xr_transformer") / "lock"):
            done = pool.submit(xr_transformer.run, Inputs(paths), config, folder, told)
            within(60, lambda: told.events)
            assert "waiting for another process" in told.events[0]["text"]
            assert not any(folder.iterdir())
        done.result()
    assert (folder / "encoder").exists()


def test_a_batch_is_not_smaller_than_the_devices():
    with pytest.raises(ConfigError, match=r"encoder\.batch_size must be at least encoder\.devices"):
        Config().replace(encoder={"devices": 64})


@pytest.mark.parametrize("count", [0, 1, 5, 6])
def test_every_process_takes_as_many_turns_and_every_item_counts_once(count):
    items = list(range(count))
    shares = [World(rank, 3).share(items) for rank in range(3)]
    assert len({len(share) for share in shares}) == 1
    assert sorted(item for share in shares for item, counts in share if counts) == items


def test_alone_nothing_is_added_and_nobody_is_waited_for():
    world = World()
    x = torch.ones(2)
    world.add([x])
    world.wait()
    assert x.tolist() == [1, 1]
    assert world.any(True, x.device)
    assert not world.any(False, x.device)


def test_a_process_without_rows_takes_one_for_nothing(config, planted, tree):
    """Batches are of like sizes: 1,001 rows in batches of at most 8 make some of 7."""
    encoder = TextEncoder.pretrained(config.encoder)
    tokens = encoder.tokenize(planted[0])
    targets = tree.targets(planted[1])
    task = LevelTargets(targets[1], tree.pointers[1], targets[0])

    def gradient(world):
        return BatchGradient(
            encoder, Head.random(4, encoder.n_dims, seed=0), tokens, task, config.encoder,
            trainable_weights(encoder), world=world,
        )  # fmt: skip

    batch = np.array([3, 5], np.int32)
    loss, expected = gradient(World()).of(batch)
    parts = [gradient(Apart(rank, 3)).of(batch) for rank in range(3)]
    assert float(parts[2][0]) == 0.0
    assert_allclose(sum(float(part) for part, _ in parts), float(loss), rtol=1e-5)
    for number, wanted in enumerate(expected):
        assert_allclose(sum(part[number] for _, part in parts), wanted, atol=1e-6)


class Apart(World):
    """One of several processes, before their sums are added up."""

    def add(self, tensors):
        pass

    def any(self, flag, device):
        return flag
