"""XR-Transformer of ours, trained and asked in a process of its own.

worker_ours_encoder.py TASK, with a JSON object on standard input:

pipeline   tree, fine-tuning, final rankers as the stage `rankers` trains them; test rows
curve      P@1 of the leaf clusters on documents held out, along the encoder's CPU seconds
ablation   fine-tuning, then several final models on its embeddings, each asked about the test rows

folder       X_train.npz, Y_train.npz, X_test.npz; train_texts.json, test_texts.json
preset, overrides   of the settings (xmc_core.config.load_config)
rows, test_rows     only so many of each; 0: all
predictions         folder to write; pipeline alone
held_out            share of the training rows for the final rankers to be asked about; curve alone
disentangled        fine-tune along a tree whose labels may be in several clusters; ablation alone
finals              names of FINALS; ablation alone
"""

import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from journal import METRICS
from measure import Parts, finish, measured
from scipy.sparse import csr_array
from sets import load

from xmc_core import evaluate
from xmc_core.config import Config, load_config
from xmc_core.encoder.model import TextEncoder
from xmc_core.encoder.validation import Validation
from xmc_core.features.joined import join_features
from xmc_core.features.label_features import label_centroids
from xmc_core.models import train_xr_linear, xr_transformer
from xmc_core.models.clusters import find_clusters
from xmc_core.reporting import Recorder
from xmc_core.tree import LabelTree, build_label_tree
from xmc_core.types import Halves, SparseRows

