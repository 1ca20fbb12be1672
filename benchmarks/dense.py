"""What an embedding beside the words costs the linear rankers.

python benchmarks/dense.py [--sets eurlex-titles gutenberg-lcsh] [--pairs 3] [--weights 0.5 1.0]
                           [--components 0 192]

For each set, weight and number of principal components (0: all dimensions as they are), tf-idf
alone and [tf-idf, embedding] in turn, each in a fresh process pinned to one core: CPU seconds of
components, label features, tree and training, accuracy on the test rows, CPU microseconds of a row
predicted with the others and alone, memory and size of the model.
Embeddings are those of all-MiniLM-L6-v2 as it comes (384 dimensions, 64 tokens), made once and kept
beside the matrices. The results go to benchmarks/results/dense.json and docs/benchmarks.md.
"""

import argparse
import json
import os
import subprocess
import sys
from itertools import product

import numpy as np
import report
import sets
from journal import RESULTS, circumstances
from measure import finish, latencies, measured, size_mb
from report_dense import dense_section

SETTINGS = {
    "eurlex-titles": {
        "rankers.cost": 3.0,
        "rankers.cost_negative": 4.0,
        "rankers.tail": 0.1,
        "rankers.threshold": 0.01,
    },
    "gutenberg-lcsh": {},
}
"""Beside the preset `linear`: what `xmc tune` chooses for EUR-Lex, elsewhere nothing."""


def embeddings(name: str, split: str) -> np.ndarray:
    """(n_texts, 384) float32, made when missing."""
    file = sets.prepare(name) / f"minilm-{split}.npy"
    if not file.exists():
        from xmc_core.config import EncoderConfig
        from xmc_core.encoder.model import TextEncoder

        config = EncoderConfig(name="all-MiniLM-L6-v2", max_length=64, precision="bf16")
        encoder = TextEncoder.pretrained(config)
        np.save(file, encoder.embed(sets.texts(name, split), config))
    return np.load(file)


def work(name: str, weight: float, components: int) -> dict:
    """One run; weight 0 is tf-idf alone."""
    from xmc_core import evaluate, load_config, train_xr_linear
    from xmc_core.encoder.components import principal_components
    from xmc_core.features.joined import join_features
    from xmc_core.features.label_features import label_centroids
    from xmc_core.tree import build_label_tree

    folder = sets.prepare(name)
    X, Y, X_test, Y_test = (
        sets.load(folder, part) for part in ("X_train", "Y_train", "X_test", "Y_test")
    )
    result: dict = {}
    if weight > 0:
        E, E_test = embeddings(name, "train"), embeddings(name, "test")
        with measured(result.setdefault("components", {})):
            if components > 0:
                C = principal_components(E, np.arange(len(E)), components, 1)[0].numpy()
                E, E_test = E @ C, E_test @ C
        X, X_test = join_features(X, E, weight), join_features(X_test, E_test, weight)
    config = load_config(
        preset="linear",
        overrides={**SETTINGS[name], "disentangle.max_clusters": 1, "n_threads": 1},
    )
    train_xr_linear(X[:300], Y[:300], config).predict(X_test[:100])  # loads the kernels

    with measured(result.setdefault("features", {})):
        Z = label_centroids(Y, X, max_features=config.tree.max_features, n_threads=1)
    with measured(result.setdefault("tree", {})):
        tree = build_label_tree(Z, config.tree, 1)
    with measured(result.setdefault("train", {})):
        model = train_xr_linear(X, Y, config, tree=tree)
    with measured(result.setdefault("predict", {})):
        predictions = model.predict(X_test)
    rows = [X_test[i : i + 1] for i in range(500)]
    result["row"] = latencies(lambda i: model.predict(rows[i]), len(rows))
    result["us_per_row"] = result["predict"]["cpu"] / X_test.shape[0] * 1e6
    target = folder / f"dense-{weight}-{components}-model"
    model.save(target)
    result["model_mb"] = size_mb(target)
    counts = np.bincount(Y.indices, minlength=Y_test.shape[1])
    scores = evaluate(predictions, Y_test, label_counts=counts, n_train=Y.shape[0])
    result |= {k: scores[k] for k in ("P@1", "P@3", "P@5", "PSP@1", "PSP@5")}
    return result


def run(name: str, weight: float, components: int = 0) -> dict:
    core = str(min(os.sched_getaffinity(0)))
    limits = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL")}
    done = subprocess.run(
        ["taskset", "-c", core, sys.executable, __file__, "--worker", name, str(weight),
         str(components)],
        capture_output=True, text=True, env={**os.environ, **limits}, timeout=3600, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise SystemExit(f"{name} at weight {weight} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sets", nargs="+", default=list(SETTINGS))
    parser.add_argument("--weights", nargs="+", type=float, default=[0.5, 1.0])
    parser.add_argument("--components", nargs="+", type=int, default=[0, 192])
    parser.add_argument("--pairs", type=int, default=3)
    arguments = parser.parse_args()
    subprocess.run(
        [sys.executable, "-c", "from xmc_core.cli import main; main(['warmup'])"], check=True
    )
    results = []
    for name in arguments.sets:
        for split in ("train", "test"):
            embeddings(name, split)
        for weight, components in product(arguments.weights, arguments.components):
            for _ in range(arguments.pairs):
                pair = {"alone": run(name, 0.0), "joined": run(name, weight, components)}
                what = {"set": name, "weight": weight, "components": components}
                results.append({**what, **pair, **circumstances()})
                (RESULTS / "dense.json").write_text(json.dumps(results, indent=1) + "\n")
    print("\n".join(dense_section(results)))
    report.write()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        finish(work(sys.argv[2], float(sys.argv[3]), int(sys.argv[4])))
    else:
        main()
