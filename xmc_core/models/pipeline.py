"""A finished pipeline: texts in, ranked labels with names out.

<folder>/manifest.json      kind "pipeline": label names, settings
<folder>/vectorizer/        tf-idf
<folder>/encoder/           the fine-tuned transformer; absent without one
<folder>/model/             XR-Linear over [tf-idf, embedding]
"""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from xmc_core.data import Predictions
from xmc_core.errors import DataError
from xmc_core.features.joined import join_features
from xmc_core.features.tfidf import TfidfVectorizer
from xmc_core.models.xr_linear import XRLinear
from xmc_core.persistence import read_store, write_store
from xmc_core.types import Json, SparseRows

if TYPE_CHECKING:
    from xmc_core.encoder.model import TextEncoder

KIND = "pipeline"


@dataclass(frozen=True, eq=False)
class PipelineModel:
    """Vectoriser, encoder (if any) and rankers of one training run."""

    vectorizer: TfidfVectorizer
    model: XRLinear
    label_names: list[str]
    """Of label 0 .. n_labels - 1."""

    encoder_folder: Path | None = None
    facts: Json | None = None
    """Data set, settings; whatever leads back to where the model came from."""

    @cached_property
    def encoder(self) -> "TextEncoder | None":
        """Loaded at the first prediction: torch takes seconds to import."""
        if self.encoder_folder is None:
            return None
        from xmc_core.encoder.model import TextEncoder

        return TextEncoder.load(self.encoder_folder)

    def features(self, texts: Sequence[str]) -> SparseRows:
        """(n_texts, n_features) rows as the rankers were trained on: [tf-idf, embedding]."""
        X = self.vectorizer.transform(texts)
        if self.encoder is None:
            return X
        settings = self.model.config.encoder
        return join_features(X, self.encoder.embed(texts, settings), settings.weight)

    def predict(
        self,
        texts: Sequence[str],
        top_k: int | None = None,
        beam_size: int | None = None,
        allow: Sequence[str] | None = None,
    ) -> Predictions:
        """Rank labels for each text; names are `label_names[label]`.

        `allow` names the only labels to choose from; `restricted` is for names that come again.
        Raises DataError if `texts` is a single string or holds something that is not a string, or
        if a name in `allow` is not a label's.
        """
        model = self if allow is None else self.restricted(allow)
        return model.model.predict(self._checked_features(texts), top_k=top_k, beam_size=beam_size)

    def score(self, texts: Sequence[str], pairs: SparseRows) -> SparseRows:
        """Scores of given (text, label) pairs, no beam cut: the stored entries of `pairs`,
        (n_texts, n_labels); see `XRLinear.score`."""
        return self.model.score(self._checked_features(texts), pairs)

    def restricted(self, names: Sequence[str]) -> "PipelineModel":
        """The same pipeline, choosing among the labels of these names only."""
        if isinstance(names, str):
            raise DataError('restricted takes a list of names; for a single one pass ["..."].')
        if unknown := set(names) - self._label_numbers.keys():
            raise DataError(f"{min(unknown)!r} is not a label of this model.")
        labels = [self._label_numbers[name] for name in names]
        return replace(self, model=self.model.restricted(labels))

    @cached_property
    def _label_numbers(self) -> dict[str, int]:
        return {name: number for number, name in enumerate(self.label_names)}

    def _checked_features(self, texts: Sequence[str]) -> SparseRows:
        if isinstance(texts, str):
            raise DataError('predict takes a list of texts; for a single one pass ["..."].')
        for row, text in enumerate(texts):
            if not isinstance(text, str):
                raise DataError(f"text {row} is of type {type(text).__name__}; texts are strings.")
        return self.features(texts)

    def named(self, predictions: Predictions) -> list[list[tuple[str, float]]]:
        """(label name, score) pairs of each row, best first, padding left out."""
        return [
            [
                (self.label_names[label], score)
                for label, score in zip(labels, scores, strict=True)
                if label >= 0
            ]
            for labels, scores in zip(
                predictions.labels.tolist(), predictions.scores.tolist(), strict=True
            )
        ]

    def save(self, folder: Path | str) -> None:
        """Write everything that prediction needs, so that the folder can be moved anywhere."""
        folder = Path(folder)
        write_store(folder, KIND, strings={"label_names": self.label_names}, facts=self.facts)
        self.vectorizer.save(folder / "vectorizer")
        self.model.save(folder / "model")
        if self.encoder_folder is not None:
            shutil.copytree(self.encoder_folder, folder / "encoder", dirs_exist_ok=True)

    @classmethod
    def load(cls, folder: Path | str) -> "PipelineModel":
        """Open a saved pipeline; arrays are memory-mapped, the encoder waits for its first text."""
        folder = Path(folder)
        store = read_store(folder, KIND)
        return cls(
            TfidfVectorizer.load(folder / "vectorizer"),
            XRLinear.load(folder / "model"),
            store.strings("label_names"),
            folder / "encoder" if (folder / "encoder").is_dir() else None,
            store.facts,
        )
