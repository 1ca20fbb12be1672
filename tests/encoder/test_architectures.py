"""Any encoder that AutoModel knows: tiny random ones of the usual families."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
import transformers
from numpy.testing import assert_allclose, assert_array_equal
from torch.utils._python_dispatch import TorchDispatchMode

from tests.encoder.test_along_the_tree import X  # noqa: F401
from xmc_core.config import Config, EncoderConfig
from xmc_core.encoder.device import MASKED, take_masks_unseen
from xmc_core.encoder.gradients import trainable_weights
from xmc_core.encoder.model import TextEncoder
from xmc_core.errors import ConfigError, EncoderError
from xmc_core.models.xr_transformer import fine_tune

SMALL = {"vocab_size": 40, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
WIDE = {"intermediate_size": 64, "max_position_embeddings": 66}
CONFIGS = {
    "roberta": lambda: transformers.RobertaConfig(**SMALL, **WIDE, pad_token_id=0),
    "xlm-roberta": lambda: transformers.XLMRobertaConfig(**SMALL, **WIDE, pad_token_id=0),
    "distilbert": lambda: transformers.DistilBertConfig(
        vocab_size=40, dim=32, n_layers=2, n_heads=2, hidden_dim=64, max_position_embeddings=66
    ),
    "xlnet": lambda: transformers.XLNetConfig(
        vocab_size=40, d_model=32, n_layer=2, n_head=2, d_inner=64
    ),
    "modernbert": lambda: transformers.ModernBertConfig(
        **SMALL, **WIDE, pad_token_id=0, cls_token_id=2, sep_token_id=3, bos_token_id=2,
        eos_token_id=3, global_attn_every_n_layers=2, local_attention=16,
    ),
    "electra": lambda: transformers.ElectraConfig(**SMALL, **WIDE, embedding_size=16),
    "deberta-v2": lambda: transformers.DebertaV2Config(**SMALL, **WIDE, pad_token_id=0),
    "mpnet": lambda: transformers.MPNetConfig(**SMALL, **WIDE),
}  # fmt: skip


@pytest.fixture(scope="module", params=sorted(CONFIGS))
def folder(request, tiny_folder, tmp_path_factory):
    """A random model of one family, with the tokeniser of the tiny BERT."""
    folder = tmp_path_factory.mktemp(request.param)
    for file in tiny_folder.glob("*token*"):
        shutil.copy(file, folder)
    torch.manual_seed(0)
    transformers.AutoModel.from_config(CONFIGS[request.param]()).save_pretrained(folder)
    return folder


def test_encodes_whatever_the_company(folder):
    config = EncoderConfig(name=str(folder), max_length=16, precision="fp32")
    encoder = TextEncoder.pretrained(config)
    texts = ["t0w0", "t0w1 t1w2 and t3w3 of t2w2 t2w3", "of t2w2", ""]
    together = encoder.embed(texts, config)
    alone = np.concatenate([encoder.embed([text], config) for text in texts])
    assert together.shape == (4, 32)
    assert_allclose(together, alone, atol=2e-3)


def test_is_fine_tuned_saved_and_loaded(folder, planted, X, tree, tmp_path):  # noqa: F811
    texts, Y = planted
    encoder = {
        "name": str(folder), "max_length": 16, "batch_size": 8, "batch_tokens": 64,
        "levels": 2, "steps": [3, 3], "learning_rate": 1e-3,
    }  # fmt: skip
    config = Config().replace(encoder=encoder, n_threads=2)
    tuned = fine_tune(texts, X, Y, tree, config)
    before = TextEncoder.pretrained(config.encoder)
    moved = [
        not torch.equal(now, then)
        for now, then in zip(
            trainable_weights(tuned.encoder), trainable_weights(before), strict=True
        )
    ]
    assert np.mean(moved) > 0.9
    tuned.encoder.save(tmp_path / "encoder")
    loaded = TextEncoder.load(tmp_path / "encoder")
    assert_allclose(loaded.embed(texts, config.encoder), tuned.embeddings, atol=1e-3)


def test_layers_below_the_trained_ones_stay_as_pretrained(folder):
    encoder = TextEncoder.pretrained(EncoderConfig(name=str(folder), max_length=16))
    every = {id(weight) for weight in trainable_weights(encoder)}
    encoder.freeze(1)
    upper = {id(weight) for weight in trainable_weights(encoder)}
    lower, own = ({id(w) for w in layer.parameters()} for layer in encoder.layers)
    shared = {id(w) for w in encoder.model.parameters()} - lower - own  # embeddings, last norm
    assert own & every <= upper < every
    assert not upper & lower
    assert upper - own <= shared
    encoder.freeze(0)
    assert {id(weight) for weight in trainable_weights(encoder)} == every


class Reads(TorchDispatchMode):
    """Counts how often a number is asked for that a GPU would have to be waited for."""

    count = 0

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        self.count += function is torch.ops.aten._local_scalar_dense.default
        return function(*arguments, **(options or {}))


def test_masks_are_not_looked_at_where_a_gpu_would_be_waited_for(folder):
    config = EncoderConfig(name=str(folder), max_length=16, precision="fp32")
    encoder = TextEncoder.pretrained(config)
    texts = ["t0w0", "t0w1 t1w2 and t3w3 of t2w2 t2w3", "of t2w2", ""]
    expected = encoder.embed(texts, config)
    tokens, rows = encoder.tokenize(texts), np.arange(4)
    take_masks_unseen(encoder.model)
    with Reads() as reads, torch.no_grad():
        encoder.vectors(tokens, rows, torch.float32)  # some are padded
        encoder.vectors(tokens, rows[:1], torch.float32)  # none is
    fused = encoder.model.config._attn_implementation == MASKED
    assert reads.count <= (0 if fused else 1)  # of their own, those that have no fused attention
    assert_allclose(encoder.embed(texts, config), expected, atol=1e-3)


def test_a_mask_that_hides_nothing_changes_nothing(folder):
    config = EncoderConfig(name=str(folder), max_length=16, precision="fp32")
    encoder = TextEncoder.pretrained(config)
    ids, mask = (torch.from_numpy(a) for a in encoder.tokenize(["t0w1 t1w2"] * 2).padded([0, 1]))
    with torch.no_grad():
        masked = encoder.forward(ids, mask, torch.float32)
        assert_array_equal(encoder.forward(ids, mask, torch.float32, full=True), masked)


def of_kind(config, tiny_folder, folder):
    for file in tiny_folder.glob("*token*"):
        shutil.copy(file, folder)
    transformers.AutoModel.from_config(config).save_pretrained(folder)
    return EncoderConfig(name=str(folder), max_length=16)


def test_one_that_cannot_do_without_its_pooling_layer_keeps_it(tiny_folder, tmp_path):
    kind = transformers.SqueezeBertConfig(
        **SMALL, **WIDE, embedding_size=32, q_groups=2, k_groups=2, v_groups=2,
        intermediate_groups=2, output_groups=2,
    )  # fmt: skip
    config = of_kind(kind, tiny_folder, tmp_path)
    assert np.isfinite(TextEncoder.pretrained(config).embed(["t0w1 t1w2", ""], config)).all()


def test_one_that_does_not_encode_by_itself_is_refused(tiny_folder, tmp_path):
    kind = transformers.T5Config(
        vocab_size=40, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=2,
        decoder_start_token_id=0,
    )  # fmt: skip
    with pytest.raises(EncoderError, match=r"T5Model in .* cannot encode a text by itself"):
        TextEncoder.pretrained(of_kind(kind, tiny_folder, tmp_path))


def test_positions_behind_the_padding_id_are_not_promised(tiny_folder, tmp_path):
    kind = transformers.RobertaConfig(**SMALL, **{**WIDE, "max_position_embeddings": 20})
    config = of_kind(kind, tiny_folder, tmp_path)  # its padding id is 1
    assert TextEncoder.pretrained(config).positions == 18
    with pytest.raises(ConfigError, match=r"max_length is 19 but .* has 18 positions"):
        TextEncoder.pretrained(replace(config, max_length=19))


def test_layers_that_cannot_be_computed_anew_are_known_at_once(tiny_folder, tmp_path):
    config = of_kind(CONFIGS["mpnet"](), tiny_folder, tmp_path)
    with pytest.raises(ConfigError, match="gradient_checkpointing is set but the MPNetModel"):
        TextEncoder.pretrained(replace(config, gradient_checkpointing=True))


def test_a_model_without_a_pooling_layer_cannot_pool(tiny_folder, tmp_path):
    for file in tiny_folder.glob("*token*"):
        shutil.copy(file, tmp_path)
    transformers.AutoModel.from_config(CONFIGS["distilbert"]()).save_pretrained(tmp_path)
    with pytest.raises(EncoderError, match=r"DistilBertModel .* has no pooling layer; use mean or"):
        TextEncoder.pretrained(EncoderConfig(name=str(tmp_path), max_length=16, pooling="pooler"))


def test_a_tokeniser_with_more_words_than_the_model_is_refused(tiny_folder, tmp_path):
    for file in tiny_folder.glob("*token*"):
        shutil.copy(file, tmp_path)
    small = transformers.BertConfig(**{**SMALL, "vocab_size": 20}, **WIDE)
    transformers.AutoModel.from_config(small).save_pretrained(tmp_path)
    with pytest.raises(EncoderError, match=r"tokeniser .* knows 32 tokens, its model 20"):
        TextEncoder.pretrained(EncoderConfig(name=str(tmp_path), max_length=16))


def test_no_text_and_a_very_long_one_are_texts_like_others(encoder, config):
    long = "t0w0 " * 100_000
    embeddings = encoder.embed(["", long, "t0w0 " * 16], config)
    assert np.isfinite(embeddings).all()
    assert_allclose(embeddings[1], embeddings[2], atol=1e-3)
    assert encoder.tokenize(["", long]).lengths.tolist() == [2, 16]
