"""XR-Transformer: an encoder fine-tuned along the label tree, coarse to fine.

Zhang, Chang, Yu and Dhillon, "Fast Multi-Resolution Transformer Fine-tuning for Extreme
Multi-label Text Classification", NeurIPS 2021. With `encoder.leaf_only`, the single task over the
leaf clusters of its predecessor, X-Transformer (Chang et al., KDD 2020).

What comes out are embeddings; the heads are thrown away, and linear rankers on [tf-idf, embedding]
give the final answer.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

from xmc_core.config import Config, RankersConfig
from xmc_core.encoder.finetune import CurvePoint, LevelPlan, plan_levels, train_level_head
from xmc_core.encoder.head import Head, LevelTargets
from xmc_core.encoder.model import TextEncoder
from xmc_core.encoder.tokens import TokenStore
from xmc_core.errors import ShapeError
from xmc_core.features.joined import join_features
from xmc_core.inference.beam import as_rows
from xmc_core.models.xr_linear import search_nodes
from xmc_core.rankers.negatives import active_rows
from xmc_core.rankers.train import Level, train_level, train_together
from xmc_core.reporting import SILENT, Reporter
from xmc_core.tree import LabelTree
from xmc_core.tree.label_tree import parents
from xmc_core.types import Floats, Indices, SparseRows

ROWS_PER_NODE = 32
"""A level is prepared and trained on a sample of the documents: as many as its steps take, and no
fewer than this many per node for the linear classifiers that its head starts from. Encoding all
documents before each level costs more than all steps together as soon as there are few steps."""

WARM_START = RankersConfig(cost=(1.0,), cost_negative=(1.0,), threshold=(0.0,))
"""Settings of those linear classifiers, on rows of unit length. Weak ones on purpose: a head of
large weights meets every margin by itself and leaves the encoder nothing to learn."""

NEGATIVES = ("teacher_forcing", "matcher_aware")


@dataclass(frozen=True, slots=True, eq=False)
class FineTuned:
    """An encoder and what it makes of the training documents."""

    encoder: TextEncoder
    embeddings: Floats
    """(n_samples, n_dims) rows of unit length."""

    curve: tuple[CurvePoint, ...]
    """Loss by step; empty for a frozen encoder."""


def fine_tune(
    texts: Sequence[str],
    X: SparseRows,
    Y: SparseRows,
    tree: LabelTree,
    config: Config,
    *,
    report: Reporter = SILENT,
) -> FineTuned:
    """Load the encoder that `config.encoder` names and fine-tune it on the levels of `tree`.

    Parameters
    ----------
    texts : n_samples
    X : (n_samples, n_features)
        Tf-idf of the same texts; helps to choose each level's negatives.
    Y : (n_samples, n_labels)

    Raises
    ------
    ConfigError, EncoderError, ShapeError
        Before the first step, if settings, tree and data do not fit, or there is no such encoder.
    """
    settings = config.encoder
    X, Y = as_rows(X), as_rows(Y)
    if not len(texts) == X.shape[0] == Y.shape[0]:
        raise ShapeError(
            f"there are {len(texts):,} texts, {X.shape[0]:,} rows of X and {Y.shape[0]:,} of Y; "
            "all must hold the same samples in the same order."
        )
    plans = plan_levels(tree, settings)
    encoder = TextEncoder.pretrained(settings)
    tokens = encoder.tokenize(texts, report)
    targets = tree.targets(Y)

    curve: list[CurvePoint] = []
    head: Head | None = None
    first_step = 0
    for plan in plans:
        n_nodes = tree.level_sizes[plan.level - 1]
        wanted = max(plan.steps * settings.batch_size, ROWS_PER_NODE * n_nodes)
        rows = sample_rows(len(texts), wanted, settings.seed + plan.level)
        report.message(
            f"level {plan.level}: {n_nodes:,} nodes, {plan.steps:,} steps, {len(rows):,} documents"
        )
        sample = _Sample(tokens.take(rows), X[rows], [as_rows(level[rows]) for level in targets])
        task, head = _prepare(encoder, head, sample, tree, plan, config, report)
        curve += train_level_head(
            encoder,
            head,
            sample.tokens,
            task,
            plan,
            settings,
            first_step=first_step,
            n_threads=config.n_threads,
            report=report,
        )
        first_step += plan.steps
    embeddings = encoder.embed(tokens, settings, n_threads=config.n_threads, report=report)
    return FineTuned(encoder, embeddings, tuple(curve))


def sample_rows(n_rows: int, wanted: int, seed: int) -> Indices:
    """`wanted` different rows at random, ascending; all of them if there are no more."""
    if wanted >= n_rows:
        return np.arange(n_rows, dtype=np.int32)
    rows = np.random.default_rng(seed).choice(n_rows, wanted, replace=False)
    return np.sort(rows).astype(np.int32)


@dataclass(frozen=True, slots=True, eq=False)
class _Sample:
    """The documents that one level is trained on."""

    tokens: TokenStore
    X: SparseRows
    targets: list[SparseRows]
    """Of every level of the tree."""


def _prepare(
    encoder: TextEncoder,
    above: Head | None,
    sample: _Sample,
    tree: LabelTree,
    plan: LevelPlan,
    config: Config,
    report: Reporter,
) -> tuple[LevelTargets, Head]:
    """Choose a level's negatives and a head to start from, by the encoder as it is now."""
    settings = config.encoder
    number = plan.level
    targets, pointer = sample.targets[number - 1], tree.pointers[number - 1]
    chooses = number > 1 and not settings.leaf_only
    embeddings = np.empty((len(sample.tokens), 0), np.float32)
    if chooses or settings.head_init == "linear":
        embeddings = encoder.embed(
            sample.tokens, settings, n_threads=config.n_threads, report=report
        )

    active = None
    if number > 1:
        beam = _beam(sample, embeddings, tree, number - 1, config) if chooses else None
        active = active_rows(
            NEGATIVES if chooses else NEGATIVES[:1], sample.targets[number - 2], beam
        )

    n_nodes = targets.shape[1]
    if settings.head_init == "linear":
        weights, _ = train_level(
            csr_array(embeddings), targets, pointer, active,
            config=WARM_START, level=1, depth=1, n_threads=config.n_threads,
        )  # fmt: skip
        head = Head(*weights.to_dense())
    elif settings.head_init == "inherit" and above is not None:
        head = above.inherited(parents(pointer))
    else:
        head = Head.random(n_nodes, encoder.n_dims, settings.seed + number)
    if settings.leaf_only:
        # X-Transformer: every cluster is a candidate of every document.
        return LevelTargets(targets, np.array([0, n_nodes]), None), head
    return LevelTargets(targets, pointer, active), head


def _beam(
    sample: _Sample, embeddings: Floats, tree: LabelTree, level: int, config: Config
) -> SparseRows:
    """(n_samples, nodes of `level`) that rankers trained on the present embeddings reach."""
    X = csr_array(embeddings)
    if config.encoder.joint_ranker:
        X = join_features(sample.X, embeddings, config.encoder.weight)
    levels = []
    for t in range(1, level + 1):
        active = active_rows(NEGATIVES[:1], sample.targets[t - 2] if t > 1 else None)
        levels.append(Level(sample.targets[t - 1], tree.pointers[t - 1], active, t, tree.depth))
    trained = train_together(X, levels, config=config.rankers, n_threads=config.n_threads)
    return search_nodes(
        X,
        [weights for weights, _ in trained],
        tree.depth,
        config,
        beam_size=config.encoder.beam_size,
        n_threads=config.n_threads,
    )
