"""The encoder on one GPU: tokens a second, and their share of what the device's products reach.

worker_gpu_encoder.py TASK, with a JSON object on standard input:

pretrained   an encoder and a real set; keys folder, rows (0: all), preset, overrides, peak_size
random       a BERT with random weights and synthetic documents that fill their length; keys preset,
             overrides, folder (to write the encoder to), documents, levels (nodes, coarse to fine),
             labels_per_document, bert (of transformers.BertConfig), peak_size (of the products)

Without a GPU it runs all the same; with tiny sizes that is its test.
"""

import json
import shutil
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measure import finish
from scipy.sparse import csr_array
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast
from worker_ours_encoder import Clocked, grow, training_rows

from xmc_core.config import Config, load_config
from xmc_core.encoder.model import TextEncoder
from xmc_core.models.xr_transformer import fine_tune
from xmc_core.tree import LabelTree
from xmc_core.types import SparseRows

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
PEAK_REPEATS = 50


def pretrained(task: dict[str, Any], config: Config) -> dict[str, Any]:
    _, texts, X, Y = training_rows(task)
    return measure(texts, X, Y, grow(X, Y, config), config, task)


def random(task: dict[str, Any], config: Config) -> dict[str, Any]:
    folder = Path(task["folder"])
    words = save_random_bert(folder, BertConfig(**task["bert"]), config.encoder.max_length)
    try:
        rng = np.random.default_rng(0)
        tree = even_tree(task["levels"], labels_per_leaf=4)
        per_text = config.encoder.max_length - 2  # [CLS] and [SEP]
        texts = [
            " ".join(words[i] for i in rng.integers(0, len(words), per_text))
            for _ in range(task["documents"])
        ]
        Y = clustered_labels(rng, task["documents"], tree, task["labels_per_document"])
        return measure(texts, random_rows(rng, task["documents"]), Y, tree, config, task)
    finally:
        shutil.rmtree(folder)


def measure(
    texts: list[str],
    X: SparseRows,
    Y: SparseRows,
    tree: LabelTree,
    config: Config,
    task: dict[str, Any],
) -> dict[str, Any]:
    """Fine-tune, then encode all texts once more; wall seconds, as the GPU is what is measured."""
    report = Clocked(time.perf_counter)
    tuned = fine_tune(texts, X, Y, tree, config, report=report)
    encoder = tuned.encoder
    on_gpu = encoder.device.type == "cuda"
    memory = torch.cuda.max_memory_allocated() / 2**20 if on_gpu else None

    lengths = np.asarray(encoder.tokenize(texts).lengths, np.float64)
    began = time.perf_counter()
    encoder.embed(texts, config.encoder, n_threads=config.n_threads)
    encoding = lengths.sum() / (time.perf_counter() - began)

    steps = seconds_a_step(report)
    (batch_size,) = config.encoder.batch_size  # one for all levels, as the schedules have it
    training = batch_size * lengths.mean() / np.mean(list(steps.values()))
    peak = peak_flops(encoder, task["peak_size"])
    forward = flops_a_token(encoder, lengths)
    return {
        "device": torch.cuda.get_device_name() if on_gpu else "cpu",
        "precision": str(peak["dtype"]),
        "peak_tflops": peak["flops"] / 1e12,
        "encoding_tokens_s": encoding,
        "encoding_share": encoding * forward / peak["flops"],
        "training_tokens_s": training,
        # A backward pass has two products for each of the forward pass.
        "training_share": training * 3 * forward / peak["flops"],
        "step_s": steps,
        "nodes": [tree.level_sizes[level - 1] for level in steps],
        "tokens_a_text": lengths.mean(),
        "gpu_mb": memory,
    }


def seconds_a_step(report: Clocked) -> dict[int, float]:
    """Mean of each level, between the first and the last point of its curve."""
    found: dict[int, list[tuple[int, float]]] = {}
    for event in report.events:
        if event["event"] == "curve" and "loss" in event["values"]:
            point = event["step"], event["clock"]
            found.setdefault(int(event["values"]["level"]), []).append(point)
    return {
        level: (points[-1][1] - points[0][1]) / (points[-1][0] - points[0][0])
        for level, points in found.items()
    }