PARTS = (
    (TextEncoder, "pretrained", "loading"),
    (TextEncoder, "tokenize", "tokenising"),
    (TextEncoder, "embed", "encoding"),
    (xr_transformer, "train_level_head", "fine-tuning"),
    (xr_transformer, "train_level", "starts of the heads"),
    (xr_transformer, "train_together", "rankers between levels"),
    (xr_transformer, "search_nodes", "rankers between levels"),
)
"""What fine_tune calls, and the part that it counts as."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Final:
    """A final model on embeddings that are there already."""

    words: bool = True
    """[tf-idf, embedding]; else the embedding alone."""

    rebuilt: bool = True
    """Over a tree grown on these features; else over that of the tf-idf rows."""

    several: bool = False
    """Labels of the rebuilt tree in several clusters."""


FINALS = {
    "joined, tree rebuilt": Final(),
    "embedding alone": Final(words=False),
    "tree of tf-idf": Final(rebuilt=False),
    "disentangled": Final(several=True),
}


class Clocked(Recorder):
    """Remembers when every event came."""

    def __init__(self, clock: Callable[[], float]) -> None:
        super().__init__()
        self.clock = clock

    def emit(self, event: str, **values: Any) -> None:
        super().emit(event, clock=self.clock(), **values)


def pipeline(task: dict[str, Any], config: Config) -> dict[str, Any]:
    folder, texts, X, Y = training_rows(task)
    X_test = load(folder, "X_test")[: task["test_rows"] or None]
    test_texts = json.loads((folder / "test_texts.json").read_text())[: X_test.shape[0]]
    warm_up(X, Y, config)
    parts = Parts()
    for owner, function, name in PARTS:
        parts.watch(owner, function, name)

    result: dict[str, Any] = {}
    frozen_or_tuned = config.encoder.name != "none"
    with measured(result):
        embeddings = np.empty((len(texts), 0), np.float16)
        if frozen_or_tuned:
            with parts.part("trees"):
                tree = grow(X, Y, config)
            tuned = xr_transformer.fine_tune(texts, X, Y, tree, config)
            embeddings = tuned.embeddings
        with parts.part("final ranker"):
            joined = join_features(X, embeddings, config.encoder.weight)
            model = train_xr_linear(joined, Y, config)
    result["parts"] = parts.take(result["cpu"])

    predicting: dict[str, Any] = {}
    with measured(predicting):
        embeddings = np.empty((len(test_texts), 0), np.float16)
        if frozen_or_tuned:
            embeddings = tuned.encoder.embed(test_texts, config.encoder, n_threads=config.n_threads)
        with parts.part("search"):
            predictions = model.predict(join_features(X_test, embeddings, config.encoder.weight))
    predictions.save(Path(task["predictions"]))
    return {
        **result,
        "predict_cpu": predicting["cpu"],
        "predict_parts": parts.take(predicting["cpu"]),
    }


def curve(task: dict[str, Any], config: Config) -> dict[str, Any]:
    """What the loop sees along its steps, by CPU second, and the final rankers' P@1 at its end.

    The loop holds out `encoder.validation_rows`; its looks at them are taken off the clock.
    """
    _, texts, X, Y = training_rows(task)
    warm_up(X, Y, config)
    order = np.random.default_rng(config.encoder.seed).permutation(len(texts))
    held_out, kept = np.split(order, [round(task["held_out"] * len(texts))])
    tree = grow(X[kept], Y[kept], config)
    looks = Parts()
    looks.watch(Validation, "precision", "looks")
    report = Clocked(lambda: time.process_time() - looks.cpu.get("looks", 0.0))
    began = report.clock()
    tuned = xr_transformer.fine_tune(
        [texts[i] for i in kept], X[kept], Y[kept], tree, config, report=report
    )
    cpu = report.clock() - began

    def joined(rows: np.ndarray, embeddings: Halves) -> SparseRows:
        return join_features(X[rows], embeddings, config.encoder.weight)

    model = train_xr_linear(joined(kept, tuned.embeddings), Y[kept], config)
    embeddings = tuned.encoder.embed(
        [texts[i] for i in held_out], config.encoder, n_threads=config.n_threads
    )
    known = Y[kept]
    scores = evaluate(
        model.predict(joined(held_out, embeddings)),
        Y[held_out],
        label_counts=np.bincount(known.indices, minlength=known.shape[1]),
        n_train=known.shape[0],
    )
    clocks = {e["step"]: e["clock"] - began for e in report.events if e["event"] == "curve"}
    points = [
        {"cpu": clocks[look.step], "step": look.step, "P@1": look.precision[0]}
        for look in tuned.looks
        if look.level == tree.depth - 1
    ]
    return {"cpu": cpu, "points": points, "P@1": scores["P@1"], "held_out": len(held_out)}


def ablation(task: dict[str, Any], config: Config) -> dict[str, Any]:
    folder, texts, X, Y = training_rows(task)
    X_test, Y_test = (
        load(folder, name)[: task["test_rows"] or None] for name in ("X_test", "Y_test")
    )
    test_texts = json.loads((folder / "test_texts.json").read_text())[: X_test.shape[0]]
    grown = grow(X, Y, config)
    tree = find_clusters(X, Y, grown, config).tree if task["disentangled"] else grown
    result: dict[str, Any] = {"finals": {}}
    with measured(result):
        tuned = xr_transformer.fine_tune(texts, X, Y, tree, config)
    embedded = tuned.encoder.embed(test_texts, config.encoder, n_threads=config.n_threads)
    for name in task["finals"]:
        final = FINALS[name]

        def rows(words: SparseRows, embeddings: Halves, final: Final = final) -> SparseRows:
            words = words if final.words else csr_array(words.shape, dtype=np.float32)
            return join_features(words, embeddings, config.encoder.weight)

        several = replace(config.disentangle, in_rankers=final.several)
        model = train_xr_linear(
            rows(X, tuned.embeddings),
            Y,
            replace(config, disentangle=several),
            tree=None if final.rebuilt else grown,
        )
        scores = evaluate(
            model.predict(rows(X_test, embedded)),
            Y_test,
            label_counts=np.bincount(Y.indices, minlength=Y.shape[1]),
            n_train=Y.shape[0],
        )
        result["finals"][name] = {metric: scores[metric] for metric in METRICS}
    return result


def training_rows(task: dict[str, Any]) -> tuple[Path, list[str], csr_array, csr_array]:
    folder, rows = Path(task["folder"]), task["rows"] or None
    texts = json.loads((folder / "train_texts.json").read_text())[:rows]
    return folder, texts, load(folder, "X_train")[:rows], load(folder, "Y_train")[:rows]


def grow(X: SparseRows, Y: SparseRows, config: Config) -> LabelTree:
    features = label_centroids(
        Y, X, max_features=config.tree.max_features, n_threads=config.n_threads
    )
    return build_label_tree(features, config.tree, config.n_threads)


def warm_up(X: SparseRows, Y: SparseRows, config: Config) -> None:
    """Kernels come from the cache on disk before the clock starts, as the peer's by its import."""
    dense = np.random.default_rng(0).random((300, 16), np.float32)[: X.shape[0]]
    train_xr_linear(join_features(X[:300], dense), Y[:300], config)


if __name__ == "__main__":
    task = json.load(sys.stdin)
    settings = load_config(preset=task["preset"], overrides=task["overrides"])
    doings = {"pipeline": pipeline, "curve": curve, "ablation": ablation}
    finish(doings[sys.argv[1]](task, settings))
