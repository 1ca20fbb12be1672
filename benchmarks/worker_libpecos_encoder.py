"""XR-Transformer of libpecos, trained and asked in a process of its own, in the peer's environment.

worker_libpecos_encoder.py, with a JSON object on standard input:

folder       X_train.npz, Y_train.npz, X_test.npz; train_texts.json, test_texts.json
encoder      folder of the pretrained weights
steps        of every level of the tree, coarse to fine; [] leaves the encoder frozen
batch_size, max_length, learning_rate, warmup (a share of a level's steps)
rows, test_rows   only so many of each; 0: all
seed         of the trees and of everything that torch draws
predictions  npz file to write

All else is what it ships for EUR-Lex-4K: negatives, losses, starts of the heads, final rankers.
"""

import json
import math
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from measure import Parts, finish, measured, size_mb
from pecos.core import clib
from pecos.utils import torch_util
from pecos.xmc import Indexer
from pecos.xmc.base import HierarchicalKMeans, MLModel
from pecos.xmc.xlinear.model import XLinearModel
from pecos.xmc.xtransformer.matcher import TransformerMatcher
from pecos.xmc.xtransformer.model import XTransformer
from pecos.xmc.xtransformer.module import MLProblemWithText
from pecos.xmc.xtransformer.network import TransformerLinearXMCHead
from worker_libpecos import SETTINGS, matrix, ranker_params, splits

RANKERS = SETTINGS["released"]
FINE_TUNED = {"nr_splits": 16, "max_leaf_size": 17}
"""Of the tree to fine-tune on: 16, 256 and all labels on EUR-Lex."""

BEAM = 5
"""Clusters of a level from which the next one's matcher-aware negatives come."""


def watched() -> Parts:
    """Its parts of training. Encoding includes what its head predicts of the training rows."""
    parts = Parts()
    parts.watch(TransformerMatcher, "text_to_tensor", "tokenising")
    parts.watch(TransformerMatcher, "predict", "encoding")
    parts.watch(TransformerMatcher, "fine_tune_encoder", "fine-tuning")
    parts.watch(TransformerLinearXMCHead, "bootstrap", "starts of the heads")
    parts.watch(XLinearModel, "train", "final ranker")
    parts.watch(XLinearModel, "predict", "search")
    parts.watch(MLModel, "train", "rankers between levels")
    parts.watch(Indexer, "gen", "trees")
    return parts


def without_worker_processes() -> None:
    """Let batch_gen_workers be 0: batches made in this process, whose time is then counted.

    The same number goes into products of sparse matrices as a number of threads; 0 ends the process
    there, without a word.
    """
    product = clib.sparse_matmul

    def clamped(*args: Any, threads: int = 1, **kwargs: Any) -> Any:
        return product(*args, threads=max(threads, 1), **kwargs)

    clib.sparse_matmul = clamped


def depth_of(n_labels: int, max_leaf_size: int, nr_splits: int) -> int:
    """Levels of its tree: a power of two of leaves, grouped by nr_splits; lists must have them."""
    nodes, depth = 2 ** max(1, math.ceil(math.log2(n_labels / max_leaf_size))), 1
    while nodes > 1:
        depth += 1
        nodes = 1 if nodes <= nr_splits else -(-nodes // nr_splits)
    return depth


def parameters(task: dict[str, Any], n_labels: int) -> tuple[Any, Any]:
    """Of training and of prediction."""

    def level(steps: int) -> TransformerMatcher.TrainParams:
        return TransformerMatcher.TrainParams(
            model_shortcut=task["encoder"],
            negative_sampling="tfn+man",
            loss_function="weighted-squared-hinge",
            bootstrap_method="weighted-linear",
            threshold=0.001,
            batch_size=task["batch_size"],
            batch_gen_workers=0,
            max_steps=steps,
            save_steps=max(steps, 1),  # what follows the last one saved is lost
            warmup_steps=round(task["warmup"] * steps),
            learning_rate=task["learning_rate"],
            use_gpu=False,
        )

    def tree(nr_splits: int, max_leaf_size: int) -> HierarchicalKMeans.TrainParams:
        return HierarchicalKMeans.TrainParams(
            nr_splits=nr_splits, max_leaf_size=max_leaf_size, seed=task["seed"], threads=1
        )

    refined = splits(RANKERS, n_labels), RANKERS["tree"]["max_leaf_size"]
    depth = depth_of(n_labels, refined[1], refined[0])
    ranker_train, ranker_pred = ranker_params(depth, n_labels, 1, RANKERS)
    steps = task["steps"] or [0]
    train_params = XTransformer.TrainParams(
        preliminary_indexer_params=tree(**FINE_TUNED),
        refined_indexer_params=tree(*refined),
        matcher_params_chain=[level(n) for n in steps],
        ranker_params=ranker_train,
        do_fine_tune=bool(task["steps"]),
    )
    pred_params = XTransformer.PredParams(
        matcher_params_chain=[
            TransformerMatcher.PredParams(
                only_topk=BEAM,
                post_processor="l3-hinge",
                ensemble_method="concat-only",
                truncate_length=task["max_length"],
            )
            for _ in steps
        ],
        ranker_params=ranker_pred,
    )
    return train_params, pred_params


def main() -> None:
    task = json.load(sys.stdin)
    folder = Path(task["folder"])
    rows, test_rows = task["rows"] or None, task["test_rows"] or None
    X, Y = matrix(folder, "X_train")[:rows], matrix(folder, "Y_train")[:rows]
    X_test = matrix(folder, "X_test")[:test_rows]
    texts, test_texts = (
        json.loads((folder / f"{split}_texts.json").read_text())[:n]
        for split, n in (("train", rows), ("test", test_rows))
    )

    torch.set_num_threads(1)
    torch_util.set_seed(task["seed"])
    without_worker_processes()
    parts = watched()
    train_params, pred_params = parameters(task, Y.shape[1])
    result: dict[str, Any] = {}
    with measured(result):
        model = XTransformer.train(
            MLProblemWithText(texts, Y, X_feat=X),
            train_params=train_params,
            pred_params=pred_params,
        )
    result["parts"] = parts.take(result["cpu"])

    if model.text_encoder.C is None:  # frozen: it cannot be saved without clusters, nor uses them
        model.text_encoder.C = sp.csr_matrix(np.ones((model.text_encoder.nr_labels, 1), np.float32))
    with tempfile.TemporaryDirectory() as saved:
        model.save(saved)
        result["model_mb"] = size_mb(Path(saved))
        # Only the predict-only form of its rankers uses the chunked layout.
        model = XTransformer.load(saved, is_predict_only=True)
        # A frozen encoder has forgotten how long texts are; the rankers have not.
        pred_params = model.get_pred_params()
        pred_params.matcher_params_chain[0].truncate_length = task["max_length"]
        parts.take(0.0)
        predicting: dict[str, Any] = {}
        with measured(predicting):
            scores = model.predict(
                test_texts,
                X_test,
                pred_params=pred_params,
                batch_size=task["batch_size"],
                batch_gen_workers=0,
                use_gpu=False,
                threads=1,
            )
    result["predict_cpu"] = predicting["cpu"]
    result["predict_parts"] = parts.take(predicting["cpu"])
    sp.save_npz(task["predictions"], scores)
    finish(result)


if __name__ == "__main__":
    main()
