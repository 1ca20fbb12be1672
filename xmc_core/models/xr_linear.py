"""XR-Linear: a tree of linear rankers, trained level by level and searched by beam.

Yu, Zhong, Zhang, Chang and Dhillon, "PECOS: Prediction for Enormous and Correlated Output Spaces",
JMLR 2022. Labels in several clusters: Liu, Chang, Yu, Hsieh and Dhillon, "Label Disentanglement in
Partition-based Extreme Multilabel Classification", NeurIPS 2021.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.sparse import csr_array

from xmc_core.config import Config, config_from_mapping, to_mapping
from xmc_core.data import Predictions
from xmc_core.data.rows import Rows, as_labels, as_rows
from xmc_core.errors import ConfigError, DataError, ShapeError, StoreError
from xmc_core.features.label_features import centroid_rows
from xmc_core.inference.beam import Searcher, allowed_nodes
from xmc_core.inference.mean_paths import MeanSearcher, make_searcher
from xmc_core.models.clusters import find_clusters
from xmc_core.models.levels import search_nodes, train_levels
from xmc_core.persistence import described, fresh_store, read_store, read_whole, write_store
from xmc_core.persistence.store import MANIFEST
from xmc_core.rankers.weights import ChunkedWeights
from xmc_core.reporting import SILENT, Reporter
from xmc_core.tree import LabelTree
from xmc_core.tree.build import build_label_tree
from xmc_core.types import Flags, Floats, Indices, SparseRows

KIND = "xr-linear"
LAYOUT = 7
"""Of the arrays of a level; a folder with another one is refused."""


@dataclass(frozen=True, slots=True, eq=False)
class XRLinear:
    """A trained tree of rankers. Safe to share between threads."""

    tree: LabelTree
    levels: tuple[ChunkedWeights, ...]
    """Weights of level 1, ..., depth."""

    config: Config
    n_features: int

    allowed: Indices | None = None
    """(n,) the only labels that predictions name, see `restricted`; None: all of them."""

    _searcher: Searcher | MeanSearcher = field(init=False, repr=False)

    def __post_init__(self) -> None:
        sizes = tuple(level.n_children for level in self.levels)
        if sizes != self.tree.level_sizes:
            raise ShapeError(
                f"rankers for levels of {sizes} nodes do not fit a tree of {self.tree.level_sizes}."
            )
        searcher = make_searcher(
            self.config.inference.paths,
            self.levels,
            post_processor=self.config.inference.post_processor,
            path_weight=self.config.inference.path_weight,
            slot_labels=self.tree.slot_labels,
            n_labels=self.n_labels,
            allowed=self._allowed_nodes(),
        )
        object.__setattr__(self, "_searcher", searcher)

    @property
    def n_labels(self) -> int:
        return self.tree.n_labels

    @property
    def nnz(self) -> int:
        """Weights that are not zero."""
        return sum(level.nnz for level in self.levels)

    def predict(
        self,
        X: SparseRows | Floats,
        top_k: int | None = None,
        beam_size: int | None = None,
        n_threads: int | None = None,
        allow: Sequence[int] | Indices | None = None,
    ) -> Predictions:
        """Best labels of each row; what is not given comes from the model's config.

        What a label in several clusters of a row's beam scores there, `inference.paths` says.
        A row's answer is the same whatever rows stand beside it. Few rows are answered with low
        latency, many with high throughput.

        Parameters
        ----------
        X : (n_samples, n_features)
            CSR, or dense float32.
        allow
            The only labels to choose from, for this call; see `restricted`, which costs nothing
            when the same ones are wanted again.

        Raises
        ------
        ShapeError
            If X has another number of columns than the model was trained with.
        ConfigError
            If top_k or beam_size is below 1.
        DataError
            If a label in `allow` does not exist, or a value of X is not finite.
        """
        model = self if allow is None else self.restricted(allow)
        return model._searcher.search(
            X,
            beam_size=_at_least_one("beam_size", beam_size, self.config.inference.beam_size),
            top_k=min(_at_least_one("top_k", top_k, self.config.inference.top_k), self.most_wanted),
            n_threads=self.config.n_threads if n_threads is None else n_threads,
        )

    @property
    def most_wanted(self) -> int:
        """Labels that an answer holds at most, however many are asked for: all there are, or as
        many as the config says."""
        return max(self.n_labels, self.config.inference.top_k)

    def score(
        self, X: SparseRows | Floats, pairs: SparseRows, n_threads: int | None = None
    ) -> SparseRows:
        """Scores of given (row, label) pairs: the stored entries of `pairs`, (n_samples, n_labels).

        No beam cuts a path: where a beam reached all clusters of the label, the score is that of
        `predict`. A label in several clusters has the best score of its paths, or that of their
        mean, as `inference.paths` says, and one in none -inf.

        Raises ShapeError if X or pairs do not have these shapes, DataError if a value of X is not
        finite.
        """
        return self._searcher.score(
            X, csr_array(pairs), n_threads=self.config.n_threads if n_threads is None else n_threads
        )

    def restricted(self, labels: Sequence[int] | Indices) -> "XRLinear":
        """The same model, searched for these labels only: nodes without any of them are not
        entered, so the beam holds what can still lead to one. Weights are shared.

        Raises DataError if a label does not exist.
        """
        wanted = np.unique(np.asarray(labels))
        if len(wanted) and not np.issubdtype(wanted.dtype, np.integer):
            raise DataError(
                f"labels to be allowed must be their numbers, got values of type {wanted.dtype}; "
                "of a mask take np.flatnonzero(mask)."
            )
        if len(wanted) and not 0 <= wanted[0] <= wanted[-1] < self.n_labels:
            raise DataError(
                f"labels {wanted[0]} .. {wanted[-1]} are to be allowed, but the model has labels 0 "
                f".. {self.n_labels - 1}."
            )
        if self.allowed is not None:
            wanted = np.intersect1d(wanted, self.allowed)
        return replace(self, allowed=wanted.astype(np.int32))

    def _allowed_nodes(self) -> list[Flags] | None:
        if self.allowed is None:
            return None
        return allowed_nodes(self.levels, self.tree.slot_labels, self.allowed)

    def predict_nodes(
        self,
        X: SparseRows | Floats,
        level: int,
        beam_size: int | None = None,
        n_threads: int | None = None,
    ) -> SparseRows:
        """(n_samples, nodes of `level`) scores of the nodes that the beam keeps at that level.

        Level 0 is the root, which every row reaches with score 1.

        Raises ConfigError if the tree has no such level.
        """
        if not 0 <= level <= self.tree.depth:
            raise ConfigError(f"level is {level}; the tree has the levels 0 to {self.tree.depth}.")
        if level == 0:
            return csr_array(np.ones((X.shape[0], 1), np.float32))
        allowed = self._allowed_nodes()
        return search_nodes(
            X,
            self.levels[:level],
            self.tree.depth,
            self.config,
            beam_size=_at_least_one("beam_size", beam_size, self.config.inference.beam_size),
            n_threads=self.config.n_threads if n_threads is None else n_threads,
            allowed=None if allowed is None else allowed[:level],
        )

    def predict_leaves(
        self, X: SparseRows | Floats, beam_size: int | None = None, n_threads: int | None = None
    ) -> SparseRows:
        """(n_samples, n_leaves) scores of the clusters in each row's beam."""
        return self.predict_nodes(X, self.tree.depth - 1, beam_size, n_threads)

    def save(self, folder: Path | str) -> None:
        """Write the model; a folder that is there already is replaced in one step."""
        arrays = {
            f"level{number}.{name}": array
            for number, level in enumerate(self.levels, start=1)
            for name, array in level.arrays().items()
        }
        if self.allowed is not None:
            arrays["allowed"] = self.allowed
        settings = to_mapping(self.config)
        del settings["n_threads"]  # of this machine, not of the model: equal models, equal bytes
        del settings["ensemble"]  # of the pipeline: a single model is none
        facts = {
            "config": settings,
            "layout": LAYOUT,
            "features": self.n_features,
            "depth": self.tree.depth,
        }
        with fresh_store(folder) as fresh:
            self.tree.save(fresh / "tree")
            write_store(fresh, KIND, arrays=arrays, facts=facts)

    @classmethod
    def load(cls, folder: Path | str, *, verify: bool = False) -> "XRLinear":
        """Open a saved model. Weights stay on disk until they are read.

        `verify` reads all of them and compares their checksums; without it only the smaller arrays,
        up to 256 MB.

        Raises StoreError if the folder is not such a model, or is incomplete, altered or damaged.
        """
        folder = Path(folder)
        return read_whole(folder, lambda: cls._load(folder, verify))

    @classmethod
    def _load(cls, folder: Path, verify: bool) -> "XRLinear":
        store = read_store(folder, KIND, verify=verify)
        if (layout := store.facts.get("layout", 1)) != LAYOUT:
            raise StoreError(
                f"{folder / MANIFEST} has its weights in layout {layout}; this release "
                f"reads layout {LAYOUT}. Train the model again."
            )
        with described(folder, "a model"):
            n_features, depth = int(store.facts["features"]), int(store.facts["depth"])
            config = config_from_mapping(store.facts["config"], str(folder))
        levels = []
        for number in range(1, depth + 1):
            with described(folder, f"level {number} of a model"):
                arrays = _of_level(store.arrays, number)
                levels.append(ChunkedWeights.from_arrays(arrays, n_features))
        tree, allowed = LabelTree.load(folder / "tree", verify=verify), store.arrays.get("allowed")
        with described(folder, "a model that fits its tree"):
            return cls(tree, tuple(levels), config, n_features, allowed)


