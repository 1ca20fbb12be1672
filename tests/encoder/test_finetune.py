from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from scipy.sparse import csr_array

from tests.reference import encoder as reference
from xmc_core.config import EncoderConfig
from xmc_core.encoder import finetune, gradients
from xmc_core.encoder import plan as plan_module
from xmc_core.encoder.finetune import train_level_head
from xmc_core.encoder.gradients import trainable_weights
from xmc_core.encoder.head import Head, LevelTargets
from xmc_core.encoder.model import TextEncoder
from xmc_core.encoder.plan import LevelPlan, plan_levels
from xmc_core.encoder.validation import Validation
from xmc_core.errors import ConfigError, EncoderError
from xmc_core.reporting import Recorder
from xmc_core.tree import LabelTree

PLAN = LevelPlan(level=2, steps=6, learning_rate=1e-3, batch_size=8)


@pytest.fixture
def task(planted, tree):
    """The leaf level: four nodes below two, candidates below the true parent."""
    targets = tree.targets(planted[1])
    return LevelTargets(targets[1], tree.pointers[1], targets[0])


def train(config, planted, task, plan=PLAN, **kwargs):
    """Returns the encoder, the head and the curve after training from fresh weights."""
    encoder = TextEncoder.pretrained(config)
    head = Head.random(task.targets.shape[1], encoder.n_dims, seed=0)
    tokens = encoder.tokenize(planted[0])
    curve = train_level_head(encoder, head, tokens, task, plan, config, **kwargs)
    return encoder, head, curve.points


def weights(encoder, head):
    return [p.detach().numpy().copy() for p in (*encoder.model.parameters(), *head.parameters())]


def test_the_first_loss_is_the_references(config, planted, task, tiny_tokenizer):
    encoder = TextEncoder.pretrained(config)
    head = Head.random(4, encoder.n_dims, seed=0)
    tokens = encoder.tokenize(planted[0])
    rows = next(finetune.training_batches(tokens.lengths, 8, 1, config.seed * 1_000_003 + 2))
    weight, bias = head.weight.detach().numpy(), head.bias.detach().numpy()
    expected = []
    for row in rows:
        nodes, true = reference.candidates(
            task.targets.toarray(), task.pointer, task.active.toarray(), row
        )
        vector = reference.embedding(encoder.model, tiny_tokenizer, planted[0][row], 16, "mean")
        expected.append(reference.row_loss(vector, weight, bias, nodes, true, "squared_hinge"))
    plan = LevelPlan(2, 1, 1e-3, config.batch_size[0])
    curve = train_level_head(encoder, head, tokens, task, plan, config)
    assert curve.points[0].loss == pytest.approx(np.mean(expected), rel=1e-4)


def test_same_seed_same_bytes_on_any_number_of_threads(config, planted, task):
    encoder, head, curve = train(config, planted, task, n_threads=1)
    again = train(config, planted, task, n_threads=3)
    assert again[2] == curve
    for one, other in zip(weights(encoder, head), weights(*again[:2]), strict=True):
        assert_array_equal(one, other)


def test_another_seed_gives_another_encoder(config, planted, task, tiny_folder):
    other = EncoderConfig(
        name=str(tiny_folder),
        max_length=16,
        batch_size=(8,),
        batch_tokens=64,
        precision="fp32",
        seed=1,
    )
    assert train(config, planted, task)[2] != train(other, planted, task)[2]


def test_the_gradient_does_not_depend_on_how_the_batch_is_cut(config, planted, task, monkeypatch):
    monkeypatch.setattr(gradients, "CPU_PARTS", 1)
    _, _, whole = train(config, planted, task)
    monkeypatch.setattr(gradients, "CPU_PARTS", 3)
    _, _, parts = train(config, planted, task)
    assert [p.loss for p in parts] == pytest.approx([p.loss for p in whole], rel=1e-4)


@pytest.mark.parametrize("loss", ["squared_hinge", "hinge", "bce"])
def test_lowers_the_loss_on_planted_data(tiny_folder, planted, task, loss):
    config = EncoderConfig(
        name=str(tiny_folder), max_length=16, batch_size=(16,), batch_tokens=64, precision="fp32",
        loss=loss, head_learning_rate=1e-2,
    )  # fmt: skip
    _, _, curve = train(config, planted, task, LevelPlan(2, 60, 3e-3, 16))
    first, last = (np.mean([p.loss for p in part]) for part in (curve[:10], curve[-10:]))
    assert last < 0.5 * first


def test_every_weight_moves_but_the_word_vectors(config, planted, task):
    before = TextEncoder.pretrained(config)
    encoder, head, _ = train(config, planted, task)
    table = encoder.model.get_input_embeddings().weight
    assert torch.equal(table, before.model.get_input_embeddings().weight)
    trained = {id(w) for w in trainable_weights(encoder)}
    moved = [
        not torch.equal(now, then)
        for now, then in zip(encoder.model.parameters(), before.model.parameters(), strict=True)
        if id(now) in trained and "bias" not in repr(now)
    ]
    assert np.mean(moved) > 0.9
    assert not torch.equal(head.weight, Head.random(4, encoder.n_dims, seed=0).weight)


