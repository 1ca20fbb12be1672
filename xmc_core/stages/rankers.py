"""The final rankers on [tf-idf, embedding], over a tree rebuilt on these features."""

from dataclasses import replace
from pathlib import Path

from xmc_core.config import Config, to_mapping
from xmc_core.features.joined import join_features
from xmc_core.features.label_features import label_features
from xmc_core.models import Member, PipelineModel, XRLinear, train_xr_linear
from xmc_core.models.pipeline import SavedEncoder, member_folders
from xmc_core.persistence import write_store
from xmc_core.reporting import MemberReporter, Reporter
from xmc_core.stages.inputs import Encoded, Inputs
from xmc_core.types import SparseRows


def run(inputs: Inputs, config: Config, out: Path, report: Reporter) -> None:
    """Join the features, grow the tree anew (disentangled again), train, and bundle the model.

    An ensemble's members are trained one after the other; its answer is their average.
    """
    n_members = len(config.members)
    members, answers = [], []
    for number, (encoded, own) in enumerate(
        zip(inputs.encoded(config), config.members, strict=True), start=1
    ):
        told = report if n_members == 1 else MemberReporter(report, number)
        known = own.tree == config.tree
        model = train_member(inputs, encoded, own, told, known=known)
        X_test = join_features(inputs.X_test, encoded.test, own.encoder.weight)
        answers.append(model.predict(X_test))
        encoder = None
        if encoded.encoder is not None:
            encoder = SavedEncoder(encoded.encoder, own.encoder.precision)
        members.append(Member(model, encoder))

    settings = to_mapping(config)
    if n_members == 1:
        del settings["ensemble"]  # how none would have been averaged
    bundle = PipelineModel(
        inputs.vectorizer,
        tuple(members),
        inputs.dataset.label_names[: inputs.dataset.n_labels],
        config.ensemble.average,
        {"dataset": inputs.paths.dataset, "config": settings},
    )
    bundle.save(out / "bundle")
    for folder, answer in zip(member_folders(out, n_members), answers, strict=True):
        answer.save(folder / "predictions")
    if n_members > 1:
        bundle.averaged(answers).save(out / "predictions")

    models = [member.model for member in members]
    facts = {
        "features": max(model.n_features for model in models),
        "leaves": sum(model.tree.n_leaves for model in models),
        "nnz": sum(model.nnz for model in models),
    }
    if n_members > 1:
        facts["members"] = n_members
    write_store(out, "rankers", facts=facts)
    report.metrics(**facts)


def train_member(
    inputs: Inputs, encoded: Encoded, config: Config, report: Reporter, *, known: bool
) -> XRLinear:
    """The model of one member, or the only one.

    Without an embedding an earlier stage has trained it, if its tree is `known` there.
    """
    if encoded.train.shape[1] == 0 and known:
        stage, model = known_model(inputs, config)
        report.message(f"without an embedding the final model is that of {stage}")
        return model
    X = join_features(inputs.X_train, encoded.train, config.encoder.weight)
    Z = features_of_labels(inputs, X, config)
    return train_xr_linear(X, inputs.Y_train, config, label_features=Z, report=report)


def joined_rows(inputs: Inputs, config: Config) -> SparseRows:
    """Training rows as the final rankers see them: [tf-idf, embedding], or tf-idf alone. Of an
    ensemble, as its first member does."""
    first = config.members[0].encoder
    if first.name == "none":
        return inputs.X_train
    return join_features(inputs.X_train, inputs.encoded(config)[0].train, first.weight)


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
