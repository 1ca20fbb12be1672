"""The final rankers on [tf-idf, embedding], over a tree rebuilt on these features."""

from dataclasses import replace
from pathlib import Path

from scipy.sparse import csr_array

from xmc_core.config import Config, to_mapping
from xmc_core.data import Predictions
from xmc_core.features.joined import join_features
from xmc_core.features.label_features import label_features
from xmc_core.inference.calibration import Calibration
from xmc_core.models import Member, PipelineModel, XRLinear, train_xr_linear
from xmc_core.models.calibrate import DEPTH, calibrate
from xmc_core.models.pipeline import SavedEncoder, member_folders
from xmc_core.persistence import write_store
from xmc_core.reporting import MemberReporter, Reporter
from xmc_core.stages.inputs import Encoded, Inputs
from xmc_core.types import Indices, SparseRows


def run(inputs: Inputs, config: Config, out: Path, report: Reporter) -> None:
    """Join the features, grow the tree anew (disentangled again), train, and bundle the model.

    An ensemble's members are trained one after the other; its answer is their average. Where
    `calibration.method` says how, scores become probabilities, and the predictions hold these.
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
    if config.calibration.method != "none":
        bundle = replace(bundle, calibration=_calibration(inputs, bundle, config, report))
    bundle.save(out / "bundle")
    if n_members > 1:
        for folder, answer in zip(member_folders(out, n_members), answers, strict=True):
            answer.save(folder / "predictions")
    final = answers[0] if n_members == 1 else bundle.averaged(answers)
    bundle.finished(final).save(out / "predictions")

    models = [member.model for member in members]
    facts = {
        "features": max(model.n_features for model in models),
        "leaves": sum(model.tree.n_leaves for model in models),
        "nnz": sum(model.nnz for model in models),
    }
    if n_members > 1:
        facts["members"] = n_members
    if bundle.calibration is not None:
        facts |= {f"calibration_{name}": n for name, n in bundle.calibration.facts.items()}
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


def _calibration(
    inputs: Inputs, bundle: PipelineModel, config: Config, report: Reporter
) -> Calibration:
    """Curves from rows that models like those of the bundle have not seen."""
    members = list(zip(inputs.encoded(config), config.members, strict=True))
    top_k = config.inference.top_k

    def answer(kept: Indices, out: Indices) -> Predictions:
        answers = []
        for encoded, own in members:
            X = join_features(inputs.X_train, encoded.train, own.encoder.weight)
            model = train_xr_linear(
                csr_array(X[kept]),
                csr_array(inputs.Y_train[kept]),
                own,
                label_features=features_of_labels(inputs, X, own, kept),
            )
            # The softmax of an ensemble goes by the length of its members' lists.
            depth = max(DEPTH, 2 * top_k) if len(members) == 1 else top_k
            answers.append(model.predict(X[out], top_k=depth))
        return answers[0] if len(answers) == 1 else bundle.averaged(answers, 2 * top_k)

    return calibrate(inputs.Y_train, config, answer, report=report)


def joined_rows(inputs: Inputs, config: Config) -> SparseRows:
    """Training rows as the final rankers see them: [tf-idf, embedding], or tf-idf alone. Of an
    ensemble, as its first member does."""
    first = config.members[0].encoder
    if first.name == "none":
        return inputs.X_train
    return join_features(inputs.X_train, inputs.encoded(config)[0].train, first.weight)


def features_of_labels(
    inputs: Inputs, X: SparseRows, config: Config, rows: Indices | None = None
) -> SparseRows | None:
    """What a tree for rankers of the rows X is grown on if labels' names have a say in it; with
    `rows`, on these alone."""
    if config.tree.label_features == "pifa":
        return None  # then the rows that are trained on say it
    Y = inputs.Y_train
    return label_features(
        Y if rows is None else csr_array(Y[rows]),
        X if rows is None else csr_array(X[rows]),
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
