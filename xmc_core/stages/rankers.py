"""The final rankers on [tf-idf, embedding], over a tree rebuilt on these features."""

from dataclasses import replace
from pathlib import Path

from xmc_core.config import Config, to_mapping
from xmc_core.features.joined import join_features
from xmc_core.features.label_features import label_features
from xmc_core.models import PipelineModel, XRLinear, train_xr_linear
from xmc_core.persistence import write_store
from xmc_core.reporting import Reporter
from xmc_core.stages.inputs import Inputs
from xmc_core.types import SparseRows


def run(inputs: Inputs, config: Config, out: Path, report: Reporter) -> None:
    """Join the features, grow the tree anew (disentangled again), train, and bundle the model.

    Without an embedding an earlier stage has trained that model.
    """
    X_test = join_features(inputs.X_test, inputs.embeddings_test, config.encoder.weight)
    if inputs.embeddings_train.shape[1] > 0:
        X = joined_rows(inputs, config)
        Z = features_of_labels(inputs, X, config)
        model = train_xr_linear(X, inputs.Y_train, config, label_features=Z, report=report)
    else:
        stage, model = known_model(inputs, config)
        report.message(f"without an embedding the final model is that of {stage}")
    model.predict(X_test).save(out / "predictions")

    bundle = PipelineModel(
        inputs.vectorizer,
        model,
        inputs.dataset.label_names[: inputs.dataset.n_labels],
        inputs.encoder if inputs.encoder.is_dir() else None,
        {"dataset": inputs.paths.dataset, "config": to_mapping(config)},
    )
    bundle.save(out / "bundle")

    facts = {"features": model.n_features, "leaves": model.tree.n_leaves, "nnz": model.nnz}
    write_store(out, "rankers", facts=facts)
    report.metrics(**facts)


def joined_rows(inputs: Inputs, config: Config) -> SparseRows:
    """Training rows as the final rankers see them: [tf-idf, embedding], or tf-idf alone."""
    if config.encoder.name == "none":
        return inputs.X_train
    return join_features(inputs.X_train, inputs.embeddings_train, config.encoder.weight)


def features_of_labels(inputs: Inputs, X: SparseRows, config: Config) -> SparseRows:
    """What a tree for rankers of the rows X is grown on."""
    return label_features(
        inputs.Y_train,
        X,
        config.tree,
        label_names=inputs.dataset.label_names,
        vectorizer=inputs.vectorizer,
        n_threads=config.n_threads,
    )


def known_model(inputs: Inputs, config: Config) -> tuple[str, XRLinear]:
    """The stage that has trained the same model on tf-idf alone, and that model.

    Training it again would give the same bytes; on 647 thousand documents it takes minutes.
    """
    if config.disentangle.in_rankers and config.disentangle.max_clusters > 1:
        stage, model = "disentangled_tree", inputs.disentangled_model
    else:
        stage, model = "matcher", inputs.matcher
    return stage, replace(model, config=config)
