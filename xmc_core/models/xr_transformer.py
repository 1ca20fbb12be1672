"""XR-Transformer: an encoder fine-tuned along the label tree, coarse to fine.

Zhang, Chang, Yu and Dhillon, "Fast Multi-Resolution Transformer Fine-tuning for Extreme
Multi-label Text Classification", NeurIPS 2021. With `encoder.leaf_only`, the single task over the
leaf clusters of its predecessor, X-Transformer (Chang et al., KDD 2020).

What comes out are embeddings; the heads are thrown away, and linear rankers on [tf-idf, embedding]
give the final answer.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from scipy.sparse import csr_array

import xmc_core
from xmc_core.config import Config, RankersConfig, to_mapping
from xmc_core.data.rows import as_labels, as_rows
from xmc_core.encoder.checkpoint import Saved, Scratch, fingerprint
from xmc_core.encoder.components import reduce_embeddings, with_components
from xmc_core.encoder.contrastive import Relations
from xmc_core.encoder.device import MasterWeights, resolve_dtype
from xmc_core.encoder.distributed import ALONE, World, is_sharded
from xmc_core.encoder.finetune import CurvePoint, Look, curves, train_level_head
from xmc_core.encoder.head import Head, LevelTargets
from xmc_core.encoder.model import TextEncoder
from xmc_core.encoder.plan import LevelPlan, plan_levels
from xmc_core.encoder.sharded import full, shard
from xmc_core.encoder.tokens import TokenStore
from xmc_core.encoder.validation import Validation
from xmc_core.encoder.weights import weights_digest
from xmc_core.errors import ConfigError, DataError, ShapeError
from xmc_core.features.joined import join_features
from xmc_core.models.levels import search_nodes
from xmc_core.persistence import read_store, write_store
from xmc_core.persistence.atomic import fresh_folder
from xmc_core.rankers.negatives import active_rows
from xmc_core.rankers.train import Level, train_level, train_together
from xmc_core.reporting import SILENT, Reporter
from xmc_core.tree import LabelTree
from xmc_core.tree.label_tree import parents
from xmc_core.types import Halves, Indices, SparseRows

COMPONENT_ROWS = 100_000
"""Documents by which principal components are chosen, at most."""

WARM_START = RankersConfig(cost=(1.0,), cost_negative=(1.0,), threshold=(0.0,))
"""Settings of those linear classifiers, on rows of unit length. Weak ones on purpose: a head of
large weights meets every margin by itself and leaves the encoder nothing to learn."""


@dataclass(frozen=True, slots=True, eq=False)
class FineTuned:
    """An encoder and what it makes of the training documents."""

    encoder: TextEncoder
    embeddings: Halves
    """(n_samples, n_dims) rows of unit length; a memory map, if there was a scratch folder."""

    curve: tuple[CurvePoint, ...]
    """Loss by step; empty for a frozen encoder."""

    looks: tuple[Look, ...] = ()
    """Figures of the documents held out, by step; empty without any."""


def fine_tune(
    texts: Sequence[str],
    X: SparseRows,
    Y: SparseRows,
    tree: LabelTree,
    config: Config,
    *,
    scratch: Path | None = None,
    world: World = ALONE,
    device: torch.device | None = None,
    report: Reporter = SILENT,
) -> FineTuned:
    """Load the encoder that `config.encoder` names and fine-tune it on the levels of `tree`.

    Parameters
    ----------
    texts : n_samples
    X : (n_samples, n_features)
        Tf-idf of the same texts; helps to choose each level's negatives.
    Y : (n_samples, n_labels)
    scratch
        A folder of this run's own, for token ids and embeddings, which are else held in memory, and
        for checkpoints: called again with the same data and settings, a killed run goes on.
    world
        The processes that share the work; with several, `scratch` is one that all of them see.
    device
        By default a GPU if there is one.

    Raises
    ------
    ConfigError, DataError, EncoderError, ShapeError
        Before the first step, if settings, tree and data do not fit, or there is no such encoder.
    """
    X, Y = as_rows(X), as_labels(Y)
    if not len(texts) == X.shape[0] == Y.shape[0]:
        raise ShapeError(
            f"there are {len(texts):,} texts, {X.shape[0]:,} rows of X and {Y.shape[0]:,} of Y; "
            "all must hold the same samples in the same order."
        )
    if len(texts) == 0:
        raise DataError("there are no training documents to fine-tune an encoder on.")
    plans = plan_levels(tree, config.encoder)
    if plans and config.encoder.validation_rows >= len(texts):
        raise ConfigError(
            f"encoder.validation_rows is {config.encoder.validation_rows:,} but there are "
            f"{len(texts):,} training documents; hold out fewer."
        )
    if not plans:  # nothing is to be validated, so nothing is held out
        config = config.replace(**{"encoder.validation_rows": 0})
    encoder = TextEncoder.pretrained(config.encoder, device)
    if config.encoder.compile and encoder.device.type == "cuda":
        encoder.model.compile(dynamic=True)
    run = _Run(texts, X, Y, tree, encoder, config, scratch, world, report)
    sharded = config.encoder.sharded and world.size > 1
    if sharded and plans:
        shard(encoder, resolve_dtype(config.encoder.precision, encoder.device))
    for plan in plans:
        run.level(plan, sum(plan.steps for plan in plans))
    if plans and (sharded or config.encoder.pretrained_share > 0):
        encoder = TextEncoder.pretrained(config.encoder, device)
        blend(encoder, run.encoder, config.encoder.pretrained_share)
        run.encoder = encoder
    embeddings = run.embed_all()
    if config.encoder.components > 0:
        embeddings = run.reduce(embeddings, config.encoder.components)
    return FineTuned(run.encoder, embeddings, tuple(run.points), tuple(run.looks))


def blend(pretrained: TextEncoder, tuned: TextEncoder, share: float) -> None:
    """Move the pretrained weights to the fine-tuned ones, and leave them `share` of themselves.

    The mean of two ends of one training is as good on its documents as the far end, nearly, and
    keeps more of what the near end knew (Wortsman et al., "Robust fine-tuning of zero-shot models",
    CVPR 2022). The rankers learn from embeddings of documents that the encoder has seen, and are
    asked about others: the less these two differ, the better.
    """
    state = tuned.model.state_dict()
    for name, weight in pretrained.model.state_dict().items():
        if weight.is_floating_point():
            weight.lerp_(full(state[name]).to(weight.device), 1.0 - share)


def sample_rows(rows: Indices, wanted: int, seed: int) -> Indices:
    """`wanted` different ones of `rows` at random, in their order; all if there are no more."""
    if wanted >= len(rows):
        return rows
    chosen = np.random.default_rng(seed).choice(len(rows), wanted, replace=False)
    return rows[np.sort(chosen)]


@dataclass(frozen=True, slots=True, eq=False)
class _Prepared:
    """What a level starts from."""

    head: Head
    active: SparseRows | None
    """(rows of the sample, parents); None: every node is a candidate of every row."""

    active_held_out: SparseRows | None

    def save(self, folder: Path) -> None:
        matrices = {
            name: matrix
            for name in ("active", "active_held_out")
            if (matrix := getattr(self, name)) is not None
        }
        weight, bias = (p.detach().cpu().numpy() for p in (self.head.weight, self.head.bias))
        with fresh_folder(folder) as out:
            write_store(out, KIND, arrays={"weight": weight, "bias": bias}, matrices=matrices)

    @classmethod
    def load(cls, folder: Path) -> "_Prepared":
        store = read_store(folder, KIND)
        there = store.facts["csr"]
        active, held_out = (
            store.csr(name) if name in there else None for name in ("active", "active_held_out")
        )
        return cls(Head(store.arrays["weight"], store.arrays["bias"]), active, held_out)


KIND = "prepared-level"
PARTS = ("data", "encoder", "features", "inference", "kernels", "models", "rankers", "solvers")
"""Of the library: what decides on the outcome of a step. A checkpoint of other code is not used,
nor one that other releases of these computed:"""
OTHERS = ("torch", "transformers", "tokenizers", "numba", "numpy")


class _Run:
    """One run down the levels: the data, the encoder as it is now, and where it is kept."""

    def __init__(
        self,
        texts: Sequence[str],
        X: SparseRows,
        Y: SparseRows,
        tree: LabelTree,
        encoder: TextEncoder,
        config: Config,
        scratch: Path | None,
        world: World,
        report: Reporter,
    ) -> None:
        self.X, self.Y, self.tree, self.encoder, self.config = X, Y, tree, encoder, config
        self.world, self.report = world, report
        self.targets = tree.targets(Y)
        everything = np.arange(len(texts), dtype=np.int32)
        self.held_out = everything[:0]
        if count := config.encoder.validation_rows:
            self.held_out = sample_rows(everything, count, config.encoder.seed)
        self.known: Indices = np.setdiff1d(everything, self.held_out, assume_unique=True)
        self.relations: Relations | None = None
        """Of the known documents, if a loss asks for them."""
        if config.encoder.contrastive > 0:
            self.relations = Relations.of(as_rows(Y[self.known]))

        self.head: Head | None = None
        self.first_step = 0
        self.points: list[CurvePoint] = []
        self.looks: list[Look] = []
        self.train_tokens = config.encoder.train_tokens
        """What the level before had memory for."""

        self.saved: Saved | None = None
        self.scratch: Scratch | None = None
        if scratch is None:
            self.tokens = encoder.tokenize(texts, report)
            return
        scratch.mkdir(parents=True, exist_ok=True)
        # One process writes the file; the others hold the ids, for the time being, in memory.
        self.tokens = encoder.tokenize(texts, report, scratch if world.first else None)
        if world.first:
            Scratch.open(scratch, self._fingerprint())
        world.wait()
        self.scratch = Scratch(scratch)
        self.saved = self.scratch.latest()
        if self.saved is not None:
            facts = self.saved.facts
            self.points, self.looks = curves(facts["earlier"])
            step = facts["first_step"] + facts["done"]
            report.message(f"going on from the checkpoint after step {step:,}")

    def _fingerprint(self) -> str:
        X, Y = self.X, self.targets[-1]
        settings = to_mapping(self.config)
        return fingerprint(
            [
                self.tokens.ids, self.tokens.offsets, *self.tree.pointers,
                X.indptr, X.indices, X.data, Y.indptr, Y.indices, Y.data,
            ],
            {
                "encoder": settings["encoder"],
                "weights": weights_digest(self.config.encoder.name),
                "rankers": settings["rankers"],
                "post_processor": settings["inference"]["post_processor"],
                "dtype": str(resolve_dtype(self.config.encoder.precision, self.encoder.device)),
                "releases": [version(name) for name in OTHERS],
            },
            [file for part in PARTS for file in Path(xmc_core.__path__[0], part).glob("*.py")],
        )  # fmt: skip

    def level(self, plan: LevelPlan, total_steps: int) -> None:
        """Prepare and train one level; what a checkpoint has of it is not done again."""
        saved, settings = self.saved, self.config.encoder
        if saved is None or saved.facts["level"] <= plan.level:
            rows = self._sample(plan)
            prepared = self._prepared(plan, rows)
            self.head = prepared.head
            task, validation = self._tasks(plan, rows, prepared)
            curve = train_level_head(
                self.encoder,
                self.head,
                self.tokens.take(rows),
                task,
                plan,
                replace(settings, train_tokens=self.train_tokens),
                validation=validation,
                first_step=self.first_step,
                total_steps=total_steps,
                saved=saved,
                keep=self._keep if self.scratch and settings.checkpoint_every else None,
                n_threads=self.config.n_threads,
                world=self.world,
                report=self.report,
            )
            self.points += curve.points
            self.looks += curve.looks
            self.train_tokens = curve.train_tokens
            self.saved = None
        self.first_step += plan.steps

    def embed_all(self) -> Halves:
        """The training documents, encoded as the encoder is now; with a scratch folder, a file."""
        return self._embed(self.tokens, self._file("embeddings.npy"))

    def reduce(self, embeddings: Halves, count: int) -> Halves:
        """Reduce the encoder's vectors, and those it has made, to principal components."""
        rows = sample_rows(self.known, COMPONENT_ROWS, self.config.encoder.seed)
        n_threads = self.config.n_threads
        self.encoder, kept = with_components(self.encoder, embeddings, rows, count, n_threads)
        self.report.message(
            f"{count:,} of {embeddings.shape[1]:,} dimensions keep {kept:.1%} of the embeddings"
        )
        out = self._file("components.npy")
        if out is None:
            out = np.empty((len(embeddings), count), np.float16)
            reduce_embeddings(embeddings, self.encoder, out, n_threads)
        elif self.world.first:
            reduce_embeddings(embeddings, self.encoder, out, n_threads)
        self.world.wait()
        return out

    def _file(self, name: str) -> Halves | None:
        """A file for a vector of each training document, the same one for all processes; None
        without a scratch folder."""
        if self.scratch is None:
            return None
        file = self.scratch.folder / name
        if self.world.first:
            shape = (len(self.tokens), self.encoder.n_dims)
            np.lib.format.open_memmap(file, "w+", np.float16, shape).flush()
        self.world.wait()
        mapped: Halves = np.load(file, mmap_mode="r+")
        return mapped

    def _embed(self, tokens: TokenStore, out: Halves | None = None) -> Halves:
        settings = self.config.encoder
        dtype = resolve_dtype(settings.precision, self.encoder.device)
        model = self.encoder.model
        weights = MasterWeights([] if is_sharded(model) else [model], dtype)
        try:
            return self.encoder.embed(
                tokens,
                settings,
                n_threads=self.config.n_threads,
                report=self.report,
                out=out,
                world=self.world,
            )
        finally:
            weights.close()

    def _sample(self, plan: LevelPlan) -> Indices:
        """The documents that one level is prepared and trained on.

        A sample: encoding all documents before each level costs more than all steps together as
        soon as these are few (900 steps on 61 thousand short titles: 240 of 460 CPU seconds).
        """
        n_nodes, settings = self.tree.level_sizes[plan.level - 1], self.config.encoder
        in_steps = plan.steps * plan.batch_size
        wanted = max(in_steps, min(settings.rows_per_node * n_nodes, 2 * in_steps))
        seed = settings.seed + plan.level
        if self.relations is not None and wanted < len(self.known):
            # Half of them for the others, so that rare labels too have two of their documents.
            rows = sample_rows(np.arange(len(self.known), dtype=np.int32), -(-wanted // 2), seed)
            rows = self.known[self.relations.with_partners(rows, (seed,))]
        else:
            rows = sample_rows(self.known, wanted, seed)
        self.report.message(
            f"level {plan.level}: {n_nodes:,} nodes, {plan.steps:,} steps, {len(rows):,} documents"
        )
        return rows

    def _prepared(self, plan: LevelPlan, rows: Indices) -> _Prepared:
        """What the level starts from: found in the scratch folder, or made by the first process."""
        if self.scratch is None:
            return self._prepare(plan, rows, *self._present(plan, rows))
        folder = self.scratch.level(plan.level)
        there = folder.exists()
        self.world.wait()  # all have looked
        if not there:
            present = self._present(plan, rows)
            if self.world.first:
                self._prepare(plan, rows, *present).save(folder)
            self.world.wait()
        return _Prepared.load(folder)

    def _present(self, plan: LevelPlan, rows: Indices) -> tuple[Halves, Halves]:
        """The embeddings that the level's preparation needs: of its documents, and of those held
        out; without columns where it needs none."""
        searches = self._searches(plan)

        def embedded(rows: Indices, wanted: bool) -> Halves:
            if not wanted:
                return np.empty((len(rows), 0), np.float16)
            return self._embed(self.tokens.take(rows))

        sample = embedded(rows, searches or self.config.encoder.head_init == "linear")
        return sample, embedded(self.held_out, searches)

    def _searches(self, plan: LevelPlan) -> bool:
        """Whether the level above is searched for clusters worth distinguishing."""
        settings = self.config.encoder
        wanted = "matcher_aware" in settings.negatives or len(self.held_out) > 0
        return plan.level > 1 and not settings.leaf_only and wanted

    def _prepare(
        self, plan: LevelPlan, rows: Indices, embeddings: Halves, held_out: Halves
    ) -> _Prepared:
        """Choose a level's negatives and a head to start from, by the encoder as it is now."""
        settings, number = self.config.encoder, plan.level
        targets, pointer = as_rows(self.targets[number - 1][rows]), self.tree.pointers[number - 1]

        active = active_held_out = None
        if number > 1:
            above = as_rows(self.targets[number - 2][rows])
            kinds = tuple(settings.negatives)
            beam = None
            if self._searches(plan):
                beam, active_held_out = self._beams(number - 1, rows, embeddings, held_out)
            else:
                kinds = ("teacher_forcing",)
            active = active_rows(kinds, above, beam)

        n_nodes = targets.shape[1]
        if settings.head_init == "linear":
            weights, _ = train_level(
                csr_array(embeddings.astype(np.float32)), targets, pointer, active,
                config=WARM_START, level=1, depth=1, n_threads=self.config.n_threads,
            )  # fmt: skip
            head = Head(*weights.to_dense())
        elif settings.head_init == "inherit" and self.head is not None:
            head = self.head.inherited(parents(pointer))
        else:
            head = Head.random(n_nodes, self.encoder.n_dims, settings.seed + number)
        if settings.leaf_only:
            active = None  # X-Transformer: every cluster is a candidate of every document
        return _Prepared(head, active, active_held_out)

    def _tasks(
        self, plan: LevelPlan, rows: Indices, prepared: _Prepared
    ) -> tuple[LevelTargets, Validation | None]:
        targets, pointer = self.targets[plan.level - 1], self.tree.pointers[plan.level - 1]
        if self.config.encoder.leaf_only:
            pointer = np.array([0, targets.shape[1]])
        settings = self.config.encoder
        relations = Relations.of(as_rows(self.Y[rows])) if settings.contrastive > 0 else None
        task = LevelTargets(
            as_rows(targets[rows]), pointer, prepared.active, settings.weighted, relations
        )
        if len(self.held_out) == 0:
            return task, None
        validation = Validation(
            self.tokens.take(self.held_out),
            as_rows(targets[self.held_out]),
            pointer,
            prepared.active_held_out,
        )
        return task, validation

    def _beams(
        self, level: int, rows: Indices, embeddings: Halves, held_out: Halves
    ) -> tuple[SparseRows, SparseRows | None]:
        """(documents, nodes of `level`) that rankers on the present embeddings reach: of the
        documents that they are trained on, and of those held out."""
        config = self.config
        X = self._joined(rows, embeddings)
        levels = []
        for t in range(1, level + 1):
            above = as_rows(self.targets[t - 2][rows]) if t > 1 else None
            active = active_rows(("teacher_forcing",), above)
            targets = as_rows(self.targets[t - 1][rows])
            levels.append(Level(targets, self.tree.pointers[t - 1], active, t, self.tree.depth))
        trained = train_together(X, levels, config=config.rankers, n_threads=config.n_threads)

        def reached(X: SparseRows) -> SparseRows:
            return search_nodes(
                X,
                [weights for weights, _ in trained],
                self.tree.depth,
                config,
                beam_size=config.encoder.beam_size,
                n_threads=config.n_threads,
            )

        if len(self.held_out) == 0:
            return reached(X), None
        return reached(X), reached(self._joined(self.held_out, held_out))

    def _joined(self, rows: Indices, embeddings: Halves) -> SparseRows:
        if not self.config.encoder.joint_ranker:
            return csr_array(embeddings.astype(np.float32))
        return join_features(as_rows(self.X[rows]), embeddings, self.config.encoder.weight)

    def _keep(self, saved: Saved) -> None:
        """Write a checkpoint, with the curves of the levels before."""
        assert self.scratch is not None
        if self.world.first:
            earlier = {
                "points": [asdict(point) for point in self.points],
                "looks": [asdict(look) for look in self.looks],
            }
            self.scratch.save(Saved({**saved.facts, "earlier": earlier}, saved.tensors))
