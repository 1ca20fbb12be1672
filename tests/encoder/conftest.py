"""A tiny BERT with random weights and a vocabulary of its own: no download, milliseconds a step."""

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import AutoTokenizer, BertConfig, BertModel, PreTrainedTokenizerFast

from xmc_core.config import EncoderConfig
from xmc_core.encoder.model import TextEncoder
from xmc_core.tree import LabelTree

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
TOPICS, WORDS_PER_TOPIC = 4, 6


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory):
    """The folder of a Hugging Face model: two layers, 32 dimensions, random."""
    folder = tmp_path_factory.mktemp("tiny-bert")
    words = [f"t{t}w{w}" for t in range(TOPICS) for w in range(WORDS_PER_TOPIC)]
    vocabulary = {token: i for i, token in enumerate([*SPECIAL, *words, "##s", "and", "of"])}
    (folder / "vocab.txt").write_text("\n".join(vocabulary))
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_max_length=64,
    ).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocabulary), hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=64, max_position_embeddings=64,
    )  # fmt: skip
    BertModel(config).save_pretrained(folder)
    return folder


@pytest.fixture
def config(tiny_folder):
    return EncoderConfig(
        name=str(tiny_folder),
        max_length=16,
        batch_size=(8,),
        batch_tokens=64,
        steps=(6,),
        precision="fp32",
    )


@pytest.fixture
def encoder(config):
    return TextEncoder.pretrained(config)


@pytest.fixture(scope="session")
def planted():
    """120 texts about four topics, three labels to a topic; which label, a second word says."""
    rng = np.random.default_rng(0)
    texts, labels = [], []
    for _ in range(120):
        topic, label = rng.integers(TOPICS), rng.integers(3)
        length = rng.integers(1, 9)
        words = [
            f"t{topic}w{label}",
            *(f"t{topic}w{rng.integers(3, WORDS_PER_TOPIC)}" for _ in range(length)),
        ]
        texts.append(" ".join(rng.permutation(words)))
        labels.append(3 * topic + label)
    Y = csr_array((np.ones(120, np.float32), (np.arange(120), labels)), shape=(120, 3 * TOPICS))
    return texts, Y


@pytest.fixture(scope="session")
def tree():
    """Four leaves, one a topic, under two nodes."""
    return LabelTree.from_leaves([[0, 1, 2], [3, 4, 5], [6, 7, 8], [9, 10, 11]], branching=2)


@pytest.fixture(scope="session")
def tiny_tokenizer(tiny_folder):
    return AutoTokenizer.from_pretrained(tiny_folder, local_files_only=True)
