"""What earlier stages have written, loaded when first asked for."""

from functools import cached_property
from pathlib import Path

from xmc_core.config import Config
from xmc_core.data import Dataset, Predictions
from xmc_core.errors import DataError
from xmc_core.features.tfidf import TfidfVectorizer
from xmc_core.models.pipeline import member_folders
from xmc_core.models.xr_linear import XRLinear
from xmc_core.persistence import read_store
from xmc_core.persistence.store import read_manifest
from xmc_core.stages.paths import ProjectPaths
from xmc_core.tree import LabelTree
from xmc_core.types import Halves, SparseRows


class Inputs:
    """The artifacts of one data set. Each property names the stage that it comes from."""

    def __init__(self, paths: ProjectPaths) -> None:
        self.paths = paths

    @cached_property
    def dataset(self) -> Dataset:
        """Of `dataset`."""
        return Dataset.load(self.paths.existing("dataset"))

    @property
    def Y_train(self) -> SparseRows:
        return self.dataset.Y_train

    @cached_property
    def vectorizer(self) -> TfidfVectorizer:
        """Of `tfidf_features`."""
        return TfidfVectorizer.load(self.paths.existing("tfidf_features") / "vectorizer")

    @cached_property
    def X_train(self) -> SparseRows:
        return read_store(self.paths.existing("tfidf_features"), "tfidf-features").csr("X_train")

    @cached_property
    def X_test(self) -> SparseRows:
        return read_store(self.paths.existing("tfidf_features"), "tfidf-features").csr("X_test")

    @cached_property
    def initial_tree(self) -> LabelTree:
        """Of `initial_tree`."""
        return LabelTree.load(self.paths.existing("initial_tree") / "tree")

    @cached_property
    def label_features(self) -> SparseRows:
        """Of `initial_tree`: (n_labels, n_features) what it was grown on."""
        return read_store(self.paths.existing("initial_tree"), "initial-tree").csr("label_features")

    @cached_property
    def matcher(self) -> XRLinear:
        """Of `matcher`: XR-Linear over the initial tree."""
        return XRLinear.load(self.paths.existing("matcher") / "model")

    @cached_property
    def beams(self) -> SparseRows:
        """Of `matcher`: (n_train, n_leaves) scores of the clusters that its beam reaches."""
        return read_store(self.paths.existing("matcher"), "matcher").csr("beams")

    @cached_property
    def settled_beams(self) -> SparseRows:
        """Of `disentangled_tree`: the same by rankers of its tree, where it took several rounds;
        else those of `matcher`."""
        store = read_store(self.paths.existing("disentangled_tree"), "disentangled-tree")
        return store.csr("beams") if "beams.data" in store.arrays else self.beams

    @cached_property
    def disentangled_tree(self) -> LabelTree:
        """Of `disentangled_tree`."""
        return LabelTree.load(self.paths.existing("disentangled_tree") / "tree")

    @cached_property
    def disentangled_model(self) -> XRLinear:
        """Of `disentangled_tree`: XR-Linear over that tree."""
        return XRLinear.load(self.paths.existing("disentangled_tree") / "model")

    def encoded(self, config: Config) -> "list[Encoded]":
        """Of `xr_transformer`: what each member's encoder made of the texts; one without an
        ensemble.

        Raises DataError if the stage ran with another number of members.
        """
        folder, n_members = self.paths.existing("xr_transformer"), len(config.members)
        facts = read_manifest(folder)["facts"]
        if (found := int(facts.get("members", 1))) != n_members:
            raise DataError(
                f"{folder} holds {found} of the models that ensemble.members asks for, not "
                f"{n_members}; run the stage `xr_transformer` again."
            )
        return [Encoded(own) for own in member_folders(folder, n_members)]

    def predictions(self, stage: str) -> Predictions:
        """On the test split, of `matcher`, `disentangled_tree` or `rankers`."""
        return Predictions.load(self.paths.existing(stage) / "predictions")

    def member_predictions(self, n_members: int) -> list[Predictions]:
        """On the test split, of `rankers`: those of each member of an ensemble."""
        folders = member_folders(self.paths.existing("rankers"), n_members)
        return [Predictions.load(folder / "predictions") for folder in folders]


class Encoded:
    """What `xr_transformer` wrote of one model."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def encoder(self) -> Path | None:
        """The fine-tuned encoder; None with `encoder.name: none`."""
        return own if (own := self.folder / "encoder").is_dir() else None

    @cached_property
    def train(self) -> Halves:
        """(n_train, n_dims) embeddings; n_dims is 0 with `encoder.name: none`."""
        return read_store(self.folder, "embeddings").arrays["train"]

    @cached_property
    def test(self) -> Halves:
        return read_store(self.folder, "embeddings").arrays["test"]