def train_xr_linear(
    X: SparseRows,
    Y: SparseRows,
    config: Config | None = None,
    *,
    tree: LabelTree | None = None,
    label_features: SparseRows | None = None,
    given: Mapping[int, SparseRows] | None = None,
    beams: SparseRows | None = None,
    report: Reporter = SILENT,
) -> XRLinear:
    """Train XR-Linear.

    Parameters
    ----------
    X : (n_samples, n_features)
    Y : (n_samples, n_labels)
        A stored nonzero says that the label applies; its sign does not count.
    tree
        The tree to train on, as it is. Without one, it is grown on `label_features` and, if
        `disentangle.max_clusters` is above 1 and `disentangle.in_rankers` holds, labels are given
        their clusters anew before training (xmc_core.models.clusters).
    label_features : (n_labels, any)
        What to grow the tree on, such as xmc_core.features.label_features.label_features; by
        default the centroid of each label's rows.
    given
        By level number, (n_samples, nodes of the level above): rows that the classifiers of that
        level shall see, where `rankers.negatives` says `given`.
    beams : (n_samples, n_leaves)
        Clusters of rows held out (xmc_core.models.levels.held_out_beams), where they are known for
        `tree` already and `rankers.negatives` says `held_out`.

    Raises
    ------
    ShapeError
        If X, Y, the tree or the label features do not fit together.
    DataError
        If X or Y holds a NaN or an infinity, or a column outside its shape.
    ConfigError
        If `tree.label_features` wants the labels' names, which are not known here.
    """
    config = config or Config()
    X, Y = as_rows(X), as_labels(Y)
    if X.shape[0] != Y.shape[0]:
        raise ShapeError(
            f"X has {X.shape[0]:,} rows but Y has {Y.shape[0]:,}; "
            "both must hold the same samples in the same order."
        )
    rows = Rows.of(X)
    if tree is not None:
        return _train(X, rows, Y, tree, config, given, beams, report)

    if label_features is None:
        if config.tree.label_features != "pifa":
            raise ConfigError(
                f"tree.label_features is {config.tree.label_features}, but matrices have no label "
                "names; give label_features= (xmc_core.features.label_features), or set it to pifa."
            )
        features: SparseRows | Rows = centroid_rows(
            Y, rows, max_features=config.tree.max_features, n_threads=config.n_threads
        )
    else:
        features = label_features
        if features.shape[0] != Y.shape[1]:
            raise ShapeError(
                f"Y has {Y.shape[1]:,} labels but label_features has {features.shape[0]:,} rows."
            )
    tree = build_label_tree(features, config.tree, config.n_threads)
    several = config.disentangle.in_rankers and config.disentangle.max_clusters > 1
    if several and tree.n_leaves > 1:
        found = find_clusters(X, Y, tree, config, report=report)
        tree, beams = found.tree, found.beams
    return _train(X, rows, Y, tree, config, given, beams, report)


def _train(
    X: SparseRows,
    rows: Rows,
    Y: SparseRows,
    tree: LabelTree,
    config: Config,
    given: Mapping[int, SparseRows] | None,
    beams: SparseRows | None,
    report: Reporter,
) -> XRLinear:
    levels = train_levels(X, Y, tree, config, rows=rows, given=given, beams=beams, report=report)
    return XRLinear(tree, tuple(weights for weights, _ in levels), config, X.shape[1])


def _of_level(arrays: Mapping[str, Any], number: int) -> dict[str, Any]:
    prefix = f"level{number}."
    return {
        name.removeprefix(prefix): array
        for name, array in arrays.items()
        if name.startswith(prefix)
    }


def _at_least_one(name: str, value: int | None, default: int) -> int:
    if value is None:
        return default
    if value < 1:
        raise ConfigError(f"{name} must be at least 1, got {value}.")
    return value
