import json

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from tests.reference import encoder as reference
from xmc_core.config import EncoderConfig
from xmc_core.encoder.device import resolve_dtype
from xmc_core.encoder.model import TextEncoder
from xmc_core.errors import ConfigError, EncoderError, StoreError
from xmc_core.reporting import Recorder

TEXTS = ["t0w0", "t0w1 t1w2 and t3w3", "of t2w2", "", "t1w0 " * 40, "t3w5 t3w4"]


HALF = 2**-10
"""Rows are kept in 16 bits: eleven of them for the leading digits."""


@pytest.mark.parametrize("pooling", ["mean", "first", "pooler"])
def test_agrees_with_the_reference(tiny_folder, tiny_tokenizer, pooling):
    config = EncoderConfig(
        name=str(tiny_folder), max_length=16, batch_tokens=64, pooling=pooling, precision="fp32"
    )
    encoder = TextEncoder.pretrained(config)
    expected = [
        reference.embedding(encoder.model, tiny_tokenizer, text, 16, pooling) for text in TEXTS
    ]
    assert_allclose(encoder.embed(TEXTS, config), expected, atol=1e-5, rtol=HALF)


def test_padding_and_company_do_not_change_an_embedding(encoder, config):
    together = encoder.embed(TEXTS, config)
    alone = np.concatenate([encoder.embed([text], config) for text in TEXTS])
    assert_allclose(together, alone, atol=1e-6, rtol=HALF)


def test_is_identical_on_one_thread_and_on_many(encoder, config):
    texts = TEXTS * 20
    alone = encoder.embed(texts, config, n_threads=1)
    assert_array_equal(encoder.embed(texts, config, n_threads=4), alone)


def test_leaves_torchs_own_threads_as_they_were(encoder, config):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        encoder.embed(TEXTS, config, n_threads=1)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_rows_have_unit_length_and_the_order_of_the_texts(encoder, config):
    embeddings = encoder.embed(TEXTS, config)
    assert embeddings.dtype == np.float16
    assert embeddings.shape == (len(TEXTS), encoder.n_dims)
    assert_allclose(np.linalg.norm(embeddings.astype(np.float64), axis=1), 1, rtol=HALF)
    assert_array_equal(encoder.embed(TEXTS[::-1], config)[::-1], embeddings)


def test_tokens_give_what_their_texts_give(encoder, config):
    assert_array_equal(encoder.embed(encoder.tokenize(TEXTS), config), encoder.embed(TEXTS, config))


def test_no_texts_give_no_rows(encoder, config):
    assert encoder.embed([], config).shape == (0, encoder.n_dims)


def test_bf16_is_near_fp32(encoder, config, tiny_folder):
    low = EncoderConfig(name=str(tiny_folder), max_length=16, precision="bf16")
    cosine = (encoder.embed(TEXTS, low).astype(float) * encoder.embed(TEXTS, config)).sum(axis=1)
    assert cosine.min() > 0.999


@pytest.mark.parametrize(
    ("units", "chosen"),
    [
        ({"amx_bf16": True, "avx512_bf16": True}, torch.bfloat16),
        ({"amx_bf16": False, "avx512_bf16": True}, torch.bfloat16),
        ({"amx_bf16": False, "avx512_bf16": False}, torch.float32),
        ({}, torch.float32),
    ],
)
def test_precision_on_cpu_is_bf16_where_it_computes_in_it(monkeypatch, units, chosen):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: units, raising=False)
    cpu = torch.device("cpu")
    kinds = {name: resolve_dtype(name, cpu) for name in ("auto", "fp32", "bf16")}
    assert kinds == {"auto": chosen, "fp32": torch.float32, "bf16": torch.bfloat16}


def test_a_batch_that_memory_does_not_hold_is_cut_in_two(encoder, config, monkeypatch):
    texts = ["t0w0 t1w1 t2w2", "t0w1", "t1w1 t2w3 t3w0", "t2w2 t0w0"] * 4
    expected = encoder.embed(texts, config)
    vectors, refused = TextEncoder.vectors, []

    def scarce(self, tokens, rows, *arguments):
        if len(rows) > 3:
            refused.append(len(rows))
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return vectors(self, tokens, rows, *arguments)

    monkeypatch.setattr(TextEncoder, "vectors", scarce)
    assert_allclose(encoder.embed(texts, config), expected, atol=1e-3)
    assert refused
    monkeypatch.setattr(TextEncoder, "vectors", lambda *_: [0][1])
    with pytest.raises(IndexError):
        encoder.embed(texts, config)


