"""The final rankers on [tf-idf, embedding], over a tree rebuilt on these features."""

from pathlib import Path

from xmc_core.config import Config, to_mapping
from xmc_core.features.joined import join_features
from xmc_core.features.label_features import label_features
from xmc_core.models import PipelineModel, train_xr_linear
from xmc_core.persistence import write_store
from xmc_core.reporting import Reporter
from xmc_core.stages.inputs import Inputs


def run(inputs: Inputs, config: Config, out: Path, report: Reporter) -> None:
    """Join the features, grow the tree anew (disentangled again), train, and bundle the model."""
    weight = config.encoder.weight
    X_train = join_features(inputs.X_train, inputs.embeddings_train, weight)
    X_test = join_features(inputs.X_test, inputs.embeddings_test, weight)
    Z = label_features(
        inputs.Y_train,
        X_train,
        config.tree,
        label_names=inputs.dataset.label_names,
        vectorizer=inputs.vectorizer,
        n_threads=config.n_threads,
    )
    model = train_xr_linear(X_train, inputs.Y_train, config, label_features=Z, report=report)
    model.predict(X_test).save(out / "predictions")

    bundle = PipelineModel(
        inputs.vectorizer,
        model,
        inputs.dataset.label_names[: inputs.dataset.n_labels],
        inputs.encoder if inputs.encoder.is_dir() else None,
        {"dataset": inputs.paths.dataset, "config": to_mapping(config)},
    )
    bundle.save(out / "bundle")

    facts = {"features": X_train.shape[1], "leaves": model.tree.n_leaves, "nnz": model.nnz}
    write_store(out, "rankers", facts=facts)
    report.metrics(**facts)
