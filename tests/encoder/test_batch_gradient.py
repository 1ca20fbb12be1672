"""The gradient of a batch: however it is cut, recomputed or short of memory."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from xmc_core.encoder import device
from xmc_core.encoder.contrastive import Relations, contrastive_loss
from xmc_core.encoder.device import MasterWeights
from xmc_core.encoder.gradients import BatchGradient, recomputing, trainable_weights
from xmc_core.encoder.head import Head, LevelTargets
from xmc_core.encoder.model import TextEncoder
from xmc_core.errors import EncoderError
from xmc_core.reporting import Recorder

ROWS = np.arange(12, dtype=np.int32)


@pytest.fixture(params=["heads alone", "contrastive"])
def task(planted, tree, request):
    targets = tree.targets(planted[1])
    relations = Relations.of(planted[1]) if request.param == "contrastive" else None
    return LevelTargets(targets[1], tree.pointers[1], targets[0], relations=relations)


def gradient_of(config, planted, task, report=None, **changes):
    config = replace(config, contrastive=0.7 if task.relations else 0.0, **changes)
    encoder = TextEncoder.pretrained(config)
    head = Head.random(4, encoder.n_dims, seed=0)
    tokens = encoder.tokenize(planted[0])
    return BatchGradient(
        encoder, head, tokens, task, config, trainable_weights(encoder), report=report or Recorder()
    )


def longest_first(batch):
    return ROWS[np.argsort(-batch.tokens.lengths[ROWS], kind="stable")]


def test_is_that_of_the_whole_batch_at_once(config, planted, task):
    batch = gradient_of(config, planted, task)
    rows = longest_first(batch)
    loss, gradients = batch.of(rows)
    vectors = batch.vectors(rows)
    whole = batch.head.loss(vectors, task.candidates(rows), config.loss).mean()
    if task.relations:
        shares = torch.from_numpy(task.relations.shares(rows))
        whole = whole + 0.7 * contrastive_loss(vectors, shares, config.temperature)
    expected = torch.autograd.grad(whole, batch.parameters)
    assert_allclose(float(loss), float(whole.detach()), rtol=1e-5)
    for found, wanted in zip(gradients, expected, strict=True):
        assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("long", [False, True])
def test_fused_attention_is_put_aside_while_training_on_a_cpu(
    config, planted, task, monkeypatch, long
):
    if long:  # as eager attention takes memory by the square
        monkeypatch.setattr(device, "LONG", 4)
    batch = gradient_of(config, planted, task)
    settings = batch.encoder.model.config
    used = []
    forward = TextEncoder.forward

    def watched(self, *arguments, **options):
        used.append(settings._attn_implementation)
        if len(used) > 4:
            raise ValueError("on the way")
        return forward(self, *arguments, **options)

    monkeypatch.setattr(TextEncoder, "forward", watched)
    batch.of(longest_first(batch))
    assert used == ["sdpa" if long else "eager"] * 4  # one for each part
    assert settings._attn_implementation == "sdpa"
    with pytest.raises(ValueError, match="on the way"):
        batch.of(longest_first(batch))
    assert settings._attn_implementation == "sdpa"


@pytest.mark.parametrize("changes", [{"train_tokens": 16}, {"gradient_checkpointing": True}])
def test_small_parts_and_recomputed_layers_give_the_same(config, planted, task, changes):
    plain = gradient_of(config, planted, task)
    expected = plain.of(longest_first(plain))
    batch = gradient_of(config, planted, task, **changes)
    with recomputing(batch.encoder, changes.get("gradient_checkpointing", False)):
        loss, gradients = batch.of(longest_first(batch))
    assert_allclose(float(loss), float(expected[0]), rtol=1e-5)
    for found, wanted in zip(gradients, expected[1], strict=True):
        assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


def test_recomputing_is_done_and_leaves_no_dropout_behind(config, planted, task, monkeypatch):
    batch = gradient_of(config, planted, task)
    calls = []
    layer = batch.encoder.model.encoder.layer[0].attention
    forward = layer.forward
    monkeypatch.setattr(layer, "forward", lambda *a, **k: calls.append(1) or forward(*a, **k))
    batch.of(longest_first(batch))
    once = len(calls)
    with recomputing(batch.encoder, True):
        dropouts = [m for m in batch.encoder.model.modules() if isinstance(m, torch.nn.Dropout)]
        assert not any(module.training for module in dropouts)
        batch.of(longest_first(batch))
    assert len(calls) == once + 2 * once
    assert not any(module.training for module in batch.encoder.model.modules())


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        MemoryError(),
    ],
)
def test_when_memory_runs_out_the_parts_are_halved_and_the_step_is_the_same(
    config, planted, task, monkeypatch, error
):
    expected = gradient_of(config, planted, task)
    expected = expected.of(longest_first(expected))
    report = Recorder()
    batch = gradient_of(config, planted, task, report, train_tokens=64)
    vectors, refused = batch.vectors, []

    def scarce(rows):
        if len(rows) * batch.tokens.lengths[rows].max() > 24:
            refused.append(len(rows))
            raise error
        return vectors(rows)

    monkeypatch.setattr(batch, "vectors", scarce)
    loss, gradients = batch.of(longest_first(batch))
    assert refused
    assert batch.max_tokens < 64
    assert_allclose(float(loss), float(expected[0]), rtol=1e-5)
    for found, wanted in zip(gradients, expected[1], strict=True):
        assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)
    told = [event["text"] for event in report.events if event["event"] == "message"]
    assert told[-1].startswith(f"out of memory: parts of {batch.max_tokens} tokens")

    refused.clear()
    batch.of(longest_first(batch))
    assert not refused  # what was learned is kept


def test_a_text_too_long_for_the_memory_says_what_to_do(config, planted, task, monkeypatch):
    batch = gradient_of(config, planted, task)
    monkeypatch.setattr(batch, "vectors", lambda *_: (_ for _ in ()).throw(MemoryError()))
    with pytest.raises(
        EncoderError, match=r"a single text of \d+ tokens does not fit.*gradient_ch"
    ):
        batch.of(longest_first(batch))


def test_other_errors_are_not_taken_for_a_lack_of_memory(config, planted, task, monkeypatch):
    batch = gradient_of(config, planted, task)
    monkeypatch.setattr(
        batch, "vectors", lambda *_: (_ for _ in ()).throw(RuntimeError("shapes differ"))
    )
    with pytest.raises(RuntimeError, match="shapes differ"):
        batch.of(longest_first(batch))


def test_master_weights_are_float32_and_return_into_the_module(config):
    encoder = TextEncoder.pretrained(config)
    weights = trainable_weights(encoder)
    before = [weight.detach().clone() for weight in weights]
    masters = MasterWeights([encoder.model], torch.bfloat16)
    linear = {id(m.weight) for m in encoder.model.modules() if isinstance(m, torch.nn.Linear)}
    for weight in weights:
        assert weight.dtype == (torch.bfloat16 if id(weight) in linear else torch.float32)
    for master in masters.of(weights):
        master.add_(1e-4)  # below what bf16 can tell at 1
    masters.publish()
    masters.close()
    for now, then in zip(weights, before, strict=True):
        assert now.dtype == torch.float32
        assert_allclose(now.detach(), then + 1e-4, rtol=1e-6)


def test_weights_that_the_vectors_do_not_depend_on_are_left_alone(config):
    encoder = TextEncoder.pretrained(config)
    spare = torch.nn.Parameter(torch.ones(3))
    encoder.model.register_parameter("spare", spare)
    encoder.freeze()
    trained = {id(weight) for weight in trainable_weights(encoder)}
    assert id(spare) not in trained
    assert id(encoder.model.get_input_embeddings().weight) not in trained
    assert len(trained) == len(list(encoder.model.parameters())) - 2
