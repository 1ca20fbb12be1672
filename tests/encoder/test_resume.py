"""A run that is stopped, or killed, goes on where it was and ends with the same bytes."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from safetensors.torch import load_file, save_file

from tests.encoder.projects import make_project
from tests.encoder.test_along_the_tree import X, settings  # noqa: F401
from xmc_core.config import Config, to_mapping
from xmc_core.encoder import finetune
from xmc_core.encoder.checkpoint import Saved, Scratch
from xmc_core.models.xr_transformer import fine_tune
from xmc_core.persistence.atomic import fresh_folder
from xmc_core.reporting import Recorder

CHANGES = {
    "levels": 3, "steps": [5, 6, 4], "checkpoint_every": 2,
    "validation_rows": 20, "validate_every": 2,
}  # fmt: skip


class StoppedError(Exception):
    pass


def stop_at(monkeypatch, step):
    """Make training break off before the step of this number."""
    original = finetune._Training._step

    def breaking(self, rows, pace, *, point):
        if self.first_step + self.done + 1 == step:
            raise StoppedError
        original(self, rows, pace, point=point)

    monkeypatch.setattr(finetune._Training, "_step", breaking)


@pytest.fixture
def run(tiny_folder, planted, X, tree, tmp_path):  # noqa: F811
    texts, Y = planted

    def run(name, **changes):
        report = Recorder()
        config = settings(tiny_folder, **{**CHANGES, **changes})
        tuned = fine_tune(texts, X, Y, tree, config, scratch=tmp_path / name, report=report)
        messages = [event["text"] for event in report.events if event["event"] == "message"]
        return tuned, messages

    return run


def same(one, other):
    assert_array_equal(one.embeddings, other.embeddings)
    assert one.curve == other.curve
    assert one.looks == other.looks
    for a, b in zip(one.encoder.model.parameters(), other.encoder.model.parameters(), strict=True):
        assert_array_equal(a.detach().numpy(), b.detach().numpy())


@pytest.mark.parametrize(
    ("step", "changes"),
    [(1, {}), (4, {}), (6, {}), (7, {}), (12, {}), (15, {}), (7, {"contrastive": 1.0})],
)
def test_goes_on_after_any_step_and_ends_the_same(run, monkeypatch, step, changes):
    whole, _ = run("whole", **changes)
    with monkeypatch.context() as patch:
        stop_at(patch, step)
        with pytest.raises(StoppedError):
            run("broken", **changes)
    resumed, messages = run("broken", **changes)
    same(resumed, whole)
    kept = {1: None, 4: 2, 6: 5, 7: 5, 12: 11, 15: 13}[step]
    told = [m for m in messages if m.startswith("going on")]
    assert told == ([] if kept is None else [f"going on from the checkpoint after step {kept}"])


def test_goes_on_when_stopped_while_encoding_at_the_end(run, monkeypatch):
    whole, _ = run("whole")
    from xmc_core.models import xr_transformer

    with monkeypatch.context() as patch:
        patch.setattr(
            xr_transformer._Run, "embed_all", lambda self: (_ for _ in ()).throw(StoppedError())
        )
        with pytest.raises(StoppedError):
            run("broken")
    resumed, messages = run("broken")
    same(resumed, whole)
    assert "going on from the checkpoint after step 15" in messages


def test_other_settings_begin_anew(run, monkeypatch):
    with monkeypatch.context() as patch:
        stop_at(patch, 9)
        with pytest.raises(StoppedError):
            run("broken")
    resumed, messages = run("broken", learning_rate=2e-3)
    same(resumed, run("whole", learning_rate=2e-3)[0])
    assert not any(message.startswith("going on") for message in messages)


def test_another_release_of_torch_begins_anew(run, monkeypatch):
    from xmc_core.models import xr_transformer

    with monkeypatch.context() as patch:
        patch.setattr(xr_transformer, "version", lambda name: "0.1")
        stop_at(patch, 9)
        with pytest.raises(StoppedError):
            run("broken")
    _, messages = run("broken")
    assert not any(message.startswith("going on") for message in messages)


def test_other_weights_of_the_same_name_begin_anew(run, monkeypatch, tiny_folder):
    weights = tiny_folder / "model.safetensors"
    original = weights.read_bytes()
    with monkeypatch.context() as patch:
        stop_at(patch, 9)
        with pytest.raises(StoppedError):
            run("broken")
    tensors = load_file(weights)
    try:
        smaller = {name: tensor * 0.9 for name, tensor in tensors.items()}
        save_file(smaller, weights, {"format": "pt"})
        resumed, messages = run("broken")
        same(resumed, run("whole")[0])
    finally:
        weights.write_bytes(original)
    assert not any(message.startswith("going on") for message in messages)


def test_what_memory_had_room_for_is_known_at_the_next_level(run, monkeypatch):
    from xmc_core.encoder import gradients

    begun, vectors = [], gradients.BatchGradient.vectors

    def scarce(self, rows):
        begun.append(self.max_tokens)
        if self.max_tokens > 64:
            raise MemoryError
        return vectors(self, rows)

    monkeypatch.setattr(gradients.BatchGradient, "vectors", scarce)
    run("scarce", train_tokens=128)
    assert 128 in begun[:4]
    assert begun[-1] == 64
    assert sum(tokens == 128 for tokens in begun) <= 4  # at the first step of the first level


def test_what_an_older_run_was_killed_at_does_not_come_back(tmp_path):
    code = (
        "import os, signal, sys; from pathlib import Path\n"
        "from xmc_core.encoder.checkpoint import Saved, Scratch\n"
        "from xmc_core.persistence import atomic\n"
        "scratch = Scratch.open(Path(sys.argv[1]), 'a')\n"
        "scratch.save(Saved({'run': 'a'}, {}))\n"
        "def halfway(fresh, folder, old):\n"
        "    folder.rename(old)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "atomic._put_in_place = halfway\n"
        "scratch.save(Saved({'run': 'a'}, {}))\n"
    )
    folder = tmp_path / "run"
    subprocess.run([sys.executable, "-c", code, str(folder)], check=False)
    shutil.copytree(folder, tmp_path / "twin")
    assert Scratch.open(folder, "a").latest().facts == {"run": "a"}  # of the same run it does
    for _ in range(2):
        assert Scratch.open(tmp_path / "twin", "b").latest() is None
        with pytest.raises(StoppedError), fresh_folder(tmp_path / "twin" / "latest"):
            raise StoppedError


def test_without_a_scratch_folder_nothing_is_written(tiny_folder, planted, X, tree, run):  # noqa: F811
    texts, Y = planted
    config = settings(tiny_folder, **CHANGES)
    same(fine_tune(texts, X, Y, tree, config), run("with")[0])


def test_a_checkpoint_holds_what_was_put_in(tmp_path):
    import torch

    scratch = Scratch.open(tmp_path / "run", "a")
    assert scratch.latest() is None
    tensors = {"x": torch.arange(3.0), "scalar": torch.tensor(2.5)}
    scratch.save(Saved({"loss": 0.1 + 0.2}, tensors))
    latest = Scratch.open(tmp_path / "run", "a").latest()
    assert latest.facts == {"loss": 0.1 + 0.2}
    assert all(torch.equal(latest.tensors[name], tensors[name]) for name in tensors)
    (tmp_path / "run" / "token-ids.bin").write_bytes(b"ids")
    assert Scratch.open(tmp_path / "run", "b").latest() is None
    assert (tmp_path / "run" / "token-ids.bin").exists()


@pytest.fixture
def project(tmp_path, planted, tree, tiny_folder):
    """A data set ready for the stage, and a function that starts it as `xmc run` would."""
    encoder = {
        "name": str(tiny_folder), "max_length": 16, "batch_size": 8, "batch_tokens": 64,
        "levels": 2, "steps": [150, 150], "learning_rate": 1e-3, "checkpoint_every": 10,
    }  # fmt: skip
    config = Config().replace(encoder=encoder, tfidf={"min_df": 1})

    def make(name):
        return make_project(tmp_path / name, planted, tree, config)

    script = tmp_path / "stage.py"
    script.write_text(
        "import json, sys\n"
        "from pathlib import Path\n"
        "from xmc_core.config import config_from_mapping\n"
        "from xmc_core.stages.paths import ProjectPaths\n"
        "from xmc_core.stages.runner import run_stage\n"
        f"config = config_from_mapping(json.loads({json.dumps(to_mapping(config))!r}), 'test')\n"
        "run_stage('xr_transformer', ProjectPaths(Path(sys.argv[1]), 'toy'), config)\n"
    )

    def start(paths):
        return subprocess.Popen(
            [sys.executable, str(script), str(paths.data)],
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )

    return make, start


def written(paths):
    folder = paths.out("xr_transformer")
    return {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()}


@pytest.mark.slow
def test_a_stage_that_is_killed_goes_on_and_writes_the_same_bytes(project):
    make, start = project
    whole = make("whole")
    assert start(whole).wait(120) == 0

    broken = make("broken")
    process = start(broken)
    facts = broken.scratch("xr_transformer") / "latest" / "facts.json"
    limit = time.monotonic() + 120
    while not (facts.exists() and json.loads(facts.read_text() or "{}").get("done", 0) >= 20):
        assert time.monotonic() < limit
        assert process.poll() is None, "the stage was done before it could be killed"
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not broken.out("xr_transformer").exists()

    again = start(broken)
    _, told = again.communicate(timeout=120)
    assert again.returncode == 0
    assert "going on from the checkpoint after step" in told
    first, second = written(whole), written(broken)
    assert [name for name in first if first[name] != second.get(name)] == []
    assert not broken.scratch("xr_transformer").exists()


def test_best_weights_are_those_of_the_best_look(run):
    tuned, _ = run("looked", steps=[30], levels=1, learning_rate=3e-2, validate_every=5)
    figures = [look.figure for look in tuned.looks]
    assert [look.step for look in tuned.looks] == [5, 10, 15, 20, 25, 30]
    assert all(0 <= p <= 100 for look in tuned.looks for p in look.precision)
    assert len(set(figures)) > 1, "all looks alike: nothing to choose from"


def test_patience_ends_a_level_early(run):
    tuned, _ = run("short", levels=1, steps=[40], patience=2, validate_every=1, learning_rate=1e-6)
    assert len(tuned.looks) < 40
    figures = np.array([look.figure for look in tuned.looks])
    assert figures[-2:].max() <= figures[:-2].max()


def test_validation_runs_in_bf16_too(run):
    tuned, _ = run("bf16", precision="bf16")
    assert [look.step for look in tuned.looks] == [2, 4, 5, 7, 9, 11, 13, 15]