def test_progress_is_told_in_tokens(encoder, config, monkeypatch):
    monkeypatch.setattr("xmc_core.encoder.model.PROGRESS_SECONDS", 0.0)
    report = Recorder()
    tokens = encoder.tokenize(TEXTS)
    encoder.embed(tokens, config, report=report)
    assert report.events[-1]["done"] == report.events[-1]["total"] == len(tokens.ids)


def test_saved_and_loaded_it_is_the_same(encoder, config, tmp_path):
    encoder.save(tmp_path / "encoder")
    loaded = TextEncoder.load(tmp_path / "encoder")
    assert_array_equal(loaded.embed(TEXTS, config), encoder.embed(TEXTS, config))


def test_the_same_encoder_is_saved_as_the_same_bytes(encoder, config, tmp_path):
    encoder.save(tmp_path / "a")
    other = TextEncoder.pretrained(config)
    other.embed(TEXTS, config)
    other.save(tmp_path / "b")
    names = sorted(file.name for file in (tmp_path / "a").iterdir())
    assert names == sorted(file.name for file in (tmp_path / "b").iterdir())
    assert all(
        (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
        for name in names
    )


def test_what_is_saved_names_no_place_on_this_machine(encoder, tiny_folder, tmp_path):
    encoder.save(tmp_path / "encoder")
    for file in (tmp_path / "encoder").glob("*.json"):
        assert str(tiny_folder) not in file.read_text()


def test_a_saved_encoder_serves_as_pretrained_weights(encoder, config, tmp_path):
    encoder.save(tmp_path / "encoder")
    again = TextEncoder.pretrained(EncoderConfig(name=str(tmp_path / "encoder"), max_length=16))
    assert_array_equal(again.embed(TEXTS, config), encoder.embed(TEXTS, config))


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json"])
def test_loading_names_the_damaged_file(encoder, tmp_path, name):
    encoder.save(tmp_path / "encoder")
    file = tmp_path / "encoder" / name
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(StoreError, match=rf"{name} does not match its checksum"):
        TextEncoder.load(tmp_path / "encoder")
    file.unlink()
    with pytest.raises(StoreError, match=rf"{name} is missing"):
        TextEncoder.load(tmp_path / "encoder")


def test_loading_refuses_another_folder(tiny_folder):
    with pytest.raises(StoreError, match=r"no manifest\.json"):
        TextEncoder.load(tiny_folder)


def _copy(tiny_folder, tmp_path):
    for file in tiny_folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


def test_weights_cut_short_are_refused(tiny_folder, tmp_path):
    weights = _copy(tiny_folder, tmp_path) / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(EncoderError, match=r"cannot be loaded"):
        TextEncoder.pretrained(EncoderConfig(name=str(tmp_path), max_length=16))


def test_weights_that_lack_a_layer_are_refused_and_not_made_up(tiny_folder, tmp_path):
    settings = _copy(tiny_folder, tmp_path) / "config.json"
    settings.write_text(json.dumps({**json.loads(settings.read_text()), "num_hidden_layers": 3}))
    with pytest.raises(EncoderError, match=r"16 tensors are missing.*layer\.2"):
        TextEncoder.pretrained(EncoderConfig(name=str(tmp_path), max_length=16))


def test_an_unknown_kind_of_model_is_refused(tiny_folder, tmp_path):
    settings = _copy(tiny_folder, tmp_path) / "config.json"
    settings.write_text(
        json.dumps({**json.loads(settings.read_text()), "model_type": "no-such-kind"})
    )
    with pytest.raises(EncoderError, match=r"unknown to transformers"):
        TextEncoder.pretrained(EncoderConfig(name=str(tmp_path), max_length=16))


def test_refuses_texts_longer_than_its_positions(tiny_folder):
    with pytest.raises(ConfigError, match=r"max_length is 65 but .* has 64 positions"):
        TextEncoder.pretrained(EncoderConfig(name=str(tiny_folder), max_length=65, batch_tokens=65))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_gpu_and_cpu_agree(config):
    on_gpu = TextEncoder.pretrained(config, torch.device("cuda")).embed(TEXTS, config)
    on_cpu = TextEncoder.pretrained(config, torch.device("cpu")).embed(TEXTS, config)
    assert_allclose(on_gpu, on_cpu, atol=1e-4)