def peak_flops(encoder: TextEncoder, size: int) -> dict[str, Any]:
    """What a product of two square matrices reaches, in bf16 on a GPU and in float32 elsewhere."""
    dtype = torch.bfloat16 if encoder.device.type == "cuda" else torch.float32
    a, b = (torch.randn(size, size, device=encoder.device, dtype=dtype) for _ in range(2))
    for _ in range(5):
        a @ b
    wait(encoder.device)
    began = time.perf_counter()
    for _ in range(PEAK_REPEATS):
        a @ b
    wait(encoder.device)
    taken = (time.perf_counter() - began) / PEAK_REPEATS
    return {"dtype": dtype, "flops": 2 * size**3 / taken}


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def flops_a_token(encoder: TextEncoder, lengths: np.ndarray) -> float:
    """Of a forward pass of a BERT: the products of its layers, padding not counted as work."""
    settings: Any = encoder.model.config
    width, inner = settings.hidden_size, settings.intermediate_size
    # A token meets every token of its text, so long texts count by the square of their length.
    met = float((lengths**2).sum() / lengths.sum())
    return settings.num_hidden_layers * float(8 * width**2 + 4 * width * inner + 4 * width * met)


def save_random_bert(folder: Path, settings: BertConfig, max_length: int) -> list[str]:
    """Write the folder of an encoder; returns words that are one token each."""
    folder.mkdir(parents=True, exist_ok=True)
    words = [f"w{i}" for i in range(settings.vocab_size - len(SPECIAL))]
    vocabulary = {token: i for i, token in enumerate([*SPECIAL, *words])}
    (folder / "vocab.txt").write_text("\n".join(vocabulary))
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.BertProcessing(
        ("[SEP]", vocabulary["[SEP]"]), ("[CLS]", vocabulary["[CLS]"])
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]",
        sep_token="[SEP]", model_max_length=max_length,
    ).save_pretrained(folder)  # fmt: skip
    torch.manual_seed(0)
    BertModel(settings).save_pretrained(folder)
    return words


def even_tree(levels: list[int], labels_per_leaf: int) -> LabelTree:
    """A tree with so many nodes at each level, each the multiple of the one above, and labels."""
    sizes = [1, *levels, levels[-1] * labels_per_leaf]
    pointers = tuple(
        np.arange(above + 1, dtype=np.int64) * (below // above) for above, below in pairwise(sizes)
    )
    return LabelTree(pointers, np.arange(sizes[-1], dtype=np.int32), sizes[-1])


def clustered_labels(
    rng: np.random.Generator, n_documents: int, tree: LabelTree, per_document: int
) -> SparseRows:
    """Labels of a document lie below four nodes of the level above the leaves."""
    below = tree.n_labels // tree.level_sizes[-3]  # labels under such a node
    node = rng.integers(0, tree.level_sizes[-3], (n_documents, 4))
    node = node[:, np.arange(per_document) % 4]
    labels = node * below + rng.integers(0, below, node.shape)
    rows = np.repeat(np.arange(n_documents), per_document)
    Y = csr_array(
        (np.ones(labels.size, np.float32), (rows, labels.ravel())),
        shape=(n_documents, tree.n_labels),
    )
    Y.data[:] = 1.0  # where a label was drawn twice
    return Y


def random_rows(rng: np.random.Generator, n_documents: int) -> SparseRows:
    """Tf-idf rows of 49 random words, as many as Amazon-3M has."""
    words, n_words = 49, 20_000
    columns = rng.integers(0, n_words, n_documents * words)
    rows = np.repeat(np.arange(n_documents), words)
    X = csr_array((np.ones(len(rows), np.float32), (rows, columns)), shape=(n_documents, n_words))
    X.data = X.data / np.repeat(np.sqrt(X.multiply(X).sum(axis=1)), np.diff(X.indptr))
    return csr_array(X, dtype=np.float32)


if __name__ == "__main__":
    task = json.load(sys.stdin)
    settings = load_config(preset=task["preset"], overrides=task["overrides"])
    finish({"pretrained": pretrained, "random": random}[sys.argv[1]](task, settings))