def test_each_step_is_a_point_and_the_rate_returns_to_near_zero(config, planted, task):
    report = Recorder()
    curve = train(config, planted, task, first_step=100, report=report)[2]
    assert [point.step for point in curve] == list(range(101, 107))
    assert [event["step"] for event in report.events if event["event"] == "curve"] == list(
        range(101, 107)
    )
    assert curve[-1].learning_rate < curve[1].learning_rate == PLAN.learning_rate


def test_a_long_curve_is_thinned_but_ends_with_the_last_step(config, planted, task, monkeypatch):
    monkeypatch.setattr(finetune, "POINTS", 3)
    curve = train(config, planted, task, LevelPlan(2, 11, 1e-3, 8))[2]
    assert [point.step for point in curve] == [3, 6, 9, 11]


def test_losses_are_not_asked_for_at_every_step(config, planted, task, monkeypatch):
    # A GPU would stop for each. None is lost.
    expected = train(config, planted, task)[2]
    read = finetune._Training._read
    reads = []
    monkeypatch.setattr(
        finetune._Training, "_read", lambda self, pace: (reads.append(1), read(self, pace))
    )
    report = Recorder()
    assert train(config, planted, task, report=report)[2] == expected
    assert len(reads) == 1
    told = [event["step"] for event in report.events if event["event"] == "curve"]
    assert told == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(("step", "words"), [(1, "the loss is"), (6, "weights are no numbers")])
def test_a_gradient_that_is_no_number_ends_the_run(config, planted, task, monkeypatch, step, words):
    of, kept, calls = gradients.BatchGradient.of, [], []

    def overflowing(self, rows):
        loss, found = of(self, rows)
        calls.append(1)
        if len(calls) == step:
            found[0].fill_(float("inf"))
        return loss, found

    monkeypatch.setattr(gradients.BatchGradient, "of", overflowing)
    sparse = replace(config, checkpoint_every=4)
    with pytest.raises(EncoderError, match=rf"level 2: {words}.* Lower encoder.learning_rate"):
        train(sparse, planted, task, keep=kept.append)
    assert len(kept) == (step > 4)  # none with such weights


def test_rows_without_any_label_do_no_harm(config, planted, tree):
    Y = csr_array(planted[1] * 0)
    Y.eliminate_zeros()
    targets = tree.targets(Y)
    task = LevelTargets(targets[1], tree.pointers[1], targets[0])
    encoder, head, curve = train(config, planted, task)
    assert all(point.loss == 0 for point in curve)
    assert all(np.isfinite(w).all() for w in weights(encoder, head))


# What the plan refuses, it refuses before anything is loaded.


def plan(tree, **changes):
    return plan_levels(tree, EncoderConfig(**changes))


def test_plans_the_levels_from_the_top(tree):
    assert tree.level_sizes == (2, 4, 12)
    assert plan(tree, levels=2, steps=(5, 7), learning_rate=(1e-4,)) == [
        LevelPlan(1, 5, 1e-4, 32),
        LevelPlan(2, 7, 1e-4, 32),
    ]
    assert [p.level for p in plan(tree, levels=3)] == [1, 2, 3]


def test_no_levels_are_a_frozen_encoder(tree):
    assert plan(tree, levels=0) == []


def test_leaf_only_is_the_level_of_the_clusters(tree):
    assert [p.level for p in plan(tree, leaf_only=True, levels=3)] == [2]
    flat = LabelTree.from_leaves([[0, 1, 2]], branching=2)
    assert [p.level for p in plan(flat, leaf_only=True)] == [1]


def test_refuses_more_levels_than_the_tree_has(tree):
    with pytest.raises(
        ConfigError, match=r"encoder\.levels is 4 but the tree has 3 levels \(2, 4, 12 nodes\)"
    ):
        plan(tree, levels=4)


@pytest.mark.parametrize("name", ["steps", "learning_rate", "batch_size"])
def test_refuses_lists_longer_than_the_levels(tree, name):
    with pytest.raises(
        ConfigError, match=rf"encoder\.{name} lists 3 values but 2 levels are fine-tuned"
    ):
        plan(tree, levels=2, **{name: (1, 1, 1)})


@pytest.mark.parametrize("changes", [{"levels": 3}, {"leaf_only": True}])
def test_refuses_levels_too_wide_for_a_head(tree, monkeypatch, changes):
    monkeypatch.setattr(plan_module, "MAX_HEAD_NODES", 3)
    with pytest.raises(ConfigError, match=r"level 2 of the tree has 4 nodes.*at most 3"):
        plan(tree, **changes)


def test_nodes_that_the_beam_does_not_reach_are_no_hits(config, planted, tree):
    targets = tree.targets(planted[1])[1]
    of_first = np.flatnonzero(targets[:, :2].sum(axis=1) > 0)  # below the first of the two parents
    encoder = TextEncoder.pretrained(config)
    tokens = encoder.tokenize([planted[0][row] for row in of_first])
    head = Head.random(4, encoder.n_dims, seed=0)

    def precision(parent):
        active = csr_array((np.ones(len(of_first)), np.full(len(of_first), parent),
                            np.arange(len(of_first) + 1)), (len(of_first), 2))  # fmt: skip
        validation = Validation(tokens, targets[of_first], tree.pointers[1], active)
        return validation.precision(encoder, head, config)

    assert precision(0)[1] > 0
    assert precision(1) == (0.0, 0.0, 0.0)
